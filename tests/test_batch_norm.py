"""Batch normalisation with running statistics: what the specs, whose tensors are never written to, leave out."""

import itertools

import pytest
import references
import torch
import torch.nn.functional as F
from cases import DEVICES, DTYPES, ONE_PER_TYPE, dtype_name, not_about_kernels

from d2lkernels import nn, ops

SIZES = ((9, 5), (4, 6, 11), (3, 5, 8, 7), (70, 9, 3, 3), (2, 67, 5, 4), (2, 3, 4, 5, 6))
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 3e-3}
FORMATS = (torch.contiguous_format, torch.channels_last)

on_devices = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
on_one_device = pytest.mark.parametrize("device", ONE_PER_TYPE, ids=lambda device: device.name)


def _case(size, dtype, device, parameter_dtype=None, format=torch.contiguous_format):
    """input, running_mean, running_var, weight, bias."""
    generator = torch.Generator().manual_seed(sum(size))
    draw = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    input = (draw(*size) * 2 + 3).to(dtype)
    if len(size) == 4:
        input = input.contiguous(memory_format=format)
    channels = [draw(size[1]), draw(size[1]).abs() + 0.5, draw(size[1]), draw(size[1])]
    return [input.to(device.type), *(one.to(parameter_dtype or dtype).to(device.type) for one in channels)]


def _outcome(function, tensors, **options):
    """Output, gradients for input, weight and bias, and the running statistics after the call."""
    input, mean, var, weight, bias = (tensor.clone() for tensor in tensors)
    leaves = [one.requires_grad_() for one in (input, weight, bias)]
    output = function(input, mean, var, weight, bias, **options)
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(output, leaves, grad_output.to(output))
    return [output.detach(), *gradients, mean, var]


def _assert_close(actual, expected, tolerance):
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.dtype == theirs.dtype
        scale = theirs.abs().max().double().item()
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=0, atol=tolerance * max(scale, 1e-3))


