"""Convolutions of bfloat16 maps whose direct kernels read and write them as they are, on the CPU. Widened and rounded a
strip at a time they have the bits of the same op on float32 copies, rounded once, with every instruction set. Even
numbers of channels in NHWC are multiplied in pairs where the machine has AVX512-BF16, and rows in pairs where it has
AMX: against float64."""

import pytest
import torch

from d2lkernels import config, ops

# Images, channels, height, width, output channels, kernel, stride, padding, dilation, groups.
SHAPES = {
    "3x3 of one channel": (2, 1, 30, 31, 63, 3, 1, 1, 1, 1),
    "7x7 stem": (2, 3, 33, 30, 21, 7, 2, 3, 1, 1),
    "11x11 stem": (1, 1, 60, 60, 95, 11, 4, 1, 1, 1),
    "3x3 stride 2": (2, 63, 17, 17, 33, 3, 2, 1, 1, 1),
    "1x1 stride 2": (3, 21, 9, 8, 41, 1, 2, 0, 1, 1),
    "dilation": (2, 41, 12, 12, 47, 3, 1, 2, 2, 1),
    "groups": (2, 34, 10, 10, 62, 3, 1, 1, 1, 2),
    "folded": (1, 5, 7, 7, 3, 5, 1, 2, 1, 1),
    "depthwise": (2, 77, 12, 19, 77, 3, 1, 1, 1, 77),
    "depthwise, stride 2": (2, 64, 13, 20, 64, 5, 2, 2, 1, 64),
    "depthwise, dilation": (2, 40, 12, 12, 40, 3, 1, 2, 2, 40),
    "depthwise, 1x1": (1, 35, 5, 6, 35, 1, 1, 0, 1, 35),
    "two output channels a group": (2, 33, 9, 10, 66, 3, 1, 1, 1, 33),
    "three channels a group": (2, 21, 9, 10, 14, 3, 2, 1, 1, 7),
    "odd channels of tiles a group": (2, 35, 9, 10, 35, 3, 1, 1, 1, 5),
}
EVEN_SHAPES = {
    "3x3 of two channels": (2, 2, 30, 31, 64, 3, 1, 1, 1, 1),
    "7x7 stem": (2, 4, 33, 30, 20, 7, 2, 3, 1, 1),
    "11x11 stem": (1, 6, 60, 60, 96, 11, 4, 1, 1, 1),
    "3x3 stride 2": (2, 64, 17, 17, 34, 3, 2, 1, 1, 1),
    "1x1 stride 2": (3, 20, 9, 8, 40, 1, 2, 0, 1, 1),
    "dilation": (2, 40, 12, 12, 48, 3, 1, 2, 2, 1),
    "groups": (2, 36, 10, 10, 68, 3, 1, 1, 1, 2),
    "folded": (1, 6, 7, 7, 4, 5, 1, 2, 1, 1),
    "six channels a group": (2, 24, 9, 10, 32, 3, 1, 1, 1, 4),
    "eight channels a group": (2, 48, 9, 17, 48, 3, 2, 1, 1, 6),
    "two output channels": (2, 16, 9, 9, 2, 3, 1, 1, 1, 1),
    "many channels": (2, 512, 7, 7, 512, 3, 1, 1, 1, 1),
}


@pytest.fixture(autouse=True)
def directly(capability):
    before = config.conv_algorithm()
    config.set_conv_algorithm("direct")
    yield
    config.set_conv_algorithm(before)


def _drawn(*size, seed, memory_format=torch.contiguous_format, is_range=False):
    generator = torch.Generator().manual_seed(seed)
    channels = size[1]
    wide = torch.randn(size[0], channels + 5 if is_range else channels, *size[2:], generator=generator)
    return wide.bfloat16().contiguous(memory_format=memory_format)[:, -channels:]


def _results(input, weight, bias, grad, geometry, activation):
    """Of the forward pass and the input gradient."""
    stride, padding, dilation, groups = geometry
    options = dict(stride=stride, padding=padding[0], dilation=dilation, groups=groups, activation=activation)
    library = torch.ops.d2lkernels
    yield ops.conv2d_activation(input, weight, bias, **options)
    yield library.conv2d_input_grad(grad, weight, input.shape, *geometry)


