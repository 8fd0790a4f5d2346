"""Linear layers under autocast whose weight no cache holds: products of bfloat16 read it in float32 and round it on the
way, and its gradient is not rounded. Against float64, and against what small weights do: that it is cast."""

from pathlib import Path

import pytest
import torch
from cases import DEVICES, not_about_kernels

from d2lkernels import config, ops

CPUS = [device for device in DEVICES if device.type == "cpu" and not device.is_emulated]
pytestmark = [not_about_kernels, pytest.mark.parametrize("device", CPUS, ids=lambda device: device.name)]

FEATURES = (1030, 1050)  # of the input and the output: over a million weights, and parts of vectors and tiles


def _reads_floats() -> bool:
    return config.cpu_capability() in ("avx512", "amx") and "avx512_bf16" in Path("/proc/cpuinfo").read_text()


def _drawn(*size, seed):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def _layer(rows, features=FEATURES, seed=0):
    """The input of bfloat16, and parameters of float32."""
    inputs, outputs = features
    values = [_drawn(rows, inputs, seed=seed).bfloat16(), _drawn(outputs, inputs, seed=seed + 1) / 32]
    values.append(_drawn(outputs, seed=seed + 2).bfloat16().float())  # where it is cast, that changes nothing
    return [value.requires_grad_() for value in values]


def _exact(tensors):
    return [tensor.detach().bfloat16().double().requires_grad_() for tensor in tensors[:2]] + [
        tensor.detach().double().requires_grad_() for tensor in tensors[2:]
    ]


def _under_autocast(function, *arguments, **options):
    with torch.autocast("cpu", torch.bfloat16):
        return function(*arguments, **options)


def _assert_close(actual, expected, unit=2**-8):
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs()
    assert (error <= unit * expected.abs() + 1e-5 * expected.abs().max()).all()


