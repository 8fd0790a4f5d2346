"""Batch normalisation. What has running statistics, which are written to, is in test_batch_norm.py."""

from __future__ import annotations

import math
from dataclasses import replace

import references
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from d2lkernels import ops
from d2lkernels.testing import ErrorSample, Input, OpSpec, Sample


def norm(name: str, size: tuple[int, ...], layout: str = "contiguous", affine: bool = True, **arguments) -> Sample:
    parameters = (Input((size[1],)), Input((size[1],))) if affine else (None, None)
    return Sample(
        name, (Input(size, layout), None, None, *parameters), {"training": True, **arguments}, math.prod(size)
    )


SAMPLES = (
    norm("lenet.bn1", (16, 6, 28, 28)),
    norm("lenet.bn1.channels_last", (16, 6, 28, 28), "channels_last"),
    norm("lenet.bn3", (64, 120)),
    norm("resnet.bn", (2, 64, 24, 24)),
    norm("resnet.bn.channels_last", (2, 64, 24, 24), "channels_last"),
    norm("densenet.bn.channels_last", (2, 96, 9, 9), "channels_last"),
    norm("sequence", (3, 5, 37)),
    norm("volume", (2, 3, 4, 5, 6)),
    norm("one_channel", (3, 1, 9, 11)),
    norm("one_channel_columns", (37, 1)),
    norm("many_channels", (5, 301)),
    norm("odd_channels_last", (3, 67, 5, 3), "channels_last"),
    norm("few_channels_last", (2, 3, 7, 5), "channels_last"),
    norm("small_planes", (70, 9, 3, 3)),
    norm("small_planes_few_channels", (45, 2, 2, 3)),
    norm("long_planes", (1, 2, 67, 71)),
    norm("two_values", (2, 4, 1, 1)),
    norm("width_1", (2, 3, 9, 1)),
    norm("not_affine", (4, 7, 6, 5), affine=False),
    norm("not_affine_channels_last", (4, 20, 6, 5), "channels_last", affine=False),
    norm("large_eps", (4, 7, 6, 5), eps=0.5),
    norm("empty_batch", (0, 3, 8, 8)),
    *(
        norm(f"layouts.{layout}", (3, 5, 8, 9), layout)
        for layout in ("channels_last", "transposed", "strided", "expanded", "unaligned")
    ),
)
TINY = (
    norm("tiny", (3, 2, 2, 3)),
    norm("tiny_columns", (5, 3), eps=1e-3),
    norm("tiny_not_affine", (3, 2, 4), affine=False),
)

_X, _C = Input((2, 4, 8, 8)), Input((4,))


def _error(name, exception, message, input=_X, mean=None, var=None, weight=_C, bias=_C, **options) -> ErrorSample:
    options = {"training": True, **options}
    return ErrorSample(name, (input, mean, var, weight, bias), options, exception, f"batch_norm(): expected {message}")


def _per_channel(name: str) -> tuple[ErrorSample, ...]:
    statistics = {"mean": _C, "var": _C} if name.startswith("running") else {}
    argument = name.removeprefix("running_")
    return (
        _error(
            f"{name}_size",
            ValueError,
            f"{name} to have size [4] (one value per channel of input), but got [3]",
            **{**statistics, argument: Input((3,))},
        ),
        _error(
            f"{name}_dtype",
            TypeError,
            f"{name} to have the dtype of input (Float), but got Double",
            **{**statistics, argument: Input((4,), dtype=torch.float64)},
        ),
        _error(
            f"{name}_dtype_16_bit",
            TypeError,
            f"{name} to have the dtype of input (Half) or Float, but got BFloat16",
            input=Input(_X.size, dtype=torch.float16),
            **{**statistics, argument: Input((4,), dtype=torch.bfloat16)},
        ),
        _error(
            f"{name}_no_tensor", TypeError, f"{name} to be a Tensor, but got float", **{**statistics, argument: 1.0}
        ),
    )


_RUNNING_MISSING = "to be a Tensor like the other running statistics, but got None"
ERRORS = (
    _error("input_no_tensor", TypeError, "input to be a Tensor, but got list", input=[1.0]),
    _error(
        "input_rank", ValueError, "input to be at least 2-D (N, C, ...), but got a 1-D tensor of size [4]", input=_C
    ),
    _error(
        "dtype_int64",
        TypeError,
        "input to be float32, float64, bfloat16 or float16, but got Long",
        input=Input(_X.size, dtype=torch.int64),
    ),
    _error(
        "one_value",
        ValueError,
        "input to have more than one value per channel in training, but got a tensor of size [1, 4, 1, 1]",
        input=Input((1, 4, 1, 1)),
    ),
    _error(
        "one_value_columns",
        ValueError,
        "input to have more than one value per channel in training, but got a tensor of size [1, 4]",
        input=Input((1, 4)),
    ),
    *_per_channel("weight"),
    *_per_channel("bias"),
    *_per_channel("running_mean"),
    *_per_channel("running_var"),
    _error("one_running_mean", ValueError, f"running_var {_RUNNING_MISSING}", mean=_C),
    _error("one_running_var", ValueError, f"running_mean {_RUNNING_MISSING}", var=_C),
    *(
        _error(
            f"inference_without_{missing}",
            ValueError,
            f"running_{missing} to be a Tensor in inference, but got None",
            training=False,
            **{"mean": _C, "var": _C, missing: None},
        )
        for missing in ("mean", "var")
    ),
    _error(
        "inference_running_mean_size",
        ValueError,
        "running_mean to have size [4] (one value per channel of input), but got [5]",
        mean=Input((5,)),
        var=_C,
        training=False,
    ),
    _error(
        "inference_running_var_dtype",
        TypeError,
        "running_var to have the dtype of input (Float), but got Half",
        mean=_C,
        var=Input((4,), dtype=torch.float16),
        training=False,
    ),
)


