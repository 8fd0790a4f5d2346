# make demo   sets everything up, trains LeNet with our kernels and with native torch, shows the comparison
# make test   sets everything up, runs every check and test
#
# Both work on a fresh clone: they make an environment of their own in .venv with the versions of constraints.txt.
# VENV=... names another place for it, PYTHON=... the Python to make it with.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -q -n 2

# With no GPU at hand nvcc compiles for these two; with one, for it.
ifeq ($(shell command -v nvidia-smi),)
export TORCH_CUDA_ARCH_LIST ?= 8.0;9.0a
endif

.PHONY: demo test build lint types format test-cpu test-emulated check-op-table op-table test-cuda bench-smoke bench report clean

demo: build
	$(BIN)/python -m d2lkernels info
	$(BIN)/python -m d2lkernels train lenet --backend both --out runs/demo

test: export D2LKERNELS_WERROR = 1
test: lint build types test-cpu test-emulated check-op-table bench-smoke

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt setuptools ninja pybind11 safetensors numpy rich matplotlib pandas ipykernel \
		pytest pytest-xdist hypothesis expecttest ruff clang-format mypy
	touch $@

# ninja rebuilds what changed, so this is quick when nothing did.
build: $(VENV)/.ready
	$(PIP) install -q --no-build-isolation --no-deps -e .

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

# After the build, which writes a module that mypy looks for.
types: build
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

test-cpu: build
	$(PYTEST) tests --outcomes runs/tests/cpu.json
	$(BIN)/python -m pytest -q --doctest-modules d2lkernels

# The suite again, on the CUDA kernels, run by the SIMT emulator (see tests/cuda_emulation).
test-emulated: build
	D2LKERNELS_LIBRARY=$$($(BIN)/python -m build_support emulated | tail -n 1) $(PYTEST) tests -k cuda-emulated \
		--outcomes runs/tests/emulated.json

# Whether the README's table of ops is what the two runs above saw, and writing it.
check-op-table:
	$(BIN)/python tests/op_table.py --check runs/tests/*.json

op-table:
	$(BIN)/python tests/op_table.py runs/tests/*.json

# On a machine with a GPU: the suite on the device cuda.
test-cuda: build
	$(BIN)/python -m pytest -q tests --ignore tests/cuda_emulation -k cuda

bench-smoke: build
	$(BIN)/python benchmarks/run.py ops --smoke
	$(BIN)/python benchmarks/run.py models --smoke
	$(BIN)/python benchmarks/run.py scaling --smoke

# About ten minutes. The committed results come from the full run: `python benchmarks/run.py` without --quick.
bench: build
	for suite in models ops scaling memory; do \
		$(BIN)/python benchmarks/run.py $$suite --quick --threads all --out runs/bench || exit 1; \
	done

report: build
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/plots.py

clean:
	rm -rf build dist *.egg-info d2lkernels/_C*.so d2lkernels/_build_info.py
