"""What a training session writes and says beyond its history: logs, pictures, the book's range; other tasks."""

from __future__ import annotations

import csv
import errno
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from d2lkernels import cli, models
from d2lkernels.data import FashionMNIST, load_fashion_mnist
from d2lkernels.training import Epoch, History, TrainConfig, Trainer, TrainingError, session, train
from d2lkernels.training import command as train_command
from d2lkernels.training.book import book_results
from d2lkernels.training.session import Result, prepare_folder
from d2lkernels.training.tasks import TASKS

CONFIG = TrainConfig("mlp", batch_size=32, lr=0.1, epochs=2)
QUICK = ["train", "mlp", "--quick"]


@pytest.fixture(scope="module")
def sample() -> FashionMNIST:
    return load_fashion_mnist("sample", notify=lambda text: None)


@pytest.fixture(scope="module")
def data(sample) -> FashionMNIST:
    return sample.subset(8, 4)


# Points


@pytest.mark.parametrize("backend", ["d2lkernels", "torch"])
def test_linear_regression_finds_what_its_data_were_made_with(backend):
    points = TASKS["regression"].points()
    settings = models.spec("linear_regression").defaults
    trainer = Trainer(TrainConfig("linear_regression", **vars(settings), backend=backend), points)
    while trainer.run_epoch() and not trainer.finished:
        pass
    weight, bias = trainer.model.parameters()
    assert weight.flatten().tolist() == pytest.approx(points.weight, abs=2e-3)
    assert bias.item() == pytest.approx(points.bias, abs=2e-3)
    assert 0.8e-4 < trainer.history[-1].loss < 1.3e-4  # the noise's variance is 1e-4
    assert trainer.history[-1].test_accuracy != trainer.history[-1].test_accuracy


def test_the_perceptron_separates_its_points_and_then_stands_still():
    trainer = Trainer(
        TrainConfig("perceptron", **vars(models.spec("perceptron").defaults)), TASKS["separation"].points()
    )
    while trainer.run_epoch() and trainer.history[-1].train_accuracy < 1:
        assert not trainer.finished
    assert trainer.run_epoch()
    assert trainer.history[-1].loss == 0
    assert trainer.history[-1].test_accuracy >= 0.97


