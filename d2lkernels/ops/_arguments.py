"""Arguments as the C++ ops take them. What a value means is checked there; here only that it can be passed on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_tensor(op: str, name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}(): expected {name} to be a Tensor, but got {type(value).__name__}")


def check_layer(op: str, input: Any, weight: Any, bias: Any) -> None:
    """The tensors of a convolution or of a linear layer; the bias may be None."""
    check_tensor(op, "input", input)
    check_tensor(op, "weight", weight)
    if bias is not None:
        check_tensor(op, "bias", bias)
    check_devices_when_compiling(op, input, weight=weight, bias=bias)


def check_devices_when_compiling(op: str, input: Tensor, **others: Tensor | None) -> None:
    """torch.compile compares devices before it asks the op, in words of its own: so ours come first."""
    if not torch.compiler.is_compiling():
        return
    for name, other in others.items():
        if other is not None and other.device != input.device:
            raise RuntimeError(
                f"{op}(): expected {name} to be on the device of input ({input.device}), but got {other.device}"
            )


def check_map_rank(op: str, input: Tensor) -> None:
    if input.dim() not in (3, 4):
        raise ValueError(
            f"{op}(): expected input to be 3-D (C, H, W) or 4-D (N, C, H, W), "
            f"but got a {input.dim()}-D tensor of size {list(input.shape)}"
        )


def pair(op: str, name: str, value: Any) -> tuple[int, int]:
    """``value`` for both axes, or one value each for height and width."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, (tuple, list)) and all(isinstance(item, int) for item in value):
        if len(value) == 2:
            return value[0], value[1]
        if len(value) == 1:
            return value[0], value[0]
        raise ValueError(f"{op}(): expected {name} to be an int or a pair of ints, but got {value}")
    raise TypeError(f"{op}(): expected {name} to be an int or a pair of ints, but got {value!r}")