@st.composite
def _calls(draw) -> Sample:
    rank = draw(st.integers(2, 5))
    size = (draw(st.integers(2, 9)), draw(st.integers(1, 40)), *(draw(st.integers(1, 9)) for _ in range(rank - 2)))
    layouts = ("contiguous", "transposed", "strided", "unaligned", *(["channels_last"] if rank == 4 else []))
    return norm(
        "drawn", size, draw(st.sampled_from(layouts)), draw(st.booleans()), eps=draw(st.sampled_from((1e-5, 0.1)))
    )


# Statistics of many values, which the float64 expected values have errors of, too.
_STATISTICS_ERROR = 4.0


def _majorant(input, running_mean, running_var, weight=None, bias=None, training=True, eps=1e-5):
    """weight / deviation * (|x| + mean(|x|) + |z| mean(|x z|)) + |bias|: the gradient has the same three terms, too."""
    axes = [0, *range(2, input.dim())]
    along = lambda values: values.abs().view(-1, *(1 for _ in axes[1:]))  # noqa: E731
    exact = input.detach()
    distance = exact - exact.mean(axes, keepdim=True)
    inverse = torch.rsqrt(distance.square().mean(axes, keepdim=True) + eps)
    x, z = input.abs(), (distance * inverse).abs()
    sums = x + x.mean(axes, keepdim=True) + z * (x * z).mean(axes, keepdim=True)
    output = sums * inverse * _STATISTICS_ERROR
    if weight is not None:
        output = output * along(weight)
    return output if bias is None else output + along(bias)


def _with_added_majorant(input, residual, *rest, **arguments):
    return _majorant(input, *rest, **arguments) + residual.abs()


# ---- fused with what follows -----------------------------------------------------------------------------------------

_FUSED = (
    "lenet.bn1",
    "lenet.bn1.channels_last",
    "resnet.bn.channels_last",
    "sequence",
    "many_channels",
    "odd_channels_last",
    "few_channels_last",
    "small_planes",
    "long_planes",
    "two_values",
    "not_affine",
    "not_affine_channels_last",
    "large_eps",
    "empty_batch",
    "layouts.channels_last",
    "layouts.transposed",
    "layouts.strided",
    "layouts.expanded",
)
FUSED_SAMPLES = tuple(sample for sample in SAMPLES if sample.name in _FUSED)


def _with_residual(sample: Sample, layout: str | None = None) -> Sample:
    input = sample.tensors[0]
    residual = Input(input.size, layout or input.layout)
    return replace(sample, tensors=(input, residual, *sample.tensors[1:]))


ADD_SAMPLES = (
    *(_with_residual(sample) for sample in FUSED_SAMPLES),
    _with_residual(norm("residual_channels_last", (3, 5, 8, 9)), "channels_last"),
    _with_residual(norm("residual_contiguous", (3, 20, 8, 9), "channels_last"), "contiguous"),
)


def _then(activation, function):
    """function, and then the activation, as two ops."""
    return lambda *tensors, **arguments: activation(function(*tensors, **arguments))


def _with_added(function):
    return lambda input, residual, *rest, **arguments: function(input, *rest, **arguments) + residual


def _fused_errors(name: str) -> tuple[ErrorSample, ...]:
    chosen = ("input_rank", "one_value", "weight_size", "running_mean_dtype", "inference_without_mean")
    return tuple(
        replace(error, message=error.message.replace("batch_norm()", f"{name}()"))
        for error in ERRORS
        if error.name in chosen
    )


def _residual_error(name: str, exception, message: str, residual) -> ErrorSample:
    arguments = (_X, residual, None, None, _C, _C)
    return ErrorSample(name, arguments, {"training": True}, exception, f"batch_norm_add_relu(): expected {message}")


ADD_ERRORS = (
    *(
        replace(error, arguments=(error.arguments[0], error.arguments[0], *error.arguments[1:]))
        for error in _fused_errors("batch_norm_add_relu")
    ),
    _residual_error("residual_no_tensor", TypeError, "residual to be a Tensor, but got float", 1.0),
    _residual_error(
        "residual_size",
        ValueError,
        "residual to have size [2, 4, 8, 8], but got [2, 4, 8, 1]",
        Input((2, 4, 8, 1)),
    ),
    _residual_error(
        "residual_dtype",
        TypeError,
        "residual to have the dtype of input (Float), but got Double",
        Input((2, 4, 8, 8), dtype=torch.float64),
    ),
)


