"""What was built: portable objects, CUDA kernels within their budget, honest messages when a build does not fit."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import d2lkernels
from build_support import graph, toolchain
from d2lkernels import _build_info, _load, config

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = graph.BUILD_DIR

# Bytes of register spills that a kernel may have, by (file, architecture): none, unless a reason is written here.
SPILL_BUDGET: dict[tuple[str, str], int] = {}


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)


def weak_symbols(object_file: Path) -> list[str]:
    text = subprocess.run(["nm", "-C", object_file], capture_output=True, text=True, check=True).stdout
    return [line.split(" ", 2)[2] for line in text.splitlines() if re.match(r"[0-9a-f]+ [WVu] ", line)]


def capabilities(folder: Path = ROOT / "csrc" / "kernels" / "cpu") -> list[str]:
    """All that some kernel source is compiled for."""
    flags = [graph.kernel_flags(source) for source in sorted(folder.glob("*_kernel.cpp"))]
    return list(dict.fromkeys(name for names in flags for name in names))


@pytest.mark.parametrize("capability", capabilities())
def test_objects_of_a_capability_share_no_code(capability):
    """The linker keeps one copy of a weak symbol for the whole library: it must not be one that needs AVX-512."""
    objects = sorted((OBJECTS / "cpu").glob(f"*_kernel.{capability}.o"))
    assert objects, f"no kernel objects of {capability} in {OBJECTS}"
    for object_file in objects:
        shared = [name for name in weak_symbols(object_file) if f"d2l::cpu::{capability}::" not in name]
        assert not shared, f"{object_file.name} emits code that other files may end up calling: {shared}"


def test_no_object_is_built_for_this_machine_alone():
    ninja_files = list(OBJECTS.glob("*.ninja"))
    assert ninja_files, f"no ninja file in {OBJECTS}"
    for ninja_file in ninja_files:
        assert "-march=native" not in ninja_file.read_text()


def test_baseline_objects_have_no_wide_instructions():
    if "avx2" not in graph.capability_flags():
        pytest.skip("one capability on this architecture")
    for object_file in [*(OBJECTS / "cpu").glob("*_kernel.baseline.o"), *(OBJECTS / "glue").rglob("*.o")]:
        text = subprocess.run(["objdump", "-d", object_file], capture_output=True, text=True, check=True).stdout
        wide = re.search(r"%[yz]mm\d+", text)
        assert wide is None, f"{object_file.name} uses {wide.group()}"


@pytest.mark.skipif(not _build_info.CUDA, reason=f"built without CUDA: {_build_info.NO_CUDA_REASON}")
def test_cuda_kernels_spill_within_budget():
    logs = sorted((OBJECTS / "cuda").glob("*.o.log"))
    assert len(logs) == len(list((ROOT / "csrc" / "kernels" / "cuda").glob("*.cu")))
    over = []
    for log in logs:
        kernel = architecture = ""
        for line in log.read_text().splitlines():
            if match := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
                kernel, architecture = match.groups()
            if match := re.search(r"(\d+) bytes spill stores", line):
                budget = SPILL_BUDGET.get((log.name.split(".")[0], architecture), 0)
                if int(match.group(1)) > budget:
                    over.append(f"{log.name} {architecture} {kernel}: {match.group(1)} bytes, budget {budget}")
    assert not over, "\n".join(over)


def test_info_names_versions_and_devices():
    text = config.info_text()
    assert d2lkernels.__version__ in text
    assert torch.__version__ in text
    assert config.cpu_capability() in config.supported_cpu_capabilities()
    if not config.is_cuda_built():
        assert _build_info.NO_CUDA_REASON in text


def test_capability_from_the_environment():
    for name in config.supported_cpu_capabilities():
        code = "import d2lkernels; print(d2lkernels.config.cpu_capability())"
        assert run_python(code, D2LKERNELS_CPU_CAPABILITY=name).stdout.strip() == name


def test_unknown_capability_is_refused():
    with pytest.raises(ValueError, match="baseline, avx2, avx512, amx"):
        config.set_cpu_capability("sse9")
    code = "import torch, d2lkernels; d2lkernels.ops.avg_pool2d(torch.ones(1, 1, 2, 2), 2)"
    result = run_python(code, D2LKERNELS_CPU_CAPABILITY="sse9")
    assert result.returncode != 0
    assert "D2LKERNELS_CPU_CAPABILITY" in result.stderr
    assert f"expected one of {', '.join(config.supported_cpu_capabilities())}" in result.stderr


def test_import_needs_torch_alone():
    blocked = ["numpy", "matplotlib", "rich", "safetensors", "pandas", "tqdm"]
    code = f"""
