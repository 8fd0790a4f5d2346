"""What this build can do, and its run-time switches."""

from __future__ import annotations

import platform
import sys

import torch

from . import _C


def cpu_capability() -> str:
    """The instruction set that the CPU kernels run with: "baseline", "avx2" or "avx512"."""
    return _C.cpu_capability()


def supported_cpu_capabilities() -> list[str]:
    """The instruction sets that both this build and this machine have."""
    return _C.supported_cpu_capabilities()


def set_cpu_capability(name: str) -> None:
    """Chooses the instruction set of the CPU kernels, as the environment variable D2LKERNELS_CPU_CAPABILITY does.

    Raises:
        ValueError: for a name that is unknown, or that this build or machine does not have.
    """
    _C.set_cpu_capability(name)


def is_cuda_built() -> bool:
    """Whether this build has the CUDA kernels (not whether a GPU is present)."""
    return _C.built_with_cuda


def emulates_cuda() -> bool:
    """Whether this is the test build that runs the CUDA kernels on CPU tensors, in a SIMT emulator."""
    return _C.emulates_cuda


def info() -> dict[str, str]:
    """Versions, build options, instruction sets and devices, by name; `python -m d2lkernels info` prints them."""
    from . import __version__, _build_info

    devices = [f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return {
        "d2lkernels": f"{__version__} (commit {_build_info.GIT_COMMIT}, built {_build_info.BUILT})",
        "python": platform.python_version() + f" ({sys.platform})",
        "torch": torch.__version__,
        "built against torch": _build_info.TORCH_VERSION,
        "compiler": _build_info.COMPILER,
        "CPU instruction set": f"{cpu_capability()} (supported here: {', '.join(supported_cpu_capabilities())})",
        "CUDA kernels": _cuda_text(),
        "devices": ", ".join(devices),
    }


def _cuda_text() -> str:
    from . import _build_info

    if emulates_cuda():
        return "emulated on the CPU, for tests"
    if not is_cuda_built():
        return f"off: {_build_info.NO_CUDA_REASON}"
    built = f"built with nvcc {_build_info.CUDA} for {', '.join(_build_info.CUDA_ARCHITECTURES)}"
    if torch.version.cuda is None:
        return f"{built}; off: the torch that is running is a CPU-only build"
    if not torch.cuda.is_available():
        return f"{built}; off: torch sees no GPU"
    return f"{built}; on"


def info_text() -> str:
    """:func:`info` as aligned lines."""
    entries = info()
    width = max(map(len, entries))
    return "\n".join(f"{key:{width}}  {value}" for key, value in entries.items())