@st.composite
def _add_calls(draw) -> Sample:
    return _with_residual(draw(_calls()))


# ---- the ops as the dispatcher knows them ----------------------------------------------------------------------------


def _tensors(device: str) -> tuple[torch.Tensor, ...]:
    """input, grad_output, residual, output, weight, bias, mean, var."""
    sizes = (*((3, 4, 5, 6) for _ in range(4)), *((4,) for _ in range(4)))
    made = [Input(size).make(i, torch.float32, device) for i, size in enumerate(sizes)]
    made[6], made[7] = made[0].double().mean((0, 2, 3)), made[0].double().var((0, 2, 3), correction=0)
    return tuple(made)


def _arguments(make):
    """With tensors that require grad, and with others."""

    def arguments(device: str) -> list[tuple]:
        tensors = _tensors(device)
        with_grad = [tensor.clone().requires_grad_() for tensor in tensors[:6]]
        return [*make(*with_grad, *tensors[6:]), *make(*tensors)]

    return arguments


def _running(x):
    """running_mean, running_var and num_batches_tracked."""
    return x.new_zeros(4).detach(), x.new_ones(4).detach(), torch.zeros((), dtype=torch.int64, device=x.device)


DISPATCHER_OPS = {
    "batch_norm_train": _arguments(
        lambda x, dy, r, y, w, b, mean, var: [
            (x, None, None, None, w, b, 1e-5, "none"),
            (x, None, None, None, None, None, 0.1, "none"),
            (x, r, mean, var, w, b, 1e-5, "relu"),
        ]
    ),
    "batch_norm_train_update": _arguments(
        lambda x, dy, r, y, w, b, mean, var: [
            (x, None, None, None, w, b, *_running(x), 0.1, 1e-5, "none"),
            (x, None, None, None, None, None, *_running(x), None, 1e-5, "relu"),
            (x, r, None, None, w, b, *_running(x)[:2], None, 0.3, 1e-5, "relu"),
            (x, r, mean, var, w, b, *_running(x), 0.1, 1e-5, "relu"),
        ]
    ),
    "batch_norm_infer": _arguments(
        lambda x, dy, r, y, w, b, mean, var: [
            (x, None, mean, var, w, b, 1e-5, "none"),
            (x, None, mean.float(), var.float(), None, None, 0.1, "none"),
        ]
    ),
    "batch_norm_train_grad": _arguments(
        lambda x, dy, r, y, w, b, mean, var: [
            (dy, x, None, w, None, mean, var, 1e-5, "none"),
            (dy, x, None, None, None, mean, var, 1e-5, "none"),
        ]
    ),
    "batch_norm_weight_grad": _arguments(lambda x, dy, r, y, w, b, mean, var: [(dy, x, mean, var, 1e-5)]),
}
ADD_DISPATCHER_OPS = {
    "batch_norm_add_train_grad": _arguments(
        lambda x, dy, r, y, w, b, mean, var: [
            (dy, x, y.relu().detach(), w, b, mean, var, 1e-5, "relu"),
            (dy, x, y.sigmoid().detach(), None, None, mean, var, 1e-5, "sigmoid"),
        ]
    ),
}

SPECS = (
    OpSpec(
        name="batch_norm",
        function=ops.batch_norm,
        native=F.batch_norm,
        reference=references.batch_norm,
        dispatcher_ops=DISPATCHER_OPS,
        samples=SAMPLES,
        tiny=TINY,
        errors=ERRORS,
        strategy=_calls(),
        majorant=_majorant,
    ),
    *(
        OpSpec(
            name=f"batch_norm_{name}",
            function=function,
            native=_then(activation, F.batch_norm),
            reference=_then(activation, references.batch_norm),
            dispatcher_ops={},
            samples=FUSED_SAMPLES,
            tiny=TINY,
            errors=_fused_errors(f"batch_norm_{name}"),
            strategy=_calls(),
            majorant=_majorant,
        )
        for name, function, activation in (
            ("relu", ops.batch_norm_relu, torch.relu),
            ("sigmoid", ops.batch_norm_sigmoid, torch.sigmoid),
        )
    ),
    OpSpec(
        name="batch_norm_add_relu",
        function=ops.batch_norm_add_relu,
        native=_then(torch.relu, _with_added(F.batch_norm)),
        reference=_then(torch.relu, _with_added(references.batch_norm)),
        dispatcher_ops=ADD_DISPATCHER_OPS,
        samples=ADD_SAMPLES,
        tiny=tuple(_with_residual(sample) for sample in TINY),
        errors=ADD_ERRORS,
        strategy=_add_calls(),
        majorant=_with_added_majorant,
    ),
)
