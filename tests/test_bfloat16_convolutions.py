"""Convolutions of bfloat16 maps that the direct kernel widens and rounds itself, on the CPU: the bits of the same op on
float32 copies, rounded once, with every instruction set."""

import pytest
import torch

from d2lkernels import config, ops

# Images, channels, height, width, output channels, kernel, stride, padding, dilation, groups.
SHAPES = {
    "3x3 of one channel": (2, 1, 30, 31, 64, 3, 1, 1, 1, 1),
    "7x7 stem": (2, 3, 33, 30, 20, 7, 2, 3, 1, 1),
    "11x11 stem": (1, 1, 60, 60, 96, 11, 4, 1, 1, 1),
    "3x3 stride 2": (2, 64, 17, 17, 33, 3, 2, 1, 1, 1),
    "1x1 stride 2": (3, 20, 9, 8, 40, 1, 2, 0, 1, 1),
    "dilation": (2, 40, 12, 12, 48, 3, 1, 2, 2, 1),
    "groups": (2, 32, 10, 10, 64, 3, 1, 1, 1, 2),
    "folded": (1, 5, 7, 7, 3, 5, 1, 2, 1, 1),
    "two output channels": (2, 16, 9, 9, 2, 3, 1, 1, 1, 1),
}


@pytest.fixture(params=config.supported_cpu_capabilities(), autouse=True)
def capability(request):
    before = config.cpu_capability(), config.conv_algorithm()
    config.set_cpu_capability(request.param)
    config.set_conv_algorithm("direct")
    yield
    config.set_cpu_capability(before[0])
    config.set_conv_algorithm(before[1])


def _drawn(*size, seed, memory_format=torch.contiguous_format, is_range=False):
    generator = torch.Generator().manual_seed(seed)
    channels = size[1]
    wide = torch.randn(size[0], channels + 5 if is_range else channels, *size[2:], generator=generator)
    return wide.bfloat16().contiguous(memory_format=memory_format)[:, -channels:]


@pytest.mark.parametrize("is_range", [False, True], ids=["map", "range of channels"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_bits(shape, memory_format, is_range):
    n, c, h, w, k, taps, stride, padding, dilation, groups = shape
    geometry = [stride] * 2, [padding] * 4, [dilation] * 2, groups
    input = _drawn(n, c, h, w, seed=0, memory_format=memory_format, is_range=is_range)
    weight = _drawn(k, c // groups, taps, taps, seed=1, memory_format=memory_format)
    bias = _drawn(1, k, seed=2)[0]
    for activation in ("relu", "sigmoid"):
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation)
        result = ops.conv2d_activation(input, weight, bias, **options)
        expected = ops.conv2d_activation(input.float(), weight.float(), bias.float(), **options)
        assert torch.equal(result, expected.bfloat16())
        assert result.stride() == expected.stride()
    grad = _drawn(*result.shape, seed=3, memory_format=memory_format, is_range=is_range)
    op = torch.ops.d2lkernels.conv2d_input_grad
    result, expected = (op(g, v, input.shape, *geometry) for g, v in [(grad, weight), (grad.float(), weight.float())])
    assert torch.equal(result, expected.bfloat16())
    op = torch.ops.d2lkernels.conv2d_weight_grad
    result, expected = (op(g, v, weight.shape, *geometry) for g, v in [(grad, input), (grad.float(), input.float())])
    assert torch.equal(result, expected.bfloat16())
