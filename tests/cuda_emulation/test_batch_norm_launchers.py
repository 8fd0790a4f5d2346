"""The CUDA launchers of batch normalisation, in emulation, against torch in float64."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import pytest
import toolchain
import torch
import torch.nn.functional as F

PROGRAMS = Path(__file__).resolve().parent / "programs"
LAYOUTS = ("nchw", "nhwc")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # in the order of DType
POISON = float("nan")
EPS = 1e-5

SIZES = {
    "packs": (2, 16, 6, 8),
    "odd": (3, 7, 5, 9),
    "columns": (37, 24, 1, 1),
    "many_channels": (3, 301, 1, 2),
    "more_packs_than_a_block": (2, 320, 2, 2),
    "one_channel": (3, 1, 9, 11),
    "long_planes": (1, 2, 61, 71),
    "many_slices": (40, 4, 16, 16),
    "small_planes": (300, 3, 2, 2),
    "two_values": (2, 5, 1, 1),
    "one_value_inference": (1, 5, 1, 1),
    "empty_batch": (0, 8, 4, 4),
}


# Where nothing is fused, the maps are dense and no statistics run.
PLAIN, NOT_RUNNING = 0, (None, None, False, None, 0.0)
ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}  # as in shapes.h


class Pixel(int):
    """Elements from one pixel to the next."""


DENSE = Pixel(0)


class BatchNormShape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("N", "C", "pixels")]


class Launchers:
    """The launchers as functions of torch tensors."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.last_error.restype = ctypes.c_char_p
        self._library.workspace_bytes.restype = ctypes.c_int64

    def __call__(self, name: str, x: torch.Tensor, layout: str, *arguments: object, workspace: bool = True) -> None:
        n, c, h, w = x.shape
        problem = (ctypes.byref(BatchNormShape(n, c, h * w)), LAYOUTS.index(layout), DTYPES.index(x.dtype))
        values = [self._value(argument) for argument in arguments]
        guard = 64
        if workspace:
            size = self._library.workspace_bytes(*problem)
            buffer = torch.full((size + guard,), 0xFF, dtype=torch.uint8)  # NaN in every type
            values.append(self._value(buffer))
        error = getattr(self._library, name)(*problem, ctypes.c_double(EPS), *values)
        assert error == 0, self._library.last_error(error).decode()
        if workspace:
            assert (buffer[size:] == 0xFF).all(), "written behind the workspace"

    @staticmethod
    def _value(argument: object) -> object:
        if isinstance(argument, torch.Tensor):
            return ctypes.c_void_p(argument.data_ptr())
        if isinstance(argument, bool):
            return ctypes.c_bool(argument)
        if isinstance(argument, float):
            return ctypes.c_double(argument)
        return ctypes.c_int64(argument) if isinstance(argument, Pixel) else argument


@pytest.fixture(scope="module")
def launchers(emulation: toolchain.Toolchain) -> Launchers:
    kernels = [toolchain.CUDA_SOURCES / name for name in ("batch_norm.cu", "batch_norm_sums.cu")]
    return Launchers(emulation.library([PROGRAMS / "batch_norm_api.cpp", *kernels]))


@pytest.fixture(params=toolchain.SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("D2LKERNELS_EMULATOR_SCHEDULE", request.param)
    return request.param


def formatted(x: torch.Tensor, layout: str) -> torch.Tensor:
    return x.contiguous(memory_format=torch.contiguous_format if layout == "nchw" else torch.channels_last)


def random(size: tuple[int, ...], dtype: torch.dtype, seed: int, mean: float = 0.5, deviation: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, generator=generator, dtype=torch.float64) * deviation + mean).to(dtype)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, terms: int = 1) -> None:
    compute = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    scale = expected.abs().max().item() if expected.numel() else 1.0
    atol = 8 * compute * math.sqrt(terms) * max(scale, 1.0)
    torch.testing.assert_close(actual.double(), expected, rtol=torch.finfo(actual.dtype).eps / 2, atol=atol)


