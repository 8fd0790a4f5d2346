"""The torch-free tests of the CPU kernels (tests/cpp), built from the objects of the library."""

import subprocess

from build_support.graph import Configuration, build_cpp_tests


def test_cpp_programs_pass():
    programs = build_cpp_tests(Configuration.of_this_environment())
    assert programs, "no tests/cpp/test_*.cpp found"
    for program in programs:
        result = subprocess.run([program], capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, f"{program.name}:\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        assert " 0 failed" in result.stdout, result.stdout[-4000:]
