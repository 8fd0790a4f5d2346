"""Saving and loading of tensors, lists and dicts of tensors, and parameters (the book's section 5.5).

Files are safetensors by default, or torch's own format read with ``weights_only=True``: a file from a stranger never
runs code.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FORMAT = "d2lkernels values 1"
_CHECKPOINT_FORMAT = "d2lkernels checkpoint"
_ABSENT = "safetensors is not installed (pip install safetensors)"
_PLAIN = (bool, int, float, str, type(None))


class PersistenceError(ValueError):
    """A file cannot be written or read, or holds something else. The message says what."""


def save(value: Any, path: str | os.PathLike[str], format: str | None = None) -> None:
    """Saves a tensor, or lists, tuples and dicts of tensors and plain values, nested as deep as need be; or a module.

    A file of that name is replaced only once the new one is complete. Tensors that share memory are saved one by one.

    Args:
        value: what to save; of a module its state_dict.
        path: the file.
        format: "safetensors", or "torch" for ``torch.save``; None for safetensors if it is installed.

    Raises:
        PersistenceError: the value holds anything else, or the file cannot be written.
        ValueError: the format is unknown.

    Example:
        >>> import tempfile
        >>> from d2lkernels import load, save
        >>> path = tempfile.mkdtemp() + "/values"
        >>> save({"x": torch.arange(3), "pair": [torch.zeros(2), "text"]}, path)
        >>> load(path)
        {'x': tensor([0, 1, 2]), 'pair': [tensor([0., 0.]), 'text']}
    """
    if format not in (None, "safetensors", "torch"):
        raise ValueError(f'save(): expected format to be "safetensors", "torch" or None, but got {format!r}')
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    plain = _flatten(dict(value.state_dict()) if isinstance(value, torch.nn.Module) else value, "value", tensors, [])
    try:
        from safetensors.torch import save_file
    except ImportError:
        if format == "safetensors":
            raise PersistenceError(f"save(): {_ABSENT}") from None
        format = "torch"

    def write(file: Path) -> None:
        if format == "torch":
            torch.save(_build(plain, {name: tensor.detach() for name, tensor in tensors.items()}), file)
        else:
            copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            save_file(copies, file, metadata={"format": _FORMAT, "value": json.dumps(plain)})

    try:
        replace_file(path, write)
    except Exception as error:  # each library has errors of its own for what the disk says
        raise PersistenceError(f"save(): {path} cannot be written: {error}") from error


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Has a file written under another name, and puts it in place once it is complete, or removes it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        partial.touch()
        permissions = stat.S_IMODE(partial.stat().st_mode)
        write(partial)
        partial.chmod(permissions)  # safetensors writes a file that its owner alone may read
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """Loads what :func:`save` saved: safetensors, or a file of ``torch.save`` that holds nothing but data.

    Of any other safetensors file, the dict of its tensors.

    Args:
        path: the file.
        device: where the tensors go.

    Raises:
        PersistenceError: the file is missing or damaged, or would run code.
    """
    tensors, metadata, value = _read(Path(path), torch.device(device))
    if tensors is None:
        return value
    if metadata.get("format") != _FORMAT:
        return tensors
    try:
        return _build(json.loads(metadata["value"]), tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise PersistenceError(
            f"load(): expected {path} to say how its tensors belong together, but got: {error!r}"
        ) from None


def load_parameters(model: torch.nn.Module, path: str | os.PathLike[str]) -> torch.nn.Module:
    """Loads a model's parameters and buffers: from a file of :func:`save`, or a checkpoint of ``train``.

    Returns:
        The model.

    Raises:
        PersistenceError: the file is missing or damaged, or belongs to another model; the message says what is missing,
            unexpected, or of another size or type. The model is as before then.
    """
    tensors, metadata, value = _read(Path(path), torch.device("cpu"))
    found: Any = value if tensors is None else tensors
    if tensors is not None and metadata.get("format", "").startswith(_CHECKPOINT_FORMAT):
        found = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    elif tensors is not None and metadata.get("format") == _FORMAT:
        found = load(path)
    if not (isinstance(found, Mapping) and all(isinstance(tensor, Tensor) for tensor in found.values())):
        raise PersistenceError(f"load_parameters(): expected {path} to hold a dict of tensors, but got {_kind(found)}")
    difference = describe_difference(model.state_dict(), dict(found))
    if difference:
        raise PersistenceError(f"load_parameters(): expected {path} to fit the model, but {difference}")
    model.load_state_dict(dict(found))
    return model


def describe_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Says how the tensors found in a file differ from those expected; an empty string if they fit."""
    differences = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            differences.append(f"{name} is missing")
        elif name not in expected:
            differences.append(f"{name} is not expected")
        elif expected[name].shape != found[name].shape:
            differences.append(f"{name} has size {list(found[name].shape)}, not {list(expected[name].shape)}")
        elif expected[name].dtype != found[name].dtype:
            differences.append(f"{name} is {found[name].dtype}, not {expected[name].dtype}")
    shown = "; ".join(differences[:3])
    return f"{shown}; and {len(differences) - 3} more" if len(differences) > 3 else shown


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _flatten(value: Any, where: str, tensors: dict[str, Tensor], above: list[int]) -> Any:
    """The structure of a value as JSON, its tensors put aside under the names of their places."""
    if isinstance(value, Tensor):
        tensors[where] = value
        return {"tensor": where}
    if isinstance(value, _PLAIN) and type(value) in _PLAIN:
        return {"plain": value}
    if id(value) in above:
        raise PersistenceError(f"save(): expected {where} to hold no container within itself")
    above = [*above, id(value)]
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        items = [_flatten(item, f"{where}[{number}]", tensors, above) for number, item in enumerate(value)]
        return {type(value).__name__: items}
    if isinstance(value, Mapping):
        entries = []
        for key, item in value.items():
            if type(key) not in _PLAIN:
                raise PersistenceError(f"save(): expected the keys of {where} to be plain values, but got {key!r}")
            entries.append([key, _flatten(item, f"{where}[{key!r}]", tensors, above)])
        return {"dict": entries}
    raise PersistenceError(
        f"save(): expected {where} to be a tensor, a list, tuple or dict of them, or a plain value, but got "
        f"{_kind(value)}"
    )


