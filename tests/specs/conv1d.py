"""conv1d, which is conv2d on maps of one row."""

from __future__ import annotations

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def _reference(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    stride, dilation = ((1, one if isinstance(one, int) else one[0]) for one in (stride, dilation))
    if not isinstance(padding, str):
        padding = (0, padding if isinstance(padding, int) else padding[0])
    rows = references.conv2d(input.unsqueeze(-2), weight.unsqueeze(-2), bias, stride, padding, dilation, groups)
    return rows.squeeze(-2)


def sequences(name, size, outputs, taps, layouts=("contiguous",) * 3, bias=True, **arguments) -> Sample:
    """A sample from the size of the input, the output channels and the length of the kernel."""
    channels = size[-2] // arguments.get("groups", 1)
    tensors = (
        Input(tuple(size), layouts[0]),
        Input((outputs, channels, taps), layouts[1]),
        Input((outputs,), layouts[2]) if bias else None,
    )
    return Sample(name, tensors, arguments, torch.Size(size).numel() * outputs * channels * taps // size[-2])


SAMPLES = (
    sequences("text", (4, 20, 50), 16, 3, padding=1),
    sequences("wide", (2, 8, 130), 24, 7, stride=3, padding=(2,)),
    sequences("one_tap", (3, 17, 9), 5, 1),
    sequences("same_even", (2, 3, 10), 4, 4, padding="same", bias=False),
    sequences("same_dilated", (2, 3, 10), 4, 3, padding="same", dilation=(2,)),
    sequences("valid", (2, 3, 10), 4, 3, padding="valid", stride=[2]),
    sequences("groups", (2, 6, 11), 4, 3, groups=2, padding=1),
    sequences("depthwise", (2, 5, 11), 5, 3, groups=5, padding=1),
    sequences("one_channel", (3, 1, 12), 2, 5),
    sequences("one_element", (3, 4, 1), 2, 1),
    sequences("unbatched", (3, 12), 4, 3, padding=1),
    sequences("empty_batch", (0, 3, 12), 4, 3),
    *(
        sequences(f"layouts.{layout}", (3, 8, 9), 5, 3, layouts=(layout, layout, "contiguous"), padding=1)
        for layout in ("transposed", "strided", "expanded", "unaligned")
    ),
)
TINY = (
    sequences("tiny", (2, 2, 5), 3, 3, padding=1, stride=2),
    sequences("tiny_groups", (1, 4, 4), 2, 2, groups=2, bias=False),
    sequences("tiny_unbatched", (2, 4), 2, 3, dilation=1),
)

_X, _W, _B = Input((2, 4, 8)), Input((6, 4, 3)), Input((6,))


def _error(name, exception, message, input=_X, weight=_W, bias=_B, **options) -> ErrorSample:
    return ErrorSample(name, (input, weight, bias), options, exception, f"conv1d(): expected {message}")


ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got list", input=[1.0]),
    _error("bias_no_tensor", TypeError, "bias to be a Tensor, but got float", bias=1.0),
    _error(
        "input_rank",
        ValueError,
        "input to be 2-D (C, L) or 3-D (N, C, L), but got a 4-D tensor of size [2, 4, 8, 8]",
        input=Input((2, 4, 8, 8)),
    ),
    _error("weight_rank", ValueError, "weight to be 3-D, but got a 2-D tensor of size [6, 4]", weight=Input((6, 4))),
    _error(
        "input_dtype",
        TypeError,
        "input to be float32, float64, bfloat16 or float16, but got torch.int64",
        input=Input((2, 4, 8), dtype=torch.int64),
    ),
    _error(
        "weight_dtype",
        TypeError,
        "weight to have the dtype of input (torch.float32), but got torch.float64",
        weight=Input((6, 4, 3), dtype=torch.float64),
    ),
    _error("stride", ValueError, "stride to be at least 1, but got 0", stride=0),
    _error("stride_pair", ValueError, "stride to be an int or a sequence of one int, but got (1, 1)", stride=(1, 1)),
    _error("padding", ValueError, "padding to be at least 0, but got -1", padding=-1),
    _error("padding_name", ValueError, "padding to be 'same', 'valid' or an int, but got 'full'", padding="full"),
    _error("dilation", TypeError, "dilation to be an int or a sequence of one int, but got 1.5", dilation=1.5),
    _error("same_stride", ValueError, "stride to be 1 with padding='same', but got 2", padding="same", stride=2),
    _error("groups", ValueError, "groups to be at least 1, but got 0", groups=0),
    _error("groups_no_int", TypeError, "groups to be an int, but got 'two'", groups="two"),
    _error(
        "groups_of_input",
        ValueError,
        "the channels of input to be divisible by groups=3, but got input of size [2, 4, 8]",
        groups=3,
    ),
    _error(
        "groups_of_weight",
        ValueError,
        "the output channels of weight to be divisible by groups=4, but got weight of size [6, 4, 3]",
        groups=4,
    ),
    _error(
        "channels",
        ValueError,
        "weight to have 4 input channels per group (input has 4, groups=1), but got weight of size [6, 2, 3]",
        weight=Input((6, 2, 3)),
    ),
    _error(
        "bias_size",
        ValueError,
        "bias to have size [6] (the output channels of weight), but got [5]",
        bias=Input((5,)),
    ),
    _error(
        "no_channel",
        ValueError,
        "input and weight to have at least one channel and one tap, but got input of size [2, 0, 8] and weight of "
        "size [6, 0, 3]",
        input=Input((2, 0, 8)),
        weight=Input((6, 0, 3)),
    ),
    _error(
        "too_short",
        ValueError,
        "the kernel (dilation included) to fit into the padded input of 4, but got a kernel of 5",
        input=Input((2, 4, 2)),
        padding=1,
        dilation=2,
    ),
)


@st.composite
def _calls(draw) -> Sample:
    groups, taps, dilation, padding = (draw(st.integers(low, 3)) for low in (1, 1, 1, 0))
    shortest = max(1, dilation * (taps - 1) + 1 - 2 * padding)
    size = (draw(st.integers(0, 3)), groups * draw(st.integers(1, 9)), draw(st.integers(shortest, shortest + 20)))
    return sequences(
        "drawn",
        size if draw(st.booleans()) else size[1:],
        groups * draw(st.integers(1, 9)),
        taps,
        bias=draw(st.booleans()),
        stride=draw(st.integers(1, 3)),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


SPECS = (
    OpSpec(
        name="conv1d",
        function=ops.conv1d,
        native=F.conv1d,
        reference=_reference,
        dispatcher_ops={},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_calls(),
        keeps_memory_format=False,
    ),
)
