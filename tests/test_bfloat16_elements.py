"""Ops that read and write bfloat16 themselves, on the CPU: the bits of the same op on float32 copies, rounded once, for
every value that bfloat16 has and with every instruction set."""

import pytest
import torch

from d2lkernels import config, ops

VALUES = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)  # NaN and subnormals included
OTHERS = VALUES[torch.randperm(len(VALUES), generator=torch.Generator().manual_seed(0))]
ACTIVATIONS = ("relu", "sigmoid", "tanh")

# Maps of which batch normalisation sees rows or planes: whole registers and parts of them, one image, one pixel, rows
# that are taken several at a time, parts whose sums are joined.
MAPS = ((16, 64, 12, 12), (2, 6, 28, 28), (5, 7, 5, 3), (1, 33, 9, 9), (9, 512, 3, 3), (300, 13), (64, 200, 1, 1))
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


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


# ---- batch normalisation -----------------------------------------------------------------------------------------


def _map(size, layout, seed):
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(seed)).mul(2).add(3).bfloat16()
    return drawn.contiguous(memory_format=LAYOUTS[layout]) if len(size) == 4 else drawn


def _channels(count):
    return torch.linspace(0.5, 2, count).bfloat16(), torch.linspace(-1, 1, count).bfloat16()


def _wide(tensors):
    return [tensor.float() if isinstance(tensor, torch.Tensor) else tensor for tensor in tensors]


def _assert_as_wide(op, *arguments):
    """Of `op` called with float32 copies: its maps rounded once; what there is one of per channel is float32."""
    results, expected = op(*arguments), op(*_wide(arguments))
    if isinstance(results, torch.Tensor):
        results, expected = [results], [expected]
    for actual, wide in zip(results, expected, strict=True):
        if actual.dim() == 1:
            assert actual.dtype == torch.float32 and torch.equal(actual, wide.float())
        else:
            assert actual.stride() == wide.stride()
            _assert_same_bits(actual, wide)
    return results


@pytest.mark.parametrize("has_residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("activation", ["none", *ACTIVATIONS])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", MAPS, ids=str)
def test_batch_norm(size, layout, activation, has_residual):
    library = torch.ops.d2lkernels
    input, grad, other = (_map(size, layout, seed) for seed in range(3))
    weight, bias = _channels(size[1])
    residual = other if has_residual else None
    output, mean, var = _assert_as_wide(
        library.batch_norm_train, input, residual, None, None, weight, bias, 1e-5, activation
    )
    _assert_as_wide(library.batch_norm_train, input, residual, mean, var, weight, bias, 1e-5, activation)
    _assert_as_wide(library.batch_norm_infer, input, residual, mean, var, weight, bias, 1e-5, activation)
    is_fused = has_residual and activation != "none"
    grad_op = library.batch_norm_add_train_grad if is_fused else library.batch_norm_train_grad
    _assert_as_wide(grad_op, grad, input, output if is_fused else None, weight, bias, mean, var, 1e-5, activation)
    _assert_as_wide(library.batch_norm_weight_grad, grad, input, mean, var, 1e-5)


def test_batch_norm_takes_every_value():
    input = VALUES.view(-1, 64)
    library, mean, var = torch.ops.d2lkernels, torch.linspace(-2, 2, 64), torch.linspace(0.1, 3, 64)
    for activation in ("none", *ACTIVATIONS):
        _assert_as_wide(library.batch_norm_infer, input, OTHERS.view(-1, 64), mean, var, None, None, 1e-5, activation)