def check(
    launchers: Launchers, x: torch.Tensor, layout: str, affine: bool = True, shift_addresses: bool = False
) -> list[torch.Tensor]:
    """Everything against float64. Returns all results."""
    channels, dtype = x.shape[1], x.dtype
    values = x.numel() // channels
    statistic = torch.float32 if dtype in DTYPES[2:] else torch.float64
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    weight = random((channels,), compute, 1) if affine else None
    bias = random((channels,), compute, 2) if affine else None
    grad = formatted(random(tuple(x.shape), dtype, 3), layout)

    def empty_map() -> torch.Tensor:
        if not shift_addresses:
            return torch.full(x.shape, POISON, dtype=dtype).contiguous(
                memory_format=torch.contiguous_format if layout == "nchw" else torch.channels_last
            )
        n, c, h, w = x.shape
        storage = torch.full((x.numel() + 1,), POISON, dtype=dtype)[1:]
        return storage.view(x.shape) if layout == "nchw" else storage.view(n, h, w, c).permute(0, 3, 1, 2)

    def per_channel(dtype: torch.dtype) -> torch.Tensor:
        return torch.full((channels,), POISON, dtype=dtype)

    exact = [None if one is None else one.double().requires_grad_() for one in (x, weight, bias)]
    if values == 0:
        return []
    mean, var, output = per_channel(statistic), per_channel(statistic), empty_map()
    launchers("batch_norm_train", x, layout, PLAIN, DENSE, x, None, weight, bias, output, mean, var, *NOT_RUNNING)
    expected_var, expected_mean = torch.var_mean(exact[0].detach(), (0, 2, 3), correction=0)
    # The float64 reference is no better than a float64 kernel.
    terms = values if dtype == torch.float64 else 1
    assert_close(mean, expected_mean, dtype, terms)
    assert_close(var, expected_var, dtype, terms)
    expected = (exact[0] - exact[0].mean((0, 2, 3), keepdim=True)) * torch.rsqrt(
        exact[0].var((0, 2, 3), correction=0, keepdim=True) + EPS
    )
    if affine:
        expected = expected * exact[1][:, None, None] + exact[2][:, None, None]
    assert_close(output, expected.detach(), dtype, terms)

    inferred, narrow = empty_map(), empty_map()
    launchers(
        "batch_norm_infer", x, layout, x, mean, var, statistic == torch.float64, weight, bias, inferred, workspace=False
    )
    assert torch.equal(inferred, output)
    if dtype == torch.float32:
        given = expected_mean.float(), expected_var.float()
        launchers("batch_norm_infer", x, layout, x, *given, False, weight, bias, narrow, workspace=False)
        exactly = F.batch_norm(x.double(), *(one.double() for one in (*given, *((weight, bias) if affine else ()))))
        assert_close(narrow, exactly, dtype)

    expected.backward(grad.double())
    grad_input, grad_weight, grad_bias = empty_map(), per_channel(compute), per_channel(compute)
    given = (grad, x, None, None, weight, bias, mean, var, False)
    launchers("batch_norm_train_grad", x, layout, PLAIN, DENSE, *given, grad_input, grad_weight, grad_bias)
    assert_close(grad_input, exact[0].grad, dtype, 16 * terms)
    z = (x.double() - expected_mean[:, None, None]) * torch.rsqrt(expected_var + EPS)[:, None, None]
    assert_close(grad_weight, (grad.double() * z).sum((0, 2, 3)), dtype, terms=values)
    assert_close(grad_bias, grad.double().sum((0, 2, 3)), dtype, terms=values)
    alone = per_channel(compute), per_channel(compute)
    launchers("batch_norm_weight_grad", x, layout, grad, x, mean, var, *alone)
    assert torch.equal(alone[0], grad_weight) and torch.equal(alone[1], grad_bias)
    return [output, mean, var, grad_input, grad_weight, grad_bias]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SIZES)
def test_batch_norm(launchers: Launchers, name: str, layout: str, dtype: torch.dtype) -> None:
    x = formatted(random(SIZES[name], dtype, 0), layout)
    before = x.clone()
    check(launchers, x, layout, affine=name != "odd")
    assert torch.equal(x, before)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("name", ["packs", "odd", "many_slices", "long_planes"])
