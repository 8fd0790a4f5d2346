"""conv2d with batch normalisation behind it, against the separate ops. What has running statistics, which are written
to, is in test_conv2d_batch_norm.py."""

from __future__ import annotations

import dataclasses

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample

from .convolution import calls, conv

_LAST = ("channels_last", "channels_last", "contiguous")
_NORM_NAMES = ("training", "momentum", "eps")


def _with_norm(sample: Sample, affine: bool = True, residual: str | None = None, **arguments) -> Sample:
    input, weight, _ = sample.tensors
    channels = Input((weight.size[0],)) if affine else None
    more = None
    if residual is not None:
        size = F.conv2d(
            torch.empty(input.size, device="meta"), torch.empty(weight.size, device="meta"), **sample.arguments
        )
        more = Input(tuple(size.shape), residual)
    tensors = (*sample.tensors, None, None, channels, channels, more)
    return dataclasses.replace(sample, tensors=tensors, arguments={**sample.arguments, "training": True, **arguments})


def _norm(name, size, outputs, kernel, layouts=("contiguous",) * 3, bias=True, **named) -> Sample:
    options = {key: named.pop(key) for key in ("affine", "residual", "activation", "eps") if key in named}
    return _with_norm(conv(name, size, outputs, kernel, bias, layouts, **named), **options)


