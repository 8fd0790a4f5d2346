"""The torch-free tests of the CPU kernels (tests/cpp), built from the objects of the library."""

import subprocess

from build_support.graph import Configuration, build_cpp_tests, capability_flags
from d2lkernels import config


def test_cpp_programs_pass():
    programs = build_cpp_tests(Configuration.of_this_environment())
    assert programs, "no tests/cpp/test_*.cpp found"
    missing = capability_flags().keys() - config.supported_cpu_capabilities()
    for program in programs:
        if program.suffix[1:] in missing:
            continue  # compiled for instructions that this machine does not have
        result = subprocess.run([program], capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, f"{program.name}:\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        assert " 0 failed" in result.stdout, result.stdout[-4000:]
