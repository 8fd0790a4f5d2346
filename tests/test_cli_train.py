"""``python -m d2lkernels train`` and ``info``, as a user calls them."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d2lkernels import cli, config, models

QUICK = ["train", "lenet", "--data", "sample", "--epochs", "2", "--batch-size", "100", "--option", "activation=tanh"]
COMMAND = [sys.executable, "-m", "d2lkernels"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def losses(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "history.csv").open() as file:
        return [(row["backend"], row["epoch"], row["loss"], row["test_accuracy"]) for row in csv.DictReader(file)]


def fails(capsys, *arguments: object) -> str:
    """Runs a command that must fail as a user's mistake does: exit code 2 and one line on stderr. Returns the line."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("using the embedded")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    return errors[0]


def test_info(capsys):
    assert cli.main(["info"]) == 0
    assert capsys.readouterr().out.strip() == config.info_text().strip()


def test_a_reader_that_leaves_early_sees_no_traceback():
    process = subprocess.Popen([*COMMAND, "examples", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""


def test_both_back_ends_end_with_a_table_and_a_picture(tmp_path):
    arguments = [*COMMAND, *QUICK, "--backend", "both", "--out", str(tmp_path / "out"), "--seed", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "embedded sample of 900" in done.stderr
    assert re.search(r"^backend +loss +train acc +test acc +images/s +ours/native$", done.stdout, re.M)
    assert re.search(r"^d2lkernels +[\d.]+ +0\.\d+ +0\.\d+ +[\d,]+ +[\d.]+x$", done.stdout, re.M)
    picture = re.search(r"^curves: +(.*)$", done.stdout, re.M)
    assert picture
    assert Path(picture[1]).stat().st_size > 1000
    ours, native = (rows for rows in (losses(tmp_path / "out")[:2], losses(tmp_path / "out")[2:]))
    assert [row[:2] for row in ours + native] == [
        ("d2lkernels", "1"),
        ("d2lkernels", "2"),
        ("torch", "1"),
        ("torch", "2"),
    ]
    for one, other in zip(ours, native, strict=True):
        assert float(one[2]) == pytest.approx(float(other[2]), rel=1e-3)


def test_ctrl_c_and_resume(tmp_path, capsys):
    out = tmp_path / "out"
    many = ["train", "lenet", "--data", "sample", "--epochs", "200", "--backend", "torch", "--out", str(out)]
    process = subprocess.Popen(
        [*COMMAND, *many], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith("epoch") for line in lines)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"python -m d2lkernels train lenet --resume {out}" in rest
    assert "Traceback" not in errors

    done = len(losses(out))
    assert 1 <= done < 200
    arguments = ["train", "lenet", "--data", "sample", "--resume", str(out), "--epochs", str(done + 1)]
    assert cli.main(arguments) == 0
    assert f"going on after epoch {done}" in capsys.readouterr().out
    assert len(losses(out)) == done + 1


def test_resume_continues_both_back_ends_as_if_never_stopped(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    both = [*QUICK, "--backend", "both"]
    assert cli.main([*both, "--out", str(whole)]) == 0
    assert cli.main([*both, "--epochs", "1", "--out", str(parts)]) == 0
    resume = ["train", "lenet", "--data", "sample", "--resume"]
    assert cli.main([*resume, str(parts), "--epochs", "2", "--out", str(tmp_path / "moved")]) == 0
    assert losses(tmp_path / "moved") == losses(whole)
    assert len(losses(parts)) == 2
    assert cli.main([*resume, str(parts / "torch.safetensors"), "--epochs", "2"]) == 0
    assert losses(parts) == losses(whole)[2:]
    capsys.readouterr()

    assert "lr is 0.003 there and 0.5 here" in fails(capsys, *resume, parts, "--lr", "0.5")
    assert "the data set is" not in fails(capsys, *resume, parts, "--batch-size", "3")
    (parts / "torch.safetensors").write_bytes(b"rubbish" * 100)
    assert "torch.safetensors to be an intact" in fails(capsys, *resume, parts, "--backend", "torch")
    (parts / "torch.safetensors").unlink()
    assert "there is none" in fails(capsys, *resume, parts, "--backend", "both")
    assert "there is none" in fails(capsys, *resume, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "to hold a checkpoint" in fails(capsys, *resume, tmp_path / "empty")
    wrong = [*resume, parts / "d2lkernels.safetensors", "--backend", "torch"]
    assert "holds a run with d2lkernels, but --backend torch" in fails(capsys, *wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenett"], "to be one of lenet"),
        (["linear_regression", "--data", "sample"], "expected --data with a model of images"),
        (["lenet", "--option", "num_classes=9"], "num_classes of 'lenet' to be at least 10"),
        (["lenet", "--option", "in_channels=3"], "to leave in_channels to the data set, but got in_channels=3"),
        (["all", "--option", "activation=relu"], "expected --option with one model"),
        (["lenet", "--data", "/nowhere/at/all"], "/nowhere/at/all to be a folder with the data set"),
        (["lenet", "--device", "gpu"], "expected --device to be auto, cpu, cuda or cuda:N, but got 'gpu'"),
        (["lenet", "--device", "meta"], "expected --device to be auto"),
        (["lenet", "--option", "activation=gelu"], "activation to be one of"),
        (["lenet", "--option", "size=3"], "options of 'lenet' to be among"),
        (["lenet", "--out", "/proc/nowhere"], "/proc/nowhere to be writable"),
        (["lenet", "--lr", "1e30", "--option", "activation=relu"], "the learning rate is too high"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    defaults = [] if "--data" in arguments else ["--data", "sample"]
    assert message in fails(capsys, "train", *arguments, *defaults)
    if "--lr" not in arguments:  # what could not start leaves no folder
        assert not list(tmp_path.glob("runs/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_a_mistake(capsys):
    assert "--device cuda:0 needs a GPU" in fails(capsys, "train", "lenet", "--device", "cuda:0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["train"], "required: MODEL"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "lenet", "--epochs", "0"], "--epochs: expected at least 1, but got 0"),
        (["train", "lenet", "--batch-size", "x"], "--batch-size: expected a whole number, but got 'x'"),
        (["train", "lenet", "--lr", "-1"], "--lr: expected a positive number, but got -1"),
        (["train", "lenet", "--backend", "tf"], "invalid choice: 'tf'"),
        (["train", "lenet", "--option", "x"], "expected NAME=VALUE, but got 'x'"),
    ],
)
def test_arguments_are_checked_by_the_parser(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_gives_the_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name in models.names():
        spec = models.spec(name)
        assert f"{spec.defaults}; sample: {spec.sample_defaults}" in text
    for option in (
        "backend",
        "device",
        "epochs",
        "batch-size",
        "lr",
        "seed",
        "data",
        "out",
        "dtype",
        "compile",
        "resume",
    ):
        assert f"--{option}" in text


def test_the_default_output_folder_is_new_and_optimizers_keep_their_own_rate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    once = ["train", "lenet", "--data", "sample", "--epochs", "1", "--batch-size", "350"]
    for arguments, expected in (
        ([], "adam, batch 350, lr 0.003, 1 epochs, seed 0"),
        (["--lr", "0.5"], "sgd, batch 350, lr 0.5, 1 epochs, seed 0"),
        (["--optimizer", "sgd", "--seed", "4"], "sgd, batch 350, lr 0.9, 1 epochs, seed 4"),
        (["--optimizer", "adam", "--lr", "0.01"], "adam, batch 350, lr 0.01, 1 epochs, seed 0"),
    ):
        assert cli.main([*once, *arguments]) == 0
        assert expected in capsys.readouterr().out
    folders = [folder.name for folder in (tmp_path / "runs").iterdir()]
    assert all(re.fullmatch(r"lenet-\d{8}-\d{6}(_\d+)?", name) for name in folders)
    assert len(folders) == 4
