"""`python -m build_support emulated|cpp-tests`: builds what only the tests need and prints where it is."""

import argparse
import sys

from .graph import Configuration, build_cpp_tests, build_library


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m build_support", description=__doc__)
    parser.add_argument("target", choices=["emulated", "cpp-tests"])
    target = parser.parse_args().target
    stdout, sys.stdout = sys.stdout, sys.stderr  # so that stdout holds the paths alone
    if target == "emulated":
        paths = [build_library(Configuration.of_this_environment(emulate_cuda=True))]
    else:
        paths = build_cpp_tests(Configuration.of_this_environment())
    sys.stdout = stdout
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
