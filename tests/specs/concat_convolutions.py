"""Convolutions that end side by side in one map, against the separate ops."""

from __future__ import annotations

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def _ours(*tensors, activation="relu", **numbers):
    inputs, weights, biases = tensors[0::3], tensors[1::3], tensors[2::3]
    return ops.concat_convolutions(
        inputs, weights, None if biases[0] is None else biases, activation=activation, **numbers
    )


def _of_each(numbers: dict, i: int) -> dict:
    return {name: value[i] if isinstance(value, (tuple, list)) else value for name, value in numbers.items()}


def _composition(convolution, finish):
    def function(*tensors, activation="relu", **numbers):
        convolutions = zip(tensors[0::3], tensors[1::3], tensors[2::3], strict=True)
        maps = [convolution(*one, **_of_each(numbers, i)) for i, one in enumerate(convolutions)]
        return finish(torch.cat(maps, 1), activation)

    return function


def _activated(values, name):
    return {"none": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[name](values)


def _absolute(input, weight, bias, **numbers):
    return F.conv2d(input.abs(), weight.abs(), None if bias is None else bias.abs(), **numbers)


def join(name: str, size, *branches, layouts=("contiguous", "contiguous"), bias=True, **arguments) -> Sample:
    """Branches are (input channels, output channels, kernel); `size` is (N, H, W)."""
    images, *plane = size
    tensors, cost = [], 0
    for channels, outputs, kernel in branches:
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        groups = arguments.get("groups", 1)
        input = Input((images, channels, *plane), layouts[0])
        weight = Input((outputs, channels // (groups if isinstance(groups, int) else 1), *kernel), layouts[1])
        tensors += [input, weight, Input((outputs,)) if bias else None]
        cost += images * plane[0] * plane[1] * outputs * channels * kernel[0] * kernel[1]
    return Sample(name, tuple(tensors), arguments, cost)


_LAST = ("channels_last", "channels_last")
# Where sums are next to the kink of a ReLU, the rounding of TF32 decides whether they have a gradient.
SAMPLES = (
    join(
        "inception",
        (2, 12, 12),
        (24, 16, 1),
        (12, 20, 3),
        (6, 8, 5),
        (24, 7, 1),
        padding=[0, 1, 2, 0],
        activation="tanh",
    ),
    join(
        "inception.last",
        (2, 12, 12),
        (24, 16, 1),
        (12, 20, 3),
        (6, 8, 5),
        (24, 7, 1),
        layouts=_LAST,
        padding=[0, 1, 2, 0],
    ),
    join("winograd.last", (2, 14, 14), (17, 19, 3), (16, 16, 5), layouts=_LAST, padding=[1, 2], activation="tanh"),
    join(
        "odd.last",
        (3, 5, 7),
        (3, 1, 3),
        (1, 5, 1),
        (2, 3, (1, 3)),
        layouts=_LAST,
        padding=[1, 0, (0, 1)],
        activation="sigmoid",
    ),
    join("strided.last", (2, 9, 8), (4, 6, 3), (4, 5, 1), layouts=_LAST, stride=2, padding=[1, 0]),
    join("dilated.last", (2, 9, 8), (4, 6, 3), (4, 5, 3), layouts=_LAST, padding=[2, "same"], dilation=[2, 1]),
    join("groups.last", (2, 6, 6), (4, 6, 3), (2, 4, 3), layouts=_LAST, padding=1, groups=2, activation="none"),
    join("no_bias.last", (2, 6, 5), (3, 4, 3), (2, 3, 1), layouts=_LAST, bias=False, padding=[1, 0]),
    join("mixed_formats", (2, 6, 5), (3, 4, 3), (2, 3, 1), layouts=("channels_last", "contiguous"), padding=[1, 0]),
    join("one_convolution", (2, 6, 5), (3, 4, 3), layouts=_LAST),
    join("empty_batch.last", (0, 6, 6), (3, 4, 3), (2, 3, 1), layouts=_LAST, padding=[1, 0]),
    *(
        join(
            f"layouts.{layout}",
            (3, 8, 9),
            (4, 5, 3),
            (2, 4, 3),
            layouts=(layout, "channels_last"),
            padding=1,
            activation="sigmoid",
        )
        for layout in ("transposed", "strided", "expanded", "unaligned")
    ),
)
_NHWC_WEIGHTS = ("contiguous", "channels_last")
TINY = (
    join(
        "tiny_sigmoid",
        (2, 3, 4),
        (2, 2, (3, 1)),
        (2, 3, 1),
        layouts=_NHWC_WEIGHTS,
        bias=False,
        padding=[(1, 0), 0],
        activation="sigmoid",
    ),
    join("tiny_relu", (2, 3, 3), (2, 3, (3, 2)), layouts=_NHWC_WEIGHTS, padding=1),
    join("tiny_none", (2, 3, 3), (2, 3, 1), bias=True, activation="none"),
)

_A, _B, _W, _V = Input((2, 3, 8, 8)), Input((2, 5, 8, 8)), Input((4, 3, 3, 3)), Input((6, 5, 1, 1))


def _error(name, exception, message, *tensors, **options) -> ErrorSample:
    op = "conv2d" if name.startswith("convolution") else "concat_convolutions"
    return ErrorSample(name, tensors, options, exception, f"{op}(): expected {message}")


ERRORS = (
    _error(
        "no_tensor", TypeError, "inputs[1] to be a Tensor, but got float", _A, _W, Input((4,)), 1.0, _V, Input((6,))
    ),
    _error(
        "size",
        ValueError,
        "convolution 1 to give maps of the size of the first, [2, 4, 6, 6], but for the channels, but got [2, 6, 8, 8]",
        *(_A, _W, None, _B, _V, None),
    ),
    _error(
        "convolution_channels",
        ValueError,
        "weight to have 5 input channels per group (input has 5, groups=1), but got weight of size [4, 3, 3, 3]",
        *(_A, _W, None, _B, _W, None),
    ),
    _error(
        "padding",
        ValueError,
        "padding to hold one value for each of 2 inputs, but got [1]",
        *(_A, _W, None, _B, _V, None),
        padding=[1],
    ),
    _error("groups", TypeError, "groups to be an int for each convolution, but got 'two'", _A, _W, None, groups="two"),
    _error(
        "activation",
        ValueError,
        "activation to be one of none, relu, sigmoid, tanh, but got 'gelu'",
        *(_A, _W, None),
        activation="gelu",
    ),
    _error(
        "dtype",
        TypeError,
        "inputs[1] to have the dtype of inputs[0] (Float), but got Double",
        *(_A, _W, None, Input((2, 5, 8, 8), dtype=torch.float64), Input((6, 5, 3, 3), dtype=torch.float64), None),
    ),
)


@st.composite
def _calls(draw) -> Sample:
    height, width, images = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    branches, paddings = [], []
    for _ in range(draw(st.integers(1, 4))):
        pads = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        branches.append((draw(st.integers(1, 9)), draw(st.integers(1, 19)), (2 * pads[0] + 1, 2 * pads[1] + 1)))
        paddings.append(pads)
    layout = draw(st.sampled_from(("contiguous", "channels_last")))
    return join(
        "drawn",
        (images, height, width),
        *branches,
        layouts=(layout, draw(st.sampled_from(("contiguous", "channels_last")))),
        bias=draw(st.booleans()),
        padding=paddings,
        stride=draw(st.integers(1, 2)),
        activation=draw(st.sampled_from(("none", "sigmoid", "tanh"))),
    )


def _arguments(device: str) -> list[tuple]:
    found: list[tuple] = []
    for activation, layout in (("none", "contiguous"), ("relu", "channels_last"), ("tanh", "channels_last")):
        sizes = ((2, 3, 6, 5), (2, 2, 6, 5)), ((4, 3, 3, 3), (5, 2, 1, 1)), ((4,), (5,))
        lists = [
            [
                Input(size, layout if len(size) == 4 else "contiguous").make(i, torch.float32, device).requires_grad_()
                for i, size in enumerate(part)
            ]
            for part in sizes
        ]
        found.append((*lists, [1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1], [1, 1], activation))
    inputs, weights, _, *rest = found[-1]
    return [*found, ([one.detach() for one in inputs], weights, [], *rest)]


SPECS = (
    OpSpec(
        name="concat_convolutions",
        function=_ours,
        native=_composition(F.conv2d, _activated),
        reference=_composition(references.conv2d, _activated),
        dispatcher_ops={"concat_convolutions": _arguments},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_calls(),
        # No activation is steeper than 1, nor is its derivative.
        majorant=_composition(_absolute, lambda sums, _: sums * (1 + sums.detach()) + 1),
        public=ops.concat_convolutions,
        uses_float32_precision=True,
    ),
)
