"""Batch normalisation. What has running statistics, which are written to, is in test_batch_norm.py."""

from __future__ import annotations

import math

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


# ---- the ops as the dispatcher knows them ----------------------------------------------------------------------------


def _tensors(device: str) -> tuple[torch.Tensor, ...]:
    """input, grad_output, weight, bias, mean, var."""
    sizes = ((3, 4, 5, 6), (3, 4, 5, 6), (4,), (4,), (4,), (4,))
    made = [Input(size).make(i, torch.float32, device) for i, size in enumerate(sizes)]
    made[4], made[5] = made[0].double().mean((0, 2, 3)), made[0].double().var((0, 2, 3), correction=0)
    return tuple(made)


def _arguments(make):
    """With tensors that require grad, and with others."""

    def arguments(device: str) -> list[tuple]:
        tensors = _tensors(device)
        with_grad = [tensor.clone().requires_grad_() for tensor in tensors[:4]]
        return [*make(*with_grad, *tensors[4:]), *make(*tensors)]

    return arguments


DISPATCHER_OPS = {
    "batch_norm_train": _arguments(lambda x, dy, w, b, mean, var: [(x, w, b, 1e-5), (x, None, None, 0.1)]),
    "batch_norm_infer": _arguments(
        lambda x, dy, w, b, mean, var: [(x, mean, var, w, b, 1e-5), (x, mean.float(), var.float(), None, None, 0.1)]
    ),
    "batch_norm_train_grad": _arguments(
        lambda x, dy, w, b, mean, var: [(dy, x, w, mean, var, 1e-5), (dy, x, None, mean, var, 1e-5)]
    ),
    "batch_norm_weight_grad": _arguments(lambda x, dy, w, b, mean, var: [(dy, x, mean, var, 1e-5)]),
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
)
