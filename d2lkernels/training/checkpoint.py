"""Checkpoints: one safetensors file that holds all a run needs to go on exactly as if it had not stopped.

Tensors are named ``model.*`` (the state_dict), ``optimizer.*`` and ``random.*``; everything else is JSON in the file's
metadata. Nothing is pickled, so that reading a file of unknown origin runs no code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
    partial = path.with_name(path.name + ".part")
    try:
        save_file(plain, partial, metadata={"format": _FORMAT, "state": json.dumps(state)})
        os.replace(partial, path)
    except Exception as error:  # safetensors has an error class of its own for what the disk says
        partial.unlink(missing_ok=True)
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


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Splits the state of an optimizer into tensors by name and the rest, which is plain JSON."""
    state = optimizer.state_dict()
    tensors, scalars = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            (tensors if isinstance(value, torch.Tensor) else scalars)[f"{index}.{key}"] = value
    return tensors, {"scalars": scalars, "groups": state["param_groups"]}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    """Puts into an optimizer what :func:`pack_optimizer` took out of one."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *plain["scalars"].items()]:
        number, key = name.split(".", 1)
        index = int(number)
        if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape:
            value = torch.empty_like(parameters[index], dtype=value.dtype, device="cpu").copy_(value)
        state.setdefault(index, {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})


def describe_difference(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> str:
    """Says how the tensors of a checkpoint differ from those of a model; an empty string if they fit."""
    differences = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            differences.append(f"{name} is missing")
        elif name not in expected:
            differences.append(f"{name} is not in the model")
        elif expected[name].shape != found[name].shape:
            differences.append(f"{name} has size {list(found[name].shape)}, not {list(expected[name].shape)}")
        elif expected[name].dtype != found[name].dtype:
            differences.append(f"{name} is {found[name].dtype}, not {expected[name].dtype}")
    shown = "; ".join(differences[:3])
    return f"{shown}; and {len(differences) - 3} more" if len(differences) > 3 else shown
