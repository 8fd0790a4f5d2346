"""Products of bfloat16: matrices that lie in memory in every way, against float64. Machines with AMX or AVX512-BF16
multiply pairs of values, others float32 copies; all round once."""

import pytest
import torch
from cases import DEVICES

from d2lkernels import ops

pytestmark = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)

# Rows, depth, columns: single values, odd depths, parts of tiles and vectors, chunks of rows, few rows.
SIZES = (
    *((1, 1, 1), (3, 5, 7), (2, 4, 6), (33, 65, 31), (256, 784, 120), (700, 96, 300), (5, 2, 200), (70, 33, 1)),
    *((1, 300, 500), (2, 3000, 16), (13, 1, 17), (7, 1601, 45), (20, 1700, 37), (300, 15, 90), (40, 16, 64)),
    # Tiles of AMX: parts of one, depths that steps do not divide, few rows times a large matrix.
    *((16, 32, 16), (17, 34, 47), (33, 62, 64), (600, 74, 70), (64, 2200, 100), (9, 1024, 1050), (20, 3000, 350)),
)
WAYS = {
    "contiguous": lambda matrix: matrix,
    "transposed": lambda matrix: matrix.t().contiguous().t(),
    "wide rows": lambda matrix: torch.cat([matrix, matrix], 1)[:, : matrix.size(1)],
    "odd start": lambda matrix: torch.cat([matrix.flatten()[:1], matrix.flatten()])[1:].view_as(matrix),
    "every other": lambda matrix: matrix.repeat_interleave(2, 1)[:, ::2],
    "between NaN": lambda matrix: torch.nn.functional.pad(matrix, (1, 2, 1, 1), value=float("nan"))[1:-1, 1:-2],
    "transposed between NaN": lambda matrix: WAYS["between NaN"](matrix.t()).t(),
}


def _drawn(*size, seed):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).bfloat16()


def _assert_rounded_once(actual, expected):
    """Half a unit of bfloat16 for the result, and float32's errors of the sum."""
    assert actual.dtype == torch.bfloat16 and actual.shape == expected.shape
    error = (actual.cpu().double() - expected).abs()
    assert (error <= 2**-8 * expected.abs() + 1e-5 * expected.abs().max()).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear(device, size, way):
    rows, depth, columns = size
    values = [_drawn(rows, depth, seed=0), _drawn(columns, depth, seed=1), _drawn(columns, seed=2)]
    given = [WAYS[way](values[0]).to(device.type), WAYS[way](values[1]).to(device.type), values[2].to(device.type)]
    given, exact = [[t.detach().requires_grad_() for t in ts] for ts in (given, [t.double() for t in values])]
    grad = _drawn(rows, columns, seed=3)
    result, expected = ops.linear(*given), torch.nn.functional.linear(*exact)
    _assert_rounded_once(result, expected)
    result.backward(grad.to(device.type))
    expected.backward(grad.double())
    for tensor, other in zip(given, exact, strict=True):
        _assert_rounded_once(tensor.grad, other.grad)


# Images, channels, height, width, output channels: odd channels and planes, planes too small to be multiplied by
# themselves, more channels than a block of the depth, more images than threads.
MAPS = (
    *((2, 3, 5, 7, 4), (1, 1, 3, 3, 1), (3, 64, 12, 12, 40), (16, 17, 1, 1, 33), (3, 17, 6, 6, 33), (2, 130, 7, 7, 20)),
    *((2, 1601, 6, 6, 20), (9, 5, 8, 8, 150), (1, 40, 54, 54, 30), (2, 20, 40, 40, 1700)),
)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("size", MAPS, ids=str)
def test_pointwise_convolution(device, size, memory_format):
    images, channels, height, width, out_channels = size
    values = [_drawn(images, channels, height, width, seed=0), _drawn(out_channels, channels, 1, 1, seed=1)]
    values.append(_drawn(out_channels, seed=2))
    given = [values[0].contiguous(memory_format=memory_format), *values[1:]]
    given = [tensor.to(device.type).detach().requires_grad_() for tensor in given]
    exact = [tensor.double().requires_grad_() for tensor in values]
    grad = _drawn(images, out_channels, height, width, seed=3)
    result, expected = ops.conv2d(*given), torch.nn.functional.conv2d(*exact)
    assert result.is_contiguous(memory_format=memory_format)
    _assert_rounded_once(result, expected)
    result.backward(grad.to(device.type).contiguous(memory_format=memory_format))
    expected.backward(grad.double())
    for tensor, other in zip(given, exact, strict=True):
        _assert_rounded_once(tensor.grad, other.grad)
    detached = [tensor.detach() for tensor in given]
    _assert_rounded_once(ops.conv2d(*detached[:2]), torch.nn.functional.conv2d(*exact[:2]))
    assert torch.equal(ops.conv2d_activation(*detached, activation="relu"), result.detach().relu())
    _assert_rounded_once(ops.conv2d_activation(*detached, activation="sigmoid"), expected.sigmoid())


@pytest.mark.parametrize("way", ["odd start", "part of a batch", "mixed formats"])
def test_maps_in_other_places(device, way):
    ways = {
        "odd start": lambda map: torch.cat([map.flatten()[:1], map.flatten()])[1:].view_as(map),
        "part of a batch": lambda map: torch.cat([map, map], 1)[:, : map.size(1)],
        "mixed formats": lambda map: map.contiguous(memory_format=torch.channels_last),
    }
    x, weight, grad = _drawn(3, 10, 6, 8, seed=0), _drawn(21, 10, 1, 1, seed=1), _drawn(3, 21, 6, 8, seed=2)
    given = [ways[way](x).to(device.type).detach().requires_grad_(), weight.to(device.type).requires_grad_()]
    exact = [tensor.double().requires_grad_() for tensor in (x, weight.cpu().detach())]
    result, expected = ops.conv2d(*given), torch.nn.functional.conv2d(*exact)
    _assert_rounded_once(result, expected)
    result.backward((grad if way == "mixed formats" else ways[way](grad)).to(device.type))
    expected.backward(grad.double())
    for tensor, other in zip(given, exact, strict=True):
        _assert_rounded_once(tensor.grad, other.grad)


@pytest.mark.parametrize("columns", [4096, 4100])
def test_large_result_of_little_depth(device, columns):
    """It is written past the cache, or in parts of vectors."""
    a, b = _drawn(4100, 13, seed=0), _drawn(columns, 13, seed=1)
    result = ops.linear(a.t().contiguous().t().to(device.type), b.t().contiguous().t().to(device.type))
    _assert_rounded_once(result[::41], a[::41].double() @ b.double().t())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_nan_stays_in_its_pixel(device, memory_format):
    """The last of an odd number of channels has no partner, and the next line must not stand in for it."""
    x = _drawn(2, 5, 7, 7, seed=0)
    x[0, 0, 3, 4] = x[1, 4, 6, 6] = float("nan")
    result = ops.conv2d(
        x.contiguous(memory_format=memory_format).to(device.type), _drawn(6, 5, 1, 1, seed=1).to(device.type)
    )
    assert torch.equal(result.cpu().isnan(), x.isnan().any(1, keepdim=True).expand(2, 6, 7, 7))


def test_nan_and_infinity_come_through(device):
    input = _drawn(20, 6, seed=0)
    input[3, 1], input[4, 2], input[5, 5] = float("nan"), float("inf"), -float("inf")
    result = ops.linear(input.to(device.type), torch.ones(9, 6, dtype=torch.bfloat16, device=device.type)).cpu()
    assert result[3].isnan().all() and (result[4] == float("inf")).all() and (result[5] == -float("inf")).all()
    assert result[[0, 1, 2, *range(6, 20)]].isfinite().all()
