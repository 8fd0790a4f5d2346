"""Products of a few rows with a large matrix, which are read once in the order in which it lies: against float64."""

import pytest
import torch
from cases import DEVICES, not_about_kernels

from d2lkernels import ops

CPUS = [device for device in DEVICES if device.type == "cpu" and not device.is_emulated]
pytestmark = [not_about_kernels, pytest.mark.parametrize("device", CPUS, ids=lambda device: device.name)]

# Depths whose rows compete for one set of the cache, and do not; blocks of the depth, whole and in part.
SIZES = ((1024, 1100), (2048, 601), (1030, 1027), (517, 2111), (4099, 300))
ROUNDING = {torch.float32: 0.0, torch.float64: 0.0, torch.bfloat16: 2**-8}


def _drawn(*size, seed, dtype):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rows", [4, 5, 8, 9, 16, 17, 31, 32, 33])
def test_against_float64(device, rows, size, dtype):
    depth, columns = size
    x, w, b = (_drawn(*shape, seed=i, dtype=dtype) for i, shape in enumerate([(rows, depth), size[::-1], (columns,)]))
    result = ops.linear_activation(x, w, b, "relu")
    expected = torch.relu(torch.nn.functional.linear(x.double(), w.double(), b.double()))
    error = (result.double() - expected).abs()
    assert (error <= ROUNDING[dtype] * expected + (1e-13 if dtype == torch.float64 else 1e-5) * expected.max()).all()


@pytest.mark.parametrize("rows", [5, 16, 20])
def test_threads_change_no_bit(device, rows):
    x, w = _drawn(rows, 1040, seed=0, dtype=torch.float32), _drawn(1200, 1040, seed=1, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(ops.linear(x, w))
    finally:
        torch.set_num_threads(before)
    assert results[0].equal(results[1]) and results[0].equal(results[2])


@pytest.mark.parametrize("rows", [7, 16])
def test_memory_around_the_weight_is_left_alone(device, rows):
    """A weight between NaN: what is fetched of its neighbours is not computed with."""
    x = _drawn(rows, 1024, seed=0, dtype=torch.float32)
    wide = torch.full((1203, 1024), float("nan"))
    wide[1:-1] = _drawn(1201, 1024, seed=1, dtype=torch.float32)
    assert ops.linear(x, wide[1:-1]).equal(ops.linear(x, wide[1:-1].clone()))
