"""conv2d and its two derivatives."""

from __future__ import annotations

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def _both(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def conv(name, size, outputs, kernel, bias=True, layouts=("contiguous",) * 3, **arguments) -> Sample:
    """A sample from the sizes that a layer is usually described by. `size` is that of the input."""
    kernel, groups = _both(kernel), arguments.get("groups", 1)
    weight = (outputs, size[-3] // groups, *kernel)
    tensors = (
        Input(tuple(size), layouts[0]),
        Input(weight, layouts[1]),
        Input((outputs,), layouts[2]) if bias else None,
    )
    stride = _both(arguments.get("stride", 1))
    images, (H, W) = (size[0] if len(size) == 4 else 1), size[-2:]
    pixels = max(H // stride[0], 1) * max(W // stride[1], 1)
    return Sample(name, tensors, arguments, images * pixels * outputs * weight[1] * kernel[0] * kernel[1])


# The shapes of the book's layers, with few images; of alexnet, vgg, ... what LeNet has not.
LAYERS = (
    conv("lenet.conv1", (4, 1, 28, 28), 6, 5, padding=2),
    conv("lenet.conv2", (4, 6, 14, 14), 16, 5),
    conv("images", (53, 3, 7, 6), 5, (3, 4), padding=(1, 2)),
    conv("alexnet.conv1", (1, 1, 224, 224), 96, 11, stride=4, padding=1),
    conv("vgg.conv4", (1, 64, 14, 14), 128, 3, padding=1),
    conv("nin.1x1", (2, 96, 13, 13), 96, 1),
    conv("googlenet.5x5", (2, 16, 28, 28), 32, 5, padding=2),
    conv("resnet.stem", (1, 1, 96, 96), 64, 7, stride=2, padding=3),
    conv("resnet.downsample", (1, 64, 28, 28), 128, 3, stride=2, padding=1),
    conv("resnet.shortcut", (1, 64, 28, 28), 128, 1, stride=2),
    conv("resnext.grouped", (1, 64, 14, 14), 64, 3, padding=1, groups=4),
)
LENET_CHANNELS_LAST = tuple(
    conv(f"{name}.channels_last", *rest, layouts=("channels_last", "channels_last", "contiguous"), padding=padding)
    for name, *rest, padding in (
        ("lenet.conv1", (4, 1, 28, 28), 6, 5, 2),
        ("lenet.conv2", (4, 6, 14, 14), 16, 5, 0),
        ("vgg.conv4", (1, 64, 14, 14), 128, 3, 1),
    )
)

EDGES = (
    conv("odd_sizes", (2, 3, 7, 9), 5, (3, 2)),
    conv("width_1", (2, 3, 9, 1), 4, (3, 1)),
    conv("height_1", (2, 3, 1, 9), 4, (1, 3)),
    conv("one_pixel", (2, 3, 1, 1), 4, 1),
    conv("one_channel_each", (1, 1, 5, 5), 1, 3),
    conv("one_pixel_padded", (2, 3, 1, 1), 4, 3, padding=1),
    conv("kernel_as_large_as_input", (2, 3, 6, 5), 17, (6, 5)),
    conv("wide_kernel", (1, 2, 3, 40), 3, (1, 33)),
    conv("wide_map", (1, 3, 2, 131), 9, 3, padding=1),
    conv("many_channels", (1, 67, 3, 3), 33, 3, padding=1),
    conv("empty_batch", (0, 3, 8, 8), 4, 3),
    conv("stride_over_kernel", (2, 3, 11, 13), 4, 2, stride=(3, 5)),
    conv("stride_over_kernel_1x1", (2, 5, 7, 8), 4, 1, stride=3),
    conv("stride_over_kernel_1x1_gathered", (5, 19, 9, 11), 37, 1, stride=2),
    conv("stride_over_kernel_1x1_of_groups", (3, 38, 9, 11), 34, 1, groups=2, stride=(1, 2)),
    conv("dilation_2_stride_2_gathered", (3, 18, 14, 15), 7, 3, stride=2, dilation=2),
    conv("rectangular", (2, 4, 13, 17), 6, (3, 5), stride=(2, 3), padding=(1, 4), dilation=(2, 1)),
    conv("dilation", (2, 4, 15, 15), 5, 3, dilation=3, padding=3),
    conv("dilation_2_stride_2", (2, 3, 14, 15), 4, 3, stride=2, dilation=2, padding=2),
    conv("dilation_2_stride_3", (2, 3, 14, 15), 4, 3, stride=3, dilation=2, padding=1),
    conv("dilation_4_stride_6", (1, 3, 21, 22), 4, 3, stride=6, dilation=4, padding=5),
    conv("padding_over_kernel", (1, 2, 3, 4), 3, 1, padding=2),
    conv("padding_over_kernel_strided", (1, 2, 3, 4), 3, 2, padding=(3, 5), stride=4),
    conv("unused_last_row_and_column", (2, 3, 8, 9), 4, 3, stride=(4, 5)),
    conv("groups", (2, 6, 9, 8), 4, 3, groups=2, padding=1),
    conv("groups_of_odd_size", (2, 15, 7, 7), 21, 3, groups=3, stride=2),
    conv("depthwise", (2, 19, 9, 8), 19, 3, groups=19, padding=1),
    conv("depthwise_multiplier", (2, 5, 9, 8), 15, (2, 3), groups=5, stride=2),
    conv("depthwise_wide", (2, 70, 6, 12), 70, 3, groups=70, padding=1),
    conv("depthwise_wide_strided", (2, 67, 7, 9), 67, 5, groups=67, padding=2, stride=2),
    conv("groups_of_4", (2, 44, 5, 7), 44, 3, groups=11, padding=1),
    conv("groups_of_2_to_3", (1, 22, 5, 7), 33, 3, groups=11, padding=(1, 2), stride=(2, 1)),
    conv("depthwise_dilated", (1, 8, 12, 12), 8, 3, groups=8, dilation=2, padding="same"),
    conv("same_odd", (2, 3, 8, 7), 4, (3, 5), padding="same"),
    conv("same_even", (2, 3, 8, 7), 4, (4, 2), padding="same"),
    conv("same_even_dilated", (2, 3, 9, 8), 4, (2, 4), padding="same", dilation=(3, 1)),
    conv("valid", (2, 3, 8, 7), 4, 3, padding="valid", stride=2),
    conv("unbatched", (3, 8, 7), 4, 3, padding=1),
    conv("no_bias", (2, 3, 8, 7), 4, 3, bias=False),
    conv("winograd.odd_tiles", (2, 5, 13, 11), 7, 3, padding=1),
    conv("winograd.stride_2", (2, 18, 13, 10), 20, 3, padding=1, stride=2),
    conv("winograd.stride_2_valid", (2, 17, 9, 12), 7, 3, stride=2),
    conv("winograd.5x5", (2, 18, 11, 9), 20, 5, padding=2),
    conv("winograd.5x5_padding_4", (1, 5, 3, 7), 17, 5, padding=(4, 0)),
    conv("winograd.padding_2", (1, 17, 6, 9), 16, 3, padding=(2, 0)),
)


def _with_layouts(name: str, *layouts: str) -> Sample:
    return conv(f"layouts.{name}", (2, 4, 9, 8), 6, 3, layouts=layouts, padding=1, stride=(1, 2))


VIEWS = (
    _with_layouts("channels_last", "channels_last", "channels_last", "contiguous"),
    _with_layouts("channels_last_input", "channels_last", "contiguous", "contiguous"),
    _with_layouts("channels_last_weight", "contiguous", "channels_last", "contiguous"),
    _with_layouts("transposed", "transposed", "transposed", "contiguous"),
    _with_layouts("strided", "strided", "strided", "strided"),
    _with_layouts("expanded", "expanded", "expanded", "contiguous"),
    _with_layouts("unaligned", "unaligned", "unaligned", "unaligned"),
    _with_layouts("strided_input_channels_last_weight", "strided", "channels_last", "unaligned"),
)

TINY = (
    conv("tiny", (2, 2, 4, 3), 3, (3, 2), padding=1, stride=(2, 1)),
    conv("tiny_groups_dilation", (1, 4, 5, 4), 2, 2, groups=2, dilation=(2, 1), padding=(1, 0)),
    conv("tiny_same_even", (1, 1, 3, 4), 2, (2, 4), padding="same", bias=False),
    conv("tiny_unbatched", (2, 3, 3), 2, 2),
)


@st.composite
def calls(draw) -> Sample:
    integer = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    pair = lambda low, high: (integer(low, high), integer(low, high))  # noqa: E731
    groups = draw(st.sampled_from((1, 1, 1, 2, 3, 5)))
    channels, outputs = groups * integer(1, 9), groups * integer(1, 9)
    kernel, dilation, stride = pair(1, 5), pair(1, 3), pair(1, 4)
    padding = draw(st.one_of(st.sampled_from(("same", "valid")), st.tuples(st.integers(0, 4), st.integers(0, 4))))
    if padding == "same":
        stride = (1, 1)
    extent = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel, strict=True)]
    least = [1, 1] if padding == "same" else extent if padding == "valid" else None
    least = least or [max(1, size - 2 * pad) for size, pad in zip(extent, padding, strict=True)]
    size = (integer(0, 3), channels, *(low + integer(0, 12) for low in least))
    layout = st.sampled_from(("contiguous", "contiguous", "channels_last", "transposed", "strided", "unaligned"))
    layouts = (draw(layout), draw(layout), draw(st.sampled_from(("contiguous", "strided"))))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return conv("drawn", size, outputs, kernel, draw(st.booleans()), layouts, **options)


# ---- errors ----------------------------------------------------------------------------------------------------------

_X, _W = Input((2, 4, 8, 8)), Input((6, 4, 3, 3))


def _error(name, exception, message, input=_X, weight=_W, bias=None, op="conv2d", **options) -> ErrorSample:
    return ErrorSample(name, (input, weight, bias), options, exception, f"{op}(): expected {message}")


def _other_dtype(input: Input, dtype: torch.dtype) -> Input:
    return Input(input.size, dtype=dtype)


ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got list", input=[1.0]),
    _error("weight_no_tensor", TypeError, "weight to be a Tensor, but got NoneType", weight=None),
    _error("bias_no_tensor", TypeError, "bias to be a Tensor, but got float", bias=1.0),
    _error(
        "input_rank",
        ValueError,
        "input to be 3-D (C, H, W) or 4-D (N, C, H, W), but got a 2-D tensor of size [8, 8]",
        input=Input((8, 8)),
    ),
    _error(
        "weight_rank", ValueError, "weight to be 4-D, but got a 3-D tensor of size [4, 3, 3]", weight=Input((4, 3, 3))
    ),
    _error(
        "weight_rank_same",
        ValueError,
        "weight to be 4-D, but got a 3-D tensor of size [4, 3, 3]",
        weight=Input((4, 3, 3)),
        padding="same",
    ),
    _error(
        "channel_mismatch",
        ValueError,
        "weight to have 4 input channels per group (input has 4, groups=1), but got weight of size [6, 3, 3, 3]",
        weight=Input((6, 3, 3, 3)),
    ),
    _error(
        "channel_mismatch_groups",
        ValueError,
        "weight to have 2 input channels per group (input has 4, groups=2), but got weight of size [6, 4, 3, 3]",
        groups=2,
    ),
    _error(
        "groups_do_not_divide_input",
        ValueError,
        "the channels of input to be divisible by groups=3, but got input of size [2, 4, 8, 8]",
        groups=3,
    ),
    _error(
        "groups_do_not_divide_weight",
        ValueError,
        "the output channels of weight to be divisible by groups=4, but got weight of size [6, 1, 3, 3]",
        weight=Input((6, 1, 3, 3)),
        groups=4,
    ),
    _error("groups_0", ValueError, "groups to be at least 1, but got 0", groups=0),
    _error("groups_no_int", TypeError, "groups to be an int, but got 1.0", groups=1.0),
    *(
        _error(
            f"dtype_{name}",
            TypeError,
            f"input to be float32, float64, bfloat16 or float16, but got {text}",
            input=_other_dtype(_X, dtype),
            weight=_other_dtype(_W, dtype),
        )
        for name, dtype, text in (("int64", torch.int64, "Long"), ("complex64", torch.complex64, "ComplexFloat"))
    ),
    _error(
        "dtype_of_weight",
        TypeError,
        "weight to have the dtype of input (Float), but got Double",
        weight=_other_dtype(_W, torch.float64),
    ),
    _error(
        "dtype_of_bias",
        TypeError,
        "bias to have the dtype of input (Float), but got BFloat16",
        bias=Input((6,), dtype=torch.bfloat16),
    ),
    _error(
        "bias_size",
        ValueError,
        "bias to have size [6] (the output channels of weight), but got [4]",
        bias=Input((4,)),
    ),
    _error(
        "bias_rank",
        ValueError,
        "bias to have size [6] (the output channels of weight), but got [6, 1]",
        bias=Input((6, 1)),
    ),
    _error(
        "padding_negative",
        ValueError,
        "padding to be four integers (top, bottom, left, right) of at least 0, but got [-1, -1, 0, 0]",
        padding=(-1, 0),
    ),
    _error(
        "padding_text",
        ValueError,
        "padding to be 'same', 'valid', an int or a pair, but got 'full'",
        padding="full",
    ),
    _error(
        "padding_same_stride",
        ValueError,
        "stride to be 1 with padding='same', but got [2, 2]",
        padding="same",
        stride=2,
    ),
    _error("stride_0", ValueError, "stride to be two integers of at least 1, but got [0, 0]", stride=0),
    _error("dilation_0", ValueError, "dilation to be two integers of at least 1, but got [1, 0]", dilation=(1, 0)),
    _error("stride_3_values", ValueError, "stride to be an int or a pair of ints, but got (1, 2, 3)", stride=(1, 2, 3)),
    _error("stride_float", TypeError, "stride to be an int or a pair of ints, but got 1.5", stride=1.5),
    _error(
        "kernel_over_input",
        ValueError,
        "the kernel (dilation included) to fit into the padded input of 10 x 10, but got a kernel of 11 x 11",
        padding=1,
        dilation=5,
    ),
    _error(
        "empty_map",
        ValueError,
        "the kernel (dilation included) to fit into the padded input of 0 x 8, but got a kernel of 3 x 3",
        input=Input((2, 4, 0, 8)),
    ),
    _error(
        "no_channels",
        ValueError,
        "input and weight to have at least one channel and one tap, "
        "but got input of size [2, 0, 8, 8] and weight of size [6, 0, 3, 3]",
        input=Input((2, 0, 8, 8)),
        weight=Input((6, 0, 3, 3)),
    ),
)

