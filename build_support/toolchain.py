"""Finds torch, nvcc and the CUDA architectures to build for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSTALL_TORCH_MESSAGE = """\
d2lkernels is compiled against the torch it will run with, and this Python has none:
  python: {python}
Install torch first, then build without isolation:
  pip install torch
  pip install --no-build-isolation .
(with uv: set `no-build-isolation-package = ["d2lkernels"]` under [tool.uv])"""


def import_torch():
    """The torch of the environment that pip installs into.

    An isolated build hides that environment's packages, but runs its Python: torch is then found where that Python
    installs packages to, so that a plain `pip install .` works too.
    """
    try:
        import torch
    except ImportError:
        sys.path.append(sysconfig.get_path("purelib"))
        try:
            import torch
        except ImportError:
            raise SystemExit(INSTALL_TORCH_MESSAGE.format(python=sys.executable)) from None
    return torch


@dataclass(frozen=True)
class Cuda:
    """An nvcc to build with. Its headers and static runtime may lie beside it or in folders of their own."""

    nvcc: Path
    version: str  # "13.0"
    architectures: tuple[str, ...]  # "80", "90a", "120+PTX"
    include_dirs: tuple[Path, ...]
    library_dirs: tuple[Path, ...]

    def gencode_flags(self) -> list[str]:
        flags = []
        for architecture in self.architectures:
            name = architecture.removesuffix("+PTX")
            flags.append(f"-gencode=arch=compute_{name},code=sm_{name}")
            if architecture.endswith("+PTX"):
                flags.append(f"-gencode=arch=compute_{name},code=compute_{name}")
        return flags


def find_cuda() -> tuple[Cuda | None, str]:
    """The CUDA toolchain, or None and the reason. D2LKERNELS_CUDA=auto|0|1: wanted if found, not wanted, required."""
    wanted = os.environ.get("D2LKERNELS_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"D2LKERNELS_CUDA: expected auto, 0 or 1, but got {wanted!r}")
    if wanted == "0":
        return None, "D2LKERNELS_CUDA=0 was set when it was built"
    candidates = list(_nvcc_candidates())
    for nvcc in candidates:
        version = _nvcc_version(nvcc)
        if version is not None:
            include_dirs, library_dirs = _cuda_dirs(nvcc)
            return Cuda(nvcc, version, _architectures(version), include_dirs, library_dirs), ""
    reason = "nvcc was not found (looked at CUDACXX, CUDA_HOME, PATH, /usr/local/cuda and the nvidia-cuda-nvcc wheel)"
    if candidates:
        reason = f"nvcc does not run: {', '.join(map(str, candidates))}"
    if wanted == "1":
        raise SystemExit(
            f"D2LKERNELS_CUDA=1, but {reason}. Install a CUDA toolkit, or `pip install d2lkernels[cuda-toolchain]`"
        )
    return None, reason


def _nvcc_candidates():
    if "CUDACXX" in os.environ:
        yield Path(os.environ["CUDACXX"])
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            yield Path(os.environ[variable]) / "bin" / "nvcc"
    on_path = shutil.which("nvcc")
    if on_path:
        yield Path(on_path)
    if Path("/usr/local/cuda/bin/nvcc").exists():
        yield Path("/usr/local/cuda/bin/nvcc")
    yield from _wheel_paths("bin/nvcc")


def _wheel_paths(relative: str) -> list[Path]:
    """Files of the NVIDIA wheels: nvidia/cu13/... (CUDA 13) or nvidia/<component>/... (CUDA 12)."""
    return sorted(Path(sysconfig.get_path("purelib")).glob(f"nvidia/*/{relative}"), reverse=True)


def _nvcc_version(nvcc: Path) -> str | None:
    try:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.search(r"release (\d+\.\d+)", text)
    return match.group(1) if match else None


def _cuda_dirs(nvcc: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Folders of cuda_runtime.h and libcudart_static.a, where nvcc does not know them by itself."""
    dry_run = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*)$", dry_run, re.MULTILINE)
    root = Path(top.group(1).strip() if top else nvcc.parent.parent).resolve()
    includes = [root / "include", *_wheel_paths("include")]
    libraries = [root / "lib64", root / "targets" / "x86_64-linux" / "lib", root / "lib", *_wheel_paths("lib")]
    return _first_with(includes, "cuda_runtime.h"), _first_with(libraries, "libcudart_static.a")


def _first_with(folders: list[Path], name: str) -> tuple[Path, ...]:
    """The first folder that has the file: those of another toolkit behind it must not be mixed in."""
    return tuple(folder for folder in folders if (folder / name).exists())[:1]


def _architectures(version: str) -> tuple[str, ...]:
    """TORCH_CUDA_ARCH_LIST, else the visible GPUs, else what the toolkit knows from Ampere on, with PTX of the newest.

    The kernels use tensor-core and asynchronous-copy instructions, so that 8.0 is the least.
    """
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(",", ";").replace(" ", ";")
    if listed:
        return tuple(_parse_architecture(item) for item in listed.split(";") if item)
    visible = _visible_architectures()
    if visible:
        return visible
    major, minor = map(int, version.split("."))
    names = ["80", "86", "89", "90a"]
    if (major, minor) >= (12, 8):
        names += ["100", "120"]
    return (*names[:-1], names[-1].removesuffix("a") + "+PTX")


def _parse_architecture(item: str) -> str:
    match = re.fullmatch(r"(\d+)\.(\d+)([af]?)(\+PTX)?", item)
    if match is None:
        raise SystemExit(f"TORCH_CUDA_ARCH_LIST: expected items such as 8.0, 9.0a or 9.0+PTX, but got {item!r}")
    major, minor, suffix, ptx = match.groups()
    if int(major) < 8:
        raise SystemExit(f"TORCH_CUDA_ARCH_LIST: expected compute capability 8.0 or later, but got {item!r}")
    return f"{major}{minor}{suffix}{ptx or ''}"


def _visible_architectures() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = sorted({line.strip() for line in text.splitlines() if re.fullmatch(r"\d+\.\d+", line.strip())})
    supported = [item for item in found if int(item.split(".")[0]) >= 8]
    return tuple(_parse_architecture(item + ("a" if item == "9.0" else "")) for item in supported)
