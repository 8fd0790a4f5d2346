"""The build graph: which sources become which objects with which flags, written as a ninja file and run.

    csrc/kernels/cpu/*_kernel.cpp   one object per instruction set, chosen between at run time
    csrc/kernels/**/*.cpp           launchers, baseline flags, no torch
    csrc/kernels/cuda/*.cu          nvcc, one object per file for all architectures; or, for tests on machines without a
                                    GPU, g++ and the SIMT emulator of tests/cuda_emulation
    csrc/{common,ops,.}/*.cpp       the glue: torch headers

No -march=native anywhere: what is built here runs on every machine of the same architecture.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from .toolchain import Cuda, find_cuda, import_torch

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
BUILD_DIR = ROOT / "build" / "d2lkernels"

COMMON_FLAGS = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
X86_CAPABILITY_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
# Kernel sources named *_bfloat16_kernel.cpp are compiled for these only, those named *_parts_kernel.cpp for amx only.
X86_BFLOAT16_FLAGS = {
    "avx512_bfloat16": [*X86_CAPABILITY_FLAGS["avx512"], "-mavx512bf16"],
    "amx": [*X86_CAPABILITY_FLAGS["avx512"], "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}
# Kernels of float32 that multiply in tiles where they are compiled for amx.
TILED_KERNELS = ("winograd_kernel",)
EMULATION = ROOT / "tests" / "cuda_emulation"
EMULATION_FLAGS = [f"-I{EMULATION}", "-DD2L_EMULATE_CUDA", "-Wno-unknown-pragmas", "-O2"]
NVCC_FLAGS = [
    "-std=c++20",
    "-O3",
    "-lineinfo",
    "--expt-relaxed-constexpr",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
    "-Xptxas=-v",
]


def capability_flags() -> dict[str, list[str]]:
    """Flags per CPU capability that this machine's compiler builds for."""
    return X86_CAPABILITY_FLAGS if platform.machine() in ("x86_64", "AMD64") else {"baseline": []}


def kernel_flags(source: Path) -> dict[str, list[str]]:
    """Flags per CPU capability that a kernel source is compiled for."""
    capabilities = capability_flags()
    bfloat16 = X86_BFLOAT16_FLAGS if "avx512" in capabilities else {}
    if source.stem.endswith("_bfloat16_kernel"):
        return bfloat16
    tiled = {"amx": bfloat16["amx"]} if bfloat16 else {}
    if source.stem.endswith("_parts_kernel"):
        return tiled
    return {**capabilities, **tiled} if source.stem in TILED_KERNELS else capabilities


@dataclass(frozen=True)
class Configuration:
    """All that distinguishes one build from another."""

    torch_dir: Path  # the folder of the torch package
    cxx11_abi: bool
    cuda: Cuda | None
    no_cuda_reason: str
    emulate_cuda: bool = False  # build the library whose CPU tensors run the CUDA kernels in the SIMT emulator
    warnings_are_errors: bool = field(default_factory=lambda: os.environ.get("D2LKERNELS_WERROR") == "1")
    compiler: str = field(default_factory=lambda: os.environ.get("CXX", "g++"))

    @classmethod
    def of_this_environment(cls, emulate_cuda: bool = False) -> Configuration:
        torch = import_torch()
        cuda, no_cuda_reason = find_cuda()
        return cls(Path(torch.__file__).parent, torch.compiled_with_cxx11_abi(), cuda, no_cuda_reason, emulate_cuda)

    @property
    def with_cuda(self) -> bool:
        return self.emulate_cuda or self.cuda is not None

    @property
    def architectures(self) -> str:
        if self.emulate_cuda:
            return "emulation on the CPU"
        return " ".join(self.cuda.architectures) if self.cuda else ""


def extension_suffix() -> str:
    return sysconfig.get_config_var("EXT_SUFFIX")


def build_library(configuration: Configuration, verbose: bool = False) -> Path:
    """Builds the extension module; returns the shared library.

    The native and the emulated library share the objects that are the same in both.
    """
    variant = "emulated" if configuration.emulate_cuda else "native"
    library = BUILD_DIR / variant / f"_C{extension_suffix()}"
    text = [*_rules(configuration), *_builds(list(_compilations(configuration)), library, _link_flags(configuration))]
    _run_ninja(variant, text, verbose)
    return library