import sys
import torch
before = set(sys.modules)
import d2lkernels
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(sorted(loaded & set({blocked})))
"""
    result = run_python(code)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


@pytest.mark.parametrize(
    "attribute, value, expected",
    [
        ("TORCH_VERSION", "2.1.0", "was built against torch 2.1.0"),
        ("PYTHON", "3.7", "was built for Python 3.7"),
    ],
)
def test_mismatched_build_is_explained(monkeypatch, attribute, value, expected):
    monkeypatch.setattr(_build_info, attribute, value)
    monkeypatch.delenv("D2LKERNELS_LIBRARY", raising=False)
    with pytest.raises(ImportError, match=re.escape(expected)) as error:
        _load.load_library()
    assert "pip install --no-build-isolation" in str(error.value)


def test_missing_torch_gives_the_command(tmp_path):
    """With no torch to be found, setup.py says what to run."""
    code = f"""
import sys, sysconfig
sys.path.insert(0, {str(ROOT)!r})
sys.modules["torch"] = None
from build_support import toolchain
toolchain.import_torch()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode != 0
    assert "pip install torch" in result.stderr
    assert "pip install --no-build-isolation" in result.stderr
    assert "Traceback" not in result.stderr


def test_required_cuda_without_nvcc_fails(monkeypatch):
    monkeypatch.setenv("D2LKERNELS_CUDA", "1")
    monkeypatch.setattr(toolchain, "_nvcc_candidates", lambda: iter(()))
    with pytest.raises(SystemExit, match="nvcc was not found"):
        toolchain.find_cuda()


def test_cuda_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("D2LKERNELS_CUDA", "0")
    cuda, reason = toolchain.find_cuda()
    assert cuda is None and "D2LKERNELS_CUDA=0" in reason


@pytest.mark.parametrize(
    "listed, architectures",
    [("8.0;9.0a", ("80", "90a")), ("8.6 9.0+PTX", ("86", "90+PTX")), ("12.0", ("120",))],
)
def test_architecture_list(monkeypatch, listed, architectures):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    assert toolchain._architectures("13.0") == architectures


@pytest.mark.parametrize("listed", ["7.5", "Hopper", "9"])
def test_bad_architecture_list_is_refused(monkeypatch, listed):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    with pytest.raises(SystemExit, match="TORCH_CUDA_ARCH_LIST"):
        toolchain._architectures("13.0")


def test_default_architectures_end_with_ptx_of_the_newest(monkeypatch):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(toolchain, "_visible_architectures", lambda: ())
    assert toolchain._architectures("12.4") == ("80", "86", "89", "90+PTX")
    assert toolchain._architectures("13.0")[-1] == "120+PTX"


def test_sdist_holds_what_a_build_needs(tmp_path):
    command = [sys.executable, "-c", "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"]
    result = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT).stdout.split()
    needed = [name for name in tracked if name.startswith(("csrc/", "build_support/", "d2lkernels/"))]
    assert needed, "not a git checkout"
    assert not [name for name in [*needed, "setup.py", "pyproject.toml", "LICENSE"] if name not in names]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and glibc's malloc has the setting")
def test_freed_memory_is_kept_and_given_back():
    code = """if True:
        import torch
        from pathlib import Path
        from d2lkernels import config
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        def growth(run):
            before = resident()
            run()
            return resident() - before >> 20
        def allocate():
            torch.ones(64 << 20, dtype=torch.uint8)
        print(growth(allocate), config.keep_freed_memory())
        print(growth(allocate), config.keep_freed_memory())
        print(growth(lambda: config.keep_freed_memory(False)), growth(allocate))
    """
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    before, _, kept, _, given_back, after = result.stdout.split()
    assert int(before) < 16 and int(kept) > 48 and int(given_back) < -48 and int(after) < 16
