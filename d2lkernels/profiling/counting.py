"""What one call of an op costs: multiply-accumulates, and which algorithm computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import config

POOLED = ("conv2d_max_pool2d", "conv2d_avg_pool2d")
"""Ops that compute the map of a convolution and do not return it."""

_CONVOLUTIONS = ("conv2d", "conv2d_activation", "conv2d_moments", *POOLED)


def op_name(function: Callable[..., Any]) -> str:
    """The plain name of an op, a function of torch or a method of a tensor."""
    if isinstance(function, torch._ops.OpOverload):
        return function._schema.name.partition("::")[2]
    return getattr(function, "__name__", type(function).__name__)


def is_ours(function: Callable[..., Any]) -> bool:
    return isinstance(function, torch._ops.OpOverload) and function.namespace == "d2lkernels"


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


class Convolution:
    """Arguments of a convolution, ours or torch's: input, weight, bias, stride, padding, dilation and groups."""

    def __init__(self, arguments: Sequence[Any], keywords: dict[str, Any]) -> None:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, arguments, strict=False)) | keywords
        self.input: Tensor = given["input"]
        self.weight: Tensor = given["weight"]
        self.bias: Tensor | None = given.get("bias")
        self.stride = _pair(given.get("stride", 1))
        self.dilation = _pair(given.get("dilation", 1))
        self.groups: int = given.get("groups", 1)
        self.padding = self._four_pads(given.get("padding", 0))

    def _four_pads(self, padding: str | int | Sequence[int]) -> tuple[int, ...]:
        """Top, bottom, left and right."""
        if padding == "valid":
            return 0, 0, 0, 0
        if isinstance(padding, str):
            totals = [d * (size - 1) for d, size in zip(self.dilation, self.weight.shape[2:], strict=True)]
            return tuple(part for total in totals for part in (total // 2, total - total // 2))
        pads = _pair(padding)
        return pads if len(pads) == 4 else (pads[0], pads[0], pads[1], pads[1])

    def map_size(self) -> tuple[int, ...]:
        """(N, K, P, Q), before any pool."""
        top, bottom, left, right = self.padding
        sizes = []
        for axis, pad in ((0, top + bottom), (1, left + right)):
            reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            sizes.append((self.input.shape[2 + axis] + pad - reach) // self.stride[axis] + 1)
        return (self.input.shape[0], self.weight.shape[0], *sizes)

    def macs(self) -> int:
        n, k, p, q = self.map_size()
        return n * k * p * q * self.weight[0].numel()

    def our_algorithms(self) -> str:
        """Of the forward pass, the input gradient and the weight gradient, as :func:`config.conv2d_algorithm` says."""
        top, bottom, left, right = self.padding
        if self.input.device.type != "cpu" or self.input.dtype != torch.float32:
            return ""
        if (top, left) != (bottom, right):
            return "direct"  # what has paddings of its own for each side is never Winograd's
        found = config.conv2d_algorithm(
            self.input.shape, self.weight.shape, self.stride, (top, left), self.dilation, self.groups
        )
        if not self.input.requires_grad:
            found["input_grad"] = "-"
        names = [name.removeprefix("winograd ") for name in found.values()]
        return names[0] if len({*names} - {"-"}) == 1 else " / ".join(names)

    def native_algorithm(self) -> str:
        """The library that torch computes it with."""
        select = getattr(torch._C, "_select_conv_backend", None)
        top, bottom, left, right = self.padding
        if select is None or (top, left) != (bottom, right):
            return ""
        backend = select(
            *(self.input, self.weight, self.bias, self.stride, (top, left), self.dilation, False, (0, 0)), self.groups
        )
        return str(backend).rpartition(".")[2].lower()


def convolution_of(function: Callable[..., Any], arguments: Sequence[Any], keywords: dict) -> Convolution | None:
    """The convolution that a call of an op contains; None if there is none, or none over batches of maps."""
    if op_name(function) not in _CONVOLUTIONS or arguments[0].dim() != 4:
        return None
    return Convolution(arguments, keywords)


def macs(function: Callable[..., Any], arguments: Sequence[Any], keywords: dict, output: Tensor) -> int:
    """Multiply-accumulates of the forward pass, of convolutions and matrix products; all else counts 0."""
    name = op_name(function)
    if convolution := convolution_of(function, arguments, keywords):
        return convolution.macs()
    if name in ("linear", "linear_activation"):
        return output.numel() * arguments[1].shape[-1]
    if name in ("matmul", "mm", "bmm"):
        return output.numel() * arguments[0].shape[-1]
    if name == "concat_convolutions":
        return output.numel() // output.shape[1] * sum(weight.numel() for weight in arguments[1])
    if name == "dense_block":
        pixels = output.numel() // output.shape[1]
        return pixels * sum(weight.numel() for weight in arguments[1] if weight.dim() == 4)
    return 0


def algorithm(function: Callable[..., Any], arguments: Sequence[Any], keywords: dict) -> str:
    """How a call is computed, where there is a choice: one name, or those of forward, input and weight gradient."""
    if convolution := convolution_of(function, arguments, keywords):
        return convolution.our_algorithms() if is_ours(function) else convolution.native_algorithm()
    return ""
