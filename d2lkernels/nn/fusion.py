"""Which neighbours run as one op, in a Sequential and in modules that ask for it.

A convolution, the activation behind it and the pool behind that become one call of
:func:`d2lkernels.ops.conv2d_activation`, :func:`~d2lkernels.ops.conv2d_max_pool2d` or
:func:`~d2lkernels.ops.conv2d_avg_pool2d`; a linear layer or batch normalisation and the activation behind it become one
call, too. Batch normalisation behind a convolution joins its group: in training the convolution gathers its statistics
(:func:`~d2lkernels.ops.conv2d_batch_norm`), in inference it goes into the weights, if that is less work. Only layers
that do exactly what their class says take part: no subclass (a parametrized layer is one), no forward of its own, no
hooks, for a hook has to see what goes in and comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules import module as _torch_module

from .. import config, ops
from .._autodiff import needs_python_autograd
from . import activations
from .modules import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Linear,
    MaxPool2d,
    _batch_norm,
    _conv2d_batch_norm,
    _convolution,
    buffer,
    parameter,
)

_ACTIVATIONS = {
    torch.nn.ReLU: "relu",
    torch.nn.Sigmoid: "sigmoid",
    torch.nn.Tanh: "tanh",
    activations.ReLU: "relu",
    activations.Sigmoid: "sigmoid",
    activations.Tanh: "tanh",
}
RELUS = (torch.nn.ReLU, activations.ReLU)
_MAX_POOLS = (torch.nn.MaxPool2d, MaxPool2d)
_POOLS = (*_MAX_POOLS, torch.nn.AvgPool2d, AvgPool2d)
_NORMS = (BatchNorm1d, BatchNorm2d)
_FIRST = (Conv2d, Linear, *_NORMS)
_FUSIBLE = (*_FIRST, *_ACTIVATIONS, *_POOLS)


def has_global_hooks() -> bool:
    return bool(
        _torch_module._global_forward_hooks
        or _torch_module._global_forward_pre_hooks
        or _torch_module._global_backward_hooks
        or _torch_module._global_backward_pre_hooks
    )


def has_hooks(module: Module) -> bool:
    """Whether calling it does more than its class says."""
    own = module.__dict__  # the attributes themselves are slower to find, and this is asked for each layer of each call
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


class Group:
    """Neighbours as one callable. An activation is what they have in common; the rest is up to the kinds of groups."""

    def __init__(self, activation: Module | None, *layers: Module | None):
        self.kind = "none" if activation is None else _ACTIVATIONS[type(activation)]
        self.modules = tuple([one for one in layers if one is not None])

    def __call__(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return " + ".join(type(one).__name__ for one in self.modules)


class FusedConvolution(Group):
    """A convolution with the batch normalisation, the activation or the pool behind it, or with several of these."""

    def __init__(
        self,
        convolution: Module,
        normalization: Module | None = None,
        activation: Module | None = None,
        pool: Module | None = None,
    ):
        super().__init__(activation, convolution, normalization, activation, pool)
        self.convolution, self.normalization, self.pool = convolution, normalization, pool
        # What runs in front of the pool where nothing is folded.
        self.normalized: Any = None
        if normalization is not None and pool is not None:
            self.normalized = NormalizedConvolution(convolution, normalization, activation)

    def __call__(self, input: Tensor) -> Tensor:
        conv: Any = self.convolution
        norm: Any = self.normalization
        pool: Any = self.pool
        # Attributes are the user's to change: what the fused op does not know runs layer by layer.
        if conv.padding_mode != "zeros" or not (pool is None or _is_plain_pool(pool)):
            for module in self.modules:
                input = module(input)
            return input
        weight, bias, stride, padding, dilation, groups = _convolution(conv)
        if norm is not None:
            if not _folds(conv, norm, input):
                return _normalized(conv, norm, input, self.kind) if pool is None else pool(self.normalized(input))
            weight, bias = folded(weight, bias, norm)
        arguments = (input, weight, bias, stride, padding, dilation, groups, self.kind)
        if pool is None:
            return ops.conv2d_activation(*arguments)
        window = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
        if type(pool) in _MAX_POOLS:
            return ops.conv2d_max_pool2d(*arguments, *window)
        return ops.conv2d_avg_pool2d(*arguments, *window, pool.count_include_pad)


class NormalizedConvolution(Group):
    """What of a convolution's group runs in front of the pool, where nothing is folded."""

    def __init__(self, convolution: Any, normalization: Any, activation: Module | None):
        super().__init__(activation, convolution, normalization, activation)
        self.convolution, self.normalization = convolution, normalization

    def __call__(self, input: Tensor) -> Tensor:
        return _normalized(self.convolution, self.normalization, input, self.kind)


