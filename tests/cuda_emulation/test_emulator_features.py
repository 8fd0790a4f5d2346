"""Warp collectives, tensor-core fragments, atomics and number formats of the SIMT emulator against plain references."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import toolchain
import torch

PROGRAMS = Path(__file__).resolve().parent / "programs"
THREADS, WARP = 64, 32


@pytest.fixture(scope="module")
def features(emulation: toolchain.Toolchain) -> ctypes.CDLL:
    return ctypes.CDLL(str(emulation.library([PROGRAMS / "features.cu"])))


@pytest.fixture(params=toolchain.SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("D2LKERNELS_EMULATOR_SCHEDULE", request.param)
    return request.param


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def expected_collectives() -> list[list[int]]:
    """As in the kernel, for the value 10 * thread."""

    def each(function: Callable[[int, int, int], int]) -> list[int]:
        return [function(t, t % WARP, t - t % WARP) for t in range(THREADS)]

    votes = sum(1 << lane for lane in range(0, WARP, 3))
    votes -= (votes >> 31) << 32  # as a signed number
    return [
        each(lambda t, lane, first: 10 * (first + 5)),
        each(lambda t, lane, first: 10 * (first + lane // 8 * 8 + (lane + 1) % 8)),
        each(lambda t, lane, first: 10 * (t - 3 if lane >= 3 else t)),
        each(lambda t, lane, first: 10 * (t - 1 if lane % 8 >= 1 else t)),
        each(lambda t, lane, first: 10 * (t + 3 if lane + 3 < WARP else t)),
        each(lambda t, lane, first: 10 * (t + 1 if lane % 8 < 7 else t)),
        each(lambda t, lane, first: 10 * (t ^ 9)),
        each(lambda t, lane, first: 10 * sum(range(first, first + WARP))),
        each(lambda t, lane, first: -10 * first),
        each(lambda t, lane, first: votes),
        each(lambda t, lane, first: int(first == WARP)),
        each(lambda t, lane, first: int(first != WARP)),
        each(lambda t, lane, first: 10 * (sum(range(first, first + 16)) if lane < 16 else first + 16)),
        each(lambda t, lane, first: 13),
        each(lambda t, lane, first: 1),
        each(lambda t, lane, first: 0),
    ]


def test_collectives(features: ctypes.CDLL, schedule: str) -> None:
    expected = torch.tensor(expected_collectives(), dtype=torch.int32)
    out = torch.full_like(expected, -1)
    assert features.run_collectives(pointer(out)) == 0
    assert torch.equal(out, expected)


def test_last_block_sees_all_atomics(features: ctypes.CDLL, schedule: str) -> None:
    for _ in range(5):
        total, count = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
        float_total, out = torch.zeros(1), torch.full((2,), float("nan"))
        assert features.run_last_block(*map(pointer, (total, float_total, count, out))) == 0
        assert out.tolist() == [384, 192]
        assert count.item() == 0  # ready for the next launch


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_fragments(features: ctypes.CDLL, schedule: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(16, 16, generator=generator).to(dtype)
    b = torch.randn(16, 8, generator=generator).to(dtype)
    d, differences = torch.full((16, 8), float("nan")), torch.full((1,), -1, dtype=torch.int32)
    half = ctypes.c_bool(dtype == torch.float16)
    assert features.run_mma(half, *map(pointer, (a, b, d, differences))) == 0
    assert differences.item() == 0
    torch.testing.assert_close(d.double(), a.double() @ b.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_conversions_round_as_torch(features: ctypes.CDLL, dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    between = (every[:-1].double() + every[1:].double()).div(2).float()  # ties
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (200000,), generator=generator).to(torch.int32).view(torch.float32)
    x = torch.cat([every, between, between.nextafter(torch.zeros(())), bits])
    rounded, back = torch.zeros(x.numel(), dtype=dtype), torch.full_like(x, 7)
    half = ctypes.c_bool(dtype == torch.float16)
    assert features.run_convert(half, pointer(x), pointer(rounded), pointer(back), x.numel()) == 0
    expected = x.to(dtype)
    nan = x.isnan()
    assert torch.equal(rounded[~nan].view(torch.int16), expected[~nan].view(torch.int16))
    assert rounded[nan].isnan().all() and back[nan].isnan().all()
    assert torch.equal(back[~nan], expected[~nan].float())


def test_tf32_rounds_to_nearest_ties_away(features: ctypes.CDLL) -> None:
    ulp = 2.0**-10
    inputs = [1.0, 1 + ulp / 2, 1 + ulp * 0.49, -1 - ulp / 2, 1 + ulp * 1.5, 0.0, float("inf"), float("-inf")]
    outputs = [1.0, 1 + ulp, 1.0, -1 - ulp, 1 + 2 * ulp, 0.0, float("inf"), float("-inf")]
    x = torch.tensor([*inputs, float("nan")])
    out = torch.zeros_like(x)
    assert features.run_round_tf32(pointer(x), pointer(out), x.numel()) == 0
    assert out[:-1].tolist() == outputs
    assert out[-1].isnan()