@pytest.mark.parametrize("is_transposed", [False, True], ids=["", "transposed_input"])
@pytest.mark.parametrize("has_bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("rows", [1, 3, 8, 17, 32, 33, 150])
def test_against_float64(device, rows, has_bias, is_transposed):
    given = _layer(rows)[: 3 if has_bias else 2]
    if is_transposed:
        given[0] = given[0].detach().t().contiguous().t().requires_grad_()
    exact, grad = _exact(given), _drawn(rows, FEATURES[1], seed=9).bfloat16()
    result, expected = _under_autocast(ops.linear, *given), torch.nn.functional.linear(*exact)
    assert result.dtype == torch.bfloat16
    _assert_close(result, expected)
    result.backward(grad)
    expected.backward(grad.double())
    for tensor, other in zip(given, exact, strict=True):
        assert tensor.grad.dtype == tensor.dtype
        _assert_close(tensor.grad, other.grad)
    if _reads_floats():
        _assert_close(given[1].grad, exact[1].grad, unit=0)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_with_an_activation(device, activation):
    given, grad = _layer(20), _drawn(20, FEATURES[1], seed=9).bfloat16()
    fused = _under_autocast(ops.linear_activation, *given, activation=activation)
    _assert_close(fused, getattr(torch, activation)(torch.nn.functional.linear(*_exact(given))))
    separate = getattr(ops, activation)(_under_autocast(ops.linear, *given))
    gradients, expected = (torch.autograd.grad(output, given, grad) for output in (fused, separate))
    for mine, other in zip(gradients, expected, strict=True):
        assert (mine - other).abs().max() <= 2**-6 * other.abs().max()


def test_few_rows_without_gradients_take_no_copy(device):
    given = _layer(8)
    with torch.no_grad():
        result = _under_autocast(ops.linear, *given)
    assert not result.requires_grad
    assert result.equal(_under_autocast(ops.linear, *given))


@pytest.mark.parametrize("frozen", range(3), ids=["input", "weight", "bias"])
def test_a_frozen_factor(device, frozen):
    given = _layer(5)
    grad = _drawn(5, FEATURES[1], seed=9).bfloat16()
    expected = torch.autograd.grad(_under_autocast(ops.linear, *given), given, grad)
    given[frozen].requires_grad_(False)
    _under_autocast(ops.linear, *given).backward(grad)
    for i, (tensor, gradient) in enumerate(zip(given, expected, strict=True)):
        assert (tensor.grad is None) if i == frozen else tensor.grad.equal(gradient)


def test_double_backward(device):
    given = _layer(5)
    exact = _exact(given)
    grad = _drawn(5, FEATURES[1], seed=9).bfloat16().requires_grad_()
    wide = grad.detach().double().requires_grad_()
    results = []
    for tensors, upstream, function in ((given, grad, _under_autocast), (exact, wide, lambda f, *a: f(*a))):
        output = function(ops.linear if tensors is given else torch.nn.functional.linear, *tensors)
        first = torch.autograd.grad(output, tensors[:2], upstream, create_graph=True)
        total = sum(gradient.sum(dtype=torch.float64) for gradient in first)
        results.append(torch.autograd.grad(total, [*tensors[:2], upstream]))
    for mine, other in zip(*results, strict=True):
        assert (mine.double() - other).abs().max() <= 2**-7 * other.abs().max()


def test_a_batch_of_gradients(device):
    given = _layer(3)
    output = _under_autocast(ops.linear, *given)
    grads = _drawn(2, 3, FEATURES[1], seed=9).bfloat16()
    batched = torch.autograd.grad(output, given, grads, is_grads_batched=True, retain_graph=True)
    for i in range(2):
        for one, all_of_them in zip(
            torch.autograd.grad(output, given, grads[i], retain_graph=True), batched, strict=True
        ):
            _assert_close(all_of_them[i], one.double(), unit=2**-7)


def test_the_graph_can_be_kept(device):
    given, grad = _layer(4), _drawn(4, FEATURES[1], seed=9).bfloat16()
    output = _under_autocast(ops.linear, *given)
    first = torch.autograd.grad(output, given, grad, retain_graph=True)
    second = torch.autograd.grad(output, given, grad)
    assert all(one.equal(other) for one, other in zip(first, second, strict=True))


def test_functional_transforms_and_modes_see_ordinary_ops(device):
    x, w, b = (tensor.detach() for tensor in _layer(4))
    expected = _under_autocast(ops.linear, x, w, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.func.vmap(ops.linear, in_dims=(0, None, None))(x.unsqueeze(1), w, b).shape == (4, 1, FEATURES[1])
        output, tangent = torch.func.jvp(lambda weight: ops.linear(x, weight, b), (w,), (w,))
    limit = 2**-6 * expected.abs().max()
    assert (output - expected).abs().max() <= limit and (tangent - (expected - b)).abs().max() <= limit


@pytest.mark.parametrize(
    "features, rows", [((1025, 1030), 4), ((64, 30), 4), (FEATURES, 0)], ids=["odd", "small", "no_rows"]
)
def test_others_are_cast(device, features, rows):
    given = _layer(rows, features)
    result = _under_autocast(ops.linear, *given)
    _assert_close(result, torch.nn.functional.linear(*_exact(given))) if rows else None
    result.sum().backward()
    assert [tensor.grad.dtype for tensor in given] == [tensor.dtype for tensor in given]
    assert given[1].grad.equal(given[1].grad.bfloat16().float())


@pytest.mark.parametrize(
    "change",
    [
        lambda x, w, b: (x[:, :-2], w, b),
        lambda x, w, b: (x, w, b[1:]),
        lambda x, w, b: (x, w.flatten(), b),
        lambda x, w, b: (x, w.double(), b),
        lambda x, w, b: (x.to("meta"), w, b),
    ],
    ids=["features", "bias", "vector", "double", "device"],
)
def test_bad_arguments_get_the_ordinary_errors(device, change):
    large = [tensor.detach() for tensor in _layer(4)]
    small = [tensor.detach() for tensor in _layer(4, (6, 8))]
    raised = []
    for given in (large, small):
        with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
            _under_autocast(ops.linear, *change(*given))
        raised.append(error.type)
    assert raised[0] is raised[1]


def test_a_weight_changed_before_the_backward(device):
    given = _layer(4)
    output = _under_autocast(ops.linear, *given)
    if not _reads_floats():
        pytest.skip("the cast is what was saved")
    with torch.no_grad():
        given[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_training_lowers_the_loss(device):
    x, w, b = _layer(16)
    target, losses = _drawn(16, FEATURES[1], seed=9), []
    optimizer = torch.optim.SGD([w, b], lr=4.0)
    for _ in range(4):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(_under_autocast(ops.linear, x.detach(), w, b).float(), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 2
