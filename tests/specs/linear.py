"""linear."""

from __future__ import annotations

import math

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def matrix(name, size, outputs, bias=True, layouts=("contiguous",) * 3) -> Sample:
    """A sample from the size of the input and the number of outputs."""
    tensors = (
        Input(tuple(size), layouts[0]),
        Input((outputs, size[-1]), layouts[1]),
        Input((outputs,), layouts[2]) if bias else None,
    )
    return Sample(name, tensors, {}, math.prod(size) * outputs)


# Of the book's layers, those of few rows, of few columns, and what is cut to blocks.
LAYERS = (
    matrix("lenet.fc1", (9, 400), 120),
    matrix("lenet.fc2", (256, 120), 84),
    matrix("lenet.fc3", (33, 84), 10),
    matrix("mlp.hidden", (65, 784), 256),
    matrix("linear_regression", (10, 2), 1),
    matrix("alexnet.narrower", (8, 1600), 515),
    matrix("resnet.head", (32, 512), 10),
)

EDGES = (
    *(matrix(f"rows_{rows}", (rows, 70), 67) for rows in (1, 2, 3, 4, 5, 7, 8, 9, 14, 15, 29)),
    *(matrix(f"depth_{depth}", (21, depth), 35) for depth in (1, 2, 3, 7, 8, 9, 17)),
    *(matrix(f"columns_{columns}", (19, 23), columns) for columns in (1, 2, 15, 16, 17, 31, 32, 33)),
    matrix("one_of_all", (1, 1), 1),
    matrix("many_rows", (523, 9), 18),
    matrix("deep", (7, 4100), 9),
    matrix("deeper_and_few_results", (17, 9001), 5),
    matrix("aliased_rows", (31, 2048), 40),
    matrix("vector", (12,), 5),
    matrix("three_axes", (2, 3, 12), 5),
    matrix("four_axes", (2, 3, 4, 5), 6, bias=False),
    matrix("no_bias", (5, 9), 6, bias=False),
    matrix("no_rows", (0, 9), 6),
    matrix("no_rows_three_axes", (0, 3, 9), 6),
    matrix("no_inputs", (4, 0), 6),
    matrix("no_inputs_no_bias", (4, 0), 6, bias=False),
    matrix("no_outputs", (4, 6), 0),
)

VIEWS = tuple(
    matrix(f"layouts.{rows}.{name}", (rows, 40), 37, layouts=layouts)
    for rows in (3, 41)
    for name, layouts in (
        ("input_transposed", ("transposed", "contiguous", "contiguous")),
        ("weight_transposed", ("contiguous", "transposed", "contiguous")),
        ("both_transposed", ("transposed", "transposed", "contiguous")),
        ("strided", ("strided", "strided", "strided")),
        ("expanded", ("expanded", "expanded", "contiguous")),
        ("unaligned", ("unaligned", "unaligned", "unaligned")),
    )
)

TINY = (
    matrix("tiny", (3, 4), 2),
    matrix("tiny_three_axes", (2, 1, 3), 2, bias=False),
    matrix("tiny_vector", (3,), 4),
)


@st.composite
def calls(draw) -> Sample:
    axes = draw(st.lists(st.integers(0, 40), min_size=0, max_size=2))
    layout = st.sampled_from(("contiguous", "contiguous", "transposed", "strided", "unaligned"))
    layouts = (
        draw(layout) if axes else "contiguous",
        draw(layout),
        draw(st.sampled_from(("contiguous", "strided"))),
    )
    size = (*axes, draw(st.integers(1, 80)))
    return matrix("drawn", size, draw(st.integers(1, 70)), draw(st.booleans()), layouts)


_X, _W = Input((3, 4)), Input((6, 4))


def _error(name, exception, message, input=_X, weight=_W, bias=None) -> ErrorSample:
    return ErrorSample(name, (input, weight, bias), {}, exception, f"linear(): expected {message}")


ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got list", input=[1.0]),
    _error("weight_no_tensor", TypeError, "weight to be a Tensor, but got NoneType", weight=None),
    _error("bias_no_tensor", TypeError, "bias to be a Tensor, but got float", bias=1.0),
    _error("input_rank", ValueError, "input to have at least one axis, but got a 0-D tensor", input=Input(())),
    _error("weight_rank", ValueError, "weight to be 2-D, but got a 1-D tensor of size [4]", weight=Input((4,))),
    _error(
        "features",
        ValueError,
        "weight to have 4 columns (the features of input), but got weight of size [6, 3]",
        weight=Input((6, 3)),
    ),
    _error("bias_size", ValueError, "bias to have size [6] (the rows of weight), but got [4]", bias=Input((4,))),
    _error("bias_rank", ValueError, "bias to have size [6] (the rows of weight), but got [1, 6]", bias=Input((1, 6))),
    *(
        _error(
            f"dtype_{name}",
            TypeError,
            f"input to be float32, float64, bfloat16 or float16, but got {text}",
            input=Input((3, 4), dtype=dtype),
            weight=Input((6, 4), dtype=dtype),
        )
        for name, dtype, text in (("int64", torch.int64, "Long"), ("complex64", torch.complex64, "ComplexFloat"))
    ),
    _error(
        "dtype_of_weight",
        TypeError,
        "weight to have the dtype of input (Float), but got Double",
        weight=Input((6, 4), dtype=torch.float64),
    ),
    _error(
        "dtype_of_bias",
        TypeError,
        "bias to have the dtype of input (Float), but got BFloat16",
        bias=Input((6,), dtype=torch.bfloat16),
    ),
)


def arguments(device: str) -> list[tuple]:
    """Matrices alone: the other axes are the wrapper's."""
    samples = [sample.make(torch.float32, device) for sample in TINY if len(sample.tensors[0].size) == 2]
    found = [tuple(one if one is None else one.requires_grad_() for one in tensors) for tensors in samples]
    return [*found, tuple(one if one is None else one.detach() for one in found[0])]


SPECS = (
    OpSpec(
        name="linear",
        function=ops.linear,
        native=F.linear,
        reference=references.linear,
        dispatcher_ops={"linear": arguments},
        samples=LAYERS + EDGES + VIEWS,
        tiny=TINY,
        errors=ERRORS,
        strategy=calls(),
    ),
)
