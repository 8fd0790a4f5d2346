"""Checkpoints: one safetensors file that holds all a run needs to go on exactly as if it had not stopped.

Tensors are named ``model.*`` (the state_dict), ``optimizer.*`` and ``random.*``; everything else is JSON in the file's
metadata. Nothing is pickled, so that reading a file of unknown origin runs no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..persistence import describe_difference as describe_difference
from ..persistence import replace_file
from .errors import CheckpointError

SUFFIX = ".safetensors"
SAFETENSORS_ABSENT = "checkpoints need the package safetensors: pip install safetensors"
_FORMAT = "d2lkernels checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: `tensors` by name, and `state`, which is plain JSON."""

    path: Path
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names start with ``<prefix>.``, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def available() -> bool:
    """Whether safetensors is installed."""
    try:
        import safetensors.torch  # noqa: F401
    except ImportError:
        return False
    return True


def save(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Writes a checkpoint. A file of that name is replaced only once the new one is complete.

    Raises:
        CheckpointError: safetensors is not installed, or the file cannot be written.
    """
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise CheckpointError(SAFETENSORS_ABSENT) from None
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": _FORMAT, "state": json.dumps(state)}
    try:
        replace_file(path, lambda file: save_file(plain, file, metadata=metadata))
    except Exception as error:  # safetensors has an error class of its own for what the disk says
        raise CheckpointError(f"the checkpoint {path} cannot be written: {error}") from error


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint to the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint of ours, or safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise CheckpointError(SAFETENSORS_ABSENT) from None
    if not path.is_file():
        raise CheckpointError(f"expected the checkpoint {path} to be a file, but there is none")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"expected the checkpoint {path} to be an intact safetensors file, but it is damaged ({error}). "
            "Start anew without --resume"
        ) from None
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"expected {path} to be a {_FORMAT}, but its metadata say {metadata.get('format', 'nothing of it')!r}"
        )
    try:
        state = json.loads(metadata["state"])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"expected the checkpoint {path} to hold its state as JSON, but got: {error}") from None
    return Checkpoint(path, tensors, state)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The tensors that an optimizer keeps, by number of the parameter and name: ``"3.exp_avg"``."""
    return {
        f"{number}.{key}": value
        for number, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
        if isinstance(value, torch.Tensor)
    }


def optimizer_layout(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Tensors of the names, sizes and types that `optimizer` keeps after a step, which it is not made to take."""
    twins = []
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        twins.append(torch.zeros_like(parameter, device="cpu", requires_grad=True))
        twins[-1].grad = torch.zeros_like(twins[-1])
    kind: Any = type(optimizer)
    twin = kind(twins, lr=1.0)
    twin.step()
    return pack_optimizer(twin)


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Puts into an optimizer what :func:`pack_optimizer` took out of one of the same kind."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".", 1)
        parameter = parameters[int(number)]
        if value.shape == parameter.shape:  # in the parameter's memory format, as the optimizer would have made it
            value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
