"""Weight gradients of convolutions that read bfloat16 maps themselves, on the CPU, with every instruction set: the bits
of the same op on float32 copies, rounded once. Where AVX512-BF16 may multiply pairs, sums come in another order and are
compared with those of float64."""

import pytest
import torch

from d2lkernels import config

pytestmark = pytest.mark.usefixtures("capability")

# Input size, weight size, stride, padding, dilation, groups.
CONVOLUTIONS = {
    "one channel": ((2, 1, 23, 37), (24, 1, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    "odd channels": ((3, 5, 9, 12), (7, 5, 3, 2), (2, 1), (1, 0), (1, 1), 1),
    "stride": ((2, 37, 14, 13), (67, 37, 3, 3), (3, 2), (1, 1), (1, 1), 1),
    "pixels apart": ((4, 40, 12, 11), (35, 40, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "dilation": ((2, 17, 12, 15), (20, 17, 3, 3), (1, 1), (2, 2), (2, 2), 1),
    "exchanged": ((2, 64, 9, 8), (5, 64, 3, 3), (1, 1), (0, 1), (1, 2), 1),
    "groups": ((2, 40, 10, 9), (36, 20, 3, 3), (2, 2), (1, 1), (1, 1), 2),
    "many rows": ((1, 3, 150, 150), (33, 3, 3, 3), (1, 1), (0, 2), (2, 3), 1),
    "pairs of images": ((7, 40, 13, 11), (72, 40, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "many images": ((70, 16, 5, 5), (40, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    # Channels and pixels at the edges of tiles.
    "half a tile": ((4, 8, 7, 7), (7, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one tile": ((3, 16, 9, 15), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "short of a tile": ((2, 15, 5, 16), (15, 15, 3, 2), (1, 1), (1, 0), (1, 1), 1),
    "beyond a tile": ((2, 17, 6, 17), (17, 17, 2, 3), (1, 1), (0, 1), (1, 1), 1),
    "beyond two tiles": ((5, 33, 8, 33), (33, 33, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one column": ((6, 32, 9, 1), (64, 32, 3, 1), (1, 1), (1, 0), (1, 1), 1),
    "rows of one tap": ((3, 20, 13, 9), (24, 20, 3, 1), (2, 1), (1, 0), (1, 1), 1),
    "rows in one line": ((3, 20, 11, 9), (24, 20, 5, 1), (1, 1), (2, 0), (2, 1), 1),
    "one pixel": ((9, 40, 3, 3), (24, 40, 3, 3), (1, 1), (0, 0), (1, 1), 1),
    "three columns": ((33, 48, 3, 3), (32, 48, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "stride three": ((4, 24, 16, 20), (40, 24, 3, 5), (3, 3), (1, 2), (1, 1), 1),
    "stride and dilation": ((4, 24, 16, 20), (40, 24, 3, 3), (2, 4), (2, 3), (3, 2), 1),
    "more padding than map": ((3, 16, 2, 3), (16, 16, 3, 3), (1, 1), (5, 4), (1, 1), 1),
    "groups of a tile": ((3, 64, 7, 10), (48, 16, 3, 3), (1, 1), (1, 1), (1, 1), 4),
    "blocks of rows": ((2, 64, 60, 60), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one channel, no stride": ((5, 1, 20, 33), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one channel, many taps": ((3, 1, 21, 90), (40, 1, 2, 37), (1, 2), (1, 9), (1, 1), 1),
    "one channel, dilated rows": ((2, 1, 40, 16), (6, 1, 5, 5), (3, 1), (4, 2), (2, 1), 1),
    "depthwise": ((3, 77, 11, 13), (77, 1, 3, 3), (1, 1), (1, 1), (1, 1), 77),
    "depthwise, stride": ((2, 64, 12, 9), (64, 1, 5, 5), (2, 2), (2, 2), (1, 1), 64),
    "depthwise, dilation": ((2, 40, 12, 9), (40, 1, 3, 3), (1, 2), (2, 0), (2, 1), 40),
    "pairs of channels a group": ((2, 26, 7, 8), (39, 2, 3, 3), (1, 1), (1, 1), (1, 1), 13),
    "six channels a group": ((3, 30, 9, 8), (30, 6, 3, 3), (1, 1), (1, 1), (1, 1), 5),
    "one image of groups": ((1, 32, 9, 8), (32, 8, 3, 3), (1, 1), (1, 1), (1, 1), 4),
    "one image": ((1, 32, 12, 12), (32, 32, 3, 3), (1, 1), (1, 1), (1, 1), 1),
}


def _maps(case):
    input_size, weight_size, stride, padding, dilation, _ = case
    plane = [
        (input_size[2 + i] + 2 * padding[i] - dilation[i] * (weight_size[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    generator = torch.Generator().manual_seed(0)
    grad_output = torch.randn((input_size[0], weight_size[0], *plane), generator=generator)
    return grad_output.bfloat16(), torch.randn(input_size, generator=generator).bfloat16()


def _weight_grad(grad_output, input, case):
    _, weight_size, stride, padding, dilation, groups = case
    pads = [padding[0], padding[0], padding[1], padding[1]]
    return torch.ops.d2lkernels.conv2d_weight_grad(grad_output, input, weight_size, stride, pads, dilation, groups)


def _assert_right(grad_output, input, case):
    dtype = torch.float64 if config.cpu_capability() in ("avx512", "amx") else torch.float32
    expected = _weight_grad(grad_output.to(dtype), input.to(dtype), case)
    with torch.profiler.profile() as profile:
        actual = _weight_grad(grad_output, input, case)
    assert actual.dtype == torch.bfloat16
    assert actual.stride() == expected.stride()
    assert torch.equal(actual.isfinite(), expected.isfinite())
    assert torch.equal(actual.isnan(), expected.isnan())
    if dtype == torch.float32:
        expected = expected.to(torch.bfloat16)
        assert torch.equal(actual.nan_to_num().view(torch.int16), expected.nan_to_num().view(torch.int16))
    else:
        expected = expected.nan_to_num(0, 0, 0)
        error = (actual.double().nan_to_num(0, 0, 0) - expected).abs()
        assert (error <= 2**-8 * expected.abs() + 4e-6 * expected.abs().max()).all()  # half a unit of the last place
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_weight_gradient(case, layout):
    maps = [map.contiguous(memory_format=layout) for map in _maps(case)]
    with config.use_conv_algorithm("direct"):
        ran = _assert_right(*maps, case)
    assert "aten::to" not in ran  # no copies of maps


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_stride_two_in_pairs_instead_of_winograd(layout):
    case = ((6, 64, 24, 24), (128, 64, 3, 3), (2, 2), (1, 1), (1, 1), 1)
    ran = _assert_right(*(map.contiguous(memory_format=layout) for map in _maps(case)), case)
    if config.cpu_capability() not in ("avx512", "amx"):
        assert "aten::to" in ran


def test_ranges_of_channels_are_read_in_place():
    case = CONVOLUTIONS["stride"]
    grad_output, input = [
        torch.cat([map, map, map], 1).contiguous(memory_format=torch.channels_last)[:, map.shape[1] : -map.shape[1]]
        for map in _maps(case)
    ]
    with config.use_conv_algorithm("direct"):
        ran = _assert_right(grad_output, input, case)
    assert not ran & {"aten::to", "aten::copy_"}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", ["odd channels", "beyond a tile", "stride three", "rows in one line", "one channel"])
def test_infinities_and_nans_stay_with_their_taps(name, layout):
    case = CONVOLUTIONS[name]
    grad_output, input = [map.contiguous(memory_format=layout) for map in _maps(case)]
    input[0, -1, 4, 3], input[1, 0, 0, -1], grad_output[-1, 3, 1, 1] = float("inf"), float("nan"), -float("inf")
    with config.use_conv_algorithm("direct"):
        _assert_right(grad_output, input, case)
    assert not _weight_grad(grad_output, input, case).isfinite().all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_pixels_outside_of_every_window_may_hold_anything(layout):
    case = ((5, 24, 12, 14), (40, 24, 2, 2), (3, 3), (0, 0), (1, 1), 1)
    grad_output, input = [map.contiguous(memory_format=layout) for map in _maps(case)]
    input[:, :, 2::3], input[:, :, :, 2::3] = float("nan"), float("inf")
    with config.use_conv_algorithm("direct"):
        _assert_right(grad_output, input, case)
        assert _weight_grad(grad_output, input, case).isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_divide_rows_images_or_channels(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in ("pairs of images", "beyond two tiles", "one pixel", "groups of a tile", "blocks of rows"):
            with config.use_conv_algorithm("direct"):
                _assert_right(*_maps(CONVOLUTIONS[name]), CONVOLUTIONS[name])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "case",
    [
        ((64, 4, 9, 9), (8, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # images in lanes
        ((4, 64, 12, 12), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # Winograd
    ],
    ids=["images", "winograd"],
)
def test_other_algorithms_take_copies(case):
    ran = _assert_right(*_maps(case), case)
    assert ("aten::to" in ran) != (config.cpu_capability() == "amx")
