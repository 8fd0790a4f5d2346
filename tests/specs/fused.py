"""conv2d with an activation and a pool, against the separate ops."""

from __future__ import annotations

import dataclasses

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample

from .convolution import calls, conv

_POOL_NAMES = ("pool_size", "pool_stride", "pool_padding", "ceil_mode", "count_include_pad")
_LAST = ("channels_last", "channels_last", "contiguous")


def _samples(**pool) -> tuple[Sample, ...]:
    def fused(name, size, outputs, kernel, layouts=("contiguous",) * 3, **named):
        return conv(name, size, outputs, kernel, layouts=layouts, **{"activation": "relu", **pool, **named})

    return (
        fused("lenet.conv1", (4, 1, 28, 28), 6, 5, padding=2, activation="sigmoid"),
        fused("lenet.conv1.channels_last", (4, 1, 28, 28), 6, 5, _LAST, padding=2, activation="sigmoid"),
        fused("lenet.conv2", (4, 6, 14, 14), 16, 5, activation="tanh"),
        fused("images", (53, 1, 9, 8), 6, 5, padding=2, activation="sigmoid"),
        fused("images.channels_last", (49, 3, 8, 7), 5, 3, _LAST, activation="sigmoid"),
        fused("winograd", (2, 17, 14, 14), 19, 3, padding=1),
        fused("winograd.channels_last", (2, 17, 14, 14), 19, 3, _LAST, padding=1, activation="tanh"),
        fused("many_blocks", (9, 3, 40, 40), 24, 3, _LAST),
        fused("strided", (2, 4, 23, 17), 6, (3, 5), stride=(2, 1), padding=(1, 4), activation="sigmoid"),
        fused("groups", (2, 6, 9, 8), 4, 3, groups=2, padding=1),
        fused("no_bias", (2, 3, 8, 7), 4, 3, bias=False),
        fused("linear", (2, 3, 8, 7), 4, 3, activation="none"),
        fused("same_even", (2, 3, 8, 7), 4, (4, 2), padding="same"),
        fused("empty_batch", (0, 3, 8, 8), 4, 3),
        fused("unbatched", (3, 8, 7), 4, 3, padding=1, activation="tanh"),
        *(
            fused(f"layouts.{layout}", (2, 4, 9, 8), 6, 3, (layout, layout, "contiguous"), padding=1)
            for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
        ),
    )


def _tiny(**pool) -> tuple[Sample, ...]:
    return tuple(
        conv(f"tiny_{activation}", (2, 2, 4, 4), 3, (3, 2), padding=1, activation=activation, **pool)
        for activation in ("sigmoid", "relu", "tanh", "none")
    )


# ---- the separate ops: torch's, plain ones, and what bounds their rounding errors ------------------------------------