SAMPLES = (
    _norm("resnet.stem.channels_last", (3, 1, 40, 40), 64, 7, _LAST, stride=2, padding=3, activation="relu"),
    _norm("resnet.conv1.channels_last", (3, 18, 24, 24), 20, 3, _LAST, padding=1, activation="relu"),
    _norm("resnet.conv2.channels_last", (3, 18, 12, 12), 34, 3, _LAST, padding=1, residual="channels_last"),
    _norm("resnet.conv2.add_relu", (2, 8, 9, 9), 12, 3, _LAST, padding=1, residual="contiguous", activation="relu"),
    _norm("resnet.downsample", (2, 17, 14, 14), 18, 3, stride=2, padding=1),
    _norm("bottleneck.1x1.channels_last", (3, 24, 23, 23), 70, 1, _LAST, activation="relu"),
    _norm("bottleneck.1x1", (2, 24, 7, 9), 10, 1),
    _norm("bn_lenet.conv1", (53, 1, 14, 12), 6, 5, padding=2, activation="sigmoid"),
    _norm("bn_lenet.conv1.channels_last", (53, 1, 14, 12), 6, 5, _LAST, padding=2, activation="sigmoid"),
    _norm("winograd", (2, 17, 25, 26), 19, 3, padding=1),
    _norm("winograd.5x5", (2, 18, 11, 9), 20, 5, padding=2, activation="tanh"),
    _norm("many_parts", (9, 3, 70, 40), 24, 3, _LAST),
    _norm("wide_rows", (2, 2, 3, 700), 70, 3, _LAST, padding=1),
    _norm("groups", (4, 6, 9, 8), 4, 3, groups=2, padding=1),
    _norm("groups.channels_last", (4, 6, 31, 33), 40, 3, _LAST, groups=2),
    _norm("depthwise", (3, 19, 9, 8), 19, 3, groups=19, padding=1, activation="tanh"),
    _norm("dilation", (2, 4, 15, 15), 5, 3, dilation=3, padding=3),
    _norm("no_bias", (4, 3, 8, 7), 4, 3, bias=False),
    _norm("not_affine", (4, 3, 8, 7), 4, 3, affine=False),
    _norm("same_even", (3, 3, 8, 7), 4, (4, 2), padding="same", eps=0.1),
    _norm("small_planes", (40, 5, 5, 5), 7, 3),
    _norm("one_pixel", (9, 5, 3, 3), 7, 3),
    _norm("empty_batch", (0, 3, 8, 8), 4, 3),
    *(
        _norm(f"layouts.{layout}", (3, 4, 9, 8), 6, 3, (layout, layout, "contiguous"), padding=1)
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
# Without a bias: its gradient, which normalisation removes, is rounding alone.
TINY = (
    _norm("tiny_sigmoid", (2, 2, 4, 4), 3, (3, 2), padding=1, bias=False, activation="sigmoid"),
    _norm("tiny", (2, 2, 4, 3), 2, (3, 2), bias=False, residual="contiguous"),
    _norm("tiny_not_affine", (3, 2, 3, 4), 2, 2, groups=2, bias=False, affine=False, activation="tanh"),
)


# ---- the separate ops: torch's, plain ones, and what bounds their rounding errors ------------------------------------

_ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def _composition(convolution, norm):
    def function(
        input,
        weight,
        bias,
        running_mean,
        running_var,
        norm_weight=None,
        norm_bias=None,
        residual=None,
        activation="none",
        **arguments,
    ):
        of_norm = {name: arguments.pop(name) for name in _NORM_NAMES if name in arguments}
        map = norm(
            convolution(input, weight, bias, **arguments), running_mean, running_var, norm_weight, norm_bias, **of_norm
        )
        return _ACTIVATIONS[activation](map if residual is None else map + residual)

    return function


def _majorant(
    input,
    weight,
    bias,
    running_mean,
    running_var,
    norm_weight=None,
    norm_bias=None,
    residual=None,
    activation="none",
    **arguments,
):
    """That of batch normalisation, of sums without cancellation; no activation is steeper than 1, nor is its
    derivative."""
    eps = arguments.pop("eps", 1e-5)
    geometry = {name: value for name, value in arguments.items() if name not in _NORM_NAMES}
    map = F.conv2d(input.detach(), weight.detach(), None if bias is None else bias.detach(), **geometry)
    distance = map - map.mean((0, 2, 3), keepdim=True)
    inverse = torch.rsqrt(distance.square().mean((0, 2, 3), keepdim=True) + eps)
    z = (distance * inverse).abs()
    x = F.conv2d(input.abs(), weight.abs(), None if bias is None else bias.abs(), **geometry)
    sums = x + x.mean((0, 2, 3), keepdim=True) + z * (x * z).mean((0, 2, 3), keepdim=True)
    output = 4 * inverse * sums * (1 + z)
    if norm_weight is not None:
        output = output * norm_weight.abs().view(-1, 1, 1)
    if norm_bias is not None:
        output = output + norm_bias.abs().view(-1, 1, 1)
    if residual is not None:
        output = output + residual.abs()
    return output if activation == "none" else output * (1 + output.detach())


@st.composite
def _drawn(draw) -> Sample:
    sample = draw(calls())
    sample = _with_norm(sample, draw(st.booleans()), draw(st.sampled_from((None, "contiguous", "transposed"))))
    size = sample.tensors[0].size
    input = dataclasses.replace(sample.tensors[0], size=(max(2, size[0]), *size[1:]))
    residual = sample.tensors[-1] and dataclasses.replace(
        sample.tensors[-1], size=(max(2, size[0]), *sample.tensors[-1].size[1:])
    )
    activation = draw(st.sampled_from(("none", "sigmoid", "tanh")))
    return dataclasses.replace(
        sample,
        tensors=(input, *sample.tensors[1:-1], residual),
        arguments={**sample.arguments, "activation": activation, "eps": 0.1},
    )


# ---- errors ----------------------------------------------------------------------------------------------------------

_X, _W, _C = Input((2, 4, 8, 8)), Input((6, 4, 3, 3)), Input((6,))


def _error(
    name,
    exception,
    message,
    input=_X,
    weight=_W,
    bias=_C,
    mean=None,
    var=None,
    norm_weight=_C,
    norm_bias=_C,
    residual=None,
    op="batch_norm",
    **options,
) -> ErrorSample:
    tensors = (input, weight, bias, mean, var, norm_weight, norm_bias, residual)
    return ErrorSample(name, tensors, {"training": True, **options}, exception, f"{op}(): expected {message}")


_ONE_VALUE = "to have size [6] (one value per channel of input), but got"
ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got list", op="conv2d_batch_norm", input=[1.0]),
    _error(
        "input_rank",
        ValueError,
        "input to be 4-D (N, C, H, W), but got a 3-D tensor of size [4, 8, 8]",
        op="conv2d_batch_norm",
        input=Input((4, 8, 8)),
    ),
    _error(
        "bias_size",
        ValueError,
        "bias to have size [6] (the output channels of weight), but got [4]",
        op="conv2d",
        bias=Input((4,)),
    ),
    _error("stride_0", ValueError, "stride to be two integers of at least 1, but got [0, 0]", op="conv2d", stride=0),
    _error(
        "padding_text",
        ValueError,
        "padding to be 'same', 'valid', an int or a pair, but got 'full'",
        op="conv2d",
        padding="full",
    ),
    _error(
        "one_value",
        ValueError,
        "input to have more than one value per channel in training, but got a tensor of size [1, 6, 1, 1]",
        input=Input((1, 4, 3, 3)),
    ),
    _error("running_mean_size", ValueError, f"running_mean {_ONE_VALUE} [4]", mean=Input((4,)), var=_C),
    _error(
        "running_var_dtype",
        TypeError,
        "running_var to have the dtype of input (Float), but got Double",
        mean=_C,
        var=Input((6,), dtype=torch.float64),
    ),
    _error(
        "one_running_mean",
        ValueError,
        "running_var to be a Tensor like the other running statistics, but got None",
        mean=_C,
    ),
    _error("norm_weight_size", ValueError, f"weight {_ONE_VALUE} [4]", norm_weight=Input((4,))),
    _error("norm_bias_no_tensor", TypeError, "bias to be a Tensor, but got float", norm_bias=1.0),
    _error(
        "residual_size",
        ValueError,
        "residual to have size [2, 6, 6, 6], but got [2, 6, 6, 1]",
        op="batch_norm_add",
        residual=Input((2, 6, 6, 1)),
    ),
    _error(
        "activation",
        ValueError,
        "activation to be one of none, relu, sigmoid, tanh, but got 'gelu'",
        activation="gelu",
    ),
    _error(
        "inference_without_mean",
        ValueError,
        "running_mean to be a Tensor in inference, but got None",
        var=_C,
        training=False,
    ),
)


def _moments(device: str) -> list[tuple]:
    found = []
    for images, bias in ((2, True), (3, False)):
        tensors = [Input(size).make(7, torch.float32, device) for size in ((images, 3, 6, 5), (4, 3, 3, 3), (4,))]
        if not bias:
            tensors[2] = None
        rest = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
        found += [
            (*tensors, *rest),
            (*(one if one is None else one.clone().requires_grad_() for one in tensors), *rest),
        ]
    return found


SPECS = (
    OpSpec(
        name="conv2d_batch_norm",
        function=ops.conv2d_batch_norm,
        native=_composition(F.conv2d, F.batch_norm),
        reference=_composition(references.conv2d, references.batch_norm),
        dispatcher_ops={"conv2d_moments": _moments},
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_drawn(),
        majorant=_majorant,
        uses_float32_precision=True,
    ),
)
