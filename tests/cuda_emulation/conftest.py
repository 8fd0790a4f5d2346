from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import toolchain


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> toolchain.Toolchain:
    """Compiles for the emulator."""
    if not toolchain.available():
        pytest.skip("the emulator needs a C++ compiler")
    return toolchain.Toolchain(tmp_path_factory.mktemp("emulation"))


@pytest.fixture(scope="session")
def sanitized_emulation(tmp_path_factory: pytest.TempPathFactory) -> toolchain.Toolchain:
    """The same with AddressSanitizer."""
    if not toolchain.available():
        pytest.skip("the emulator needs a C++ compiler")
    return toolchain.Toolchain(tmp_path_factory.mktemp("sanitized_emulation"), sanitize=True)
