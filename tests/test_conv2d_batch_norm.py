"""A convolution that gathers the statistics of the batch normalisation behind it: what the spec, whose tensors are
never written to, leaves out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import DEVICES, DTYPES, dtype_name, not_about_kernels

import d2lkernels
from d2lkernels import nn, ops

on_devices = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
FORMATS = (torch.contiguous_format, torch.channels_last)
# Input and weight, stride and padding, groups.
SHAPES = {
    "direct": ((3, 5, 40, 41), (70, 5, 3, 3), 1, 0, 1),
    "stem": ((3, 1, 41, 40), (40, 1, 7, 7), 2, 3, 1),
    "winograd": ((3, 18, 26, 25), (34, 18, 3, 3), 1, 1, 1),
    "winograd.stride_2": ((2, 20, 40, 41), (33, 20, 3, 3), 2, 1, 1),
    "1x1": ((3, 24, 30, 31), (70, 24, 1, 1), 1, 0, 1),
    "images": ((53, 1, 14, 13), (6, 1, 5, 5), 1, 2, 1),
    "groups": ((2, 8, 30, 31), (40, 4, 3, 3), 1, 1, 2),
    "small": ((5, 6, 4, 4), (7, 6, 3, 3), 1, 0, 1),
}
# Maps that are summed while they are written, on the CPU.
LARGE = {
    "direct.large": ((4, 3, 90, 91), (70, 3, 3, 3), 1, 0, 1),
    "winograd.large": ((3, 18, 90, 90), (48, 18, 3, 3), 1, 1, 1),
    "1x1.large": ((3, 24, 60, 61), (70, 24, 1, 1), 1, 0, 1),
    "images.large": ((150, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1),
}


def _case(shape, dtype, device, format=torch.channels_last, mean=0.0):
    input_size, weight_size, stride, padding, groups = (SHAPES | LARGE)[shape]
    generator = torch.Generator().manual_seed(len(shape))
    draw = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).to(device.type)  # noqa: E731
    channels = weight_size[0]
    tensors = {
        "input": draw(*input_size).contiguous(memory_format=format),
        "weight": draw(*weight_size).contiguous(memory_format=format),
        "bias": draw(channels) + mean,
        "running_mean": draw(channels),
        "running_var": draw(channels).abs() + 0.5,
        "norm_weight": draw(channels),
        "norm_bias": draw(channels),
    }
    return tensors, {"stride": stride, "padding": padding, "groups": groups}


def _separate(input, weight, bias, running_mean, running_var, norm_weight, norm_bias, residual, activation, **geometry):
    map = ops.conv2d(input, weight, bias, **geometry)
    norm = (running_mean, running_var, norm_weight, norm_bias, True, 0.3)
    if residual is not None:
        return ops.batch_norm_add_relu(map, residual, *norm)
    return (ops.batch_norm_relu if activation == "relu" else ops.batch_norm)(map, *norm)


def _outcome(function, tensors, **options):
    """Output, the gradients of all but the running statistics, and these after the call."""
    copies = {name: None if one is None else one.clone() for name, one in tensors.items()}
    leaves = [one.requires_grad_() for name, one in copies.items() if one is not None and "running" not in name]
    output = function(**copies, **options)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(output)
    gradients = torch.autograd.grad(output, leaves, grad)
    return [output.detach(), *gradients, copies["running_mean"], copies["running_var"]]


def _fused(activation, **options):
    return ops.conv2d_batch_norm(**options, training=True, momentum=0.3, activation=activation)


@pytest.mark.parametrize("kind", ["none", "relu", "add_relu"])
@pytest.mark.parametrize("format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("shape", SHAPES)
@on_devices
def test_like_the_separate_ops(device, shape, dtype, format, kind):
    """On the CPU to the last bit: the statistics are summed in the same parts, and joined in the same order. (Those of
    16-bit maps are rounded to float32 on their way.)"""
    tensors, geometry = _case(shape, dtype, device, format)
    size = ops.conv2d(tensors["input"], tensors["weight"], **geometry)
    residual = torch.randn_like(size) if kind == "add_relu" else None
    activation = "none" if kind == "none" else "relu"
    options = {**geometry, "activation": activation}
    actual, expected = (_outcome(one, {**tensors, "residual": residual}, **options) for one in (_fused, _separate))
    for mine, theirs in zip(actual, expected, strict=True):
        if device.runs_cuda_kernels or dtype.itemsize == 2:
            scale = max(theirs.abs().max().item(), 1.0)  # the gradient of the bias is rounding alone
            torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5 * scale if dtype.itemsize > 2 else 2e-2 * scale)
        else:
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", SHAPES)
@on_devices
def test_mean_much_larger_than_deviation(device, shape, format):
    tensors, geometry = _case(shape, torch.float32, device, format)
    tensors["input"] *= 1e-3
    tensors["bias"] += 1e3
    map = ops.conv2d(tensors["input"], tensors["weight"], tensors["bias"], **geometry)
    expected = F.batch_norm(map.double(), None, None, training=True, eps=1e-12)
    actual = ops.conv2d_batch_norm(
        tensors["input"], tensors["weight"], tensors["bias"], None, None, training=True, eps=1e-12, **geometry
    )
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)
    _, mean, var = torch.ops.d2lkernels.conv2d_moments(
        tensors["input"],
        tensors["weight"],
        tensors["bias"],
        [geometry["stride"]] * 2,
        [geometry["padding"]] * 4,
        [1, 1],
        geometry["groups"],
    )
    exact = torch.var_mean(map.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, exact[1], rtol=1e-10, atol=0)
    torch.testing.assert_close(var, exact[0], rtol=1e-5, atol=0)


@not_about_kernels
@pytest.mark.parametrize("format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", LARGE)
def test_large_maps(shape, format):
    tensors, geometry = _case(shape, torch.float32, DEVICES[-1], format, mean=100.0)
    actual, expected = (
        _outcome(one, {**tensors, "residual": None}, activation="relu", **geometry) for one in (_fused, _separate)
    )
    for mine, theirs in zip(actual, expected, strict=True):
        assert torch.equal(mine, theirs)


@not_about_kernels
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE])
def test_threads_do_not_matter(shape):
    tensors, geometry = _case(shape, torch.float32, DEVICES[-1])
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(_outcome(_fused, {**tensors, "residual": None}, activation="relu", **geometry))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        assert torch.equal(results[0][-1], other[-1]) and torch.equal(results[0][-2], other[-2])


@on_devices
def test_wrong_calls_change_nothing(device):
    tensors, geometry = _case("small", torch.float32, device)
    before = {name: one.clone() for name, one in tensors.items()}
    for padding in (0, "valid"):
        for wrong in ({"norm_bias": torch.ones(3)}, {"residual": torch.ones(1)}, {"running_var": torch.ones(3)}):
            with pytest.raises(ValueError, match="expected"):
                _fused("relu", **{**tensors, **geometry, "padding": padding, **wrong})
    for name, one in tensors.items():
        assert torch.equal(one, before[name])


@not_about_kernels
@pytest.mark.parametrize("momentum", [0.1, None, 1])
def test_unusual_arguments_take_the_long_way(momentum):
    tensors, _ = _case("winograd", torch.float32, DEVICES[-1])
    ours, theirs = nn.BatchNorm2d(34, momentum=momentum), torch.nn.BatchNorm2d(34, momentum=momentum)
    for padding in ("same", (1, 1), [1, 1]):
        layers = [one for norm in (ours, theirs) for one in (nn.Conv2d(18, 34, 3, padding=1), norm)]
        layers[0].padding = padding
        layers[2].load_state_dict(layers[0].state_dict())
        outputs = [
            nn.Sequential(*layers[:2])(tensors["input"]),
            torch.nn.Sequential(*layers[2:])(tensors["input"]),
        ]
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
        for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(mine, other)


def _ops_of(model, input) -> list[str]:
    with torch.profiler.profile() as profile:
        model(input)
    return [event.name.removeprefix("d2lkernels::") for event in profile.events() if "d2lkernels" in event.name]


def _net(own=nn) -> torch.nn.Module:
    torch.manual_seed(0)
    return own.Sequential(
        own.Conv2d(3, 40, 3, padding=1),
        own.BatchNorm2d(40),
        own.ReLU(),
        own.MaxPool2d(2),
        own.Sequential(own.Conv2d(40, 33, 1, bias=False), own.BatchNorm2d(33)),
        own.Sigmoid(),
    )


def _input() -> torch.Tensor:
    return torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(3))


@not_about_kernels
def test_sequential_takes_two_ops():
    model, input = _net(), _input()
    native = d2lkernels.convert(copy.deepcopy(model), to="torch")
    assert _ops_of(model, input).count("conv2d_moments") == 2
    native(input)
    for _ in range(2):
        ours, theirs = model(input), native(input)
        torch.testing.assert_close(ours, theirs)
        ours.square().sum().backward()
        theirs.square().sum().backward()
    for mine, other in zip(model.parameters(), native.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)
    for mine, other in zip(model.buffers(), native.buffers(), strict=True):
        torch.testing.assert_close(mine, other)
    assert "conv2d_moments" not in _ops_of(model.eval(), input)


@not_about_kernels
def test_compile_export_and_checkpoint():
    model, input = _net(), _input()
    expected = copy.deepcopy(model)
    checkpointed = copy.deepcopy(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    outputs = [compiled(input), expected(input)]
    outputs.append(torch.utils.checkpoint.checkpoint(checkpointed, input, use_reentrant=False))
    for output in outputs:
        output.square().sum().backward()
    for output, owner in zip(outputs, (model, expected, checkpointed), strict=True):
        torch.testing.assert_close(output, outputs[1])
        for mine, other in zip(owner.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)
    for mine, other in zip(model.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(mine, other)
    exported = torch.export.export(model, (input,))
    torch.testing.assert_close(exported.module()(input), model(input))


@not_about_kernels
def test_hooks_and_other_paddings_keep_the_layers_apart():
    model, input, seen = _net(), _input(), []
    expected = model(input)
    model[0].register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model(input), expected)
    assert seen == [1] and _ops_of(model, input).count("conv2d_moments") == 1
    model[0].padding_mode = "reflect"
    native = d2lkernels.convert(copy.deepcopy(model), to="torch")
    torch.testing.assert_close(model(input), native(input))