def _build(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value whose structure :func:`_flatten` gave."""
    kind: Any
    content: Any
    kind, content = next(iter(node.items())) if isinstance(node, dict) and len(node) == 1 else (None, None)
    if kind == "tensor":
        return tensors[content]
    if kind == "plain" and type(content) in _PLAIN:
        return content
    if kind == "list":
        return [_build(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(_build(item, tensors) for item in content)
    if kind == "dict":
        return {key: _build(item, tensors) for key, item in content}
    raise ValueError(f"{node!r} is no value")


def _read(path: Path, device: torch.device) -> tuple[dict[str, Tensor] | None, dict[str, str], Any]:
    """Of a safetensors file its tensors and metadata; of a file of torch.save None, nothing, and its value."""
    try:
        with path.open("rb") as file:
            start, size = file.read(9), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise PersistenceError(f"load(): expected {path} to be a file, but got: {error.strerror or error}") from None
    # A safetensors file starts with the length of its header, whose bytes may look like the start of torch's archive
    # ("PK") or of a pickle; these, read as a length, exceed any file.
    is_safetensors = start[8:] == b"{" and int.from_bytes(start[:8], "little") < size
    if not is_safetensors and (start[:2] == b"PK" or start[:1] == b"\x80"):
        return None, {}, _read_torch(path, device)
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise PersistenceError(f"load(): {path} is a safetensors file, but {_ABSENT}") from None
    try:
        with safe_open(path, framework="pt", device=str(device)) as content:
            names = list(content.keys())
            return {name: content.get_tensor(name) for name in names}, content.metadata() or {}, None
    except (SafetensorError, OSError, ValueError) as error:
        raise PersistenceError(f"load(): expected {path} to be an intact file of tensors, but got: {error}") from None


def _read_torch(path: Path, device: torch.device) -> Any:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise PersistenceError(
            f"load(): expected {path} to hold tensors and plain values, but it is damaged, or reading it would run "
            "code, which is refused"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise PersistenceError(
            f"load(): expected {path} to be an intact file of torch.save, but got: {str(error).splitlines()[0]}"
        ) from None
