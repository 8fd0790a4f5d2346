"""Losses. Targets and class weights are no leaves of the graph: they are arguments."""

from __future__ import annotations

import math

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def entropy(
    name: str,
    size: tuple[int, ...],
    layout: str = "contiguous",
    weighted: bool = False,
    ignored: bool = False,
    **arguments,
) -> Sample:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    axis = 0 if len(size) == 1 else 1
    target = torch.randint(size[axis], size[:axis] + size[axis + 1 :], generator=generator)
    if ignored:
        target = torch.where(torch.rand(target.shape, generator=generator) < 0.3, -100, target)
    if weighted:
        arguments["weight"] = torch.rand(size[axis], generator=generator, dtype=torch.float64) + 0.1
    return Sample(name, (Input(size, layout),), {"target": target, **arguments}, math.prod(size))


SAMPLES = (
    entropy("softmax_regression", (256, 10)),
    entropy("imagenet", (7, 1000), weighted=True),
    entropy("odd_row", (5, 77), label_smoothing=0.1),
    entropy("whole_registers", (5, 128), label_smoothing=0.1),
    entropy("long_row_smooth", (3, 131), weighted=True, label_smoothing=0.2, ignored=True),
    entropy("weighted", (37, 10), weighted=True, ignored=True),
    entropy("smooth", (37, 10), label_smoothing=0.1, ignored=True),
    entropy("weighted_smooth", (19, 5), weighted=True, label_smoothing=0.3, ignored=True),
    entropy("sum", (19, 5), reduction="sum", ignored=True),
    entropy("none", (19, 5), reduction="none", ignored=True, weighted=True),
    entropy("none_smooth", (19, 5), reduction="none", ignored=True, label_smoothing=0.1),
    entropy("one_class", (9, 1)),
    entropy("no_batch", (7,)),
    entropy("no_batch_none", (7,), reduction="none", label_smoothing=0.1),
    entropy("many_rows", (1031, 3)),
    entropy("maps", (2, 5, 6, 7), ignored=True, weighted=True),
    entropy("maps_none", (2, 5, 6, 7), reduction="none", label_smoothing=0.1),
    entropy("sequence", (3, 11, 19)),
    *(
        entropy(f"layouts.{layout}", (3, 5, 8, 9), layout)
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
TINY = (
    entropy("tiny", (4, 3)),
    entropy("tiny_weighted_smooth", (5, 3), weighted=True, label_smoothing=0.2, ignored=True),
    entropy("tiny_none", (2, 3, 2), reduction="none", ignored=True),
)


def _native_entropy(input, target, **options):
    """Native torch's own gradient of maps wants them contiguous."""
    return F.cross_entropy(input.contiguous(), target, **options)


@st.composite
def _entropies(draw) -> Sample:
    size = (draw(st.integers(1, 40)), draw(st.integers(1, 100)), *draw(st.lists(st.integers(1, 6), max_size=2)))
    return entropy(
        f"drawn{draw(st.integers(0, 99))}",
        size,
        draw(st.sampled_from(("contiguous", "strided", "unaligned"))),
        weighted=draw(st.booleans()),
        ignored=draw(st.booleans()),
        reduction=draw(st.sampled_from(("none", "sum"))),
        label_smoothing=draw(st.sampled_from((0.0, 0.1, 1.0))),
    )


# exp and log have errors of their own, and float64 values that are compared with float64 values have them twice.
_ROUNDINGS = 4.0


def _entropy_majorant(input, target, weight=None, label_smoothing=0.0, **options):
    axis = 0 if input.dim() == 1 else 1
    x = input.abs()
    terms = _ROUNDINGS * (1 + x + (torch.softmax(input.detach(), axis) * x).sum(axis, keepdim=True))
    weights = weight
    # Of sums of terms that are all negative nothing is lost; smoothing without the factor 1 - s bounds it with it.
    at_target = F.nll_loss(-terms.contiguous(), target, weights, **options)
    if label_smoothing == 0:
        return at_target
    counts = (target != -100).to(terms.dtype)
    smooth = terms.sum(axis) * counts * label_smoothing * (1 if weights is None else weights.max()) / input.shape[axis]
    reduction = options.get("reduction", "mean")
    if reduction == "none":
        return at_target + smooth
    if reduction == "sum":
        return at_target + smooth.sum()
    divisor = counts.sum() if weights is None else (weights[target.clamp(min=0)] * counts).sum()
    return at_target + smooth.sum() / divisor


_X, _T = Input((3, 5)), torch.tensor([0, 4, 2])


def _error(name, exception, message, input=_X, target=_T, **options) -> ErrorSample:
    return ErrorSample(name, (input, target), options, exception, f"cross_entropy(): expected {message}")


ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got list", input=[1.0]),
    _error("target_no_tensor", TypeError, "target to be a Tensor, but got int", target=1),
    _error(
        "dtype_int64",
        TypeError,
        "input to be float32, float64, bfloat16 or float16, but got Long",
        input=Input((3, 5), dtype=torch.int64),
    ),
    _error(
        "no_axes",
        ValueError,
        "input to be (C), (N, C) or (N, C, d1, ...), but got a 0-D tensor",
        input=Input(()),
        target=Input((), dtype=torch.int64),
    ),
    _error(
        "target_dtype",
        TypeError,
        "target to be int64 (class indices) or to have the dtype and size of input (probabilities), but got Float of "
        "size [3]",
        target=Input((3,)),
    ),
    _error(
        "target_size",
        ValueError,
        "target to have size [3] (input without its axis of classes), but got [4]",
        target=Input((4,), dtype=torch.int64),
    ),
    _error(
        "reduction",
        ValueError,
        "reduction to be 'none', 'mean' or 'sum', but got 'average'",
        target=Input((3,), dtype=torch.int64),
        reduction="average",
    ),
    _error(
        "label_smoothing",
        ValueError,
        "label_smoothing to be between 0 and 1, but got 1.5",
        target=Input((3,), dtype=torch.int64),
        label_smoothing=1.5,
    ),
    _error(
        "label_smoothing_of_probabilities",
        ValueError,
        "label_smoothing to be between 0 and 1, but got -1",
        target=Input((3, 5)),
        label_smoothing=-1.0,
    ),
    _error(
        "size_average",
        ValueError,
        "size_average and reduce to be None, but got True and None",
        target=Input((3,), dtype=torch.int64),
        size_average=True,
    ),
)


def _arguments(device: str) -> list[tuple]:
    x = Input((3, 5)).make(0, torch.float32, device)
    maps = Input((2, 3, 4, 5)).make(1, torch.float32, device)
    target = torch.tensor([1, -100, 4], device=device)
    targets = torch.arange(40, device=device).view(2, 4, 5) % 3
    weight = torch.rand(5, device=device) + 0.1
    return [
        (x.clone().requires_grad_(), target, weight, "mean", -100, 0.1),
        (x, target, None, "sum", -100, 0.0),
        (maps.clone().requires_grad_(), targets, None, "none", -100, 0.0),
    ]


def _gradient_arguments(device: str) -> list[tuple]:
    found = []
    for input, target, weight, *options in _arguments(device):
        with torch.no_grad():
            loss, statistics, total = torch.ops.d2lkernels.cross_entropy(input, target, weight, *options)
        found.append((torch.ones_like(loss).requires_grad_(), input, target, weight, statistics, total, *options))
        found.append((torch.ones_like(loss), input.detach(), target, weight, statistics, total, *options))
    return found


# ---- mean squared error ----------------------------------------------------------------------------------------------


def squares(name: str, size: tuple[int, ...], layouts=("contiguous", "contiguous"), **arguments) -> Sample:
    return Sample(name, tuple(Input(size, layout) for layout in layouts), arguments, math.prod(size))


SQUARES = (
    squares("linear_regression", (256, 1)),
    squares("matrix", (64, 257)),
    squares("sum", (33, 7), reduction="sum"),
    squares("none", (33, 7), reduction="none"),
    squares("none_maps", (2, 3, 4, 5), ("channels_last", "channels_last"), reduction="none"),
    squares("long", (150001,)),
    squares("one", (1,)),
    squares("no_axes", ()),
    squares("mixed_layouts", (3, 5, 8, 9), ("channels_last", "transposed")),
    *(
        squares(f"layouts.{layout}", (3, 5, 8, 9), (layout, layout), reduction="none")
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
TINY_SQUARES = (squares("tiny", (3, 5)), squares("tiny_none", (2, 3), reduction="none"))


@st.composite
def _squares(draw) -> Sample:
    size = tuple(draw(st.lists(st.integers(1, 30), min_size=1, max_size=3)))
    layouts = [draw(st.sampled_from(("contiguous", "strided", "unaligned"))) for _ in range(2)]
    return squares("drawn", size, layouts, reduction=draw(st.sampled_from(("none", "mean", "sum"))))


def _squares_majorant(input, target, **options):
    return F.mse_loss(input.abs() + target.abs(), torch.zeros_like(input), **options)


def _square_error(name, exception, message, input=_X, target=_X, **options) -> ErrorSample:
    return ErrorSample(name, (input, target), options, exception, f"mse_loss(): expected {message}")


SQUARE_ERRORS = (
    _square_error("input_no_tensor", TypeError, "input to be a Tensor, but got list", input=[1.0]),
    _square_error("target_no_tensor", TypeError, "target to be a Tensor, but got float", target=1.0),
    _square_error(
        "dtype_int64",
        TypeError,
        "input to be float32, float64, bfloat16 or float16, but got Long",
        input=Input((3, 5), dtype=torch.int64),
    ),
    _square_error(
        "dtypes",
        TypeError,
        "target to have the dtype of input (Float), but got Double",
        target=Input((3, 5), dtype=torch.float64),
    ),
    _square_error(
        "sizes",
        ValueError,
        "target to have the size of input [3, 5] or to broadcast with it, but got [3, 4]",
        target=Input((3, 4)),
    ),
    _square_error(
        "reduction", ValueError, "reduction to be 'none', 'mean' or 'sum', but got 'average'", reduction="average"
    ),
    _square_error(
        "size_average", ValueError, "size_average and reduce to be None, but got None and False", reduce=False
    ),
    _square_error(
        "weight_size", ValueError, "weight to have the size of input [3, 5], but got [5]", weight=torch.ones(5)
    ),
)


def _square_arguments(device: str) -> list[tuple]:
    found = []
    for size in ((3, 5), (2, 3, 4, 5)):
        x, t = (Input(size).make(i, torch.float32, device) for i in range(2))
        for reduction in ("mean", "none"):
            found += [(x.clone().requires_grad_(), t.clone().requires_grad_(), reduction), (x, t, reduction)]
    return found


def _square_gradient_arguments(device: str) -> list[tuple]:
    found = []
    for x, t, reduction in _square_arguments(device):
        grad = torch.ones_like(x.detach()) if reduction == "none" else torch.ones((), device=device)
        found.append((grad.requires_grad_(x.requires_grad), x, t, reduction))
    return found


SPECS = (
    OpSpec(
        name="cross_entropy",
        function=ops.cross_entropy,
        native=_native_entropy,
        reference=references.cross_entropy,
        dispatcher_ops={"cross_entropy": _arguments, "cross_entropy_input_grad": _gradient_arguments},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_entropies(),
        majorant=_entropy_majorant,
        keeps_memory_format=False,
    ),
    OpSpec(
        name="mse_loss",
        function=ops.mse_loss,
        native=F.mse_loss,
        reference=references.mse_loss,
        dispatcher_ops={"mse_loss": _square_arguments, "mse_loss_input_grad": _square_gradient_arguments},
        samples=SQUARES,
        tiny=TINY_SQUARES,
        errors=SQUARE_ERRORS,
        strategy=_squares(),
        majorant=_squares_majorant,
    ),
)
