"""The suites by name.

A suite is a module with `EXPLANATIONS` and `contests(settings)`, which the harness times; or, where it is not time that
is measured, with `measure(settings, threads)`, which yields the rows of one case after the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import torch

NAMES = ("ops", "models", "scaling", "memory")


@dataclass(frozen=True)
class Settings:
    """How a suite is to run. `dtype` is a precision mode: float32 (full), tf32, bfloat16."""

    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    smoke: bool = False
    quick: bool = False
    pattern: re.Pattern[str] = re.compile("")

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def load(name: str) -> ModuleType:
    return import_module(f"benchmarks.suites.{name}")


def explanations() -> dict[tuple[str, str], str]:
    """Why a case may be more than twice as fast as native torch, by (op, case), over all suites."""
    return {key: text for name in NAMES for key, text in load(name).EXPLANATIONS.items()}
