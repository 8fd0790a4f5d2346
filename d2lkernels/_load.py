"""Loads the compiled library, after checking that it fits the torch that is running."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch

_REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps"


def _rebuild_command() -> str:
    source = Path(__file__).resolve().parent.parent
    return f"{_REBUILD} -e {source}" if (source / "setup.py").exists() else f"{_REBUILD} d2lkernels"


def _release(version: str) -> tuple[str, ...]:
    """The part of a torch version that its C++ interface is bound to: "2.13.0+cpu" -> ("2", "13")."""
    return tuple(version.split("+")[0].split(".")[:2])


def _check_torch() -> None:
    try:
        from . import _build_info
    except ImportError:
        raise ImportError(
            f"d2lkernels is not built: its compiled library is missing. Build it with:\n  {_rebuild_command()}"
        ) from None
    built_python, running_python = _build_info.PYTHON, f"{sys.version_info.major}.{sys.version_info.minor}"
    if built_python != running_python:
        raise ImportError(
            f"d2lkernels was built for Python {built_python}, but this is Python {running_python}. "
            f"Rebuild it:\n  {_rebuild_command()}"
        )
    if _release(_build_info.TORCH_VERSION) != _release(torch.__version__):
        raise ImportError(
            f"d2lkernels was built against torch {_build_info.TORCH_VERSION}, but torch {torch.__version__} is "
            f"running, and torch's C++ interface changes between minor versions. Rebuild d2lkernels:\n  "
            f"{_rebuild_command()}\nor install the torch it was built against."
        )


def load_library() -> ModuleType:
    """Imports d2lkernels._C. D2LKERNELS_LIBRARY names another build of it to load instead (for tests)."""
    other = os.environ.get("D2LKERNELS_LIBRARY")
    if other:
        loader = importlib.machinery.ExtensionFileLoader("d2lkernels._C", other)
        spec = importlib.util.spec_from_file_location("d2lkernels._C", other, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        sys.modules["d2lkernels._C"] = module
        return module
    _check_torch()
    try:
        return importlib.import_module("d2lkernels._C")
    except ImportError as error:
        raise ImportError(
            f"the compiled library of d2lkernels does not load: {error}\nRebuild it:\n  {_rebuild_command()}"
        ) from error
