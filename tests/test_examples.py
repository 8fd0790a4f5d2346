"""Every example runs, small; the command lists, runs and tabulates them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import not_about_kernels

from d2lkernels import cli
from d2lkernels.d2l import sections
from d2lkernels.d2l.example import Example, run_example
from d2lkernels.data import DataError

pytestmark = not_about_kernels
ENTRIES = sections.entries()
WITH_CODE = [
    *(f"2.{number}" for number in range(1, 8)),
    *(f"3.{number}" for number in range(1, 8)),
    *(f"4.{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 10)),
    *(f"5.{number}" for number in range(1, 7)),
    *(f"6.{number}" for number in range(2, 7)),
    *(f"7.{number}" for number in range(1, 8)),
]

# What holds of the smallest run too: exact values, or bounds.
EXPECTED = {
    "csv": {"rows": 4, "columns": ["NumRooms", "Alley_Pave", "Alley_nan"], "filled_in": 3.0, "dropped": "Alley"},
    "tensors": {"new_memory": True, "in_place": True},
    "linear_algebra": {"l2": 5.0, "l1": 7.0, "frobenius": 6.0},
    "autograd": {"gradient": [0.0, 4.0, 8.0, 12.0]},
    "probability": {"ill_after_one_test": 0.1306, "ill_after_two_tests": 0.8307},
    "softmax": {"naive_is_nan": True, "stable_loss": 1000.0, "entropy_bits": 1.5},
    "activations": {"sigmoid_largest_gradient": 0.25, "tanh_largest_gradient": 1.0},
    "xor": {"perceptron_and": 1.0, "perceptron_or": 1.0, "mlp_xor": 1.0},
    "numerical_stability": {"stays_symmetric": True},
    "blocks": {"sequences_agree": True, "constant_learns": False, "learning_parameters": 10},
    "parameters": {"tied": True, "tied_parameter_tensors": 6},
    "lazy": {"our_convolution": True, "other_channels_refused": True, "output": [2, 10]},
    "custom_layers": {"my_linear_learns": True},
    "files": {"same_output": True, "same_output_safetensors": True, "code_refused": True},
    "devices": {"metrics_equal": True, "moved_without_copy": True},
    "invariance": {"mlp_parameters": 203_530, "lenet_parameters": 61_706},
    "padding_stride": {"sizes": [[8, 8], [8, 8], [4, 4], [2, 2]]},
    "channels": {"multi_in": [[56, 72], [104, 120]], "channels_add_up": True},
    "pooling": {"max": [[4, 5], [7, 8]], "avg": [[2, 3], [5, 6]]},
    "lenet": {"parameters": 61_706},
    "alexnet": {"parameters": 46_764_746},
    "vgg": {"parameters": 43_093_322, "parameters_of_all_channels": 128_806_154},
    "nin": {"parameters": 1_992_166},
    "googlenet": {"parameters": 5_977_530},
    "resnet": {"parameters": 11_178_378},
    "densenet": {"parameters": 758_226},
}
BELOW = {
    "autograd": {"forward_minus_reverse": 1e-5, "forward_minus_reverse_through_kernels": 1e-9},
    "calculus": {"gradient_error": 1e-6, "chain_rule_error": 1e-12},
    "softmax": {"gradient_error": 1e-12},
    "backpropagation": {"largest_difference": 1e-12},
    "activations": {"two_layers_are_one_to": 1e-5},
    "xor": {"perceptron_xor": 0.76},
    "invariance": {"equivariance_error": 1e-5, "matrix_error": 1e-5},
    "edge_kernel": {"error_against_loops": 1e-4, "horizontal_edges_seen": 1e-6, "loss": 1.0},
    "channels": {"difference_1x1": 1e-5},
    "numerical_stability": {"small_gradient": 1e-10},
}
"""Measured values that stay below these."""
WITHOUT_PICTURE = {
    *("tensors", "csv", "linear_algebra", "autograd", "documentation", "linear_regression_concise", "softmax"),
    *("backpropagation", "blocks", "parameters", "lazy", "custom_layers", "files", "devices", "invariance"),
    *("padding_stride", "channels", "pooling", "house_prices"),
}


def assert_finite(value):
    if isinstance(value, list):
        for item in value:
            assert_finite(item)
    elif isinstance(value, float):
        assert math.isfinite(value)


@pytest.mark.filterwarnings("ignore:train_ch3")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.section}-{entry.name}")
def test_the_example_runs(entry, tmp_path, capsys):
    measured = run_example(Example(entry, quick=True, out=tmp_path, data="sample"), sections.load(entry))
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == measured
    assert json.loads((tmp_path / f"{entry.section}-{entry.name}.json").read_text()) == measured
    assert_finite(list(measured.values()))
    for key, value in EXPECTED.get(entry.name, {}).items():
        assert measured[key] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)
    for key, bound in BELOW.get(entry.name, {}).items():
        assert 0 <= measured[key] < bound
    pictures = list(tmp_path.glob("*.png"))
    assert bool(pictures) == (entry.name not in WITHOUT_PICTURE)
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in pictures)


def test_every_section_with_code_has_an_example():
    assert set(WITH_CODE) <= {entry.section for entry in ENTRIES}
    assert all(entry.title for entry in ENTRIES)
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def test_an_example_is_a_script_too(tmp_path):
    path = next(entry.path for entry in ENTRIES if entry.section == "6.3")
    done = subprocess.run(
        [sys.executable, str(path), "--quick", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(path.parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1])["section"] == "6.3"
    assert (tmp_path / "out" / "6.3-padding_stride.json").is_file()


def test_the_command_lists_runs_and_tabulates(capsys, tmp_path):
    assert cli.main(["examples", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ENTRIES)
    assert cli.main(["examples", "run", "6.4", "--quick", "--out", str(tmp_path)]) == 0
    assert cli.main(["examples", "run", "pooling", "--quick", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert cli.main(["examples", "table", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "[channels](../examples/chapter_06_4_channels.py)" in lines[2] and "max [[4, 5], [7, 8]]" in lines[3]


@pytest.mark.parametrize(
    "what, names",
    [("4.1", ["activations", "xor"]), ("lenet", ["lenet"]), ("chapter_06_2_edge_kernel.py", ["edge_kernel"])],
)
def test_examples_are_found_by_section_and_name(what, names):
    assert [entry.name for entry in sections.select(what)] == names
    assert len(sections.select("7")) == 7 and sections.select("all") == ENTRIES


def test_what_cannot_run_is_said(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["run", "6.22"], "expected a section or a name, one of 6.2, "),
        (["run", "lennet"], "one of lenet, "),
        (["run", "6.3", "--quick", "--out", str(tmp_path / "file")], "file to be writable"),
        (["run", "3.5", "--quick", "--data", str(tmp_path / "nowhere")], "expected .*nowhere to be a folder"),
        (["run", "6.3", "--device", "tpu"], "expected --device to be auto, cpu, cuda or cuda:N, but got 'tpu'"),
        (["table", str(tmp_path)], "to hold results"),
    ):
        assert cli.main(["examples", *arguments]) == 2
        error = capsys.readouterr().err
        assert re.search(message, error), error
    if not torch.cuda.is_available():
        assert cli.main(["examples", "run", "6.3", "--device", "cuda"]) == 2
        assert "--device cuda needs a GPU" in capsys.readouterr().err


def test_scripts_that_are_nowhere_are_missed(monkeypatch, tmp_path):
    monkeypatch.setattr(sections, "__file__", str(tmp_path / "d2lkernels" / "d2l" / "sections.py"))
    with pytest.raises(DataError, match="expected the scripts in"):
        sections.entries()
    inside = tmp_path / "d2lkernels" / "d2l" / "examples"
    inside.mkdir(parents=True)
    (inside / "chapter_02_1_tensors.py").write_text('"""Section 2.1: tensors: all of them."""\n')
    assert [(entry.section, entry.title) for entry in sections.entries()] == [("2.1", "tensors: all of them.")]
    assert sections.folder() == Path(inside)
