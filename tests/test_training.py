"""Training: both back ends agree, runs resume exactly, and what can go wrong is said clearly."""

from __future__ import annotations

import csv
import os
import signal
import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from d2lkernels import models, ops
from d2lkernels.data import FashionMNIST, load_fashion_mnist
from d2lkernels.training import (
    CheckpointError,
    Epoch,
    History,
    Interrupt,
    TrainConfig,
    Trainer,
    TrainingError,
    checkpoint,
    comparison_table,
    draw_curves,
    session,
    train,
    write_csv,
)
from d2lkernels.training.random_state import RandomState
from d2lkernels.training.session import prepare_folder
from d2lkernels.training.timer import SpanTimer

CONFIG = TrainConfig("lenet", batch_size=32, lr=0.003, epochs=4, optimizer="adam")


@pytest.fixture(scope="module")
def sample() -> FashionMNIST:
    return load_fashion_mnist("sample", notify=lambda text: None)


@pytest.fixture(scope="module")
def data(sample) -> FashionMNIST:
    """120 training images: 4 batches of 32, the last one short."""
    return replace(
        sample,
        train_images=sample.train_images[::5].contiguous()[:120],
        train_labels=sample.train_labels[::5].contiguous()[:120],
    )


def results(trainer: Trainer) -> list[tuple[float, ...]]:
    return [(e.epoch, e.loss, e.train_accuracy, e.test_accuracy, e.images) for e in trainer.history]