MIXED_DEVICES = (
    _error(
        "device_of_weight",
        RuntimeError,
        "weight to be on the device of input (cpu), but got meta",
        weight=Input(_W.size, device="meta"),
    ),
    _error(
        "device_of_bias",
        RuntimeError,
        "bias to be on the device of input (cpu), but got meta",
        bias=Input((6,), device="meta"),
    ),
)

# ---- derivatives -----------------------------------------------------------------------------------------------------


def _padded(sizes, pads) -> tuple[int, int]:
    return sizes[0] + pads[0] + pads[1], sizes[1] + pads[2] + pads[3]


def _native_conv(input, weight, stride, padding, dilation, groups):
    top, bottom, left, right = padding
    return F.conv2d(F.pad(input, (left, right, top, bottom)), weight, None, stride, 0, dilation, groups)


# The `0 * ...` ties a result to its inputs where torch does not: for empty batches.


def native_input_grad(grad_output, weight, input_size, *options, **named):
    input = grad_output.new_zeros(input_size).requires_grad_()
    with torch.enable_grad():
        output = _native_conv(input, weight, *options, **named)
        gradient = torch.autograd.grad(output, input, grad_output, create_graph=True)[0]
        return gradient + 0 * (grad_output.sum() + weight.sum())


def native_weight_grad(grad_output, input, weight_size, *options, **named):
    weight = grad_output.new_zeros(weight_size).requires_grad_()
    with torch.enable_grad():
        output = _native_conv(input, weight, *options, **named)
        gradient = torch.autograd.grad(output, weight, grad_output, create_graph=True)[0]
        return gradient + 0 * (grad_output.sum() + input.sum())


