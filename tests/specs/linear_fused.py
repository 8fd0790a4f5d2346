"""linear with an activation, against the separate ops."""

from __future__ import annotations

import dataclasses

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample

from . import linear

ACTIVATIONS = ("none", "relu", "sigmoid", "tanh")


def _with(sample: Sample, activation: str) -> Sample:
    return dataclasses.replace(sample, name=f"{sample.name}.{activation}", arguments={"activation": activation})


def _with_each(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The activations take turns."""
    return tuple(_with(sample, ACTIVATIONS[(place + 1) % 4]) for place, sample in enumerate(samples))


_SAMPLES = (
    *_with_each(linear.LAYERS + linear.EDGES + linear.VIEWS),
    # Each way that the kernel takes: tiles, few rows, little depth, sums cut by threads.
    *(
        _with(sample, activation)
        for activation in ACTIVATIONS[1:]
        for sample in (
            linear.matrix("tiles", (37, 90), 53),
            linear.matrix("few_rows", (3, 300), 70),
            linear.matrix("few_rows_transposed", (3, 40), 70, layouts=("contiguous", "transposed", "contiguous")),
            linear.matrix("little_depth", (300, 2), 70),
            linear.matrix("deep", (7, 4100), 9),
        )
    ),
)

# Of two inputs: where sums are large, tanh is so near 1 that float32 has no derivative to speak of.
_TINY = (
    linear.matrix("tiny", (4, 2), 3),
    linear.matrix("tiny_three_axes", (2, 1, 2), 2, bias=False),
    linear.matrix("tiny_vector", (2,), 3),
)


def _activated(values: torch.Tensor, name: str) -> torch.Tensor:
    return {"none": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[name](values)


def _composition(product):
    def function(input, weight, bias=None, activation="relu"):
        return _activated(product(input, weight, bias), activation)

    return function


def _majorant(input, weight, bias=None, activation="relu"):
    """No activation is steeper than 1, nor is its derivative."""
    sums = F.linear(input.abs(), weight.abs(), None if bias is None else bias.abs())
    return sums * (1 + sums.detach()) + 1


@st.composite
def _calls(draw) -> Sample:
    return _with(draw(linear.calls()), draw(st.sampled_from(ACTIVATIONS)))


def _arguments(device: str) -> list[tuple]:
    return [(*tensors, activation) for tensors in linear.arguments(device) for activation in ACTIVATIONS]


ERRORS = (
    ErrorSample(
        "activation",
        (Input((3, 4)), Input((6, 4))),
        {"activation": "gelu"},
        ValueError,
        "linear_activation(): expected activation to be one of none, relu, sigmoid, tanh, but got 'gelu'",
    ),
    *(
        dataclasses.replace(error, message=error.message.replace("linear()", "linear_activation()"))
        for error in linear.ERRORS
    ),
)

SPECS = (
    OpSpec(
        name="linear_activation",
        function=ops.linear_activation,
        native=_composition(F.linear),
        reference=_composition(references.linear),
        dispatcher_ops={"linear_activation": _arguments},
        samples=_SAMPLES,
        tiny=tuple(_with(sample, activation) for activation in ACTIVATIONS for sample in _TINY),
        errors=ERRORS,
        majorant=_majorant,
        strategy=_calls(),
    ),
)