def _activated(values, name):
    return {"none": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[name](values)


def _composition(convolution, pool):
    def function(input, weight, bias=None, activation="relu", **arguments):
        pooling = {name: arguments.pop(name) for name in _POOL_NAMES if name in arguments}
        map = _activated(convolution(input, weight, bias, **arguments), activation)
        if pool is None:
            return map
        size, stride = pooling.get("pool_size", 2), pooling.get("pool_stride")
        rest = {name: pooling[name] for name in ("ceil_mode", "count_include_pad") if name in pooling}
        return pool(map, size, stride, padding=pooling.get("pool_padding", 0), **rest)

    return function


def _majorant(pool):
    """No activation is steeper than 1, nor is its derivative; and a maximum is less than the sum of its window."""

    def function(input, weight, bias=None, activation="relu", **arguments):
        pooling = {name: arguments.pop(name) for name in _POOL_NAMES if name in arguments}
        sums = F.conv2d(input.abs(), weight.abs(), None if bias is None else bias.abs(), **arguments)
        map = sums * (1 + sums.detach()) + 1
        if not pool:
            return map
        return F.avg_pool2d(
            map,
            pooling.get("pool_size", 2),
            pooling.get("pool_stride"),
            pooling.get("pool_padding", 0),
            pooling.get("ceil_mode", False),
            divisor_override=1,
        )

    return function


@st.composite
def _drawn(draw, activations, **pool) -> Sample:
    """The shapes of conv2d. ReLU is left out, whose derivative rounding may switch; for a maximum all that saturate."""
    sample = draw(calls())
    activation = draw(st.sampled_from(activations))
    return dataclasses.replace(sample, arguments={**sample.arguments, "activation": activation, **pool})


def _dispatched(name: str):
    def arguments(device: str) -> list[tuple]:
        found = []
        for activation in ("none", "relu", "sigmoid", "tanh"):
            tensors = [Input(size).make(7, torch.float32, device) for size in ((2, 3, 6, 5), (4, 3, 3, 3), (4,))]
            rest: list = [(1, 1), (1, 1, 1, 1), (1, 1), 1, activation]
            if name != "conv2d_activation":
                rest += [(2, 2), (2, 2), (1, 1), False, *([True] if "avg" in name else []), True]
            found.append((*(one.requires_grad_() for one in tensors), *rest))
        # Without gradients the last results may be empty.
        plain = [one.detach() if isinstance(one, torch.Tensor) else one for one in found[-1]]
        if name != "conv2d_activation":
            plain[-1] = False
        return [*found, tuple(plain)]

    return arguments


def _avg_pool_grads(device: str) -> list[tuple]:
    """Arguments of conv2d_avg_pool2d_grad: by the ops of its parts, and by the kernel for many small maps."""
    found = []
    for images, pads in ((2, (1, 1)), (49, (0, 0))):
        for activation in ("none", "relu", "sigmoid", "tanh"):
            output, map = ((images, 4, 4, 4), (images, 4, 6, 6)) if pads[0] else ((images, 4, 3, 3), (images, 4, 6, 6))
            sizes = (output, map, (images, 3, 6, 6), (4, 3, 3, 3))
            tensors: list = [Input(size).make(7, torch.float32, device).requires_grad_() for size in sizes]
            if activation == "none":
                tensors[1] = None
            rest = ((1, 1), (1, 1, 1, 1), (1, 1), 1, activation, (2, 2), (2, 2), pads, False, True)
            found.append((*tensors, *rest, True, True))
    # Without gradients the first and the last result may be empty.
    plain = [one.detach() if isinstance(one, torch.Tensor) else one for one in found[-1]]
    return [*found, tuple(plain), (*plain[:-2], False, False)]


def _errors(name: str) -> tuple[ErrorSample, ...]:
    input, weight = Input((2, 3, 8, 8)), Input((4, 3, 3, 3))
    return (
        ErrorSample(
            "activation",
            (input, weight),
            {"activation": "gelu"},
            ValueError,
            f"{name}(): expected activation to be one of none, relu, sigmoid, tanh, but got 'gelu'",
        ),
    )


def _spec(name: str, native_pool, reference_pool, **pool) -> OpSpec:
    return OpSpec(
        name=name,
        function=getattr(ops, name),
        native=_composition(F.conv2d, native_pool),
        reference=_composition(references.conv2d, reference_pool),
        dispatcher_ops={
            name: _dispatched(name),
            **({"conv2d_avg_pool2d_grad": _avg_pool_grads} if name == "conv2d_avg_pool2d" else {}),
        },
        samples=_samples(**pool),
        tiny=_tiny(**pool),
        errors=_errors(name),
        majorant=_majorant(native_pool is not None),
        strategy=_drawn(
            ("none",) if "max" in name else ("none", "sigmoid", "tanh"), **({"pool_padding": 1} | pool if pool else {})
        ),
        # Rounded to TF32, another of two near values may be the maximum, and take the gradient.
        uses_float32_precision=name != "conv2d_max_pool2d",
    )


SPECS = (
    _spec("conv2d_activation", None, None),
    _spec("conv2d_max_pool2d", F.max_pool2d, references.max_pool2d, pool_size=3, pool_stride=2, pool_padding=1),
    _spec(
        "conv2d_avg_pool2d", F.avg_pool2d, references.avg_pool2d, pool_size=2, pool_stride=2, count_include_pad=False
    ),
)
