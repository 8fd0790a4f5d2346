"""An addition with a ReLU."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def add(name: str, size: tuple[int, ...], layout: str = "contiguous", other: str | None = None) -> Sample:
    return Sample(name, (Input(size, layout), Input(size, other or layout)), {}, math.prod(size))


SAMPLES = (
    add("resnet.block", (2, 64, 24, 24)),
    add("resnet.block.channels_last", (2, 64, 24, 24), "channels_last"),
    add("vector", (77,)),
    add("matrix", (5, 33)),
    add("one", (1,)),
    add("empty", (0, 3)),
    add("channels_last_other", (3, 5, 8, 9), "contiguous", "channels_last"),
    add("contiguous_other", (3, 5, 8, 9), "channels_last", "contiguous"),
    *(
        add(f"layouts.{layout}", (3, 5, 8, 9), layout)
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
TINY = (add("tiny", (3, 2, 4)), add("tiny_images", (2, 2, 2, 3)))

_X = Input((3, 4))


def _error(name: str, exception, message: str, input=_X, other=_X) -> ErrorSample:
    return ErrorSample(name, (input, other), {}, exception, f"add_relu(): expected {message}")


ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got float", input=1.0),
    _error("other_no_tensor", TypeError, "other to be a Tensor, but got int", other=1),
    _error("size", ValueError, "other to have size [3, 4], but got [4]", other=Input((4,))),
    _error(
        "dtype",
        TypeError,
        "other to have the dtype of input (Float), but got Double",
        other=Input((3, 4), dtype=torch.float64),
    ),
    _error(
        "dtype_int64",
        TypeError,
        "input to be float32, float64, bfloat16 or float16, but got Long",
        input=Input((3, 4), dtype=torch.int64),
    ),
)


@st.composite
def _calls(draw) -> Sample:
    size = tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=5)))
    layouts = st.sampled_from(("contiguous", "transposed", "strided", "unaligned"))
    return add("drawn", size, draw(layouts), draw(layouts))


def _arguments(device: str) -> list[tuple]:
    tensors = [Input((2, 3, 4, 5)).make(i, torch.float32, device) for i in range(2)]
    return [tuple(one.clone().requires_grad_() for one in tensors), tuple(tensors)]


SPECS = (
    OpSpec(
        name="add_relu",
        function=ops.add_relu,
        native=lambda input, other: torch.relu(input + other),
        reference=lambda input, other: torch.where(input + other <= 0, 0.0, input + other),
        dispatcher_ops={"add_relu": _arguments},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_calls(),
    ),
)