def run(trainer: Trainer, epochs: int | None = None) -> Trainer:
    for _ in range(epochs or trainer.config.epochs - len(trainer.history)):
        assert trainer.run_epoch()
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class After:
    """Says that training is to stop after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


# Learning


def test_both_back_ends_start_alike_see_the_same_batches_and_agree(data):
    config = replace(CONFIG, optimizer="sgd", lr=0.1, options={"activation": "tanh"})
    ours, native = (Trainer(replace(config, backend=backend), data) for backend in ("d2lkernels", "torch"))
    assert_same(weights(ours), weights(native))
    assert type(ours.model[0]).__module__.startswith("d2lkernels")
    assert type(native.model[0]) is torch.nn.Conv2d
    run(ours), run(native)
    assert ours.history[-1].loss < 0.8 * ours.history[0].loss
    for one, other in zip(ours.history, native.history, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
        assert abs(one.train_accuracy - other.train_accuracy) <= 0.02
        assert abs(one.test_accuracy - other.test_accuracy) <= 0.02
    for name, tensor in weights(ours).items():
        assert torch.allclose(tensor, native.model.state_dict()[name], rtol=1e-2, atol=1e-3), name


def test_the_defaults_learn_the_embedded_sample(sample):
    settings = models.spec("lenet").sample_defaults
    config = TrainConfig("lenet", settings.batch_size, settings.lr, settings.epochs, settings.optimizer)
    last = run(Trainer(config, sample)).history[-1]
    assert last.test_accuracy >= 0.70
    assert last.train_accuracy >= 0.85


def test_the_figures_of_an_epoch_are_those_of_a_plain_loop(data):
    trainer = run(Trainer(CONFIG, data), 1)
    twin = Trainer(CONFIG, data)
    optimizer = torch.optim.Adam(twin.model.parameters(), lr=CONFIG.lr, fused=True)
    loss_sum, correct = 0.0, 0
    for images, labels in twin.loader:
        optimizer.zero_grad()
        output = twin.model(images)
        loss = ops.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((output.argmax(1) == labels).sum())
    assert_same(weights(trainer), weights(twin))
    epoch = trainer.history[0]
    assert epoch.loss == pytest.approx(loss_sum / 120, rel=1e-6)
    assert epoch.train_accuracy == correct / 120
    with torch.no_grad():
        outputs = twin.model(data.test_images.float() / 255)
    assert epoch.test_accuracy == pytest.approx(
        (outputs.argmax(1) == data.test_labels).float().mean().item(), abs=0.006
    )
    assert epoch.images == 120
    assert 0 < epoch.step_seconds <= epoch.epoch_seconds


def test_the_seed_decides_everything(data):
    one = run(Trainer(CONFIG, data), 2)
    torch.manual_seed(99)
    torch.rand(5)
    same, other = run(Trainer(CONFIG, data), 2), run(Trainer(replace(CONFIG, seed=1), data), 2)
    assert results(one) == results(same)
    assert_same(weights(one), weights(same))
    assert results(one) != results(other)


def test_training_leaves_the_global_generator_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(Trainer(CONFIG, data), 1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["d2lkernels", "torch"])
def test_half_precision_trains(data, dtype, backend):
    trainer = run(Trainer(replace(CONFIG, dtype=dtype, backend=backend), data), 3)
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert trainer.history[-1].loss < trainer.history[0].loss


def test_a_loss_that_is_not_finite_stops_training(data):
    config = replace(CONFIG, optimizer="sgd", lr=1e30, options={"activation": "relu"})
    with pytest.raises(
        TrainingError, match=r"torch: the loss became (nan|inf) in epoch \d: the learning rate .*1e\+30"
    ):
        run(Trainer(replace(config, backend="torch"), data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "lenet5"}, "to be one of lenet"),
        ({"backend": "tensorflow"}, "backend to be one of d2lkernels, torch"),
        ({"dtype": "int8"}, "dtype to be one of float32"),
        ({"optimizer": "lion"}, "optimizer to be one of sgd, adam"),
        ({"batch_size": 0}, "at least 1, but got batch_size=0"),
        ({"lr": float("nan")}, "lr to be positive and finite"),
        ({"options": {"num_classes": 9}}, "num_classes of 'lenet' to be at least 10 .* but got 9"),
        ({"model": "perceptron", "options": {"num_classes": 2}}, "num_classes of 'perceptron' to be 1 .* but got 2"),
        ({"options": {"in_channels": 3}}, "leave in_channels to the data set, but got in_channels=3"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


# Checkpoints


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("batches", [1, 3, 4, 6, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path, batches, optimizer, dtype):
    config = replace(CONFIG, optimizer=optimizer, dtype=dtype, epochs=3)
    whole = run(Trainer(config, data))

    broken, stop = Trainer(config, data), After(batches)
    for _ in range(batches // 4):
        assert broken.run_epoch()
        stop.left -= 4
    if stop.left:
        assert not broken.run_epoch(interrupted=stop)
    broken.save(tmp_path / "c.safetensors")

    torch.manual_seed(77)
    resumed = Trainer(config, data)
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.fill_(0.5)
    resumed.restore(checkpoint.load(tmp_path / "c.safetensors"))
    run(resumed)
    assert results(resumed) == results(whole)
    assert_same(weights(resumed), weights(whole))


def test_a_checkpoint_is_read_without_pickle_and_has_plain_weights(data, tmp_path):
    trainer = run(Trainer(CONFIG, data), 1)
    trainer.save(tmp_path / "c.safetensors")
    assert b"pickle" not in (tmp_path / "c.safetensors").read_bytes()
    saved = checkpoint.load(tmp_path / "c.safetensors")
    native = models.build("lenet", nn=torch.nn)
    native.load_state_dict(saved.group("model"))
    assert_same(native.state_dict(), weights(trainer))
    assert saved.state["config"]["lr"] == CONFIG.lr
    assert [item.name for item in tmp_path.iterdir()] == ["c.safetensors"]


def test_more_epochs_may_follow(data, tmp_path):
    short = run(Trainer(replace(CONFIG, epochs=1), data))
    short.save(tmp_path / "c.safetensors")
    longer = Trainer(replace(CONFIG, epochs=2), data)
    longer.restore(checkpoint.load(tmp_path / "c.safetensors"))
    assert results(run(longer)) == results(run(Trainer(replace(CONFIG, epochs=2), data)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, "lr is 0.003 there and 0.5 here"),
        ({"seed": 3, "batch_size": 16}, "batch_size is 32 there and 16 here; seed is 0 there and 3 here"),
        ({"optimizer": "sgd"}, "optimizer is 'adam' there and 'sgd' here"),
        ({"backend": "torch"}, "backend is 'd2lkernels' there and 'torch' here"),
        ({"options": {"num_classes": 11}}, "options is {} there and {'num_classes': 11} here"),
    ],
)
def test_a_checkpoint_of_another_training_changes_nothing(data, tmp_path, change, message):
    run(Trainer(CONFIG, data), 1).save(tmp_path / "c.safetensors")
    trainer = Trainer(replace(CONFIG, **change), data)
    before = weights(trainer)
    with pytest.raises(CheckpointError, match=message) as caught:
        trainer.restore(checkpoint.load(tmp_path / "c.safetensors"))
    assert "belongs to another training" in str(caught.value)
    assert_same(weights(trainer), before)
    assert trainer.history == []


def test_a_checkpoint_of_other_data_is_refused(data, sample, tmp_path):
    run(Trainer(CONFIG, data), 1).save(tmp_path / "c.safetensors")
    other = Trainer(CONFIG, replace(sample, fingerprint="another"))
    with pytest.raises(CheckpointError, match="the data set is"):
        other.restore(checkpoint.load(tmp_path / "c.safetensors"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors, state: tensors.pop("model.0.weight"), r"0\.weight is missing"),
        (
            lambda tensors, state: tensors.update({"model.0.bias": torch.zeros(7)}),
            r"0\.bias has size \[7\], not \[6\]",
        ),
        (
            lambda tensors, state: tensors.update({"model.0.bias": torch.zeros(6).double()}),
            r"0\.bias is torch.float64, not torch.float32",
        ),
        (lambda tensors, state: tensors.update({"model.99.bias": torch.zeros(7)}), "99.bias is not expected"),
        (lambda tensors, state: tensors.pop("loader.generator"), "loader.generator is missing"),
        (lambda tensors, state: state.pop("history"), "is incomplete: 'history' is missing"),
        (lambda tensors, state: state["history"][0].pop("loss"), "is incomplete: 'loss' is missing"),
        (lambda tensors, state: tensors.pop("optimizer.3.exp_avg"), "optimizer.3.exp_avg is missing"),
        (
            lambda tensors, state: tensors.update({"optimizer.3.exp_avg": torch.zeros(2)}),
            "optimizer.3.exp_avg has size",
        ),
        (lambda tensors, state: tensors.pop("random.cpu"), "random.cpu is missing"),
        (lambda tensors, state: tensors["random.cpu"].fill_(1), "random.cpu is no state of a generator"),
        (
            lambda tensors, state: tensors.update({"loader.generator": torch.zeros(3).byte()}),
            r"loader.generator has size \[3\]",
        ),
        (lambda tensors, state: state.update(next_batch=99), "next_batch"),
    ],
)
def test_an_incomplete_checkpoint_changes_nothing(data, tmp_path, edit, message):
    source = run(Trainer(CONFIG, data), 1)
    source.save(tmp_path / "c.safetensors")
    saved = checkpoint.load(tmp_path / "c.safetensors")
    edit(saved.tensors, saved.state)
    checkpoint.save(tmp_path / "d.safetensors", saved.tensors, saved.state)
    trainer = Trainer(CONFIG, data)
    with pytest.raises(CheckpointError, match=message):
        trainer.restore(checkpoint.load(tmp_path / "d.safetensors"))
    assert results(run(trainer, 1)) == results(source)


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_damaged_file_is_no_checkpoint(data, tmp_path, keep):
    path = tmp_path / "c.safetensors"
    Trainer(CONFIG, data).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="intact safetensors file, but it is damaged") as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


def test_other_files_are_no_checkpoints(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match="to be a file, but there is none"):
        checkpoint.load(tmp_path / "absent.safetensors")
    (tmp_path / "text").write_text("a text\n" * 100)
    with pytest.raises(CheckpointError, match="it is damaged"):
        checkpoint.load(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="to be a d2lkernels checkpoint 1, but its metadata say"):
        checkpoint.load(tmp_path / "foreign.safetensors")


def test_a_failed_save_leaves_the_last_checkpoint_in_place(data, tmp_path):
    trainer = Trainer(CONFIG, data)
    trainer.save(tmp_path / "c.safetensors")
    before = (tmp_path / "c.safetensors").read_bytes()
    (tmp_path / f"c.safetensors.{os.getpid()}.part").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        trainer.save(tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == before


def test_without_safetensors_the_command_to_install_it_is_given(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert not checkpoint.available()
    for call in (
        lambda: checkpoint.load(tmp_path / "c.safetensors"),
        lambda: Trainer(CONFIG, data).save(tmp_path / "c.safetensors"),
    ):
        with pytest.raises(CheckpointError, match="pip install safetensors"):
            call()
    result = train([Trainer(replace(CONFIG, epochs=1), data)], tmp_path)
    assert result.checkpoints == []
    assert not result.interrupted


# Sessions


def test_a_session_trains_all_runs_in_turn_and_writes_its_files(data, tmp_path, capsys):
    trainers = [Trainer(replace(CONFIG, backend=backend, epochs=2), data) for backend in ("d2lkernels", "torch")]
    result = train(trainers, tmp_path)
    assert not result.interrupted
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split()[:3] for line in lines] == [
        ["epoch", "1/2", "d2lkernels"],
        ["epoch", "1/2", "torch"],
        ["epoch", "2/2", "torch"],
        ["epoch", "2/2", "d2lkernels"],
    ]
    assert "images/s" in lines[0]
    alone = run(Trainer(replace(CONFIG, backend="torch", epochs=2), data))
    assert results(alone) == results(trainers[1])
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "curves.png",
        "d2lkernels.safetensors",
        "history.csv",
        "predictions.png",
        "torch.safetensors",
    ]
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["backend"], row["epoch"]) for row in rows] == [
        ("d2lkernels", "1"),
        ("d2lkernels", "2"),
        ("torch", "1"),
        ("torch", "2"),
    ]
    assert float(rows[3]["loss"]) == alone.history[1].loss
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_saves_and_the_rest_can_follow(data, tmp_path):
    config = replace(CONFIG, epochs=3)
    handler = signal.getsignal(signal.SIGINT)
    whole = run(Trainer(config, data))
    trainer, batches = Trainer(config, data), 0
    step = trainer._step

    def step_and_press(*arguments):
        nonlocal batches
        batches += 1
        if batches == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    trainer._step = step_and_press
    result = train([trainer], tmp_path)
    assert result.interrupted
    assert batches == 6
    assert len(trainer.history) == 1
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = Trainer(config, data)
    resumed.restore(checkpoint.load(result.checkpoints[0]))
    assert not train([resumed], tmp_path).interrupted
    assert results(resumed) == results(whole)


def test_ctrl_c_while_files_are_written_lets_them_be_complete(data, tmp_path, monkeypatch):
    def press_and_draw(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        draw(*arguments)

    draw = session.draw_curves
    monkeypatch.setattr(session, "draw_curves", press_and_draw)
    interrupt = Interrupt()
    result = train([Trainer(CONFIG, data)], tmp_path, interrupt=interrupt)
    assert not result.interrupted
    assert interrupt()
    assert all(path.exists() for path in (*result.pictures, *result.checkpoints))


def test_a_checkpoint_may_be_read_by_whom_the_umask_lets(data, tmp_path):
    before = os.umask(0o027)
    try:
        Trainer(CONFIG, data).save(tmp_path / "c.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.safetensors").stat().st_mode) == 0o640


def test_a_session_runs_in_another_thread(data, tmp_path):
    outcome = []
    trainer = Trainer(replace(CONFIG, epochs=1), data)
    thread = threading.Thread(target=lambda: outcome.append(train([trainer], tmp_path, interrupt=Interrupt())))
    thread.start()
    thread.join()
    assert not outcome[0].interrupted


@pytest.mark.parametrize("with_rich", [True, False])
def test_the_bar_goes_to_stderr_and_the_lines_to_stdout(data, tmp_path, capsys, monkeypatch, with_rich):
    if not with_rich:
        for name in [name for name in sys.modules if name.split(".")[0] == "rich"] + ["rich"]:
            monkeypatch.setitem(sys.modules, name, None)
    train([Trainer(replace(CONFIG, epochs=2), data)], tmp_path, bar=True)
    captured = capsys.readouterr()
    assert len([line for line in captured.out.splitlines() if line.startswith("epoch")]) == 2
    assert "%" not in captured.out
    if not with_rich:
        assert "100%" in captured.err


def test_an_output_folder_that_cannot_be_written_is_found_at_once(tmp_path):
    prepare_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(TrainingError, match=r"to be writable, but got: .* Choose another with --out"):
            prepare_folder(folder)


# History


def history(*speeds: float) -> History:
    return History(Epoch(i + 1, 1.0 / (i + 1), 0.5, 0.25, 100, 100 / speed, 1.0) for i, speed in enumerate(speeds))


def test_speed_is_the_median_and_rows_come_back():
    sped = history(1, 100, 200)
    assert sped.images_per_second() == pytest.approx(100)
    assert History.from_rows(sped.to_rows()) == sped


def test_the_table_gives_the_ratio_of_ours_to_native():
    table = comparison_table({"d2lkernels": history(300), "torch": history(200)}, "d2lkernels", "torch").splitlines()
    assert table[0].split() == ["backend", "loss", "train", "acc", "test", "acc", "images/s", "ours/native"]
    assert table[2].split() == ["d2lkernels", "1.000", "0.500", "0.250", "300", "1.50x"]
    assert table[3].split() == ["torch", "1.000", "0.500", "0.250", "200"]
    assert len(comparison_table({"d2lkernels": history(300)}, "d2lkernels", "torch").splitlines()) == 3


def test_without_matplotlib_there_is_no_picture_and_the_reason_is_given(data, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert not draw_curves(tmp_path / "x.png", {"torch": history(1)}, "title")
    assert train([Trainer(replace(CONFIG, epochs=1), data)], tmp_path).pictures == []
    assert "pip install matplotlib" in capsys.readouterr().out
    assert (tmp_path / "history.csv").exists()


def test_csv_holds_every_epoch(tmp_path):
    write_csv(tmp_path / "h.csv", {"a": history(1, 2), "b": history(4)})
    with (tmp_path / "h.csv").open() as file:
        assert [row["images_per_second"] for row in csv.DictReader(file)] == ["1.0", "2.0", "4.0"]


# Parts


def test_random_states_are_independent_and_continue():
    device = torch.device("cpu")
    torch.manual_seed(1)
    alone = torch.rand(4)
    torch.manual_seed(9)
    outside = torch.rand(2)
    torch.manual_seed(9)
    one, other = RandomState(1, device), RandomState(2, device)
    drawn = []
    for _ in range(2):
        with one.active():
            drawn.append(torch.rand(2))
        with other.active():
            torch.rand(7)
    assert torch.equal(torch.cat(drawn), alone)
    assert torch.equal(torch.rand(2), outside)


def test_the_timer_adds_spans_and_starts_again():
    timer = SpanTimer(torch.device("cpu"))
    assert timer.take() == 0
    for _ in range(2):
        with timer:
            threading.Event().wait(0.01)
    assert timer.take() >= 0.02
    assert timer.take() == 0