@pytest.mark.parametrize("format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@on_devices
def test_like_native(device, dtype, training, format):
    for size in SIZES:
        tensors = _case(size, dtype, device, format=format)
        options = {"training": training, "momentum": 0.3, "eps": 1e-3}
        _assert_close(
            _outcome(ops.batch_norm, tensors, **options), _outcome(F.batch_norm, tensors, **options), TOLERANCE[dtype]
        )


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dtype", DTYPES[2:], ids=dtype_name)
@on_devices
def test_float32_parameters_of_16_bit_maps(device, dtype, training):
    for size in SIZES[2:4]:
        tensors = _case(size, dtype, device, parameter_dtype=torch.float32)
        actual = _outcome(ops.batch_norm, tensors, training=training)
        _assert_close(actual, _outcome(F.batch_norm, tensors, training=training), TOLERANCE[dtype])


@pytest.mark.parametrize("format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("size", [(8, 5, 16, 16), (64, 5, 3, 3), (2, 70, 13, 11)], ids=str)
@on_devices
def test_mean_much_larger_than_deviation(device, size, format):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(size, generator=generator, dtype=torch.float64) * 1e-2 + 1e4
    input = values.float().contiguous(memory_format=format).to(device.type)
    grad_output = torch.randn(size, generator=generator).to(device.type)
    exact = input.double().requires_grad_()
    expected = F.batch_norm(exact, None, None, training=True)
    expected.backward(grad_output.double())
    input.requires_grad_()
    mean, var = torch.zeros(size[1], device=device.type), torch.zeros(size[1], device=device.type)
    output = ops.batch_norm(input, mean, var, training=True, momentum=1.0)
    output.backward(grad_output)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(input.grad.double(), exact.grad, rtol=0, atol=2e-6 * exact.grad.abs().max().item())
    torch.testing.assert_close(var.double(), exact.detach().var((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(mean.double(), exact.detach().mean((0, 2, 3)), rtol=1e-7, atol=0)


@on_devices
def test_outlier_first(device):
    """Distances from a value far from all the others cost no more than the outlier itself."""
    input = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(2)) * 1e-2 + 1e4
    input[0, :, 0, 0] = 0
    for format in FORMATS:
        given = input.contiguous(memory_format=format).to(device.type)
        expected = F.batch_norm(given.double(), None, None, training=True)
        actual = ops.batch_norm(given, None, None, training=True)
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-6)


@not_about_kernels
def test_running_statistics_of_nothing_are_kept():
    mean, var = torch.ones(3), torch.ones(3)
    output = ops.batch_norm(torch.empty(0, 3, 4, 4), mean, var, training=True)
    assert output.shape == (0, 3, 4, 4)
    assert torch.equal(mean, torch.ones(3)) and torch.equal(var, torch.ones(3))


@not_about_kernels
def test_running_statistics_are_not_differentiated():
    input, mean, var = torch.randn(4, 3), torch.zeros(3, requires_grad=True), torch.ones(3)
    with pytest.raises(NotImplementedError, match="running_mean and running_var not to require grad"):
        ops.batch_norm(input, mean, var)
    with pytest.raises(NotImplementedError, match="running_mean and running_var not to be differentiated"):
        torch.func.jvp(lambda mean: ops.batch_norm(input, mean, var), (mean.detach(),), (var,))


@not_about_kernels
def test_update_is_seen_by_autograd():
    """Statistics that a backward pass needs must not change unnoticed."""
    input, mean, var = torch.randn(4, 3, requires_grad=True), torch.zeros(3), torch.ones(3)
    output = ops.batch_norm(input, mean, var)
    ops.batch_norm(input, mean, var, training=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# ---- inference: derivatives and transforms ---------------------------------------------------------------------------


def _inference(device):
    input, mean, var, weight, bias = _case((3, 2, 2, 3), torch.float64, device)
    leaves = [one.requires_grad_() for one in (input, weight, bias)]
    return (lambda x, w, b: ops.batch_norm(x, mean, var, w, b)), leaves


@not_about_kernels
@on_one_device
def test_inference_gradcheck(device):
    function, leaves = _inference(device)
    assert torch.autograd.gradcheck(
        function, leaves, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=True, check_batched_grad=True)


@not_about_kernels
@on_one_device
@pytest.mark.parametrize("dims", list(itertools.product((0, None), repeat=4))[:-1], ids=str)
def test_inference_vmap(device, dims):
    x, mean, var, w, b = _case((3, 2, 2, 3), torch.float64, device)
    stacked = [
        torch.stack([one, 2 * one, one + 1]) if dim == 0 else one
        for one, dim in zip((x, mean, w, b), dims, strict=True)
    ]
    function = lambda x, mean, w, b: ops.batch_norm(x, mean, var, w, b)  # noqa: E731
    actual = torch.vmap(function, in_dims=dims)(*stacked)
    for i in range(3):
        expected = function(*(one[i] if dim == 0 else one for one, dim in zip(stacked, dims, strict=True)))
        torch.testing.assert_close(actual[i], expected)


@not_about_kernels
@on_one_device
def test_inference_compiles(device):
    function, leaves = _inference(device)
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    results = []
    for each in (compiled, function):
        output = each(*leaves)
        results.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    for mine, eager in zip(*results, strict=True):
        assert torch.equal(mine, eager)


@not_about_kernels
@on_one_device
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_nested_forward_mode(device, training):
    input, mean, var, weight, bias = _case((3, 2, 2, 3), torch.float64, device)
    given = (None, None) if training else (mean, var)

    def hessian(transform, function):
        energy = lambda x, w, b: function(x, *given, w, b, training=training).pow(3).sum()  # noqa: E731
        return transform(transform(energy, (0, 1, 2)), (0, 1, 2))(input, weight, bias)

    expected = hessian(torch.func.jacrev, references.batch_norm)
    for transform in (torch.func.jacfwd, torch.func.jacrev):
        torch.testing.assert_close(hessian(transform, ops.batch_norm), expected)


# ---- layers ----------------------------------------------------------------------------------------------------------

LAYERS = {
    "2d": ("BatchNorm2d", (6, 4, 5, 5), {}),
    "1d": ("BatchNorm1d", (6, 4), {}),
    "1d_sequence": ("BatchNorm1d", (6, 4, 9), {}),
    "cumulative": ("BatchNorm2d", (6, 4, 5, 5), {"momentum": None}),
    "untracked": ("BatchNorm2d", (6, 4, 5, 5), {"track_running_stats": False}),
    "not_affine": ("BatchNorm1d", (6, 4), {"affine": False}),
    "momentum_and_eps": ("BatchNorm2d", (6, 4, 5, 5), {"momentum": 0.7, "eps": 0.1}),
}


def _assert_same_state(ours, theirs):
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-5, atol=1e-6)


@not_about_kernels
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("name, size, options", LAYERS.values(), ids=LAYERS)
def test_layer(name, size, options, lazy):
    theirs = getattr(torch.nn, name)(size[1], **options)
    ours = getattr(nn, f"Lazy{name}")(**options) if lazy else getattr(nn, name)(size[1], **options)
    generator = torch.Generator().manual_seed(0)
    if lazy:
        ours(torch.randn(size, generator=generator))
        assert type(ours) is getattr(nn, name)
    assert isinstance(ours, getattr(torch.nn, name)) and repr(ours) == repr(theirs)
    theirs.load_state_dict(ours.state_dict())
    for step in range(6):
        training = step not in (2, 4)
        ours.train(training)
        theirs.train(training)
        input = torch.randn(size, generator=generator) * (step + 1)
        torch.testing.assert_close(ours(input), theirs(input), rtol=1e-5, atol=1e-5)
        _assert_same_state(ours, theirs)
    ours.load_state_dict(theirs.state_dict())
    _assert_same_state(ours, theirs)


@not_about_kernels
def test_frozen_statistics_of_a_training_layer():
    """torch's idiom: tracking turned off later, with the statistics still there."""
    ours, theirs = nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    input = torch.randn(4, 3, 5, 5)
    ours.track_running_stats = theirs.track_running_stats = False
    torch.testing.assert_close(ours(input), theirs(input))
    _assert_same_state(ours, theirs)
    torch.testing.assert_close(ours.eval()(input), theirs.eval()(input))


@not_about_kernels
def test_layer_checks_its_rank():
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.BatchNorm2d(3)(torch.randn(4, 3))


@not_about_kernels
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiled_layer_updates_its_statistics(backend, dynamic):
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    layer = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    layer.load_state_dict(eager.state_dict())
    compiled = torch.compile(layer, fullgraph=True, backend=backend, dynamic=dynamic)
    for images in (4, 5, 7):
        input = torch.randn(images, 2, 6, 6)
        outputs = []
        for each in (compiled, eager):
            output = each(input)
            output.square().sum().backward()
            outputs.append(output.detach())
        torch.testing.assert_close(*outputs)
        _assert_same_state(layer, eager)
        for mine, theirs in zip(layer.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    assert layer[1].num_batches_tracked == 3


@not_about_kernels
@pytest.mark.parametrize("dtype", DTYPES[2:], ids=dtype_name)
def test_layer_under_autocast(dtype):
    ours, theirs = (space.Sequential(space.Conv2d(2, 3, 3), space.BatchNorm2d(3)) for space in (nn, torch.nn))
    theirs.load_state_dict(ours.state_dict())
    input = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    outputs = []
    for layer in (ours, theirs):
        with torch.autocast("cpu", dtype):
            outputs.append(layer(input))
        outputs[-1].float().sum().backward()
    assert outputs[0].dtype == outputs[1].dtype == dtype
    torch.testing.assert_close(*outputs, rtol=0.05, atol=0.05)
    assert ours[1].weight.grad.dtype == torch.float32
    torch.testing.assert_close(ours[1].running_mean, theirs[1].running_mean, rtol=0.02, atol=0.02)
