"""Ops that read and write bfloat16 themselves, on the CPU: the bits of the same op on float32 copies, rounded once, for
every value that bfloat16 has and with every instruction set."""

import pytest
import torch

from d2lkernels import config, ops

VALUES = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)  # NaN and subnormals included
OTHERS = VALUES[torch.randperm(len(VALUES), generator=torch.Generator().manual_seed(0))]
ACTIVATIONS = ("relu", "sigmoid", "tanh")


@pytest.fixture(params=config.supported_cpu_capabilities(), autouse=True)
def capability(request):
    before = config.cpu_capability()
    config.set_cpu_capability(request.param)
    yield
    config.set_cpu_capability(before)


def _assert_same_bits(actual, expected):
    assert actual.dtype == torch.bfloat16
    expected = expected.to(torch.bfloat16)
    is_nan = expected.isnan()
    assert torch.equal(actual.isnan(), is_nan)
    assert torch.equal(actual[~is_nan].view(torch.int16), expected[~is_nan].view(torch.int16))


@pytest.mark.parametrize("part", [slice(None), slice(1, None), slice(3, 70), slice(5, 6)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, part):
    op, grad_op = getattr(ops, name), getattr(torch.ops.d2lkernels, f"{name}_input_grad")
    x, grad = VALUES[part], OTHERS[part]
    _assert_same_bits(op(x), op(x.float()))
    _assert_same_bits(grad_op(grad, x), grad_op(grad.float(), x.float()))


def test_large_results_go_past_the_cache():
    x = VALUES.repeat(257)[3:]
    assert x.numel() * x.element_size() >= 32 << 20
    _assert_same_bits(ops.relu(x), ops.relu(x.float()))


def test_add_relu():
    _assert_same_bits(ops.add_relu(VALUES, OTHERS), ops.add_relu(VALUES.float(), OTHERS.float()))


@pytest.mark.parametrize("count", [1, 100, 1 << 16])
def test_dropout(count):
    x, seed = VALUES[:count], torch.tensor(7)
    expected = torch.ops.d2lkernels.dropout(x.float(), seed, 0.3)
    _assert_same_bits(torch.ops.d2lkernels.dropout(x, seed, 0.3), expected)
