"""What profile counts, measures and estimates, and the command as a user calls it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import memory_probe
from benchmarks.suites.memory import MALLOC
from d2lkernels import cli, models, nn
from d2lkernels.profiling import Profile, Roofline, profile
from d2lkernels.profiling.recorder import Recorder
from d2lkernels.profiling.report import KERNEL, Run, fitted, rows, to_text

# Parameters, and million multiply-accumulates of one image in convolutions and in linear layers: counted by hooks on
# models built from torch.nn for the purpose, to as many digits as were noted.
GOLDEN = {
    "lenet": (61_706, "0.4", "0.06"),
    "bn_lenet": (44_878, "0.2", "0.04"),
    "alexnet": (46_764_746, "895.1", "43.0"),
    "vgg11": (43_093_322, "469.6", "42.5"),
    "nin": (1_992_166, "762.3", "0"),
    "googlenet": (5_977_530, "276.1", "0.01"),
    "resnet18": (11_178_378, "318.7", "0.005"),
    "densenet": (758_226, "129.1", "0.002"),
}


def images(batch: int, size: int) -> torch.Tensor:
    return torch.rand(batch, 1, size, size).contiguous(memory_format=torch.channels_last)


def profile_of(name: str, backend: str = "d2lkernels", batch: int = 2, repeats: int = 0, size: int | None = None):
    model = models.build(name, nn=torch.nn if backend == "torch" else None)
    return profile(model, images(batch, size or models.spec(name).image_size or 28), repeats=repeats)


def rounds_to(value: float, text: str) -> bool:
    return f"{value:.{len(text.partition('.')[2])}f}" == text


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_and_macs_are_the_known_ones(name):
    parameters, convolutions, linear = GOLDEN[name]
    result = profile_of(name)
    assert result.parameters == result.total("parameters") == parameters
    assert rounds_to(result.macs("conv2d", "dense_block", "concat_convolutions") / 1e6, convolutions)
    assert rounds_to(result.macs("linear") / 1e6, linear)
    assert result.macs() == result.macs("conv2d", "dense_block", "concat_convolutions") + result.macs("linear")


@pytest.mark.parametrize("name", ["lenet", "bn_lenet", "googlenet", "resnet18", "densenet"])
def test_both_back_ends_count_the_same(name):
    ours, native = profile_of(name), profile_of(name, "torch")
    assert ours.macs() == native.macs()
    assert ours.total("parameters") == native.total("parameters")
    assert ours.layers[-1].output == native.layers[-1].output == (2, 10)
    assert len(ours.layers) < len(native.layers)
    assert ours.training_bytes() < 1.01 * native.training_bytes()


def test_what_runs_as_one_op_is_one_row():
    found = [(layer.name, layer.kind, layer.kernel) for layer in profile_of("lenet").layers]
    assert found[0] == ("0, 1, 2", "Conv2d + Sigmoid + AvgPool2d", "conv2d_avg_pool2d + sigmoid")
    assert [kind for _, kind, _ in found[2:4]] == ["Flatten", "Linear + Sigmoid"]
    residual = {layer.name: layer for layer in profile_of("resnet18", size=32).layers}
    assert residual["1.0.bn1, 1.0.relu"].kind == residual["0.1, 0.2"].kind == "BatchNorm2d + ReLU"
    assert residual["0.3"].kind == "MaxPool2d"
    assert residual["1.0.bn2"].kernel.endswith("+ add + relu")
    assert residual["4.0.conv1"].algorithm == "direct"
    assert [layer.kind for layer in profile_of("densenet", size=32).layers].count("DenseBlock") == 4
    native = profile_of("lenet", "torch").layers
    assert [layer.name for layer in native] == [str(number) for number in range(12)]
    assert native[0].kernel == "torch conv2d"


def test_bytes_of_layers_that_can_be_counted_by_hand():
    layers = nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 4 * 4, 5), nn.Sigmoid()
    model = torch.nn.Sequential(*layers)  # which fuses nothing
    conv, flatten, linear, sigmoid = profile(model, torch.rand(2, 2, 6, 6), repeats=0).layers
    x, w, y = 2 * 2 * 36, 3 * 2 * 9 + 3, 2 * 3 * 16
    assert (conv.macs, conv.parameters, conv.output) == (y * 18, w, (2, 3, 4, 4))
    assert conv.moved == 4 * (x + w + y)
    assert conv.saved == 0  # the model's input is there anyway
    assert not conv.needs_input_grad
    assert conv.backward_macs == conv.macs
    assert (flatten.moved, flatten.macs) == (0, 0)  # a view
    assert linear.macs == 2 * 48 * 5
    assert linear.backward_macs == 2 * linear.macs
    assert linear.saved == 4 * y
    assert sigmoid.saved == 4 * 10
    assert sigmoid.transient == 4 * 20


def test_a_blocks_own_additions_and_shared_parameters():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x)) + x

    result = profile(Twice(), torch.rand(3, 4), repeats=1)
    assert [layer.name for layer in result.layers] == ["layer", "layer", "Twice"]
    assert [layer.kind for layer in result.layers] == ["Linear", "Linear", "Twice"]
    assert result.parameters == 20
    assert result.layers[1].needs_input_grad


def test_the_model_stays_as_it_was():
    model = models.build("bn_lenet").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = profile(model, images(2, 28), repeats=1)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(layer.forward_ms > 0 and layer.backward_ms > 0 for layer in result.layers)
    assert result.step_ms > 0


def test_recording_does_not_change_what_comes_out():
    for name in ("lenet", "densenet", "googlenet"):
        model, input = models.build(name).eval(), images(2, 32 if name != "lenet" else 28)
        recorder = Recorder(model, 0)
        with recorder:
            output = model(recorder.watch(input))
        assert torch.equal(output, model(input))


def test_memory_grows_with_the_batch_and_the_optimizer():
    result = profile_of("lenet")
    one, many = result.training_bytes(1), result.training_bytes(101)
    assert many - result.training_bytes(51) == pytest.approx((many - one) / 2, rel=0.02)
    assert result.training_bytes(1, "adam") - one == 2 * result.parameter_bytes
    with pytest.raises(ValueError, match="batch_size to be at least 1, but got 0"):
        result.training_bytes(0)
    with pytest.raises(ValueError, match="optimizer to be one of sgd, adam, but got 'lion'"):
        result.training_bytes(1, "lion")


@pytest.mark.skipif(not memory_probe.CLEAR_REFS.exists(), reason="peaks of resident memory are Linux's")
@pytest.mark.parametrize(
    ("name", "backend", "batch"),
    [("resnet18", "d2lkernels", 16), ("resnet18", "torch", 16), ("densenet", "d2lkernels", 16)],
)
def test_estimated_memory_is_near_the_measured_peak(name, backend, batch):
    """Within a factor of 0.65 to 1.15: the kernels' workspaces are not counted."""
    size = models.spec(name).image_size
    request = {"threads": 1, "device": "cpu", "layout": "channels_last", "dtype": "float32", "provider": backend}
    request |= {"name": name, "batch": batch, "size": size, "options": {}}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory_probe", json.dumps(request)],
        env={**os.environ, "GLIBC_TUNABLES": MALLOC, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])["peak_bytes"]
    estimated = profile_of(name, backend).training_bytes(batch)
    assert 0.65 <= estimated / measured <= 1.15, f"{estimated / 1e6:.1f} MB estimated, {measured / 1e6:.1f} MB measured"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": -1}, "expected repeats to be at least 0, but got -1"),
        ({"input": torch.rand(4)}, r"expected input to be a batch, but got a tensor of size \[4\]"),
        ({"input": torch.rand(0, 1, 28, 28)}, "expected input to be a batch"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        profile(models.build("lenet"), **({"input": images(1, 28)} | arguments))


@pytest.fixture(scope="module")
def timed() -> Profile:
    return profile(models.build("lenet"), images(2, 28), repeats=1, roofline=Roofline("cpu", quick=True))


def test_the_table_loses_columns_to_a_narrow_terminal(timed):
    cells = rows(timed)
    assert len({len(row) for row in cells}) == 1
    everything, dropped = fitted(cells, 500)
    assert everything == [list(row) for row in cells]
    assert dropped == ()
    narrow, dropped = fitted(cells, 80)
    assert KERNEL in dropped
    assert all(sum(len(cell) + 3 for cell in row) <= 80 for row in narrow)
    text = to_text([Run("lenet", "d2lkernels", "cpu", 1, (2, 1, 28, 28), timed, {2: "", 256: " (the book's batch)"})])
    assert "0, 1, 2" in text
    assert "memory of a training step of 256 inputs (the book's batch), estimated: " in text
    assert timed.bounds is not None
    assert all(bound.forward > 0 for bound, layer in zip(timed.bounds, timed.layers, strict=True) if layer.moved)


def test_command_writes_tables_csv_and_json(tmp_path, capsys):
    quick = ["--batch-size", "2", "--repeats", "1", "--threads", "1"]
    assert cli.main(["profile", "lenet", "--backend", "both", *quick]) == 0
    text = capsys.readouterr().out
    assert "conv2d_avg_pool2d + sigmoid" in text
    assert "torch conv2d" in text
    assert "d2lkernels against torch: " in text

    out = tmp_path / "lenet.csv"
    arguments = ["profile", "lenet", "--backend", "both", "--format", "csv", "--out", str(out), *quick]
    assert cli.main(arguments) == 0
    table = list(csv.DictReader(io.StringIO(out.read_text())))
    assert sum(int(row["parameters"]) for row in table if row["backend"] == "torch") == 61_706
    assert sum(int(row["macs"]) for row in table if row["backend"] == "d2lkernels") == 2 * 416_520
    assert all(float(row["forward_ms"]) > 0 for row in table)

    capsys.readouterr()
    assert cli.main(["profile", "vgg11", "--image-size", "32", "--backend", "ours", "--format", "json", *quick]) == 0
    (one,) = json.loads(capsys.readouterr().out)["profiles"]
    assert one["input"] == [2, 1, 32, 32]
    assert one["training_bytes"]["sgd"]["128"] > one["training_bytes"]["sgd"]["2"]
    assert len(one["layers"]) > 10

    options = ["--option", "num_convs=1,1", "--option", "growth_rate=4", "--image-size", "32"]
    assert cli.main(["profile", "densenet", *options, *quick]) == 0
    assert cli.main(["profile", "linear_regression", *quick]) == 0
    assert cli.main(["profile", "mlp", "--option", "in_channels=20", *quick]) == 0
    assert "2x20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lennet"], "expected name to be one of lenet, "),
        (["lenet", "--out", "/nowhere/at/all.csv"], "expected --out /nowhere/at/all.csv to be a file"),
        (["lenet", "--option", "activation=gelu"], "activation to be one of"),
        (["lenet", "--option", "in_channels=0"], "in_channels to be at least 1, but got 0"),
        (
            ["nin", "--image-size", "20", "--batch-size", "1"],
            "nin with d2lkernels does not take an input of 1x1x20x20: ",
        ),
        (["linear_regression", "--image-size", "20"], "expected --image-size with a model of images"),
        (["lenet", "--device", "tpu"], "expected --device to be auto"),
        (["lenet", "--batch-size", "100000000000"], "out of memory: a smaller --batch-size than 100,000,000,000"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, arguments, message):
    assert cli.main(["profile", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_refused_command_leaves_the_file_that_was_there(tmp_path):
    out = tmp_path / "kept.csv"
    out.write_text("mine")
    assert cli.main(["profile", "lenet", "--option", "pool=none", "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    assert cli.main(["profile", "lenet", "--option", "pool=none", "--out", str(tmp_path / "new.csv")]) == 2
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("size", ["0", "-3", "many", "2.5"])
def test_bad_batch_sizes(capsys, size):
    with pytest.raises(SystemExit):
        cli.main(["profile", "lenet", f"--batch-size={size}"])
    assert "argument --batch-size: expected " in capsys.readouterr().err
