"""Dropout where it leaves no choice; what is random is in test_dropout.py."""

from __future__ import annotations

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample
from specs.activation import LAYOUTS, call

SAMPLES = (
    call("keep", (64, 257), p=0.0),
    call("drop", (64, 257), p=1.0),
    call("one", (1,), p=0.0),
    call("no_axes", (), p=0.0),
    call("long", (40001,), p=0.0),
    call("inference", (3, 5), p=0.5, training=False),
    call("empty_batch", (0, 8), p=0.0),
    *(call(f"layouts.{layout}", (3, 5, 8, 9), layout, p=1.0) for layout in LAYOUTS),
)
TINY = (call("tiny", (3, 5), p=0.0), call("tiny_drop", (2, 2, 3, 2), p=1.0))


@st.composite
def _calls(draw) -> Sample:
    size = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    layout = draw(st.sampled_from(("contiguous", "strided", "unaligned")))
    return call("drawn", size, layout, p=draw(st.sampled_from((0.0, 1.0))))


def _error(name, exception, message, input=Input((3, 5)), **options) -> ErrorSample:  # noqa: B008
    return ErrorSample(name, (input,), options, exception, f"dropout(): expected {message}")


ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got list", input=[1.0]),
    _error(
        "dtype_int64",
        TypeError,
        "input to be float32, float64, bfloat16 or float16, but got Long",
        input=Input((3, 5), dtype=torch.int64),
    ),
    _error("p_too_large", ValueError, "p to be between 0 and 1, but got 1.5", p=1.5),
    _error("p_negative", ValueError, "p to be between 0 and 1, but got -0.1", p=-0.1, training=False),
)


def _arguments(device: str) -> list[tuple]:
    found = []
    for size, layout in (((3, 50), "contiguous"), ((2, 3, 4, 5), "channels_last")):
        input, seed = Input(size, layout).make(0, torch.float32, device), torch.tensor(17, device=device)
        found += [(input.clone().requires_grad_(), seed, 0.5), (input, seed, 0.25)]
    return found


SPECS = (
    OpSpec(
        name="dropout",
        function=ops.dropout,
        native=F.dropout,
        reference=references.dropout,
        dispatcher_ops={"dropout": _arguments},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_calls(),
    ),
)