def _given(shape, formats, is_range):
    n, c, h, w, k, taps, stride, padding, dilation, groups = shape
    geometry = [stride] * 2, [padding] * 4, [dilation] * 2, groups
    input = _drawn(n, c, h, w, seed=0, memory_format=formats[0], is_range=is_range)
    weight = _drawn(k, c // groups, taps, taps, seed=1, memory_format=formats[1])
    output_size = torch.nn.functional.conv2d(input, weight, None, stride, padding, dilation, groups).shape
    grad = _drawn(*output_size, seed=3, memory_format=formats[0], is_range=is_range)
    return (input, weight, _drawn(1, k, seed=2)[0], grad), geometry


def _assert_rounded(result, exact):
    """Sums of float32, rounded once."""
    error = (result.double() - exact).abs()
    assert (error <= 2**-8 * exact.abs() + 1e-5 * exact.abs().max()).all()


FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("is_range", [False, True], ids=["map", "range of channels"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_bits(shape, memory_format, is_range):
    given, geometry = _given(shape, [memory_format] * 2, is_range)
    for activation in ("none", "relu", "sigmoid"):
        copies = _results(*[tensor.float() for tensor in given], geometry, activation)
        for result, expected in zip(_results(*given, geometry, activation), copies, strict=True):
            if config.cpu_capability() == "amx":
                _assert_rounded(result, expected.double())
            else:
                assert torch.equal(result, expected.bfloat16())
            assert result.stride() == expected.stride()


@pytest.mark.parametrize("is_range", [False, True], ids=["map", "range of channels"])
@pytest.mark.parametrize("weight_format", FORMATS, ids=["kcrs", "krsc"])
@pytest.mark.parametrize("shape", EVEN_SHAPES.values(), ids=EVEN_SHAPES)
def test_even_channels(shape, weight_format, is_range):
    given, geometry = _given(shape, [torch.channels_last, weight_format], is_range)
    for activation in ("none", "relu"):
        exact = _results(*[tensor.double() for tensor in given], geometry, activation)
        for result, expected in zip(_results(*given, geometry, activation), exact, strict=True):
            _assert_rounded(result, expected)


def test_pairs_do_not_reach_beyond_their_pixel():
    """What lies beside a range of channels is not read, not even times zero."""
    wide = torch.full((1, 6, 9, 9), torch.nan, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    wide[:, 1:5] = 1
    result = ops.conv2d(wide[:, 1:5], torch.ones(16, 4, 3, 3, dtype=torch.bfloat16))
    assert (result == 36).all()


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_large_results_go_past_the_cache(activation):
    input = _drawn(8, 3, 187, 187, seed=0, memory_format=torch.channels_last)
    weight = _drawn(64, 3, 3, 3, seed=1, memory_format=torch.channels_last)
    result = ops.conv2d_activation(input, weight, None, activation=activation)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.numel() * result.element_size() >= 32 << 20
    expected = ops.conv2d_activation(input.float(), weight.float(), None, activation=activation)
    if config.cpu_capability() == "amx":
        _assert_rounded(result, expected.double())
    else:
        assert torch.equal(result, expected.bfloat16())


# Images, channels, height, width, output channels, kernel, stride, padding, dilation, groups.
TILE_EDGES = {
    "1 pixel": (1, 16, 3, 3, 32, 3, 1, 0, 1, 1),
    "15 columns": (2, 32, 4, 15, 48, 3, 1, 1, 1, 1),
    "16 columns": (1, 48, 5, 16, 16, 3, 1, 1, 1, 1),
    "17 columns": (1, 64, 3, 17, 62, 3, 1, 1, 1, 1),
    "33 columns": (1, 96, 3, 33, 96, 3, 1, 1, 1, 1),
    "17 rows": (2, 32, 17, 2, 34, 3, 1, 1, 1, 1),
    "17 small images": (17, 48, 3, 3, 40, 3, 1, 1, 1, 1),
    "40 small images": (40, 32, 6, 5, 16, 5, 1, 2, 1, 1),
    "depth of 31 pairs": (3, 62, 6, 20, 62, 3, 1, 1, 1, 1),
    "folded depth of 35 pairs": (2, 6, 9, 18, 70, 3, 1, 1, 1, 1),
    "small images of 76 pairs": (20, 152, 3, 3, 32, 3, 1, 1, 1, 1),
    "groups of 22 pairs": (2, 88, 9, 10, 44, 3, 1, 1, 1, 2),
    "no halo": (2, 32, 8, 8, 32, 2, 2, 0, 1, 1),
    "stride 2 of small images": (20, 64, 6, 6, 48, 3, 2, 1, 1, 1),
    "stride 3 of small images": (40, 16, 9, 9, 32, 3, 3, 0, 1, 1),
    "groups and dilation": (2, 64, 9, 18, 96, 3, 1, 2, 2, 2),
    "even rows of taps": (2, 3, 19, 18, 32, 4, 2, 1, 1, 1),
    "odd channels, dilation": (2, 5, 19, 18, 33, 3, 1, 2, 2, 1),
    "odd channels, stride 3": (2, 7, 19, 18, 16, 5, 3, 2, 2, 1),
}


@pytest.mark.parametrize("shape", TILE_EDGES.values(), ids=TILE_EDGES)
def test_tile_edges(shape):
    given, geometry = _given(shape, [torch.channels_last] * 2, False)
    exact = _results(*[tensor.double() for tensor in given], geometry, "relu")
    for result, expected in zip(_results(*given, geometry, "relu"), exact, strict=True):
        _assert_rounded(result, expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [*TILE_EDGES.values(), SHAPES["11x11 stem"], SHAPES["7x7 stem"]])
def test_values_stay_in_their_windows(shape, value):
    (input, weight, bias, grad), geometry = _given(shape, [torch.channels_last] * 2, False)
    for tensor in (input, grad):
        tensor[0, -1, tensor.shape[2] // 2, tensor.shape[3] // 3] = value
        tensor[-1, 0, -1, -1] = value
    given = input, weight.abs() + 0.1, bias, grad
    copies = _results(*[tensor.float() for tensor in given], geometry, "none")
    for result, expected in zip(_results(*given, geometry, "none"), copies, strict=True):
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result.isinf(), expected.isinf())