def build_cpp_tests(configuration: Configuration) -> list[Path]:
    """Builds the torch-free tests of the CPU kernels from the objects of the library.

    Returns a program for each tests/cpp/test_*.cpp. Tests of headers for kernel sources, test_vec*.cpp, are compiled as
    these are: a program NAME.CAPABILITY for each of their instruction sets.
    """
    text = _rules(configuration)
    kernels = list(_cpu_compilations(configuration))
    text += _builds(kernels)
    objects = [f"{item[2]}.o" for item in kernels]
    common = [*_common_flags(configuration), f"-I{ROOT / 'tests' / 'cpp'}"]
    programs = []
    for source in sorted((ROOT / "tests" / "cpp").glob("test_*.cpp")):
        variants = {source.stem: common}
        if source.stem.startswith("test_vec"):
            variants = {
                f"{source.stem}.{capability}": [*common, *flags, f"-DD2L_CPU_CAPABILITY={capability}"]
                for capability, flags in capability_flags().items()
            }
        for variant, flags in variants.items():
            name = f"cpp_tests/{variant}"
            programs.append(BUILD_DIR / name)
            text += _builds([("cxx", source, name, flags)], programs[-1], ["-pthread"], extra_objects=objects)
    _run_ninja("cpp_tests", text)
    return programs


def _run_ninja(name: str, lines: list[str], verbose: bool = False) -> None:
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    ninja_file = BUILD_DIR / f"{name}.ninja"
    command = [*_ninja_command(), "-f", str(ninja_file), "-j", str(_jobs())]
    with open(BUILD_DIR / "lock", "w") as lock:
        # Two builds at once would link each other's half-written objects.
        fcntl.flock(lock, fcntl.LOCK_EX)
        ninja_file.write_text("\n".join([*lines, ""]))
        subprocess.run([*command, "-v"] if verbose else command, cwd=BUILD_DIR, check=True)


def _ninja_command() -> list[str]:
    try:
        import ninja

        return [str(Path(ninja.BIN_DIR) / "ninja")]
    except ImportError:
        return ["ninja"]


