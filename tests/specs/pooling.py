"""Maximum and average pooling, regular and adaptive."""

from __future__ import annotations

import math

import references
import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def pool(name: str, size: tuple[int, ...], kernel_size=None, layout: str = "contiguous", **arguments) -> Sample:
    if kernel_size is not None:
        arguments = {"kernel_size": kernel_size, **arguments}
    return Sample(name, (Input(size, layout),), arguments, math.prod(size))


# ---- what regular pools have in common -------------------------------------------------------------------------------

REGULAR = (
    pool("lenet.pool1", (4, 6, 28, 28), 2, stride=2),
    pool("lenet.pool2", (4, 16, 10, 10), 2, stride=2),
    pool("lenet.pool1.channels_last", (4, 6, 28, 28), 2, "channels_last", stride=2),
    pool("alexnet.pool1", (1, 16, 54, 54), 3, stride=2),
    pool("alexnet.pool1.channels_last", (1, 16, 54, 54), 3, "channels_last", stride=2),
    pool("googlenet.pool", (1, 19, 14, 14), 3, stride=1, padding=1),
    pool("resnet.pool", (1, 64, 28, 28), 3, "channels_last", stride=2, padding=1),
    pool("odd_sizes", (2, 3, 7, 9), (3, 2), stride=(2, 3)),
    pool("width_1", (2, 3, 9, 1), (3, 1), stride=(2, 1)),
    pool("height_1", (2, 3, 1, 9), (1, 2)),
    pool("one_pixel", (2, 3, 1, 1), 1),
    pool("one_pixel_padded", (2, 3, 1, 1), 3, padding=1),
    pool("whole_map", (2, 5, 6, 7), (6, 7)),
    pool("long_rows", (1, 2, 4, 302), 2),
    pool("kernel_1", (2, 3, 5, 4), 1),
    pool("kernel_1_strided", (2, 3, 9, 8), 1, stride=(4, 3)),
    pool("empty_batch", (0, 3, 8, 8), 2),
    pool("stride_over_kernel", (2, 3, 11, 13), 2, stride=(3, 5)),
    pool("overlapping", (2, 3, 9, 10), (4, 5), stride=1),
    pool("default_stride", (2, 3, 9, 10), (2, 3)),
    pool("rectangular", (2, 3, 13, 12), (2, 5), stride=(3, 1), padding=(1, 2)),
    pool("ceil_mode", (2, 3, 8, 9), 3, stride=2, ceil_mode=True),
    pool("ceil_mode_padded", (2, 3, 7, 6), (3, 2), stride=(3, 2), padding=1, ceil_mode=True),
    pool("ceil_mode_dropped_window", (1, 2, 5, 6), 2, stride=(3, 4), padding=1, ceil_mode=True),
    pool("ceil_mode_larger_than_map", (1, 2, 3, 3), 4, stride=3, ceil_mode=True),
    pool("over_256_taps", (2, 3, 20, 19), 17, stride=2),
    pool("over_256_taps_padded", (1, 2, 17, 30), (16, 17), stride=3, padding=8, ceil_mode=True),
    pool("unbatched", (3, 8, 7), 2),
    *(
        pool(f"layouts.{layout}", (2, 5, 8, 9), 3, layout, stride=2, padding=1)
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
MAX_ONLY = (
    pool("dilation", (2, 3, 11, 12), 3, dilation=2),
    pool("dilation_padded", (2, 3, 11, 12), (3, 2), stride=(1, 2), padding=1, dilation=(2, 3), ceil_mode=True),
    pool("indices", (2, 3, 9, 8), 3, stride=2, padding=1, return_indices=True),
    pool("indices_channels_last", (2, 3, 9, 8), 3, "channels_last", stride=2, padding=1, return_indices=True),
    pool("indices_dilation", (2, 3, 9, 10), (2, 3), dilation=(3, 2), padding=1, return_indices=True),
    pool("indices_over_256_taps", (1, 2, 21, 20), 17, padding=8, return_indices=True),
    pool("indices_unbatched", (3, 9, 8), 2, return_indices=True, ceil_mode=True),
    pool("indices_empty_batch", (0, 3, 9, 8), 2, return_indices=True),
)
AVERAGE_ONLY = (
    pool("without_padding", (2, 3, 7, 8), 3, stride=2, padding=1, count_include_pad=False),
    pool("without_padding_ceil", (2, 3, 8, 9), (3, 4), stride=3, padding=1, count_include_pad=False, ceil_mode=True),
    pool("divisor", (2, 3, 7, 8), 3, stride=2, padding=1, divisor_override=5),
    pool("divisor_negative", (2, 3, 7, 8), 2, divisor_override=-3),
    pool("divisor_ceil", (2, 3, 8, 8), 3, "channels_last", stride=2, ceil_mode=True, divisor_override=7),
    pool("rectangular_strips", (1, 70, 27, 28), 3, "channels_last", stride=(1, 2), padding=(1, 0)),
    pool("strips", (2, 5, 14, 9), 3, "channels_last", stride=1, padding=1, count_include_pad=False),
    pool("strips_divisor", (2, 19, 6, 7), 3, "channels_last", stride=1, padding=(0, 1), divisor_override=-4),
    pool(
        "strips_ceil", (2, 37, 16, 8), 3, "channels_last", stride=2, padding=1, ceil_mode=True, count_include_pad=False
    ),
)
REGULAR_TINY = (
    pool("tiny", (2, 2, 4, 5), (3, 2), stride=(2, 1), padding=1, ceil_mode=True),
    pool("tiny_unbatched", (2, 4, 4), 2),
)
MAX_TINY = (pool("tiny_dilation", (1, 2, 5, 5), 2, stride=1, dilation=2),)
AVERAGE_TINY = (pool("tiny_without_padding", (1, 2, 3, 5), 3, stride=2, padding=1, count_include_pad=False),)

ADAPTIVE = (
    pool("nin.global", (2, 10, 5, 5), output_size=1),
    pool("resnet.global", (2, 64, 7, 7), layout="channels_last", output_size=(1, 1)),
    pool("identity", (2, 3, 5, 4), output_size=(5, 4)),
    pool("dividing", (2, 3, 8, 9), output_size=(4, 3)),
    pool("overlapping", (2, 3, 7, 10), output_size=(3, 4)),
    pool("overlapping_channels_last", (2, 3, 7, 10), layout="channels_last", output_size=(3, 4)),
    pool("larger_than_map", (2, 3, 3, 4), output_size=(7, 6)),
    pool("one_pixel", (2, 3, 1, 1), output_size=(3, 2)),
    pool("width_1", (2, 3, 9, 1), output_size=(4, 1)),
    pool("keeps_height", (2, 3, 7, 8), output_size=(None, 3)),
    pool("keeps_width", (2, 3, 7, 8), output_size=(2, None)),
    pool("keeps_both", (2, 3, 7, 8), output_size=(None, None)),
    pool("over_256_taps", (2, 3, 33, 35), output_size=(2, 2)),
    pool("global_over_256_taps", (2, 3, 17, 17), output_size=1),
    pool("empty_batch", (0, 3, 7, 8), output_size=2),
    pool("unbatched", (3, 7, 8), output_size=3),
    *(
        pool(f"layouts.{layout}", (2, 5, 8, 9), layout=layout, output_size=(3, 4))
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
ADAPTIVE_MAX_ONLY = (
    pool("indices", (2, 3, 7, 10), output_size=(3, 4), return_indices=True),
    pool("indices_channels_last", (2, 3, 7, 10), layout="channels_last", output_size=(3, 4), return_indices=True),
    pool("indices_over_256_taps", (1, 2, 33, 35), output_size=(2, 1), return_indices=True),
    pool("indices_unbatched", (3, 7, 8), output_size=3, return_indices=True),
)
ADAPTIVE_TINY = (
    pool("tiny", (2, 2, 5, 4), output_size=(3, 2)),
    pool("tiny_unbatched", (1, 3, 4), output_size=(2, None)),
)


# ---- free samples ----------------------------------------------------------------------------------------------------

_LAYOUT = st.sampled_from(("contiguous", "contiguous", "channels_last", "transposed", "strided", "unaligned"))


@st.composite
def _regular(draw, is_max: bool) -> Sample:
    integer = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    kernel = (integer(1, 6), integer(1, 6))
    dilation = (integer(1, 3), integer(1, 3)) if is_max else (1, 1)
    extent = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel, strict=True)]
    padding = tuple(integer(0, taps // 2) for taps in kernel)
    least = [max(1, size - 2 * pad) for size, pad in zip(extent, padding, strict=True)]
    size = (integer(0, 3), integer(1, 20), *(low + integer(0, 12) for low in least))
    arguments = {"stride": (integer(1, 5), integer(1, 5)), "padding": padding, "ceil_mode": draw(st.booleans())}
    # A dilated window may miss the map altogether. Native torch then writes out of bounds in its backward pass.
    axes = zip(size[2:], kernel, arguments["stride"], padding, dilation, strict=True)
    assume(
        all(
            references._inside(window, length)
            for length, *axis in axes
            for window in references._windows(length, *axis, arguments["ceil_mode"])
        )
    )
    if is_max:
        arguments |= {"dilation": dilation, "return_indices": draw(st.booleans())}
    else:
        divisor = draw(st.one_of(st.none(), st.integers(1, 9), st.integers(-9, -1)))
        arguments |= {"count_include_pad": draw(st.booleans()), "divisor_override": divisor}
    return pool("drawn", size, kernel, draw(_LAYOUT), **arguments)


@st.composite
def _adaptive(draw, is_max: bool) -> Sample:
    integer = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    size = (integer(0, 3), integer(1, 20), integer(1, 24), integer(1, 24))
    arguments = {"output_size": (integer(1, 13), integer(1, 13))}
    if is_max:
        arguments["return_indices"] = draw(st.booleans())
    return pool("drawn", size, layout=draw(_LAYOUT), **arguments)


# ---- errors ----------------------------------------------------------------------------------------------------------

_X = Input((2, 4, 8, 8))


def _common_errors(op: str, **valid) -> list[ErrorSample]:
    def error(name, exception, message, input=_X, **named):
        return ErrorSample(name, (input,), {**valid, **named}, exception, f"{op}(): expected {message}")

    return [
        error("input_no_tensor", TypeError, "input to be a Tensor, but got list", [1.0]),
        error(
            "input_rank",
            ValueError,
            "input to be 3-D (C, H, W) or 4-D (N, C, H, W), but got a 5-D tensor of size [1, 2, 4, 8, 8]",
            Input((1, 2, 4, 8, 8)),
        ),
        *(
            error(
                f"dtype_{name}",
                TypeError,
                f"input to be float32, float64, bfloat16 or float16, but got {text}",
                Input(_X.size, dtype=dtype),
            )
            for name, dtype, text in (("int64", torch.int64, "Long"), ("complex64", torch.complex64, "ComplexFloat"))
        ),
        error(
            "empty_map",
            ValueError,
            "input to have at least one channel and one pixel, but got a tensor of size [2, 4, 0, 8]",
            Input((2, 4, 0, 8)),
        ),
        error(
            "no_channels",
            ValueError,
            "input to have at least one channel and one pixel, but got a tensor of size [2, 0, 8, 8]",
            Input((2, 0, 8, 8)),
        ),
    ]


def _regular_errors(op: str) -> tuple[ErrorSample, ...]:
    def error(name, exception, message, input=_X, kernel_size=2, **named):
        options = {"kernel_size": kernel_size, **named}
        return ErrorSample(name, (input,), options, exception, f"{op}(): expected {message}")

    found = [
        *_common_errors(op, kernel_size=2),
        error(
            "kernel_0", ValueError, "kernel_size to be two integers of at least 1, but got [0, 2]", kernel_size=(0, 2)
        ),
        error(
            "kernel_3_values",
            ValueError,
            "kernel_size to be an int or a pair of ints, but got (1, 2, 3)",
            kernel_size=(1, 2, 3),
        ),
        error("kernel_float", TypeError, "kernel_size to be an int or a pair of ints, but got 2.0", kernel_size=2.0),
        error("stride_0", ValueError, "stride to be two integers of at least 1, but got [0, 0]", stride=0),
        error("padding_negative", ValueError, "padding to be two integers of at least 0, but got [-1, -1]", padding=-1),
        error(
            "padding_over_half",
            ValueError,
            "padding to be at most half of the kernel (dilation included: 3 x 3), but got [2, 2]",
            kernel_size=3,
            padding=2,
        ),
        error(
            "kernel_over_input",
            ValueError,
            "kernel_size to fit into the padded input, but got kernel_size [9, 3], padding [0, 0], dilation [1, 1] "
            "and input of size [2, 4, 8, 8]",
            kernel_size=(9, 3),
        ),
    ]
    if op == "max_pool2d":
        found.append(
            error("dilation_0", ValueError, "dilation to be two integers of at least 1, but got [0, 0]", dilation=0)
        )
    else:
        found.append(error("divisor_0", ValueError, "divisor_override not to be zero, but got 0", divisor_override=0))
    return tuple(found)


def _adaptive_errors(op: str) -> tuple[ErrorSample, ...]:
    def error(name, exception, message, output_size):
        return ErrorSample(name, (_X,), {"output_size": output_size}, exception, f"{op}(): expected {message}")

    return (
        *_common_errors(op, output_size=2),
        error("size_0", ValueError, "output_size to be two integers of at least 1, but got [0, 2]", (0, 2)),
        error("size_3_values", ValueError, "output_size to be an int or a pair of ints, but got (1, 2, 3)", (1, 2, 3)),
        error("size_text", TypeError, "output_size to be an int or a pair of ints, but got '2'", "2"),
    )


# ---- the ops as the dispatcher knows them ----------------------------------------------------------------------------

# kernel_size, stride, padding, dilation; of an input of size (2, 3, 6, 5).
_WINDOW = [3, 2], [2, 1], [1, 1], [1, 1]
_FLAT = [value for pair in _WINDOW for value in pair]


def _input(device: str, *size: int) -> torch.Tensor:
    return Input(size or (2, 3, 6, 5)).make(0, torch.float32, device).requires_grad_()


def _forward(*rest):
    return lambda device: [(_input(device), *rest), (_input(device).detach(), *rest)]


def _over_offsets(make):
    """Arguments of an op that takes offsets: those of regular windows, and of adaptive ones."""

    def arguments(device: str) -> list[tuple]:
        input = _input(device).detach()
        raw = torch.ops.d2lkernels
        _, regular = raw.max_pool2d_with_offsets(input, *_WINDOW, True)
        _, adaptive = raw.adaptive_max_pool2d_with_offsets(input, [4, 3])
        return [make(input, regular, _FLAT), make(input, adaptive, [])]

    return arguments


_MAX_POOL_OPS = {
    "max_pool2d": _forward(*_WINDOW, True),
    "max_pool2d_with_offsets": _forward(*_WINDOW, False),
    "max_pool2d_input_grad": _over_offsets(
        lambda input, offsets, window: (_input(offsets.device, *offsets.shape), offsets, list(input.shape), window)
    ),
    "max_pool2d_gather": _over_offsets(lambda input, offsets, window: (_input(input.device), offsets, window)),
    "max_pool2d_indices": _over_offsets(lambda input, offsets, window: (offsets, list(input.shape), window)),
}
_AVG_POOL_OPS = {
    "avg_pool2d": _forward([3, 2], [2, 1], [1, 1], True, False, None),
    "avg_pool2d_input_grad": lambda device: [
        (_input(device, 2, 3, 3, 6), [2, 3, 6, 5], [3, 2], [2, 1], [1, 1], False, True, divisor)
        for divisor in (None, 5)
    ],
}

SPECS = (
    OpSpec(
        name="max_pool2d",
        function=ops.max_pool2d,
        native=F.max_pool2d,
        reference=references.max_pool2d,
        dispatcher_ops=_MAX_POOL_OPS,
        samples=REGULAR + MAX_ONLY,
        tiny=REGULAR_TINY + MAX_TINY,
        errors=_regular_errors("max_pool2d"),
        strategy=_regular(is_max=True),
        is_linear=False,
    ),
    OpSpec(
        name="avg_pool2d",
        function=ops.avg_pool2d,
        native=F.avg_pool2d,
        reference=references.avg_pool2d,
        dispatcher_ops=_AVG_POOL_OPS,
        samples=REGULAR + AVERAGE_ONLY,
        tiny=REGULAR_TINY + AVERAGE_TINY,
        errors=_regular_errors("avg_pool2d"),
        strategy=_regular(is_max=False),
    ),
    OpSpec(
        name="adaptive_max_pool2d",
        function=ops.adaptive_max_pool2d,
        native=F.adaptive_max_pool2d,
        reference=references.adaptive_max_pool2d,
        dispatcher_ops={
            "adaptive_max_pool2d": _forward([4, 3]),
            "adaptive_max_pool2d_with_offsets": _forward([4, 3]),
        },
        samples=ADAPTIVE + ADAPTIVE_MAX_ONLY,
        tiny=ADAPTIVE_TINY,
        errors=_adaptive_errors("adaptive_max_pool2d"),
        strategy=_adaptive(is_max=True),
        is_linear=False,
    ),
    OpSpec(
        name="adaptive_avg_pool2d",
        function=ops.adaptive_avg_pool2d,
        native=F.adaptive_avg_pool2d,
        reference=references.adaptive_avg_pool2d,
        dispatcher_ops={
            "adaptive_avg_pool2d": _forward([4, 3]),
            "adaptive_avg_pool2d_input_grad": lambda device: [(_input(device, 2, 3, 4, 3), [2, 3, 6, 5])],
        },
        samples=ADAPTIVE,
        tiny=ADAPTIVE_TINY,
        errors=_adaptive_errors("adaptive_avg_pool2d"),
        strategy=_adaptive(is_max=False),
    ),
)
