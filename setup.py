"""Builds and installs d2lkernels. `pip install --no-build-isolation -e .`

Environment:
    D2LKERNELS_CUDA=auto|0|1   build the CUDA kernels if nvcc is found (auto), never, or fail without it
    TORCH_CUDA_ARCH_LIST       architectures such as "8.0;9.0a"; default: the visible GPUs, else 8.0 and later
    MAX_JOBS, CXX, CUDACXX, CUDA_HOME   as everywhere
"""

import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from build_support import graph, toolchain  # noqa: E402


def git_commit() -> str:
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def compiler_version(compiler: str) -> str:
    lines = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()
    return lines[0] if lines else compiler


class BuildExtension(build_ext):
    """Builds with our own graph (see build_support/graph.py) and records how in d2lkernels/_build_info.py."""

    def build_extension(self, extension):
        torch = toolchain.import_torch()
        configuration = graph.Configuration.of_this_environment()
        cuda = configuration.cuda
        info = {
            "torch_version": torch.__version__,
            "torch_cuda": torch.version.cuda,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "compiler": compiler_version(configuration.compiler),
            "cpu_capabilities": list(graph.capability_flags()),
            "cuda": cuda.version if cuda else None,
            "cuda_architectures": list(cuda.architectures) if cuda else [],
            "no_cuda_reason": configuration.no_cuda_reason,
            "git_commit": git_commit(),
            "built": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        }
        print("d2lkernels build configuration:")
        for key, value in info.items():
            print(f"  {key:20} {value}")
        library = graph.build_library(configuration, verbose=self.verbose > 1)

        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)
        lines = [f"{key.upper()} = {value!r}" for key, value in info.items()]
        docstring = '"""How the library beside this file was built. Written by setup.py."""'
        (target.parent / "_build_info.py").write_text("\n".join([docstring, "", *lines, ""]))

    def copy_extensions_to_source(self):
        """In an editable or in-place build the package is used where its sources lie."""
        super().copy_extensions_to_source()
        for extension in self.extensions:
            built = Path(self.build_lib, *extension.name.split(".")[:-1], "_build_info.py")
            shutil.copy2(built, ROOT / "d2lkernels" / "_build_info.py")


class BuildPython(build_py):
    """Puts the examples inside the package, where an installed one finds them; an editable one finds them here."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "d2lkernels", "d2l", "examples")
            target.mkdir(parents=True, exist_ok=True)
            for script in (ROOT / "examples").glob("chapter_*.py"):
                shutil.copy2(script, target / script.name)


setup(
    ext_modules=[Extension("d2lkernels._C", sources=[])],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
)