def test_points_are_trained_from_the_command_line_with_pictures(tmp_path, capsys):
    for name in ("linear_regression", "perceptron"):
        assert cli.main(["train", name, "--epochs", "2", "--backend", "both", "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name / "predictions.png").stat().st_size > 5000
    text = capsys.readouterr().out
    assert "made with    weight 2.000 -3.400, bias 4.200" in text
    assert "d2lkernels   weight 2.00" in text
    assert "test acc" in text


# Samples of the data set


def test_a_subset_has_the_first_images_of_each_class(sample):
    part = sample.subset(3, 2)
    assert part.train_labels.bincount().tolist() == [3] * 10
    assert part.test_labels.bincount().tolist() == [2] * 10
    first = [int(index) for index in (sample.train_labels == 4).nonzero()[:3, 0]]
    assert torch.equal(part.train_images[part.train_labels == 4], sample.train_images[first])
    assert part.is_sample
    assert part.fingerprint != sample.fingerprint


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_the_size_of_images_is_an_option(name, data):
    options = {"image_size": 65, "num_hiddens": 16}
    trainer = Trainer(TrainConfig(name, 64, 0.01, 1, options=options), data)
    assert next(iter(trainer.loader))[0].shape == (64, 1, 65, 65)


def test_all_models_are_trained_in_turn_and_a_stopped_session_goes_on(tmp_path, capsys, monkeypatch):
    assert set(train_command.CHAPTERS) <= set(models.names())
    assert not any(name[-2:].isdigit() and name not in ("vgg11", "resnet18") for name in train_command.CHAPTERS)
    monkeypatch.setattr(train_command, "CHAPTERS", ("linear_regression", "softmax_regression", "mlp"))
    out = tmp_path / "out"
    everything = ["train", "all", "--quick", "--backend", "both", "--out", str(out)]
    assert cli.main(everything) == 0
    text = capsys.readouterr().out
    table = text[text.rindex("model ") :].splitlines()
    assert [line.split()[:2] for line in table[2:]] == [
        [name, backend] for name in train_command.CHAPTERS for backend in ("d2lkernels", "torch")
    ]
    for name in train_command.CHAPTERS:
        assert (out / name / "predictions.png").exists()

    first = (out / "softmax_regression" / "history.csv").read_text()
    for file in (out / "mlp").iterdir():
        file.unlink()
    assert cli.main(["train", "all", "--quick", "--backend", "both", "--resume", str(out)]) == 0
    again = capsys.readouterr().out
    assert (out / "softmax_regression" / "history.csv").read_text() == first
    assert (out / "mlp" / "history.csv").exists()
    assert again.count("epoch 1/2") == 2


def test_ctrl_c_at_the_end_of_a_model_stops_the_next(tmp_path, capsys, monkeypatch):
    def press_and_write(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return write(*arguments)

    write = session.draw_predictions
    monkeypatch.setattr(session, "draw_predictions", press_and_write)
    monkeypatch.setattr(train_command, "CHAPTERS", ("softmax_regression", "mlp"))
    assert cli.main(["train", "all", "--quick", "--out", str(tmp_path)]) == 130
    assert f"train all --resume {tmp_path}" in capsys.readouterr().out
    assert (tmp_path / "softmax_regression" / "predictions.png").exists()
    assert (tmp_path / "mlp" / "d2lkernels.safetensors").exists()


# Logs


def test_the_history_is_on_disk_after_each_epoch(data, tmp_path, monkeypatch):
    trainer = Trainer(CONFIG, data)
    run_epoch = trainer.run_epoch

    def fail_in_the_second(*arguments):
        if trainer.history:
            raise TrainingError("as if the loss were not finite")
        return run_epoch(*arguments)

    monkeypatch.setattr(trainer, "run_epoch", fail_in_the_second)
    with pytest.raises(TrainingError, match="as if"):
        train([trainer], tmp_path)
    with (tmp_path / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


def test_tensorboard_sees_every_epoch_of_both_back_ends(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert cli.main([*QUICK, "--backend", "both", "--tensorboard", "--out", str(tmp_path)]) == 0
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    for backend in ("d2lkernels", "torch"):
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / backend))
        events.Reload()
        for tag, column in (("loss", "loss"), ("accuracy/test", "test_accuracy")):
            expected = [float(row[column]) for row in rows if row["backend"] == backend]
            assert [event.value for event in events.Scalars(tag)] == pytest.approx(expected)
            assert [event.step for event in events.Scalars(tag)] == [1, 2]


def test_without_tensorboard_the_command_to_install_it_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.main([*QUICK, "--tensorboard", "--out", str(tmp_path)]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "history.csv").exists()


# Room on the disk


def test_a_disk_without_room_for_checkpoints_is_found_before_the_first_epoch(tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # the MLP's checkpoint has 0.8 MB

    arguments = [sys.executable, "-m", "d2lkernels", *QUICK, "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=environment, timeout=120, preexec_fn=limit, check=False
    )
    assert done.returncode == 2
    assert f"expected the output folder {tmp_path} to have room for checkpoints (2 MB), but got:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(line.startswith("epoch") for line in done.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_a_probe_of_the_disk_leaves_nothing(tmp_path, monkeypatch):
    prepare_folder(tmp_path, 3_000_000)
    assert list(tmp_path.iterdir()) == []

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TrainingError, match=r"room for checkpoints \(3 MB\), but got: No space left on device"):
        prepare_folder(tmp_path, 3_000_000)
    assert list(tmp_path.iterdir()) == []


def test_training_goes_on_when_a_checkpoint_in_between_cannot_be_written(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("d2lkernels.training.session.CHECKPOINT_SECONDS", 0.0)
    blocker = tmp_path / f"d2lkernels.safetensors.{os.getpid()}.part"
    blocker.mkdir()
    trainer = Trainer(CONFIG, data)
    run_epoch = trainer.run_epoch

    def make_room_in_the_second(*arguments):
        if trainer.history:
            blocker.rmdir()
        return run_epoch(*arguments)

    monkeypatch.setattr(trainer, "run_epoch", make_room_in_the_second)
    result = train([trainer], tmp_path)
    assert len(trainer.history) == 2
    assert result.checkpoints[0].exists()
    assert "cannot be written" in capsys.readouterr().err


# The book's range


def test_the_books_results_are_those_of_its_builds():
    results = book_results()
    assert set(results) == {"lenet", "bn_lenet", "alexnet", "vgg11", "nin", "googlenet", "resnet18", "densenet"}
    lenet = results["lenet"]
    assert (lenet.runs, lenet.images_per_second) == (131, 83857)
    assert [(band.low, band.median, band.high) for band in lenet.bands.values()] == [
        (0.454, 0.468, 0.486),
        (0.814, 0.824, 0.831),
        (0.777, 0.807, 0.825),
    ]
    for result in results.values():
        assert all(band.low <= band.median <= band.high for band in result.bands.values())


def epoch(loss: float, train_accuracy: float, test_accuracy: float) -> Epoch:
    return Epoch(10, loss, train_accuracy, test_accuracy, 60_000, 1.0, 1.0)


@pytest.mark.parametrize(
    ("figures", "outside"),
    [
        ((0.4536, 0.8314, 0.8), []),  # rounded to three digits, as the book prints them
        ((0.4534, 0.82, 0.8), ["loss 0.453 OUTSIDE 0.454-0.486"]),
        ((0.46, 0.82, 0.83), ["test acc 0.830 OUTSIDE 0.777-0.825"]),
        ((2.3, 0.1, 0.1), ["loss 2.300 OUTSIDE", "train acc 0.100 OUTSIDE", "test acc 0.100 OUTSIDE"]),
    ],
)
def test_a_run_is_inside_the_range_with_all_three_figures(figures, outside):
    inside, words = book_results()["lenet"].verdict(epoch(*figures))
    assert inside == (not outside)
    assert words.count("OUTSIDE") == len(outside)
    assert all(part in words for part in outside)


def test_full_runs_with_the_books_settings_are_compared_and_others_are_not(sample, capsys):
    full = replace(
        sample, is_sample=False, train_images=sample.train_images[:1].expand(60_000, 1, 28, 28), source="the folder x"
    )
    config = TrainConfig("lenet", **vars(models.spec("lenet").defaults), seed=3)
    good, bad = History([epoch(0.47, 0.82, 0.8)]), History([epoch(0.47, 0.82, 0.7)])

    def said(config: TrainConfig, data: FashionMNIST, histories: dict[str, History]) -> tuple[bool | None, str]:
        inside = train_command._report_book(Result(histories, False, [], []), config, data)
        return inside, capsys.readouterr().out

    inside, text = said(config, full, {"d2lkernels": good})
    assert inside is True
    assert "131 runs, from 5 to 95 %" in text
    inside, text = said(config, full, {"d2lkernels": good, "torch": bad})
    assert inside is False
    assert "torch       loss 0.470 inside" in text
    inside, text = said(replace(config, lr=0.5, dtype="bfloat16"), full, {"d2lkernels": good})
    assert inside is None
    assert "which differ in lr, dtype" in text
    assert said(config, sample, {"d2lkernels": good}) == (None, "")
    assert said(replace(config, model="resnet34"), full, {"d2lkernels": good}) == (None, "")
