"""Losses beyond their specs: probabilities, targets out of range, large scores, weights, sizes that broadcast."""

import pytest
import torch
import torch.nn.functional as F
from cases import DEVICES, not_about_kernels

from d2lkernels import config, nn, ops

every_device = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("size", [(7, 5), (5,), (2, 5, 3, 4)], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@every_device
def test_probabilities(device, size, reduction, weighted, smoothing):
    generator = torch.Generator().manual_seed(0)
    axis = 0 if len(size) == 1 else 1
    input = torch.randn(size, generator=generator, dtype=torch.float64).to(device.type)
    target = torch.randn(size, generator=generator, dtype=torch.float64).softmax(axis).to(device.type)
    weight = torch.rand(5, generator=generator, dtype=torch.float64).to(device.type) if weighted else None
    results = []
    for function in (ops.cross_entropy, F.cross_entropy):
        x, t = input.clone().requires_grad_(), target.clone().requires_grad_()
        loss = function(x, t, weight, reduction=reduction, label_smoothing=smoothing)
        gradients = torch.autograd.grad(loss.sum(), (x, t), create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in gradients), x)
        results.append([loss, *gradients, *second])
    for ours, native in zip(*results, strict=True):
        torch.testing.assert_close(ours, native)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_device
def test_large_scores(device, dtype):
    """Neither overflow nor cancellation, whatever all scores have in common."""
    input = torch.randn(9, 10, dtype=torch.float64)
    target = torch.arange(9)
    for offset in (1e4, -1e4):
        x = (input + offset).to(dtype).to(device.type).requires_grad_()
        loss = ops.cross_entropy(x, target.to(device.type))
        (gradient,) = torch.autograd.grad(loss, x)
        exact = x.detach().cpu().double().requires_grad_()
        expected = F.cross_entropy(exact, target)
        (expected_gradient,) = torch.autograd.grad(expected, exact)
        torch.testing.assert_close(loss.cpu().double(), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient.cpu().double(), expected_gradient, rtol=1e-5, atol=1e-8)


@every_device
def test_nothing_counts(device):
    x = torch.randn(3, 4, device=device.type, requires_grad=True)
    target = torch.full((3,), -100, device=device.type)
    assert ops.cross_entropy(x, target).isnan()
    loss = ops.cross_entropy(x, target, reduction="sum")
    loss.backward()
    assert loss == 0 and torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("wrong", [5, -1, 2**40])
@every_device
def test_target_out_of_range(device, wrong):
    input, target = torch.randn(300, 5, device=device.type), torch.zeros(300, dtype=torch.int64, device=device.type)
    target[270] = wrong
    if device.runs_cuda_kernels:  # taken for ignore_index: nothing is read out of bounds
        expected = ops.cross_entropy(input, torch.where(target == wrong, -100, target))
        assert torch.equal(ops.cross_entropy(input, target), expected)
        return
    with pytest.raises(IndexError) as caught:
        ops.cross_entropy(input, target)
    message = f"cross_entropy(): expected target to be between 0 and 4 or ignore_index (-100), but got {wrong}"
    assert str(caught.value) == message


@not_about_kernels
def test_targets_of_other_dtypes():
    input, target = torch.randn(3, 5), torch.tensor([0, 4, 2])
    assert torch.equal(ops.cross_entropy(input, target.byte()), ops.cross_entropy(input, target))
    assert torch.equal(ops.cross_entropy(input, target, ignore_index=4), ops.cross_entropy(input[::2], target[::2]))
    with pytest.raises(TypeError, match="expected target to be int64"):
        ops.cross_entropy(input, target.int())


@not_about_kernels
def test_weights_of_classes_are_not_differentiated():
    weight = torch.ones(5, requires_grad=True)
    with pytest.raises(NotImplementedError, match="expected weight not to require grad"):
        ops.cross_entropy(torch.randn(3, 5), torch.tensor([0, 4, 2]), weight)


@not_about_kernels
def test_mean_squared_error_of_sizes_that_broadcast():
    input, target = torch.randn(4, 1), torch.randn(4)
    with pytest.warns(UserWarning, match=r"input has size \[4, 1\] and target has size \[4\]"):
        ours = ops.mse_loss(input, target)
    with pytest.warns(UserWarning):
        torch.testing.assert_close(ours, F.mse_loss(input, target))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@not_about_kernels
def test_weighted_mean_squared_error(reduction):
    input, target, weight = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4, 3)
    ours, native = (f.mse_loss(input, target, reduction=reduction, weight=weight) for f in (ops, F))
    torch.testing.assert_close(ours, native)


@not_about_kernels
def test_layers():
    input, target = torch.randn(6, 5), torch.tensor([0, 4, 2, 1, 1, -100])
    arguments = {"weight": torch.rand(5), "label_smoothing": 0.1}
    ours, native = (space.CrossEntropyLoss(**arguments)(input, target) for space in (nn, torch.nn))
    torch.testing.assert_close(ours, native)
    ours, native = (space.MSELoss(reduction="sum")(input, input + 1) for space in (nn, torch.nn))
    torch.testing.assert_close(ours, native)


@not_about_kernels
def test_no_recompilation_for_another_batch_size():
    torch._dynamo.reset()
    compiled = torch.compile(ops.cross_entropy, backend="aot_eager", fullgraph=True, dynamic=True)
    compiled(torch.randn(11, 5, requires_grad=True), torch.arange(11) % 5).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (7, 13):
            input, target = torch.randn(batch, 5, requires_grad=True), torch.arange(batch) % 5
            assert torch.equal(compiled(input, target), ops.cross_entropy(input, target))


def test_every_number_of_threads_sums_alike():
    input, target = torch.randn(5000, 10), torch.arange(5000) % 10
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append((ops.cross_entropy(input, target), ops.mse_loss(input, input.flip(0))))
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, results[0], strict=True))
    assert config.cpu_capability() in config.supported_cpu_capabilities()
