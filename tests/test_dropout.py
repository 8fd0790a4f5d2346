"""What of dropout is random: rates, seeds, and that forward and backward passes, devices and layouts agree."""

import pytest
import torch
from cases import DEVICES, not_about_kernels
from torch.utils.checkpoint import checkpoint

from d2lkernels import nn, ops

every_device = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
SIZE = (64, 1001)


def _dropped(input, p, seed=3):
    torch.manual_seed(seed)
    return ops.dropout(input, p)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@every_device
def test_rate_and_scale(device, p):
    output = _dropped(torch.ones(SIZE, device=device.type), p)
    kept = output != 0
    assert torch.equal(output[kept], torch.full_like(output[kept], 1 / (1 - p)))
    deviation = (p * (1 - p) / output.numel()) ** 0.5
    assert abs(kept.double().mean().item() - (1 - p)) < 4 * deviation
    for axis in (0, 1):  # no row and no column is special
        rates = kept.double().mean(axis)
        assert (rates - (1 - p)).abs().max() < 5.5 * (p * (1 - p) / SIZE[axis]) ** 0.5


@every_device
def test_neighbours_are_independent(device):
    kept = (_dropped(torch.ones(1 << 16, device=device.type), 0.5) != 0).double().cpu() * 2 - 1
    for distance in (1, 2, 15, 16, 17, 32, 48, 64, 128, 1024):
        correlation = (kept[distance:] * kept[:-distance]).mean()
        assert abs(correlation) < 5 / kept.numel() ** 0.5


@every_device
def test_seeds(device):
    ones = torch.ones(SIZE, device=device.type)
    first, again, other = _dropped(ones, 0.5), _dropped(ones, 0.5), _dropped(ones, 0.5, seed=4)
    assert torch.equal(first, again)
    torch.manual_seed(3)
    assert torch.equal(first, ops.dropout(ones, 0.5)) and not torch.equal(first, ops.dropout(ones, 0.5))
    assert 0.4 < ((first != 0) == (other != 0)).double().mean() < 0.6


def test_known_numbers():
    """Philox 4x32-10 of counter 0 and key 0 begins 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (Random123's known answers)."""
    words = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    for word, number in enumerate(words):
        just_below = torch.ops.d2lkernels.dropout(torch.ones(64), torch.tensor(0), (number - 1) / 2**32)
        just_above = torch.ops.d2lkernels.dropout(torch.ones(64), torch.tensor(0), (number + 1) / 2**32)
        assert just_below[16 * word] != 0 and just_above[16 * word] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@every_device
def test_every_device_drops_the_same(device, dtype):
    seed = torch.tensor(123456789012345)
    input = torch.randn(3, 7, 5, 11, dtype=torch.float64).to(dtype)
    output = torch.ops.d2lkernels.dropout(input.to(device.type), seed.to(device.type), 0.5).cpu()
    kept = torch.ops.d2lkernels.dropout(torch.ones(input.shape), seed, 0.5) != 0
    torch.testing.assert_close(output, torch.where(kept, input * 2, 0))


@every_device
def test_strides_have_no_say(device):
    input = torch.randn(2, 6, 5, 4, device=device.type)
    expected = _dropped(input, 0.5)
    channels_last = _dropped(input.contiguous(memory_format=torch.channels_last), 0.5)
    assert channels_last.is_contiguous(memory_format=torch.channels_last) and torch.equal(channels_last, expected)
    transposed = _dropped(input.transpose(2, 3).contiguous().transpose(2, 3), 0.5)
    assert torch.equal(transposed, expected)


@every_device
def test_gradient_has_the_same_places(device):
    input = torch.randn(4, 6, 5, 4, device=device.type, requires_grad=True)
    torch.manual_seed(5)
    output = ops.dropout(input, 0.3)
    grad = torch.randn(4, 6, 5, 4, device=device.type).contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(output, input, grad, create_graph=True)
    factors = (output / input).detach()
    torch.testing.assert_close(gradient, grad * factors)


def test_not_finite_elements_stay_so():
    """As in torch, which multiplies by zero."""
    output = ops.dropout(torch.tensor([float("nan"), float("inf")]).repeat(50), 0.5)
    assert output[::2].isnan().all() and not output[1::2].isfinite().any()


def test_inference_returns_the_input():
    input = torch.randn(3)
    assert ops.dropout(input, 0.5, training=False) is input


def test_in_place():
    input = torch.ones(100)
    output = ops.dropout(input, 0.5, inplace=True)
    assert output is input and set(output.unique().tolist()) == {0.0, 2.0}
    leaf = torch.ones(100, requires_grad=True)
    result = ops.dropout(leaf * 1, 0.5, inplace=True)
    result.sum().backward()
    assert torch.equal(leaf.grad, result.detach())
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        ops.dropout(leaf, 0.5, inplace=True)


def _net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4), nn.Dropout(0.2))


@not_about_kernels
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["not_reentrant", "reentrant"])
def test_checkpoint_recomputes_the_same(use_reentrant):
    net, input = _net(), torch.randn(5, 8, requires_grad=True)
    results = []
    for function in (net, lambda given: checkpoint(net, given, use_reentrant=use_reentrant)):
        input.grad = None
        torch.manual_seed(2)
        function(input).square().sum().backward()
        results.append(input.grad.clone())
    assert torch.equal(*results)


@not_about_kernels
def test_compile():
    torch._dynamo.reset()
    net, input = _net(), torch.randn(5, 8)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    results = []
    for function in (net, compiled):
        leaf = input.clone().requires_grad_()
        torch.manual_seed(2)
        output = function(leaf)
        output.square().sum().backward()
        results.append((output.detach(), leaf.grad))
    for eager, ours in zip(*results, strict=True):
        assert torch.equal(eager, ours)


@not_about_kernels
def test_vmap_randomness():
    input = torch.ones(4, 200)

    def function(row):
        return ops.dropout(row, 0.5)

    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(function)(input)
    same = torch.vmap(function, randomness="same")(input)
    assert all(torch.equal(row, same[0]) for row in same)
    different = torch.vmap(function, randomness="different")(input)
    assert not any(torch.equal(row, different[0]) for row in different[1:])
    assert set(different.unique().tolist()) == {0.0, 2.0}
