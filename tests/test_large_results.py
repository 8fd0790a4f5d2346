"""Results beyond the last cache, which are stored past it: the bits of the same call in pieces that stay in it."""

import pytest
import torch
from cases import DEVICES

from d2lkernels import config, ops

BYTES = 32 << 20  # kStreamedBytes of csrc/kernels/cpu/cache.h
PIECE = 100_000
OPERATORS = {
    "relu": lambda x, y: ops.relu(x),
    "sigmoid": lambda x, y: ops.sigmoid(x),
    "tanh": lambda x, y: ops.tanh(x),
    "add_relu": ops.add_relu,
}


def _output_and_gradient(function, x, y, grad_output):
    x = x.detach().requires_grad_()
    output = function(x, y)
    return output.detach(), torch.autograd.grad(output, x, grad_output)[0]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("device", [device for device in DEVICES if device.type == "cpu"], ids=lambda one: one.name)
def test_large_result(device, function, dtype, threads):
    """Of a length that neither registers nor threads divide, from operands that begin inside a register."""
    count = BYTES // dtype.itemsize + 5
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(count + 1, generator=generator, dtype=dtype)[1:] for _ in range(3)]
    torch.set_num_threads(threads)
    large = _output_and_gradient(function, *operands)
    split = zip(*(one.split(PIECE) for one in operands), strict=True)
    pieces = [_output_and_gradient(function, *piece) for piece in split]
    for whole, parts in zip(large, zip(*pieces, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 1, 1), (7, 2, 3)])
@pytest.mark.parametrize("device", [device for device in DEVICES if device.type == "cpu"], ids=lambda one: one.name)
def test_large_convolution(device, kernel_size, stride, padding, activation, threads):
    """The first layers of VGG and of ResNet: a small input, 48 channels of a large map."""
    generator = torch.Generator().manual_seed(0)
    size = 100 * stride - 1
    images = BYTES // (4 * 48 * 100 * 100) + 2
    input = torch.randn(images, 1, size, size, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(48, 1, kernel_size, kernel_size, generator=generator)
    bias = torch.randn(48, generator=generator)
    torch.set_num_threads(threads)

    def convolve(x):
        return ops.conv2d_activation(x, weight, bias, stride, padding, activation=activation)

    with config.use_conv_algorithm("direct"):
        large = convolve(input)
        assert large.nbytes >= BYTES
        assert torch.equal(large, torch.cat([convolve(image) for image in input.split(1)]))
