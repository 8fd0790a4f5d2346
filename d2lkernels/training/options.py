"""What the commands read from their command lines alike: numbers, options of models, devices."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from .. import config
from .errors import TrainingError


def positive_int(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, but got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, but got {value}")
    return value


def positive_float(text: str) -> float:
    """For argparse: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a positive number, but got {text!r}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, but got {text}")
    return value


def model_option(text: str) -> tuple[str, Any]:
    """For argparse: NAME=VALUE, where the value may be a number, numbers joined by commas, true or false, or a word."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, but got {text!r}")
    if "," in value:
        return name, [_value(part) for part in value.split(",") if part]
    return name, _value(value)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def choose_device(name: str, *, our_kernels: bool, local_rank: int | None = None) -> torch.device:
    """The device that ``--device`` names, made the current one.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".
        our_kernels: whether it has to run kernels of ours. "auto" is the CPU where they were not built for CUDA.
        local_rank: the number of this process on its machine, if several work together; None for one alone.

    Raises:
        TrainingError: there is no such device, it does not run our kernels, or it is one for several processes.
    """
    if name == "auto":
        usable = torch.cuda.is_available() and (config.is_cuda_built() or not our_kernels)
        if torch.cuda.is_available() and not usable:
            print("running on the CPU: this build of d2lkernels has no CUDA kernels", file=sys.stderr)
        if not usable:
            return torch.device("cpu")
        name = "cuda"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"expected --device to be auto, cpu, cuda or cuda:N, but got {name!r}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError(f"--device {name} needs a GPU, but torch {torch.__version__} sees none")
        if our_kernels and not config.is_cuda_built():
            raise TrainingError(
                f"--device {name} needs our CUDA kernels, but this build has none (python -m d2lkernels info says why)"
            )
        if device.index is not None and local_rank is not None:
            raise TrainingError(f"expected --device cuda, from which each process takes its own GPU, but got {name!r}")
        index = torch.cuda.current_device() if local_rank is None else local_rank
        if device.index is not None:
            index = device.index
        if index >= torch.cuda.device_count():
            raise TrainingError(
                f"--device {name}: expected a number below {torch.cuda.device_count()}, but got {index}"
            )
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device
