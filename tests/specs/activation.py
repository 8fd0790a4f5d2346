"""Activations, softmax, and the gradient of a bias under an activation."""

from __future__ import annotations

import math

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def call(name: str, size: tuple[int, ...], layout: str = "contiguous", **arguments) -> Sample:
    return Sample(name, (Input(size, layout),), arguments, math.prod(size))


SIZES = {
    "lenet": (16, 6, 28, 28),
    "mlp": (64, 256),
    "one": (1,),
    "no_axes": (),
    "odd": (3, 7, 5, 11),
    "long": (70001,),
    "width_1": (9, 1),
    "empty_batch": (0, 8),
}
LAYOUTS = ("channels_last", "transposed", "strided", "expanded", "unaligned")

ELEMENTS = (
    *(call(name, size) for name, size in SIZES.items()),
    *(call(f"layouts.{layout}", (3, 5, 8, 9), layout) for layout in LAYOUTS),
)
TINY_ELEMENTS = (call("tiny", (3, 5)), call("tiny_maps", (2, 2, 3, 2)))

AXES = (
    call("classes", (64, 10), dim=1),
    call("imagenet", (5, 1000), dim=-1),
    call("odd_row", (3, 77), dim=1),
    call("whole_registers", (21, 32), dim=1),
    call("whole_registers_of_long_row", (3, 128), dim=1),
    call("lines_of_rows", (2, 9, 8, 12), dim=1),
    call("maps", (2, 7, 5, 6), dim=1),
    call("wide_maps", (2, 3, 9, 11), dim=1),
    call("first_axis", (9, 37), dim=0),
    call("one_class", (5, 1), dim=1),
    call("vector", (19,), dim=0),
    call("no_axes", (), dim=0),
    call("many_rows", (1031, 3), dim=1),
    call("empty_batch", (0, 8), dim=1),
    *(call(f"layouts.{layout}", (3, 5, 8, 9), layout, dim=1) for layout in LAYOUTS),
)
TINY_AXES = (call("tiny", (3, 5), dim=1), call("tiny_maps", (2, 3, 2, 2), dim=-3))


@st.composite
def _elements(draw) -> Sample:
    size = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    while math.prod(size) > 20000:
        size = size[1:]
    return call("drawn", size, draw(st.sampled_from(("contiguous", "strided", "unaligned"))))


@st.composite
def _axes(draw) -> Sample:
    size = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    axis = draw(st.integers(0, len(size) - 1))
    size = (*size[:axis], draw(st.integers(1, 150)), *size[axis + 1 :])
    dim = axis - draw(st.sampled_from((0, len(size))))
    return call("drawn", size, draw(st.sampled_from(("contiguous", "strided", "unaligned"))), dim=dim)


def _errors(op: str, **options) -> tuple[ErrorSample, ...]:
    def error(name, exception, message, input, **more):
        return ErrorSample(name, (input,), {**options, **more}, exception, f"{op}(): expected {message}")

    samples = [
        error("input_no_tensor", TypeError, "input to be a Tensor, but got list", [1.0]),
        error(
            "dtype_int64",
            TypeError,
            "input to be float32, float64, bfloat16 or float16, but got Long",
            Input((2, 3), dtype=torch.int64),
        ),
        error(
            "dtype_complex",
            TypeError,
            "input to be float32, float64, bfloat16 or float16, but got ComplexFloat",
            Input((2, 3), dtype=torch.complex64),
        ),
    ]
    if options:
        samples += [
            error(
                "dim",
                IndexError,
                "dim to be between -2 and 1 for input of size [2, 3], but got 2",
                Input((2, 3)),
                dim=2,
            ),
            error("dim_no_int", TypeError, "dim to be an int, but got 1.5", Input((2, 3)), dim=1.5),
        ]
    return tuple(samples)


# ---- majorants: values, and gradients for absolute grad_outputs, without cancellation --------------------------------

# exp and log have errors of their own, and float64 values that are compared with float64 values have them twice.
_ROUNDINGS = 4.0


def _of_bounded(input):
    return 1 + input.abs()


def _softmax_majorant(input, dim):
    y = torch.softmax(input.detach(), dim)
    x = input.abs()
    return _ROUNDINGS * y * (1 + x + (y * x).sum(dim, keepdim=True))


def _log_softmax_majorant(input, dim):
    y = torch.softmax(input.detach(), dim)
    x = input.abs()
    return _ROUNDINGS * (1 + x + (y * x).sum(dim, keepdim=True))


# ---- the ops as the dispatcher knows them ----------------------------------------------------------------------------


def _pairs(make):
    """Argument tuples from two tensors, with and without requires_grad."""

    def arguments(device: str) -> list[tuple]:
        found = []
        for size, layout in (((3, 5), "contiguous"), ((2, 3, 4, 5), "channels_last")):
            tensors = [Input(size, layout).make(i, torch.float32, device) for i in range(2)]
            found += [make(*(one.clone().requires_grad_() for one in tensors)), make(*tensors)]
        return found

    return arguments


def _activation_ops(name: str) -> dict:
    forward, gradient = getattr(torch, name), f"{name}_input_grad"
    return {name: _pairs(lambda a, b: (a,)), gradient: _pairs(lambda a, b: (a, forward(b.detach()).requires_grad_()))}


def _softmax_ops(name: str) -> dict:
    forward = getattr(torch, name)
    return {
        name: _pairs(lambda a, b: (a, 1)),
        f"{name}_input_grad": _pairs(lambda a, b: (a, forward(b.detach(), 1).requires_grad_(), 1)),
    }


_BIAS_OPS = {
    "bias_grad": _pairs(lambda a, b: (a,)),
    "activation_bias_grad": _pairs(lambda a, b: (a, torch.sigmoid(b), "sigmoid")),
}


def _activation(name: str, native, **more) -> OpSpec:
    return OpSpec(
        name=name,
        function=getattr(ops, name),
        native=native,
        reference=getattr(references, name),
        samples=ELEMENTS,
        tiny=TINY_ELEMENTS,
        errors=_errors(name),
        strategy=_elements(),
        **more,
    )


def _of_axis(name: str, native, majorant) -> OpSpec:
    return OpSpec(
        name=name,
        function=getattr(ops, name),
        native=native,
        reference=getattr(references, name),
        dispatcher_ops=_softmax_ops(name),
        samples=AXES,
        tiny=TINY_AXES,
        errors=_errors(name, dim=1),
        strategy=_axes(),
        majorant=majorant,
        keeps_memory_format=False,
    )


SPECS = (
    _activation("relu", F.relu, dispatcher_ops={**_activation_ops("relu"), **_BIAS_OPS}),
    _activation("sigmoid", torch.sigmoid, dispatcher_ops=_activation_ops("sigmoid"), majorant=_of_bounded),
    _activation("tanh", torch.tanh, dispatcher_ops=_activation_ops("tanh"), majorant=_of_bounded),
    _of_axis("softmax", F.softmax, _softmax_majorant),
    _of_axis("log_softmax", F.log_softmax, _log_softmax_majorant),
)
