"""What a wrong call says, word for word: run eagerly, on meta tensors and under torch.compile."""

import inspect

import pytest
import torch
from cases import DEVICES, not_about_kernels
from specs import SPECS
from specs.convolution import MIXED_DEVICES

from d2lkernels import _C, config, nn, ops

# The short way to ops, see csrc/calls.cpp.
SHORT = (
    *("relu", "sigmoid", "tanh", "softmax", "log_softmax", "cross_entropy", "mse_loss"),
    *("conv2d", "conv2d_fused", "conv2d_batch_norm", "normalize", "concat_convolutions", "dense_block"),
    *("linear", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
)
ERRORS = [(spec.function, error, f"{spec.name}-{error.name}") for spec in SPECS for error in spec.errors]
MIXED = [(ops.conv2d, error, f"conv2d-{error.name}") for error in MIXED_DEVICES]


def _parameters(cases):
    return pytest.mark.parametrize(
        "function, error", [pytest.param(function, error, id=name) for function, error, name in cases]
    )


def _raised(function, arguments, error):
    before = [one.clone() if isinstance(one, torch.Tensor) else one for one in arguments]
    with pytest.raises(error.exception) as caught:
        function(*arguments, **error.options)
    for one, copy in zip(arguments, before, strict=True):
        assert not isinstance(one, torch.Tensor) or one.is_meta or torch.equal(one, copy), "an input was written to"
    return caught.value


@pytest.mark.parametrize("device", DEVICES[-1:], ids=lambda device: device.name)
@_parameters(ERRORS)
def test_error(device, function, error):
    raised = _raised(function, error.make(device.type), error)
    assert type(raised) is error.exception
    assert str(raised) == error.message


@not_about_kernels
@_parameters(ERRORS)
def test_error_of_the_general_way(monkeypatch, function, error):
    for name in SHORT:
        monkeypatch.setattr(_C, name, lambda *_: None)
    assert str(_raised(function, error.make("cpu"), error)) == error.message


@not_about_kernels
@_parameters(ERRORS)
def test_error_with_grad(function, error):
    arguments = [
        one.requires_grad_() if isinstance(one, torch.Tensor) and one.is_floating_point() else one
        for one in error.make("cpu")
    ]
    with pytest.raises(error.exception) as caught:
        function(*arguments, **error.options)
    assert str(caught.value) == error.message


@not_about_kernels
@_parameters(ERRORS)
def test_error_on_meta(function, error):
    assert str(_raised(function, error.make("meta"), error)) == error.message


@not_about_kernels
@_parameters(MIXED)
def test_error_of_devices(function, error):
    assert str(_raised(function, error.make("cpu"), error)) == error.message


@not_about_kernels
@_parameters(ERRORS)  # of mixed devices torch.compile itself complains first
def test_error_under_compile(function, error):
    torch._dynamo.reset()
    arguments = error.make("cpu")
    compiled = torch.compile(lambda *tensors: function(*tensors, **error.options), backend="eager", fullgraph=True)
    with pytest.raises(Exception) as caught:
        compiled(*arguments)
    assert error.message in _whole_text(caught.value)


def _whole_text(error: BaseException | None) -> str:
    parts = []
    while error is not None:
        parts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


@not_about_kernels
def test_unknown_capability():
    with pytest.raises(ValueError) as caught:
        config.set_cpu_capability("mmx")
    expected = "set_cpu_capability(): expected name to be one of baseline, avx2, avx512, amx, but got 'mmx'"
    assert str(caught.value) == expected


@not_about_kernels
def test_mixed_devices_under_compile():
    weight = torch.ones(4, 3, 3, 3)
    compiled = torch.compile(lambda input: ops.conv2d(input, weight), fullgraph=True, backend="eager")
    message = r"conv2d\(\): expected weight to be on the device of input \(meta\), but got cpu"
    with pytest.raises(RuntimeError, match=message):
        compiled(torch.ones(2, 3, 8, 8, device="meta"))


CONSTRUCTORS = (
    ("BatchNorm2d", (-3,), {}, "num_features to be at least 1, but got -3"),
    ("BatchNorm1d", (0,), {"affine": False}, "num_features to be at least 1, but got 0"),
    ("Conv2d", (0, 4, 3), {}, "in_channels to be at least 1, but got 0"),
    ("Conv2d", (3, -4, 3), {}, "out_channels to be at least 1, but got -4"),
    ("Conv2d", (3, 4, (3, 0)), {}, "kernel_size to be at least 1, but got (3, 0)"),
    ("Conv2d", (3, 4, 3), {"stride": 0}, "stride to be at least 1, but got 0"),
    ("Conv2d", (3, 4, 3), {"padding": (0, -1)}, "padding to be at least 0, but got (0, -1)"),
    ("Conv1d", (3, 4, 3), {"dilation": 0}, "dilation to be at least 1, but got 0"),
    ("Conv1d", (3, 4, -1), {}, "kernel_size to be at least 1, but got -1"),
    ("LazyConv2d", (-1, 3), {}, "out_channels to be at least 1, but got -1"),
    ("Linear", (-1, 3), {}, "in_features to be at least 0, but got -1"),
    ("LazyLinear", (-2,), {}, "out_features to be at least 0, but got -2"),
    ("MaxPool2d", (0,), {}, "kernel_size to be at least 1, but got 0"),
    ("AvgPool2d", (2,), {"stride": (1, 0)}, "stride to be at least 1, but got (1, 0)"),
    ("AvgPool2d", (2,), {"divisor_override": 0}, "divisor_override to be at least 1, but got 0"),
    ("AdaptiveAvgPool2d", ((-1, None),), {}, "output_size to be at least 0, but got (-1, None)"),
)


@not_about_kernels
@pytest.mark.parametrize(
    "name, args, options, message",
    [pytest.param(*one, id=f"{one[0]}-{one[3].split()[0]}-{i}") for i, one in enumerate(CONSTRUCTORS)],
)
def test_arguments_of_layers(name, args, options, message):
    with pytest.raises(ValueError) as caught:
        getattr(nn, name)(*args, **options)
    assert str(caught.value) == f"{name}(): expected {message}"


@not_about_kernels
def test_layers_keep_the_signatures_of_torch():
    for name in {one[0] for one in CONSTRUCTORS}:
        assert inspect.signature(getattr(nn, name)) == inspect.signature(getattr(torch.nn, name))
    with pytest.raises(TypeError, match=r"Conv2d\(\): expected kernel_size to be an int, but got 2.5"):
        nn.Conv2d(3, 4, 2.5)
    assert nn.Conv2d(3, 4, kernel_size=[3, 1], padding="same").kernel_size == (3, 1)
    assert nn.MaxPool2d(2, stride=None).stride == 2 and nn.AdaptiveAvgPool2d((None, 2)).output_size == (None, 2)


# What may never go unsaid, and the error samples that hold the text. Targets out of range are in tests/test_losses.py,
# since they are no error on CUDA devices; numbers of features are above.
PROMISED = {
    "one value per channel in training": {"batch_norm-one_value", "dense_block-one_value"},
    "dtypes of targets": {"cross_entropy-target_dtype"},
    "p outside of [0, 1]": {"dropout-p_too_large", "dropout-p_negative"},
    "sizes of what is joined": {"concat-size", "concat_convolutions-size"},
}


@not_about_kernels
def test_promised_errors_have_samples():
    names = {name for _, _, name in ERRORS}
    assert {what: samples - names for what, samples in PROMISED.items() if samples - names} == {}


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    "size, window, offset",
    [
        ((2, 3, 5, 5), [5, 5, 5, 5, 0, 0, 1, 1], 30),  # whole maps
        ((2, 3, 6, 6), [3, 3, 1, 1, 1, 1, 1, 1], 200),
        ((2, 3, 10, 10), [2, 2, 2, 2, 0, 0, 1, 1], 4),
        ((2, 3, 20, 70), [2, 2, 2, 2, 0, 0, 1, 1], 255),
        ((1, 2, 40, 40), [17, 18, 3, 2, 8, 9, 1, 1], 2**30),
        ((1, 2, 40, 40), [17, 18, 3, 2, 8, 9, 1, 1], -7),
    ],
    ids=str,
)
def test_offsets_that_no_forward_pass_made(device, layout, size, window, offset):
    """Offsets are a tensor that anyone may write: a gradient that they point outside of its window is dropped."""
    wide = window[0] * window[1] > 256
    maps = [(s + 2 * window[4 + i] - window[i]) // window[2 + i] + 1 for i, s in enumerate(size[2:])]
    grad = torch.ones(*size[:2], *maps, device=device.type).to(memory_format=layout)
    offsets = torch.full_like(grad, offset, dtype=torch.int32 if wide else torch.uint8)
    with device.active():
        assert not torch.ops.d2lkernels.max_pool2d_input_grad(grad, offsets, size, window).any()
