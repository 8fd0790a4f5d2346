"""The CUDA pooling launchers, in emulation, against torch: every layout and dtype, whole packs and single elements."""

from __future__ import annotations

import ctypes
import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import pytest
import toolchain
import torch
import torch.nn.functional as F

PROGRAMS = Path(__file__).resolve().parent / "programs"
LAYOUTS = ("nchw", "nhwc")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # in the order of DType
POISON = float("nan")
MAP_NORESERVE = 0x4000  # mmap names it from Python 3.13 on


class Pool2dShape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("N", "C", "H", "W", "R", "S", "P", "Q", "stride_h", "stride_w")),
        *((name, ctypes.c_int64) for name in ("pad_h", "pad_w", "dilation_h", "dilation_w")),
        ("adaptive", ctypes.c_bool),
        ("count_include_pad", ctypes.c_bool),
        ("divisor_override", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Pool:
    """Arguments of one pooling, and the size of its input."""

    size: tuple[int, int, int, int]
    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False
    output_size: tuple[int, int] | None = None  # adaptive
    count_include_pad: bool = True
    divisor_override: int | None = None

    def max(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.output_size is not None:
            return F.adaptive_max_pool2d(x, self.output_size, return_indices=True)
        return F.max_pool2d(
            x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )

    def avg(self, x: torch.Tensor) -> torch.Tensor:
        if self.output_size is not None:
            return F.adaptive_avg_pool2d(x, self.output_size)
        options = (self.ceil_mode, self.count_include_pad, self.divisor_override)
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding, *options)

    def shape(self, output: torch.Tensor) -> Pool2dShape:
        n, c, h, w = self.size
        p, q = output.shape[2:]
        r, s = self.kernel
        if self.output_size is not None:
            r = max(((i + 1) * h + p - 1) // p - i * h // p for i in range(p))
            s = max(((i + 1) * w + q - 1) // q - i * w // q for i in range(q))
        geometry = (*self.stride, *self.padding, *self.dilation)
        adaptive = self.output_size is not None
        divisor = self.divisor_override or 0
        return Pool2dShape(n, c, h, w, r, s, p, q, *geometry, adaptive, self.count_include_pad, divisor)


MAX_POOLS = {
    "2x2": Pool((2, 16, 6, 8)),
    "overlapping": Pool((2, 8, 9, 7), (3, 3), (2, 2), (1, 1)),
    "ceil": Pool((1, 8, 8, 8), (3, 3), (2, 2), ceil_mode=True),
    "rectangular": Pool((1, 5, 7, 10), (2, 4), (3, 1), (1, 2)),
    "dilated": Pool((1, 16, 11, 9), (3, 2), (2, 1), (1, 1), (2, 3)),
    "stride_over_kernel": Pool((2, 3, 9, 9), (2, 2), (4, 3)),
    "width_1": Pool((3, 8, 5, 1), (3, 1), (1, 1), (1, 0)),
    "global": Pool((2, 8, 5, 6), (5, 6), (1, 1)),
    "wide_window": Pool((1, 3, 20, 24), (17, 19), (2, 2), (3, 4)),
    "adaptive": Pool((2, 8, 7, 9), output_size=(3, 4)),
    "adaptive_larger": Pool((1, 3, 3, 4), output_size=(5, 7)),
    "adaptive_1": Pool((2, 8, 6, 5), output_size=(1, 1)),
    "large_stride": Pool((1, 8, 4, 4), (3, 3), (2**31 - 1, 2**31 - 2), (1, 1)),
    "empty_batch": Pool((0, 8, 6, 6)),
}
AVG_POOLS = {
    **{name: pool for name, pool in MAX_POOLS.items() if name != "dilated"},
    "padding_excluded": Pool((2, 8, 9, 7), (3, 3), (2, 2), (1, 1), count_include_pad=False),
    "ceil_beyond_padding": Pool((1, 8, 7, 6), (3, 4), (2, 3), (1, 1), ceil_mode=True),
    "ceil_padding_excluded": Pool((1, 3, 7, 6), (3, 4), (2, 3), (1, 1), ceil_mode=True, count_include_pad=False),
    "divisor_override": Pool((1, 8, 6, 6), (3, 3), (1, 1), (1, 1), divisor_override=7),
    "large_divisor": Pool((1, 3, 4, 4), divisor_override=2**33),
}


class Launchers:
    """The launchers as functions of torch tensors."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.last_error.restype = ctypes.c_char_p

    def __call__(self, name: str, pool: Pool2dShape, layout: str, *arguments: object) -> None:
        dtypes = [a.dtype for a in arguments if isinstance(a, torch.Tensor) and a.dtype in DTYPES]
        dtype = [ctypes.c_int(DTYPES.index(dtypes[0]))] if dtypes else []
        values = [self._value(argument) for argument in arguments]
        error = getattr(self._library, name)(ctypes.byref(pool), LAYOUTS.index(layout), *dtype, *values)
        assert error == 0, self._library.last_error(error).decode()

    @staticmethod
    def _value(argument: object) -> object:
        if isinstance(argument, torch.Tensor):
            return ctypes.c_void_p(argument.data_ptr())
        return ctypes.c_bool(argument) if isinstance(argument, bool) else argument


@pytest.fixture(scope="module")
def launchers(emulation: toolchain.Toolchain) -> Launchers:
    sources = [toolchain.CUDA_SOURCES / "max_pool2d.cu", toolchain.CUDA_SOURCES / "avg_pool2d.cu"]
    return Launchers(emulation.library([PROGRAMS / "pool2d_api.cpp", *sources]))


@pytest.fixture(params=toolchain.SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("D2LKERNELS_EMULATOR_SCHEDULE", request.param)
    return request.param


def memory_format(layout: str) -> torch.memory_format:
    return torch.contiguous_format if layout == "nchw" else torch.channels_last


def empty(like: torch.Tensor, dtype: torch.dtype, layout: str, fill: float = POISON) -> torch.Tensor:
    return torch.full(like.shape, fill, dtype=dtype).contiguous(memory_format=memory_format(layout))


def random(size: tuple[int, ...], dtype: torch.dtype, layout: str, levels: int = 9) -> torch.Tensor:
    """Few distinct values, so that maxima tie; exact in every dtype."""
    generator = torch.Generator().manual_seed(sum(size))
    values = torch.randint(-levels, levels + 1, size, generator=generator).to(dtype) / 4
    return values.contiguous(memory_format=memory_format(layout))


def tolerance(dtype: torch.dtype, terms: int) -> dict[str, float]:
    accumulation = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * terms
    return {"rtol": torch.finfo(dtype).eps / 2 + accumulation, "atol": accumulation}


def offset_dtype(shape: Pool2dShape) -> torch.dtype:
    return torch.int32 if shape.R * shape.S > 256 else torch.uint8


def check_max_pool(launchers: Launchers, pool: Pool, layout: str, x: torch.Tensor) -> None:
    """Forward, offsets, indices, gather and gradient of one maximum pooling against torch's."""
    reference = x.detach().to(torch.float64, copy=True).requires_grad_()
    expected, expected_indices = pool.max(reference)
    shape = pool.shape(expected)
    wide = offset_dtype(shape) == torch.int32
    output = empty(expected, x.dtype, layout)
    offsets = empty(expected, offset_dtype(shape), layout, fill=255)
    before = x.clone()
    launchers("max_pool2d", shape, layout, x, output, offsets, wide)
    assert torch.equal(x.nan_to_num(), before.nan_to_num())
    torch.testing.assert_close(output.double(), expected.detach(), rtol=0, atol=0, equal_nan=True)

    without_offsets = empty(expected, x.dtype, layout)
    launchers("max_pool2d", shape, layout, x, without_offsets, None, wide)
    assert torch.equal(without_offsets.nan_to_num(7), output.nan_to_num(7))

    indices = empty(expected, torch.int64, layout, fill=-1)
    launchers("max_pool2d_indices", shape, layout, offsets, wide, indices)
    assert torch.equal(indices, expected_indices)

    gathered = empty(expected, x.dtype, layout)
    launchers("max_pool2d_gather", shape, layout, x, offsets, wide, gathered)
    assert torch.equal(gathered.nan_to_num(7), output.nan_to_num(7))

    gradient = random(tuple(expected.shape), x.dtype, layout, levels=1000)
    expected.backward(gradient.double())
    grad_input = empty(x, x.dtype, layout)
    launchers("max_pool2d_input_grad", shape, layout, gradient, offsets, wide, grad_input)
    terms = math.prod(pool.kernel)
    torch.testing.assert_close(grad_input.double(), reference.grad, **tolerance(x.dtype, terms))


def check_avg_pool(launchers: Launchers, pool: Pool, layout: str, x: torch.Tensor) -> None:
    reference = x.detach().to(torch.float64, copy=True).requires_grad_()
    expected = pool.avg(reference)
    shape = pool.shape(expected)
    output = empty(expected, x.dtype, layout)
    launchers("avg_pool2d", shape, layout, x, output)
    torch.testing.assert_close(output.double(), expected.detach(), **tolerance(x.dtype, shape.R * shape.S))

    gradient = random(tuple(expected.shape), x.dtype, layout, levels=1000)
    expected.backward(gradient.double())
    grad_input = empty(x, x.dtype, layout)
    launchers("avg_pool2d_input_grad", shape, layout, gradient, grad_input)
    torch.testing.assert_close(grad_input.double(), reference.grad, **tolerance(x.dtype, 4096))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MAX_POOLS)
def test_max_pool(launchers: Launchers, name: str, layout: str, dtype: torch.dtype) -> None:
    pool = MAX_POOLS[name]
    check_max_pool(launchers, pool, layout, random(pool.size, dtype, layout))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", AVG_POOLS)
def test_avg_pool(launchers: Launchers, name: str, layout: str, dtype: torch.dtype) -> None:
    pool = AVG_POOLS[name]
    check_avg_pool(launchers, pool, layout, random(pool.size, dtype, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_schedules_agree(launchers: Launchers, schedule: str, layout: str) -> None:
    for name in ("overlapping", "adaptive"):
        x = random(MAX_POOLS[name].size, torch.float32, layout)
        check_max_pool(launchers, MAX_POOLS[name], layout, x)
        check_avg_pool(launchers, AVG_POOLS[name], layout, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_max_pool_of_nan_and_infinity(launchers: Launchers, layout: str, dtype: torch.dtype) -> None:
    pool = Pool((2, 8, 8, 8), (3, 3), (2, 2), (1, 1))
    x = random(pool.size, dtype, layout)
    x[:, ::2, 1::3, ::2] = math.nan
    x[:, 1, :, :] = -math.inf
    x[0, 3, :, ::3] = math.inf
    check_max_pool(launchers, pool, layout, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_misaligned_tensors(launchers: Launchers, dtype: torch.dtype) -> None:
    pool = MAX_POOLS["2x2"]
    n, c, h, w = pool.size
    storage = torch.full((n * c * h * w + 1,), POISON, dtype=dtype)
    x = storage[1:].view(n, h, w, c).permute(0, 3, 1, 2)
    assert x.is_contiguous(memory_format=torch.channels_last) and x.data_ptr() % 16 != 0
    x.copy_(random(pool.size, dtype, "nhwc"))
    check_max_pool(launchers, pool, "nhwc", x)
    check_avg_pool(launchers, pool, "nhwc", x)


def test_more_elements_than_threads(launchers: Launchers) -> None:
    pool = Pool((1, 1, 1, 16384 * 256 + 321), (1, 1), (1, 1))  # one more round for some threads
    x = torch.arange(math.prod(pool.size)).reshape(pool.size).to(torch.float32)
    shape = pool.shape(x)
    output = torch.full_like(x, POISON)
    launchers("max_pool2d", shape, "nchw", x, output, None, False)
    assert torch.equal(output, x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_offsets_beyond_2_to_the_31(launchers: Launchers, layout: str) -> None:
    """The tensor costs little: pages that are never written all are one page of zeros."""
    side, channels = 18000, 8
    memory = mmap.mmap(-1, side * side * channels * 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    flat = torch.frombuffer(memory, dtype=torch.float16)
    assert flat.numel() > 2**31
    if layout == "nchw":
        x = flat.view(1, channels, side, side)
    else:
        x = flat.view(1, side, side, channels).permute(0, 3, 1, 2)
    pool = Pool((1, channels, side, side), stride=(side - 2, side - 2))
    expected = torch.zeros(1, channels, 2, 2, dtype=torch.float16)
    expected[0, :, 1, 1] = torch.arange(1, channels + 1)
    x[:, :, -1, -1] = expected[:, :, 1, 1]
    output = empty(expected, torch.float16, layout)
    launchers("max_pool2d", pool.shape(expected), layout, x, output, None, False)
    assert torch.equal(output, expected)
    launchers("avg_pool2d", pool.shape(expected), layout, x, output)
    assert torch.equal(output, expected / 4)