def derivative_samples(sample: Sample) -> tuple[Sample, Sample]:
    """The same layer as samples of conv2d_input_grad and conv2d_weight_grad."""
    input, weight, _ = sample.tensors
    assert len(input.size) == 4
    named, kernel = sample.arguments, weight.size[2:]
    stride, dilation = _both(named.get("stride", 1)), _both(named.get("dilation", 1))
    pads = references._pads(named.get("padding", 0), kernel, dilation)
    padded = _padded(input.size[2:], pads)
    map = [(padded[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    grad_output = Input((input.size[0], weight.size[0], *map), input.layout)
    options = {"stride": stride, "padding": pads, "dilation": dilation, "groups": named.get("groups", 1)}
    return (
        Sample(sample.name, (grad_output, weight), {"input_size": input.size, **options}, sample.cost),
        Sample(sample.name, (grad_output, input), {"weight_size": weight.size, **options}, sample.cost),
    )


def _derivative_spec(place: int, name: str, function, native, reference) -> OpSpec:
    def all_of(samples):
        return tuple(derivative_samples(sample)[place] for sample in samples if len(sample.tensors[0].size) == 4)

    tiny = all_of(TINY)
    return OpSpec(
        name=name,
        function=function,
        native=native,
        reference=reference,
        dispatcher_ops={name: lambda device: [_positional(sample, device) for sample in tiny]},
        samples=all_of(LAYERS + LENET_CHANNELS_LAST + EDGES + VIEWS),
        tiny=tiny,
        errors=_derivative_errors(name),
        strategy=calls().map(lambda sample: derivative_samples(sample)[place]),
        uses_float32_precision=True,
    )


def _derivative_errors(name: str) -> tuple[ErrorSample, ...]:
    second, size = ("weight", "input_size") if name == "conv2d_input_grad" else ("input", "weight_size")
    sizes = {"input": (2, 4, 8, 8), "weight": (6, 4, 3, 3)}
    options = {size: sizes[size[:-5]], "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    grad, other = Input((2, 6, 6, 6)), Input(sizes[second])

    def error(label, exception, message, grad=grad, other=other, **named):
        return ErrorSample(label, (grad, other), {**options, **named}, exception, f"{name}(): expected {message}")

    return (
        error(
            "grad_output_size",
            ValueError,
            "grad_output to have size [2, 6, 6, 6], but got [2, 6, 6, 5]",
            grad=Input((2, 6, 6, 5)),
        ),
        error(
            "grad_output_rank",
            ValueError,
            "grad_output to be 4-D, but got a 3-D tensor of size [6, 6, 6]",
            grad=Input((6, 6, 6)),
        ),
        error(
            "dtype",
            TypeError,
            f"{second} to have the dtype of grad_output (Float), but got Half",
            other=Input(other.size, dtype=torch.float16),
        ),
        error("stride_0", ValueError, "stride to be two integers of at least 1, but got [0, 1]", stride=(0, 1)),
    )


def _positional(sample: Sample, device: str) -> tuple:
    """Tensors that require grad, and the other arguments, as the op takes them."""
    tensors = [tensor.requires_grad_() for tensor in sample.make(torch.float32, device)]
    return (*tensors, *sample.arguments.values())


def _conv2d_arguments(device: str) -> list[tuple]:
    found = []
    for sample in TINY:
        if len(sample.tensors[0].size) == 4:
            weight_grad = derivative_samples(sample)[1]
            options = [weight_grad.arguments[name] for name in ("stride", "padding", "dilation", "groups")]
            tensors = sample.make(torch.float32, device)
            found.append((*(t if t is None else t.requires_grad_() for t in tensors), *options))
    detached = tuple(item.detach() if isinstance(item, torch.Tensor) else item for item in found[0])
    return [*found, detached]


SPECS = (
    OpSpec(
        name="conv2d",
        function=ops.conv2d,
        native=F.conv2d,
        reference=references.conv2d,
        dispatcher_ops={"conv2d": _conv2d_arguments},
        samples=LAYERS + LENET_CHANNELS_LAST + EDGES + VIEWS,
        tiny=TINY,
        errors=ERRORS,
        strategy=calls(),
        uses_float32_precision=True,
    ),
    _derivative_spec(0, "conv2d_input_grad", ops.conv2d_input_grad, native_input_grad, references.conv2d_input_grad),
    _derivative_spec(
        1, "conv2d_weight_grad", ops.conv2d_weight_grad, native_weight_grad, references.conv2d_weight_grad
    ),
)
