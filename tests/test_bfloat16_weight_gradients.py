"""Weight gradients of convolutions that read bfloat16 maps themselves, on the CPU, with every instruction set: the bits
of the same op on float32 copies, rounded once. Where AVX512-BF16 may multiply pairs, sums come in another order and are
compared with those of float64."""

import pytest
import torch

from d2lkernels import config

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
}


@pytest.fixture(params=config.supported_cpu_capabilities(), autouse=True)
def capability(request):
    before = config.cpu_capability()
    config.set_cpu_capability(request.param)
    yield
    config.set_cpu_capability(before)


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


def test_infinities_and_nans_stay_with_their_taps():
    case = CONVOLUTIONS["odd channels"]
    grad_output, input = _maps(case)
    input[0, 2, 4, 3], input[1, 0, 0, 11], grad_output[2, 3, 1, 1] = float("inf"), float("nan"), -float("inf")
    with config.use_conv_algorithm("direct"):
        _assert_right(grad_output, input, case)
    assert not _weight_grad(grad_output, input, case).isfinite().all()


@pytest.mark.parametrize(
    "case",
    [
        ((64, 4, 9, 9), (8, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # images in lanes
        ((2, 16, 9, 9), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 16),  # depthwise
        ((4, 64, 12, 12), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # Winograd
    ],
    ids=["images", "groups", "winograd"],
)
def test_other_algorithms_take_copies(case):
    assert "aten::to" in _assert_right(*_maps(case), case)
