"""Concatenation. Mixed dtypes and memory formats are in test_concat.py."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def _ours(*tensors, dim=1):
    return ops.concat(tensors, dim)


def _native(*tensors, dim=1):
    return torch.cat(tensors, dim)


def _reference(*tensors, dim=1):
    """Written into an empty tensor, piece by piece."""
    size = list(tensors[0].shape)
    size[dim] = sum(tensor.shape[dim] for tensor in tensors)
    output, begin = tensors[0].new_empty(size), 0
    for tensor in tensors:
        output.narrow(dim, begin, tensor.shape[dim]).copy_(tensor)
        begin += tensor.shape[dim]
    return output


def join(name: str, *sizes: tuple[int, ...], layout: str = "contiguous", **arguments) -> Sample:
    tensors = tuple(Input(size, layout) for size in sizes)
    return Sample(name, tensors, arguments, sum(math.prod(size) for size in sizes))


def _by_channel(name: str, size: tuple[int, int, int], *channels: int, **options) -> Sample:
    images, *plane = size
    return join(name, *((images, one, *plane) for one in channels), **options)


SAMPLES = (
    _by_channel("googlenet.inception", (2, 12, 12), 64, 128, 32, 32),
    _by_channel("googlenet.inception.channels_last", (2, 12, 12), 64, 128, 32, 32, layout="channels_last"),
    _by_channel("densenet.channels_last", (2, 9, 9), 96, 32, layout="channels_last"),
    _by_channel("odd_channels_last", (3, 5, 7), 3, 1, 6, layout="channels_last"),
    _by_channel("one_tensor", (2, 5, 4), 3),
    _by_channel("no_channels", (2, 5, 4), 3, 0, 2),
    _by_channel("empty_batch", (0, 5, 4), 3, 2),
    join("rows", (2, 3, 4, 5), (2, 3, 1, 5), dim=2),
    join("columns_channels_last", (2, 3, 4, 5), (2, 3, 4, 2), layout="channels_last", dim=-1),
    join("images_channels_last", (2, 3, 4, 5), (1, 3, 4, 5), layout="channels_last", dim=0),
    join("rows_channels_last", (2, 3, 4, 5), (2, 3, 2, 5), layout="channels_last", dim=2),
    join("vectors", (5,), (3,), dim=0),
    join("matrices", (37, 5), (37, 2)),
    join("volumes", (2, 3, 2, 3, 4), (2, 1, 2, 3, 4)),
    *(
        _by_channel(f"layouts.{layout}", (3, 8, 9), 5, 2, 3, layout=layout)
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
TINY = (
    join("tiny_images", (1, 2, 2, 3), (2, 2, 2, 3), dim=0),
    _by_channel("tiny", (2, 2, 3), 2, 3),
    join("tiny_last", (2, 3), (2, 1), (2, 2), dim=-1),
)

_A, _B = Input((2, 3, 8, 8)), Input((2, 5, 8, 8))


def _error(name, exception, message, *tensors, **options) -> ErrorSample:
    return ErrorSample(name, tensors, options, exception, f"concat(): expected {message}")


ERRORS = (
    _error("none", ValueError, "tensors to hold at least one tensor, but got none"),
    _error("no_tensor", TypeError, "tensors[1] to be a Tensor, but got float", _A, 1.0),
    _error("scalar", ValueError, "tensors to be at least 1-D, but got a scalar", Input(())),
    _error(
        "size",
        ValueError,
        "tensors[1] to have the size of tensors[0], [2, 3, 8, 8], except in dimension 1, but got [2, 5, 8, 7]",
        _A,
        Input((2, 5, 8, 7)),
    ),
    _error(
        "rank",
        ValueError,
        "tensors[2] to have the size of tensors[0], [2, 3, 8, 8], except in dimension 1, but got [2, 5, 8]",
        _A,
        _B,
        Input((2, 5, 8)),
    ),
    _error(
        "other_dim",
        ValueError,
        "tensors[1] to have the size of tensors[0], [2, 3, 8, 8], except in dimension 3, but got [2, 5, 8, 8]",
        _A,
        _B,
        dim=-1,
    ),
    _error("dim", ValueError, "dim to be from -4 to 3 for tensors of 4 dimensions, but got 4", _A, _B, dim=4),
    _error("dim_no_int", TypeError, "dim to be an int, but got 'channels'", _A, _B, dim="channels"),
)


@st.composite
def _calls(draw) -> Sample:
    rank = draw(st.integers(1, 5))
    size = [draw(st.integers(1, 7)) for _ in range(rank)]
    dim = draw(st.integers(-rank, rank - 1))
    sizes = []
    for _ in range(draw(st.integers(1, 5))):
        size[dim] = draw(st.integers(0 if sizes else 1, 9))
        sizes.append(tuple(size))
    layouts = ("contiguous", *(["channels_last", "transposed"] if rank == 4 else []))
    return join("drawn", *sizes, layout=draw(st.sampled_from(layouts)), dim=dim)


def _arguments(device: str) -> list[tuple]:
    tensors = [Input((2, c, 3, 4)).make(c, torch.float32, device) for c in (3, 1, 4)]
    return [
        (tensors, 1),
        ([tensors[0].clone().requires_grad_(), tensors[1]], 1),
        ([one.clone().requires_grad_() for one in tensors], -3),
    ]


SPECS = (
    OpSpec(
        name="concat",
        function=_ours,
        native=_native,
        reference=_reference,
        dispatcher_ops={"concat": _arguments},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_calls(),
        public=ops.concat,
    ),
)
