"""What a figure depends on besides the kernels: the machine, its load, the versions, the allocator.

Nothing here names the host, the user or a path: results are published.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).resolve().parent.parent
_NAMES = "device cores isa python torch d2lkernels toolchain commit dirty load malloc date peak_gflops copy_gbps"
MACHINE_COLUMNS = tuple(_NAMES.split())

# Freed memory is kept by the process, so that no contestant pays the page faults of a fresh large tensor (10x its
# time). The same for all of them.
MALLOC_TUNABLES = {"glibc.malloc.mmap_threshold": 4 << 30, "glibc.malloc.trim_threshold": 8 << 30}


def malloc_environment(environment: dict[str, str]) -> dict[str, str] | None:
    """The environment to run benchmarks in, or None where `environment` is that already or the C library is another."""
    if platform.libc_ver()[0] != "glibc":
        return None
    wanted = [f"{name}={value}" for name, value in MALLOC_TUNABLES.items()]
    present = [part for part in environment.get("GLIBC_TUNABLES", "").split(":") if part]
    if all(part in present for part in wanted):
        return None
    others = [part for part in present if part.split("=")[0] not in MALLOC_TUNABLES]
    return {**environment, "GLIBC_TUNABLES": ":".join(others + wanted)}


def describe_malloc() -> str:
    """The settings of this process's allocator that the environment shows; a preloaded library by its name."""
    tunables = os.environ.get("GLIBC_TUNABLES", "").replace("glibc.malloc.", "")
    parts = [tunables] if tunables else []
    parts += [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("MALLOC_")]
    parts += [f"preload={Path(p).name}" for p in re.split(r"[ :]+", os.environ.get("LD_PRELOAD", "")) if p]
    return " ".join(parts) or "default"


def load_average() -> float | None:
    """Load average of the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cpu_name() -> str:
    """The processor's marketing name, without trademarks and clock.

    Virtual machines may hide the number ("AMD EPYC"): CPUID's family and model then tell one generation from the next.
    """
    name, numbers = platform.processor() or platform.machine(), {}
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE).group(1)
        numbers = dict(re.findall(r"^(cpu family|model)\s*:\s*(\d+)$", text, re.MULTILINE))
    except (OSError, AttributeError):
        pass
    name = re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|@.*|\d+-Core", " ", name, flags=re.IGNORECASE)
    if len(numbers) == 2 and not re.search(r"\d", name):
        name += f" family {numbers['cpu family']} model {numbers['model']}"
    return " ".join(name.split())


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else cpu_name()


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slug(device: str) -> str:
    """Folder name of this machine's results."""
    name = device_name(device) if device == "cuda" else f"{cpu_name()} {cores()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _git() -> tuple[str, int | str]:
    """Commit and whether sources differ from it; results and the generated README do not count."""
    commit = _run("git", "rev-parse", "--short=10", "HEAD")
    if commit is None:
        return "", ""
    return commit, int(bool(_run("git", "status", "--porcelain", "--", ".", ":!benchmarks/results", ":!README.md")))


def has_compiler() -> bool:
    """Whether torch.compile can build C++ kernels here."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name)


def _package() -> ModuleType | None:
    try:
        return import_module("d2lkernels")
    except ImportError:
        return None


def _toolchain(device: str) -> str:
    """What d2lkernels was built with and from which commit, and the CUDA libraries of torch."""
    build = getattr(_package(), "_build_info", None)
    parts = [getattr(build, "COMPILER", "")]
    if device == "cuda":
        parts.append(f"nvcc {getattr(build, 'CUDA', '')} for {' '.join(getattr(build, 'CUDA_ARCHITECTURES', []))}")
        parts.append(f"torch cuda {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}")
    commit = getattr(build, "GIT_COMMIT", None) or ""
    if re.fullmatch(r"[0-9a-f]{7,}", commit):
        parts.append(f"library built at {commit[:10]}")
    return "; ".join(part for part in parts if part)


def _isa(device: str) -> str:
    """Instruction sets in use; of a GPU its architecture, and its clocks where nvidia-smi tells them."""
    if device == "cuda":
        clocks = _run("nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm", "--format=csv,noheader", "--id=0")
        return "sm_{}{}".format(*torch.cuda.get_device_capability()) + (
            f", SM clock {clocks} at most" if clocks else ""
        )
    names = [f"torch {torch.backends.cpu.get_cpu_capability()}"]
    capability = getattr(getattr(_package(), "config", None), "cpu_capability", None)
    return ", ".join(names + ([f"d2lkernels {capability()}"] if capability else []))


def describe(device: str, load: float | None) -> dict[str, object]:
    """The machine's columns of a CSV row; `load` is what was found before the first benchmark."""
    commit, dirty = _git()
    return {
        "device": device_name(device),
        "cores": cores(),
        "isa": _isa(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "d2lkernels": getattr(_package(), "__version__", ""),
        "toolchain": _toolchain(device),
        "commit": commit,
        "dirty": dirty,
        "load": "" if load is None else load,
        "malloc": describe_malloc(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }
