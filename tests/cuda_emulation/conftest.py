from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import toolchain


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> toolchain.Toolchain:
    """Compiles for the emulator.

    All that is compiled can be run under AddressSanitizer:
    ``LD_PRELOAD=$(g++ -print-file-name=libasan.so) D2LKERNELS_TEST_SANITIZE=1 pytest tests/cuda_emulation``
    """
    flags = toolchain.SANITIZE if os.environ.get("D2LKERNELS_TEST_SANITIZE") == "1" else ()
    return make_toolchain(tmp_path_factory, *flags)


@pytest.fixture(scope="session")
def sanitized_emulation(tmp_path_factory: pytest.TempPathFactory) -> toolchain.Toolchain:
    """The same, always with AddressSanitizer."""
    return make_toolchain(tmp_path_factory, *toolchain.SANITIZE)


@pytest.fixture(scope="session")
def portable_emulation(tmp_path_factory: pytest.TempPathFactory) -> toolchain.Toolchain:
    """The same with the fibers of machines other than x86-64."""
    return make_toolchain(tmp_path_factory, "-DD2L_EMULATOR_UCONTEXT")


def make_toolchain(tmp_path_factory: pytest.TempPathFactory, *flags: str) -> toolchain.Toolchain:
    if not toolchain.available():
        pytest.skip("the emulator needs a C++ compiler")
    return toolchain.Toolchain(tmp_path_factory.mktemp("emulation"), *flags)
