"""The CUDA convolution launchers, in emulation, against double-precision loops (see test_conv2d_launchers.cpp)."""

from __future__ import annotations

from pathlib import Path

import pytest
import toolchain

DRIVER = Path(__file__).with_suffix(".cpp")
SOURCES = [DRIVER, *sorted(toolchain.CUDA_SOURCES.glob("conv2d*.cu")), toolchain.CUDA_SOURCES / "batch_norm_sums.cu"]
KINDS = ("float32", "tf32", "float64", "bfloat16", "float16")


@pytest.fixture(scope="module")
def driver(emulation: toolchain.Toolchain) -> Path:
    return emulation.program(SOURCES)


@pytest.fixture(scope="module")
def sanitized_driver(sanitized_emulation: toolchain.Toolchain) -> Path:
    return sanitized_emulation.program(SOURCES)


def check(driver: Path, kind: str, suite: str, **settings: object) -> None:
    result = toolchain.run(driver, kind, suite, **settings)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("0 of "), result.stdout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suite", ["limits", "shapes", "moments", "ranges"])
def test_against_loops(driver: Path, kind: str, suite: str) -> None:
    check(driver, kind, suite)


@pytest.mark.parametrize("kind", ["float32", "tf32", "bfloat16"])
def test_large_tile(driver: Path, kind: str) -> None:
    check(driver, kind, "large")


@pytest.mark.parametrize("kind", ["float32", "float64", "tf32", "bfloat16"])
def test_every_schedule_gives_the_same_bits(driver: Path, kind: str) -> None:
    check(driver, kind, "schedules")


@pytest.mark.parametrize("kind", ["float64", "bfloat16"])
def test_stays_within_its_tensors(sanitized_driver: Path, kind: str) -> None:
    check(sanitized_driver, kind, "shapes")
    check(sanitized_driver, kind, "moments")