def _jobs() -> int:
    """MAX_JOBS, else as many as cores and memory (2 GB a compiler) allow."""
    if "MAX_JOBS" in os.environ:
        return max(1, int(os.environ["MAX_JOBS"]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") if hasattr(os, "sysconf") else 0
    return max(1, min(cores, memory // 2**31))


def _rules(configuration: Configuration) -> list[str]:
    lines = [f"cxx = {configuration.compiler}"]
    if configuration.cuda:
        lines.append(f"nvcc = {configuration.cuda.nvcc}")
    for rule, command in {
        "cxx": "$cxx -MMD -MF $out.d $flags -c $in -o $out",
        # Registers and spills of each kernel are kept beside the object: a test holds them to a budget.
        "nvcc": "$nvcc -MD -MF $out.d $flags -c $in -o $out > $out.log 2>&1 || (cat $out.log; false)",
        "link": "$cxx $in -o $out $flags",
    }.items():
        lines += [f"rule {rule}", f"  command = {command}", f"  description = {rule} $out"]
        if rule != "link":
            lines += ["  depfile = $out.d", "  deps = gcc"]
    return lines


def _builds(compilations: list, linked: Path | None = None, link_flags=(), extra_objects=()) -> list[str]:
    lines = []
    for rule, source, name, flags in compilations:
        lines += [f"build {_escape(name)}.o: {rule} {_escape(source)}", f"  flags = {_join(flags)}"]
    if linked is not None:
        objects = [*(f"{item[2]}.o" for item in compilations), *extra_objects]
        lines += [
            f"build {_escape(linked)}: link {' '.join(map(_escape, objects))}",
            f"  flags = {_join(link_flags)}",
        ]
    return lines


def _common_flags(configuration: Configuration) -> list[str]:
    return [*COMMON_FLAGS, f"-I{CSRC}", *(["-Werror"] if configuration.warnings_are_errors else [])]


def _cpu_compilations(configuration: Configuration):
    """Yields (rule, source, object name without .o, flags) for the CPU kernels and their launchers."""
    common = _common_flags(configuration)
    for source in sorted((CSRC / "kernels" / "cpu").glob("*.cpp")):
        if not source.stem.endswith("_kernel"):
            yield "cxx", source, f"cpu/{source.stem}", common
            continue
        for capability, flags in kernel_flags(source).items():
            name = f"cpu/{source.stem}.{capability}"
            yield "cxx", source, name, [*common, *flags, f"-DD2L_CPU_CAPABILITY={capability}"]


def _compilations(configuration: Configuration):
    """The same for the whole library."""
    common = _common_flags(configuration)
    yield from _cpu_compilations(configuration)

    cuda_sources = sorted((CSRC / "kernels" / "cuda").glob("*.cu"))
    if configuration.emulate_cuda:
        for source in cuda_sources:
            yield "cxx", source, f"emulated/{source.stem}", [*common, *EMULATION_FLAGS, "-x c++"]
        for source in sorted((EMULATION / "emulator").glob("*.cpp")):
            yield "cxx", source, f"emulated/emulator/{source.stem}", [*common, *EMULATION_FLAGS]
    elif configuration.cuda:
        includes = [f"-I{folder}" for folder in (CSRC, *configuration.cuda.include_dirs)]
        flags = [*NVCC_FLAGS, f"-ccbin={configuration.compiler}", *includes, *configuration.cuda.gencode_flags()]
        for source in cuda_sources:
            yield "nvcc", source, f"cuda/{source.stem}", flags

    glue = [*common, *_glue_flags(configuration)]
    with_cuda = "with-cuda" if configuration.with_cuda else "without-cuda"
    for folder in ("common", "ops", ""):
        for source in sorted((CSRC / folder).glob("*.cpp")):
            if source.name in ("device.cpp", "module.cpp"):
                variant = "emulated" if configuration.emulate_cuda else "native"
                yield "cxx", source, f"glue/{variant}/{source.stem}", [*glue, *_identity_flags(configuration)]
            else:
                yield "cxx", source, f"glue/{with_cuda}/{source.stem}", glue


def _glue_flags(configuration: Configuration) -> list[str]:
    import pybind11

    include = configuration.torch_dir / "include"
    system_includes = [
        include,
        include / "torch" / "csrc" / "api" / "include",
        Path(pybind11.get_include()),
        Path(sysconfig.get_path("include")),
    ]
    return [
        *(f"-isystem {folder}" for folder in system_includes),
        "-fopenmp",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(configuration.cxx11_abi)}",
        f"-DD2L_WITH_CUDA={int(configuration.with_cuda)}",
    ]


def _identity_flags(configuration: Configuration) -> list[str]:
    """What a build says of itself. Only the files that need it see it, so that the others' objects can be shared."""
    return [
        f"-DD2L_NO_CUDA_REASON='\"{configuration.no_cuda_reason}\"'",
        f"-DD2L_CUDA_ARCHITECTURES='\"{configuration.architectures}\"'",
        *(["-DD2L_EMULATED_LIBRARY"] if configuration.emulate_cuda else []),
    ]


def _link_flags(configuration: Configuration) -> list[str]:
    torch_lib = configuration.torch_dir / "lib"
    flags = ["-shared", f"-L{torch_lib}", "-ltorch_python", "-ltorch_cpu", "-lc10", "-ltorch", "-pthread"]
    # torch's own OpenMP runtime, under whatever name its wheel gives it: one pool of threads for both.
    bundled_gomp = sorted(torch_lib.glob("libgomp*.so*"))
    flags.append(str(bundled_gomp[0]) if bundled_gomp else "-fopenmp")
    if configuration.cuda and not configuration.emulate_cuda:
        flags += [*(f"-L{folder}" for folder in configuration.cuda.library_dirs), "-lcudart_static", "-ldl", "-lrt"]
    return flags


def _escape(path: str | Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _join(flags: list[str]) -> str:
    return " ".join(flags).replace("$", "$$")
