"""The SIMT emulator itself: correct kernels agree under every schedule, and each planted fault is found."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
import toolchain

PROGRAMS = Path(__file__).resolve().parent / "programs"
COMBINATIONS = list(itertools.product(toolchain.SCHEDULES, toolchain.COPY_MODELS))
TF32_ERROR = 2e-3  # of products of numbers with 11 significant bits, summed in float32; faults cause 100 times that


@pytest.fixture(scope="module")
def gemm(emulation: toolchain.Toolchain) -> Path:
    return emulation.program([PROGRAMS / "gemm.cu"])


@pytest.fixture(scope="module")
def faults(emulation: toolchain.Toolchain) -> Path:
    return emulation.program([PROGRAMS / "faults.cu"])


@pytest.fixture(scope="module")
def sanitized_faults(sanitized_emulation: toolchain.Toolchain) -> Path:
    return sanitized_emulation.program([PROGRAMS / "faults.cu"])


def gemm_is_right(gemm: Path, fault: str, schedule: str, copies: str) -> bool:
    result = toolchain.run(gemm, fault, schedule=schedule, cp_async=copies)
    assert result.returncode == 0, result.stdout + result.stderr
    errors = [float(text) for text in result.stdout.split()]
    assert len(errors) == 2
    return all(math.isfinite(error) and error < TF32_ERROR for error in errors)


@pytest.mark.parametrize(("schedule", "copies"), COMBINATIONS)
def test_correct_kernel_agrees(gemm: Path, schedule: str, copies: str) -> None:
    assert gemm_is_right(gemm, "none", schedule, copies)


def test_correct_kernel_agrees_on_portable_fibers(portable_emulation: toolchain.Toolchain) -> None:
    program = portable_emulation.program([PROGRAMS / "gemm.cu"])
    for schedule in ("forward", "random"):
        assert gemm_is_right(program, "none", schedule, "late")


def test_missing_wait_is_found_by_late_copies(gemm: Path) -> None:
    for schedule in toolchain.SCHEDULES:
        assert not gemm_is_right(gemm, "missing_wait", schedule, "late")


def test_missing_barrier_is_found(gemm: Path) -> None:
    found = [pair for pair in COMBINATIONS if not gemm_is_right(gemm, "missing_barrier", *pair)]
    assert {copies for _, copies in found} == {"late", "eager"}


def test_missing_barrier_before_reuse_is_found_by_eager_copies(gemm: Path) -> None:
    for schedule in ("random", "greedy", "greedy_reverse"):
        assert not gemm_is_right(gemm, "missing_reuse_barrier", schedule, "eager")


@pytest.mark.parametrize("schedule", toolchain.SCHEDULES)
@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("divergent_barrier", "cudaErrorLaunchTimeout", "divergent barrier"),
        ("two_barriers", "cudaErrorLaunchFailure", "divergent barrier"),
        ("misaligned_copy", "cudaErrorMisalignedAddress", "16 bytes from a global address"),
        ("misaligned_shared_copy", "cudaErrorMisalignedAddress", "16 bytes to a shared address"),
        ("copy_outside_shared", "cudaErrorInvalidAddressSpace", "outside shared memory"),
        ("partial_mask", "cudaError", "has exited"),
        ("mask_without_caller", "cudaErrorLaunchFailure", "leaves out the calling lane"),
        ("different_masks", "cudaErrorLaunchFailure", "with mask 0x7fffffff"),
        ("shuffle_from_outside_mask", "cudaErrorLaunchFailure", "which its mask leaves out"),
        ("shared_overrun", "cudaErrorLaunchFailure", "beyond the end of a variable"),
        ("trap", "cudaErrorIllegalInstruction", "kernel trap, block (1, 0, 0), thread (3, 0, 0)"),
        ("not_allowed_shared", "cudaErrorInvalidValue", "cudaFuncSetAttribute"),
        ("large_block", "cudaErrorInvalidConfiguration", "(1025, 1, 1)"),
        ("empty_grid", "cudaErrorInvalidConfiguration", "(0, 1, 1)"),
    ],
)
def test_fault_is_an_error(faults: Path, fault: str, error: str, text: str, schedule: str) -> None:
    result = toolchain.run(faults, fault, schedule=schedule)
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stdout.startswith(error), result.stdout
    assert text in result.stdout


def test_divergent_barrier_names_block_thread_and_line(faults: Path) -> None:
    text = toolchain.run(faults, "divergent_barrier").stdout
    assert "kernel divergent_barrier, block (0, 0, 0), thread (0, 0, 0)" in text
    assert "faults.cu:" in text and "thread (40, 0, 0) has exited" in text


@pytest.mark.parametrize("fault", ["uninitialised_shared", "uninitialised_dynamic"])
def test_uninitialised_shared_memory_is_nan(faults: Path, fault: str) -> None:
    values = [float(text) for text in toolchain.run(faults, fault).stdout.split()]
    assert len(values) == 64 and all(math.isnan(value) for value in values)


def test_shared_memory_limit_is_the_architectures(faults: Path) -> None:
    assert toolchain.run(faults, "most_shared_of_sm_80", arch=80).returncode == 0
    assert toolchain.run(faults, "too_much_shared_of_sm_80", arch=90).returncode == 0
    for fault, arch in (("too_much_shared_of_sm_80", 80), ("too_much_static_shared", 80), ("most_shared_of_sm_80", 89)):
        result = toolchain.run(faults, fault, arch=arch)
        assert result.returncode == 1 and f"sm_{arch}" in result.stdout, result.stdout


@pytest.mark.parametrize("fault", ["out_of_bounds", "out_of_bounds_copy", "shared_overrun"])
def test_address_sanitizer_finds_out_of_bounds(sanitized_faults: Path, fault: str) -> None:
    result = toolchain.run(sanitized_faults, fault)
    assert result.returncode == toolchain.SANITIZER_EXIT, result.stdout + result.stderr
    assert "AddressSanitizer" in result.stderr and re.search(rf" in .*\b{fault}\b", result.stderr)


@pytest.mark.parametrize("fault", ["correct", "uninitialised_shared", "most_shared_of_sm_80"])
def test_address_sanitizer_has_no_false_alarm(sanitized_faults: Path, fault: str) -> None:
    result = toolchain.run(sanitized_faults, fault)
    assert result.returncode == 0, result.stderr


def test_wrong_setting_is_an_error(faults: Path) -> None:
    result = toolchain.run(faults, "correct", schedule="sideways")
    assert result.returncode == 1
    assert "D2LKERNELS_EMULATOR_SCHEDULE: expected one of forward, reverse, random" in result.stdout
    assert "got 'sideways'" in result.stdout
