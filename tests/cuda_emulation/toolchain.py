"""Compiles CUDA sources with g++ against the SIMT emulator, once per test session and flavour."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CUDA_SOURCES = ROOT / "csrc" / "kernels" / "cuda"
RUNTIME_SOURCES = sorted((HERE / "emulator").glob("*.cpp"))

SCHEDULES = ("forward", "reverse", "random", "greedy", "greedy_reverse")
COPY_MODELS = ("late", "eager")

CXX = os.environ.get("CXX", "g++")
FLAGS = (
    *("-std=c++20", "-O1", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-DD2L_EMULATE_CUDA", f"-I{ROOT / 'csrc'}", f"-I{HERE}"),
)
SANITIZER_EXIT = 99
SANITIZE = ("-fsanitize=address", "-fno-omit-frame-pointer", "-g1")


def available() -> bool:
    """Whether there is a compiler."""
    return shutil.which(CXX) is not None


class Toolchain:
    """Builds into one directory; objects are made once."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self._directory = directory
        self._flags = FLAGS + flags
        self._objects: dict[Path, Path] = {}

    def program(self, sources: Sequence[Path]) -> Path:
        """An executable of the sources, the emulator and the error texts."""
        return self._link(sources, self._directory / sources[0].stem, ())

    def library(self, sources: Sequence[Path]) -> Path:
        """A shared library of the same."""
        return self._link(sources, self._directory / f"lib{sources[0].stem}.so", ("-shared",))

    def _link(self, sources: Sequence[Path], output: Path, flags: Sequence[str]) -> Path:
        needed = [*sources, *RUNTIME_SOURCES, CUDA_SOURCES / "launch.cu"]
        missing = [source for source in needed if source not in self._objects]
        for start in range(0, len(missing), 2):  # two compilers at a time
            pair = missing[start : start + 2]
            running = [self._start_compiling(source) for source in pair]
            for source, (process, target) in zip(pair, running, strict=True):
                _, errors = process.communicate()
                assert process.returncode == 0, f"cannot compile {source}:\n{errors}"
                self._objects[source] = target
        objects = [str(self._objects[source]) for source in needed]
        _check([CXX, *self._flags, *flags, *objects, "-o", str(output)])
        return output

    def _start_compiling(self, source: Path) -> tuple[subprocess.Popen[str], Path]:
        target = self._directory / f"{source.parent.name}_{source.name}.o"
        command = [CXX, *self._flags, "-x", "c++", "-c", str(source), "-o", str(target)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), target


def _check(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"


def environment(**settings: object) -> dict[str, str]:
    """This process's environment with settings of the emulator: environment(schedule="reverse", cp_async="eager")."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("D2LKERNELS_EMULATOR_")}
    # A faulty kernel is abandoned where it stands, and leaks what it holds.
    kept["ASAN_OPTIONS"] = f"detect_leaks=0:exitcode={SANITIZER_EXIT}"
    return kept | {f"D2LKERNELS_EMULATOR_{name.upper()}": str(value) for name, value in settings.items()}


def run(program: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Runs the program under the settings."""
    command = [str(program), *arguments]
    return subprocess.run(command, env=environment(**settings), capture_output=True, text=True, timeout=120)
