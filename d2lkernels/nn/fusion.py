"""Which neighbours run as one op, in a Sequential and in modules that ask for it.

A convolution, the activation behind it and the pool behind that become one call of
:func:`d2lkernels.ops.conv2d_activation`, :func:`~d2lkernels.ops.conv2d_max_pool2d` or
:func:`~d2lkernels.ops.conv2d_avg_pool2d`; batch normalisation and the activation behind it become one call, too. Only
layers that do exactly what their class says take part: no subclass (a parametrized layer is one), no forward of its
own, no hooks, for a hook has to see what goes in and comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules import module as _torch_module

from .. import ops
from . import activations
from .modules import AvgPool2d, BatchNorm1d, BatchNorm2d, Conv2d, MaxPool2d, _batch_norm

_ACTIVATIONS = {
    torch.nn.ReLU: "relu",
    torch.nn.Sigmoid: "sigmoid",
    torch.nn.Tanh: "tanh",
    activations.ReLU: "relu",
    activations.Sigmoid: "sigmoid",
    activations.Tanh: "tanh",
}
_MAX_POOLS = (torch.nn.MaxPool2d, MaxPool2d)
_AVG_POOLS = (torch.nn.AvgPool2d, AvgPool2d)
_NORMS = (BatchNorm1d, BatchNorm2d)
_FUSIBLE = (Conv2d, *_NORMS, *_ACTIVATIONS, *_MAX_POOLS, *_AVG_POOLS)


def has_global_hooks() -> bool:
    return bool(
        _torch_module._global_forward_hooks
        or _torch_module._global_forward_pre_hooks
        or _torch_module._global_backward_hooks
        or _torch_module._global_backward_pre_hooks
    )


def has_hooks(module: Module) -> bool:
    """Whether calling it does more than its class says."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


class Group:
    """Neighbours as one callable. An activation is what they have in common; the rest is up to the kinds of groups."""

    def __init__(self, activation: Module | None, *layers: Module | None):
        self.kind = "none" if activation is None else _ACTIVATIONS[type(activation)]
        self.modules = tuple(one for one in layers if one is not None)

    def __call__(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return " + ".join(type(one).__name__ for one in self.modules)


class FusedConvolution(Group):
    """A convolution with the activation or the pool behind it (or both)."""

    def __init__(self, convolution: Module, activation: Module | None, pool: Module | None):
        super().__init__(activation, convolution, activation, pool)
        self.convolution, self.pool = convolution, pool

    def __call__(self, input: Tensor) -> Tensor:
        conv: Any = self.convolution
        pool: Any = self.pool
        # Attributes are the user's to change: what the fused op does not know runs layer by layer.
        if conv.padding_mode != "zeros" or not (pool is None or _is_plain_pool(pool)):
            for module in self.modules:
                input = module(input)
            return input
        arguments = (input, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups, self.kind)
        if pool is None:
            return ops.conv2d_activation(*arguments)
        window = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
        if type(pool) in _MAX_POOLS:
            return ops.conv2d_max_pool2d(*arguments, *window)
        return ops.conv2d_avg_pool2d(*arguments, *window, pool.count_include_pad)


class FusedNormalization(Group):
    """Batch normalisation with the activation behind it."""

    def __init__(self, normalization: Any, activation: Module):
        super().__init__(activation, normalization, activation)
        self.normalization = normalization

    def __call__(self, input: Tensor) -> Tensor:
        return _batch_norm(self.normalization, input, self.kind)


def _is_plain_pool(pool: Any) -> bool:
    if type(pool) in _MAX_POOLS:
        return pool.dilation in (1, (1, 1)) and not pool.return_indices
    return pool.divisor_override is None


def flattened(children: Sequence[tuple[str, Module]], nested: tuple[type, ...]) -> list[tuple[str, Module]]:
    """Sequentials among the children, if of one of these very types and without hooks, replaced by theirs."""
    flat = []
    for name, module in children:
        if type(module) in nested and not has_hooks(module):
            inner = [(f"{name}.{key}", one) for key, one in module._modules.items() if one is not None]
            flat.extend(flattened(inner, nested))
        else:
            flat.append((name, module))
    return flat


def plan(layers: Sequence[Module]) -> list[Callable[[Tensor], Tensor]]:
    """The layers in order, with those that belong together as one."""
    steps: list[Callable[[Tensor], Tensor]] = []
    place = 0
    while place < len(layers):
        group = _group_at(layers, place)
        steps.append(layers[place] if group is None else group)
        place += 1 if group is None else len(group.modules)
    return steps


def _group_at(layers: Sequence[Module], place: int) -> Group | None:
    first = layers[place]
    if type(first) not in (Conv2d, *_NORMS) or has_hooks(first):
        return None
    following = place + 1
    activation = _at(layers, following, tuple(_ACTIVATIONS))
    if type(first) in _NORMS:
        return None if activation is None else FusedNormalization(first, activation)
    pool = _at(layers, following + (activation is not None), _MAX_POOLS + _AVG_POOLS)
    if pool is not None and not _is_plain_pool(pool):
        pool = None
    return None if activation is None and pool is None else FusedConvolution(first, activation, pool)


def _at(layers: Sequence[Module], place: int, kinds: tuple[type, ...]) -> Module | None:
    """The layer there, if it is of one of these very types and has no hooks."""
    layer = layers[place] if place < len(layers) else None
    return layer if layer is not None and type(layer) in kinds and not has_hooks(layer) else None


def run(layers: Sequence[Module], input: Tensor) -> Tensor:
    """The layers one after the other, neighbours fused as in a Sequential: for modules with a forward of their own."""
    for step in layers if has_global_hooks() else plan(layers):
        input = step(input)
    return input


def residual_tail(normalization: Any, relu: Module, input: Tensor, residual: Tensor) -> Tensor:
    """``relu(normalization(input) + residual)``, as a residual block ends: in one pass where the layers are ours and
    nothing (a hook, a subclass, maps that do not match) stands between, or in two."""
    fuses = type(relu) in (torch.nn.ReLU, activations.ReLU) and not has_hooks(relu) and not has_global_hooks()
    if fuses and type(normalization) in _NORMS and not has_hooks(normalization) and _match(input, residual):
        return _batch_norm(normalization, input, "relu", residual)
    output = normalization(input)
    if fuses and type(relu) is activations.ReLU and _match(output, residual):
        return ops.add_relu(output, residual)
    return relu(output + residual)


def _match(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device


def why_alone(module: Module) -> str | None:
    """What keeps a layer out that is of a kind that could be fused; None for any other layer."""
    if type(module) not in _FUSIBLE:
        return "a subclass with code of its own" if isinstance(module, _FUSIBLE) else None
    if has_hooks(module):
        return "it has hooks or a forward of its own"
    if type(module) in _MAX_POOLS + _AVG_POOLS and not _is_plain_pool(module):
        return "the fused op has no dilation, return_indices or divisor_override"
    return "no neighbour to fuse with"


def names_of(step: Any, names: Iterator[str]) -> list[str]:
    """The next names, as many as the step has layers."""
    return [next(names) for _ in (step.modules if isinstance(step, Group) else (step,))]
