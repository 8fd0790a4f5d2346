"""The gradient of a bias, alone and with that of an activation, against float64."""

import pytest
import torch
from cases import DEVICES, DTYPES, dtype_name

SIZES = (
    *((5, 3), (256, 10), (64, 120), (1, 1), (3, 301), (1031, 2), (4, 6, 28, 28), (3, 16, 10, 10), (2, 7, 3, 3)),
    *((300, 17, 2, 2), (2, 3, 41, 43), (3, 5, 19), (2, 3, 4, 5, 6), (0, 4, 3, 3), (130, 33, 4, 4)),
)
ACTIVATIONS = ("relu", "sigmoid", "tanh")

pytestmark = [
    pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name),
    pytest.mark.parametrize("layout", ["nchw", "nhwc", "strided"]),
]
ops = torch.ops.d2lkernels


def _made(size, layout, dtype, seed, device):
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    if layout == "strided":
        values = values.repeat_interleave(2, -1)[..., ::2]
    elif layout == "nhwc":
        values = values.contiguous(memory_format=torch.channels_last)
    return values.to(device.type)


def _sum(values):
    return values.sum([axis for axis in range(values.dim()) if axis != 1])


def _assert_sums(actual, terms, dtype):
    """To a few roundings of the type they are made in, in units of the root of the sum of squares.

    A sum in float64 that is compared with another one has the errors of both.
    """
    roundings = 32 if dtype == torch.float64 else 8
    compute = torch.finfo(torch.promote_types(dtype, torch.float32))
    expected, scale = _sum(terms), _sum(terms.square()).sqrt()
    assert actual.dtype == dtype
    bound = torch.finfo(dtype).eps * expected.abs() + roundings * compute.eps * scale + torch.finfo(dtype).tiny
    assert ((actual.cpu().double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bias_grad(device, layout, size, dtype):
    if layout == "nhwc" and len(size) != 4:
        pytest.skip("channels_last is for maps with two axes of pixels")
    grad = _made(size, layout, dtype, 0, device)
    result = ops.bias_grad(grad)
    _assert_sums(result, grad.cpu().double(), dtype)
    assert torch.equal(result, ops.bias_grad(grad.clone()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_activation_bias_grad(device, layout, size, dtype, activation):
    if layout == "nhwc" and len(size) != 4:
        pytest.skip("channels_last is for maps with two axes of pixels")
    grad = _made(size, layout, dtype, 0, device)
    output = getattr(torch, activation)(_made(size, layout, dtype, 1, device))
    grad_pre, grad_bias = ops.activation_bias_grad(grad, output, activation)
    expected = getattr(ops, f"{activation}_input_grad")(grad, output)
    torch.testing.assert_close(grad_pre, expected, check_stride=False)
    # 16-bit sums on the CPU are of terms before they are rounded.
    rounded = torch.finfo(dtype).eps if torch.finfo(dtype).bits == 16 else 0
    terms = expected.cpu().double()
    slack = rounded * _sum(terms.abs())
    assert ((grad_bias.cpu().double() - _sum(terms)).abs() <= slack + 1e-5 * _sum(terms.square()).sqrt() + 1e-12).all()


def test_gradients_of_gradients(device, layout):
    size = (3, 4, 2, 3) if layout == "nhwc" else (3, 4, 2)
    grad = _made(size, layout, torch.float64, 0, device).requires_grad_()
    output = _made(size, layout, torch.float64, 1, device).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(ops.bias_grad, grad)
    assert torch.autograd.gradcheck(lambda a, b: ops.activation_bias_grad(a, b, "sigmoid"), (grad, output))
    assert torch.autograd.gradcheck(lambda a, b: ops.activation_bias_grad(a, b, "tanh"), (grad, output))
    batch = torch.stack([grad.detach(), 2 * grad.detach()], 1)
    expected = torch.stack([ops.bias_grad(one) for one in batch.unbind(1)])
    torch.testing.assert_close(torch.vmap(ops.bias_grad, 1)(batch), expected)


def test_errors(device, layout):
    grad = torch.ones(2, 3, device=device.type)
    with pytest.raises(ValueError, match="expected activation to be one of none, relu, sigmoid, tanh, but got 'gelu'"):
        ops.activation_bias_grad(grad, grad, "gelu")
    with pytest.raises(ValueError, match="but got 'none'; use bias_grad"):
        ops.activation_bias_grad(grad, grad, "none")
    with pytest.raises(ValueError, match="expected grad_output to be at least 2-D"):
        ops.bias_grad(grad[0])
    with pytest.raises(ValueError, match=r"expected output to have the size of grad_output \[2, 3\]"):
        ops.activation_bias_grad(grad, grad[:1], "relu")