def test_mean_much_larger_than_deviation(launchers: Launchers, name: str, dtype: torch.dtype, layout: str) -> None:
    x = formatted(random(SIZES[name], dtype, 0, mean=1e4, deviation=1e-2), layout)
    if dtype == torch.float32:
        check(launchers, x, layout)
        return
    output, mean, var, *_ = (torch.full(size, POISON, dtype=dtype) for size in (x.shape, x.shape[1:2], x.shape[1:2]))
    output = formatted(output, layout)
    launchers("batch_norm_train", x, layout, PLAIN, DENSE, x, None, None, None, output, mean, var, *NOT_RUNNING)
    expected = F.batch_norm(x - 1e4, None, None, training=True, eps=EPS)  # the difference is exact
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_misaligned_tensors(launchers: Launchers, dtype: torch.dtype, layout: str) -> None:
    n, c, h, w = size = SIZES["packs"]
    storage = torch.full((math.prod(size) + 1,), POISON, dtype=dtype)[1:]
    x = storage.view(size) if layout == "nchw" else storage.view(n, h, w, c).permute(0, 3, 1, 2)
    assert x.data_ptr() % 16 != 0
    x.copy_(random(size, dtype, 0))
    check(launchers, x, layout, shift_addresses=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_schedules_agree(launchers: Launchers, schedule: str, layout: str) -> None:
    for name in ("packs", "odd"):
        check(launchers, formatted(random(SIZES[name], torch.float32, 0), layout), layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_runs_are_bit_equal(launchers: Launchers, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for schedule in ("forward", "random", "reverse"):
        monkeypatch.setenv("D2LKERNELS_EMULATOR_SCHEDULE", schedule)
        results.append(check(launchers, formatted(random(SIZES["many_slices"], torch.float32, 0), layout), layout))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def surrounded(x: torch.Tensor, margin: int) -> torch.Tensor:
    """The values of x as the middle channels of wider maps in NHWC, which are NaN elsewhere."""
    n, c, h, w = x.shape
    storage = torch.full((n, h, w, c + 2 * margin), POISON, dtype=x.dtype)
    middle = storage[..., margin : margin + c].permute(0, 3, 1, 2)
    return middle.copy_(x)


def margins_are_whole(middle: torch.Tensor, margin: int) -> bool:
    n, c, h, w = middle.shape
    storage = middle.as_strided(
        (n, h, w, c + 2 * margin), (h * w * (c + 2 * margin), w * (c + 2 * margin), c + 2 * margin, 1), 0
    )
    return bool(storage[..., :margin].isnan().all() and storage[..., margin + c :].isnan().all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("margin", [None, 0, 16, 3], ids=["nchw", "nhwc", "aligned_range", "range"])
@pytest.mark.parametrize(
    "activation, residual", [(kind, residual) for kind in ("relu", "sigmoid", "tanh") for residual in (False, True)]
)
def test_fused(launchers: Launchers, activation: str, residual: bool, margin: int | None, dtype: torch.dtype) -> None:
    size, kind = (2, 16, 5, 6), list(ACTIVATIONS).index(activation)
    layout, pixel = ("nchw", DENSE) if margin is None else ("nhwc", Pixel(16 + 2 * margin))
    place = (lambda x: formatted(x, layout).clone()) if margin is None else (lambda x: surrounded(x, margin))
    statistic = torch.float32 if dtype in DTYPES[2:] else torch.float64
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    drawn = [random(size, dtype, seed) for seed in range(4)]
    x, more, grad, grad_input = (place(one) for one in drawn)
    output, through = (place(torch.zeros(size, dtype=dtype)) for _ in range(2))
    weight, bias = random((16,), compute, 5), random((16,), compute, 6)
    mean, var = (torch.full((16,), POISON, dtype=statistic) for _ in range(2))
    grad_weight, grad_bias = (torch.full((16,), POISON, dtype=compute) for _ in range(2))
    launchers(
        *("batch_norm_train", x, layout, kind, pixel, x, more if residual else None, weight, bias, output, mean, var),
        *NOT_RUNNING,
    )
    leaves_through = residual or activation != "relu"
    by_output = (output if residual else None, through if leaves_through else None)
    launchers(
        *("batch_norm_train_grad", x, layout, kind, pixel, grad, x, *by_output, weight, bias, mean, var, True),
        *(grad_input, grad_weight, grad_bias),
    )

    exact = [one.double().requires_grad_() for one in (drawn[0], drawn[1], weight, bias)]
    expected = F.batch_norm(exact[0], None, None, *exact[2:], training=True, eps=EPS)
    applied = expected + exact[1] if residual else expected
    expected = ACTIVATIONS[activation](applied)
    inputs = exact if residual else [exact[0], *exact[2:]]
    wanted = torch.autograd.grad(expected, inputs, drawn[2].double(), retain_graph=True)
    loose = dtype in DTYPES[2:]  # `through` rounds the gradient once more
    close = lambda actual, exactly: torch.testing.assert_close(  # noqa: E731
        actual.double(), exactly, rtol=2e-2 if loose else 1e-5, atol=(2e-2 if loose else 1e-5) * exactly.abs().max()
    )
    close(output, expected.detach())
    close(grad_input, wanted[0] + drawn[3].double())
    close(grad_weight, wanted[-2])
    close(grad_bias, wanted[-1])
    if leaves_through:
        derivative = torch.autograd.grad(expected, applied, drawn[2].double())[0]
        close(through, derivative)
    if margin:
        assert all(
            margins_are_whole(one, margin) for one in (x, grad, output, grad_input, *by_output[1:]) if one is not None
        )


@pytest.mark.parametrize("momentum", [0.3, None], ids=["momentum", "cumulative"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("wide", [False, True], ids=["own", "float32"])
def test_running_statistics(launchers: Launchers, dtype: torch.dtype, wide: bool, momentum: float | None) -> None:
    running_dtype = torch.float32 if wide and dtype in DTYPES[2:] else dtype
    statistic = torch.float32 if dtype in DTYPES[2:] else torch.float64
    running = [random((7,), running_dtype, 8), random((7,), running_dtype, 9).abs()]
    batches = torch.tensor(2)
    layer = torch.nn.BatchNorm2d(7, momentum=momentum, dtype=torch.float64)
    layer.running_mean, layer.running_var = (one.double() for one in running)
    layer.num_batches_tracked += 2
    for step in range(2):
        x = random((3, 7, 5, 9), dtype, step)
        mean, var, output = (
            torch.full(one, POISON, dtype=kind)
            for one, kind in (((7,), statistic), ((7,), statistic), (x.shape, dtype))
        )
        launchers(
            *("batch_norm_train", x, "nchw", PLAIN, DENSE, x, None, None, None, output, mean, var, *running),
            *(running_dtype != dtype, batches, -1.0 if momentum is None else momentum),
        )
        layer(x.double())
    assert batches.item() == 4
    tolerance = 2 * torch.finfo(running_dtype).eps
    torch.testing.assert_close(running[0].double(), layer.running_mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(running[1].double(), layer.running_var, rtol=tolerance, atol=tolerance)