def _normalized(convolution: Any, normalization: Any, input: Tensor, activation: str) -> Tensor:
    """A convolution with zero padding, and the batch normalisation and the activation behind it, none of it folded: two
    ops."""
    if _gathers_statistics(normalization, input):
        return _conv2d_batch_norm(convolution, normalization, input, activation)
    return _batch_norm(normalization, ops.conv2d(input, *_convolution(convolution)), activation)


def _gathers_statistics(normalization: Any, input: Tensor) -> bool:
    """Whether a convolution is to gather the statistics that the normalisation behind it needs."""
    if input.dim() != 4 or (not normalization.training and _has_statistics(normalization)):
        return False
    if input.device.type != "cpu" or config.emulates_cuda():
        return True
    # 16-bit maps are computed in float32, rounded, and read again.
    return input.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")


def _has_statistics(normalization: Any) -> bool:
    return buffer(normalization, "running_mean") is not None and buffer(normalization, "running_var") is not None


def _result_size(convolution: Any, input: Tensor) -> tuple[int, ...]:
    """Of a convolution of ours with zero padding."""
    left, right, top, bottom = convolution._reversed_padding_repeated_twice
    sizes = []
    for axis, padding in enumerate((top + bottom, left + right)):
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) + 1
        sizes.append((input.shape[2 + axis] + padding - reach) // convolution.stride[axis] + 1)
    return (input.shape[0], convolution.out_channels, *sizes)


def _result_dtype(input: Tensor) -> torch.dtype:
    device = input.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return input.dtype


# As many elements of a map are normalised in the time that it takes to look at the layers and to call small ops.
_FOLDING_COST = 1 << 16


def _folds(conv: Any, norm: Any, input: Tensor) -> bool:
    """Whether the normalisation is to go into the weights in this call. Nothing of that is kept for the next one."""
    # An exported program may have no size of its own to decide by.
    if norm.training or input.dim() != 4 or torch.compiler.is_exporting():
        return False
    images, channels, height, width = input.shape
    weights = conv.out_channels * channels * conv.kernel_size[0] * conv.kernel_size[1] // conv.groups
    pixels = images * height * width // (conv.stride[0] * conv.stride[1])
    if pixels * conv.out_channels < weights + _FOLDING_COST:
        return False
    if not _has_statistics(norm):
        return False
    weight = parameter(conv, "weight")
    learned = (parameter(conv, "bias"), parameter(norm, "weight"), parameter(norm, "bias"))
    vectors = [buffer(norm, "running_mean"), buffer(norm, "running_var"), *[one for one in learned if one is not None]]
    tensors = (weight, *vectors)
    if torch.is_grad_enabled() and any(one.requires_grad for one in (input, *tensors)):
        return False
    size = weight.shape[:1]
    # 16-bit weights would be rounded twice.
    return not (
        needs_python_autograd()
        or torch.is_autocast_enabled(input.device.type)
        or input.dtype not in (torch.float32, torch.float64)
        or not alike(input.dtype, input.device, tensors)
        or any([one.shape != size for one in vectors])
    )


def alike(dtype: torch.dtype, device: torch.device, tensors: Sequence[Tensor | None]) -> bool:
    """Whether all are there, of this dtype and on this device."""
    return all([one is not None and one.dtype == dtype and one.device == device for one in tensors])


def folded(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what one of these and the normalisation behind it do in inference."""
    mean, norm_weight, norm_bias = buffer(norm, "running_mean"), parameter(norm, "weight"), parameter(norm, "bias")
    scale = torch.rsqrt(buffer(norm, "running_var") + norm.eps)
    if norm_weight is not None:
        scale = scale * norm_weight
    shift = (-mean if bias is None else bias - mean) * scale
    return weight * scale.view(-1, 1, 1, 1), shift if norm_bias is None else shift + norm_bias


class FusedLinear(Group):
    """A linear layer with the activation behind it."""

    def __init__(self, linear: Any, activation: Module):
        super().__init__(activation, linear, activation)
        self.linear = linear

    def __call__(self, input: Tensor) -> Tensor:
        weight, bias = parameter(self.linear, "weight"), parameter(self.linear, "bias")
        return ops.linear_activation(input, weight, bias, self.kind)


def may_join(step: Any) -> bool:
    """Whether :func:`concat_convolutions` can do what this step of a Sequential does."""
    if not isinstance(step, FusedConvolution) or step.normalization is not None or step.pool is not None:
        return False
    convolution: Any = step.convolution
    return bool(convolution.padding_mode == "zeros")


def concat_convolutions(last: Sequence[FusedConvolution], inputs: Sequence[Tensor]) -> Tensor:
    """The results of these steps, of one activation, for an input of each, joined by channel."""
    layers: list[Any] = [step.convolution for step in last]
    weights, given, stride, padding, dilation, groups = zip(*map(_convolution, layers), strict=True)
    biases = None
    if any(bias is not None for bias in given):  # the op takes one of each or none: zeros stand for the missing
        biases = [
            weight.new_zeros(weight.shape[0]) if bias is None else bias
            for weight, bias in zip(weights, given, strict=True)
        ]
    return ops.concat_convolutions(inputs, weights, biases, stride, padding, dilation, groups, last[0].kind)


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


def is_nothing(module: Module) -> bool:
    return type(module) is torch.nn.Identity and not has_hooks(module)


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
    if type(first) not in _FIRST or has_hooks(first):
        return None
    following = place + 1
    norm = _at(layers, following, (BatchNorm2d,)) if type(first) is Conv2d else None
    following += norm is not None
    activation = _at(layers, following, _ACTIVATIONS)
    if type(first) is not Conv2d:
        kind = FusedLinear if type(first) is Linear else FusedNormalization
        return None if activation is None else kind(first, activation)
    pool = _at(layers, following + (activation is not None), _POOLS)
    if pool is not None and not _is_plain_pool(pool):
        pool = None
    behind = (norm, activation, pool)
    return None if behind == (None, None, None) else FusedConvolution(first, *behind)


def _at(layers: Sequence[Module], place: int, kinds: Container[type]) -> Module | None:
    """The layer there, if it is of one of these very types and has no hooks."""
    layer = layers[place] if place < len(layers) else None
    return layer if layer is not None and type(layer) in kinds and not has_hooks(layer) else None


def run(layers: Sequence[Module], input: Tensor) -> Tensor:
    """The layers one after the other, neighbours fused as in a Sequential: for modules with a forward of their own."""
    for step in layers if has_global_hooks() else plan([one for one in layers if not is_nothing(one)]):
        input = step(input)
    return input


def residual_tail(convolution: Any, normalization: Any, relu: Module, input: Tensor, residual: Tensor) -> Tensor:
    """``relu(normalization(convolution(input)) + residual)``, as a residual block ends: what follows the convolution in
    one pass where the layers are ours and nothing (a hook, a subclass, maps that do not match) stands between, or in
    two. In training the convolution gathers the statistics. In inference, to fold the normalisation into it would not
    save a pass."""
    fuses = type(relu) in RELUS and not has_hooks(relu) and not has_global_hooks()
    fuses_norm = fuses and type(normalization) in _NORMS and not has_hooks(normalization)
    is_plain = type(convolution) is Conv2d and not has_hooks(convolution) and convolution.padding_mode == "zeros"
    if (
        fuses_norm
        and is_plain
        and _gathers_statistics(normalization, input)
        and residual.device == input.device
        and residual.dtype == _result_dtype(input)
        and residual.shape == _result_size(convolution, input)
    ):
        return _conv2d_batch_norm(convolution, normalization, input, "relu", residual)
    input = ops.conv2d(input, *_convolution(convolution)) if fuses and is_plain else convolution(input)
    if fuses_norm and _match(input, residual):
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
    if type(module) in _POOLS and not _is_plain_pool(module):
        return "the fused op has no dilation, return_indices or divisor_override"
    return "no neighbour to fuse with"


def names_of(step: Any, names: Iterator[str]) -> list[str]:
    """The next names, as many as the step has layers."""
    return [next(names) for _ in (step.modules if isinstance(step, Group) else (step,))]
