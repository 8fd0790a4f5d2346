"""``python -m d2lkernels train``: the arguments, and what they set going."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..data import SAMPLE, FashionMNIST, Points, load_fashion_mnist
from . import checkpoint
from .book import book_results
from .errors import CheckpointError, TrainingError
from .history import COMPARISON_HEADER, comparison_rows, comparison_table, table
from .options import choose_device, model_option, positive_float, positive_int
from .parallel import Group, group_from_environment
from .session import Interrupt, Result, checkpoint_path, prepare_folder, train
from .tasks import TASKS, Data
from .trainer import DTYPES, NATIVE, OPTIMIZERS, OURS, TrainConfig, Trainer

BOTH, ALL = "both", "all"
INTERRUPTED = 130
FULL_IMAGES = 60_000
CHAPTERS = (
    *("linear_regression", "softmax_regression", "perceptron", "mlp", "mlp_dropout", "lenet"),
    *("alexnet", "vgg11", "nin", "googlenet", "bn_lenet", "resnet18", "densenet"),
)
"""The models of "train all": those that the book trains, in its order, without their deeper variants."""

QUICK_IMAGES, QUICK_EPOCHS = (16, 8), 2

_EPILOG = """\
files in the output folder: <backend>.safetensors (checkpoint), history.csv, curves.png, predictions.png.

a run on the full data set with the book's settings says whether it ends within the range of the book's own runs.

with --backend both, our kernels and native torch start from the same weights, see the same batches and take turns
epoch by epoch; a table compares them at the end. "images/s" counts the training steps alone (forward, backward,
update), as the book does; the seconds of a line are the wall clock of the epoch, with loading and testing.

several processes, each with a GPU or a part of the CPU, divide every batch among them and get what one would get:
  torchrun --nproc-per-node=2 -m d2lkernels train resnet18

Ctrl-C stops after the batch in hand and saves; --resume goes on exactly as if there had been no stop.

environment: D2LKERNELS_DOWNLOAD=0 never downloads, D2LKERNELS_CACHE is the folder for downloads.
"""


def _defaults_text() -> str:
    lines = ["models, and their settings on the full data set (the book's) and on the embedded sample:"]
    width = max(map(len, models.names()))
    for name in models.names():
        spec = models.spec(name)
        lines.append(f"  {name:{width}}  {spec.defaults}; sample: {spec.sample_defaults}")
    return "\n".join(lines)


def add_parser(subparsers: Any) -> None:
    """Adds the command to a parser."""
    parser = subparsers.add_parser(
        "train",
        help="train a model of the book, or all of them",
        description="Trains a model of the book, with our kernels, native torch, or both: on Fashion-MNIST, or on "
        "points where it takes a few features.",
        epilog=f"{_defaults_text()}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=f'"{ALL}", or one of: {", ".join(models.names())}')
    parser.add_argument(
        "--backend",
        choices=(OURS, NATIVE, BOTH),
        help=f"whose layers to train with (default: {OURS}; with --resume, those that were saved)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="default: see below")
    parser.add_argument("--batch-size", type=positive_int, metavar="N", help="default: see below")
    parser.add_argument("--lr", type=positive_float, help="learning rate (default: see below)")
    parser.add_argument(
        "--optimizer", choices=tuple(OPTIMIZERS), help="default: sgd if --lr is given, otherwise see below"
    )
    parser.add_argument("--seed", type=int, help="of the weights and the order of the images (default: 0)")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help='folder with the four Fashion-MNIST files, or "sample" for the embedded 900 images '
        "(default: the cache, else a download, else the sample)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a trial: {QUICK_EPOCHS} epochs on {10 * QUICK_IMAGES[0]} images, of the sample unless --data is given",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: runs/MODEL-DATE-TIME, or with --resume the same folder"
    )
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="float32, or autocast to bfloat16 or float16 (default: float32)"
    )
    parser.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    parser.add_argument(
        "--option",
        type=model_option,
        action="append",
        metavar="NAME=VALUE",
        help="an option of the model, such as activation=relu; may be repeated",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="PATH",
        help="go on with the run in this folder, or with this checkpoint; --epochs may be raised",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="log for TensorBoard too, in the output folder (needs tensorboard)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains as the arguments say. Returns the exit code.

    Raises:
        TrainingError, DataError, ValueError, TypeError: something in the arguments or files does not fit.
    """
    if arguments.model == ALL:
        names: tuple[str, ...] = CHAPTERS
        if arguments.option:
            raise TrainingError(f"expected --option with one model, but got {ALL!r}")
    else:
        names = (models.spec(arguments.model).name,)
    group = group_from_environment()
    some = arguments.resume is not None and arguments.backend is None
    device = choose_device(
        arguments.device,
        our_kernels=some or arguments.backend != NATIVE,
        local_rank=group.local_rank if group.size > 1 else None,
    )
    folder = arguments.out or (_resumed_folder(arguments.resume) if arguments.resume else _new_folder(arguments.model))
    is_new = group.is_first and not folder.exists()
    if group.is_first:
        prepare_folder(folder)
    try:
        with group.joined(device):
            loaded: dict[str, Data] = {}
            if arguments.model != ALL:
                return _run_one(arguments, names[0], folder, arguments.resume, device, group, loaded).exit_code
            return _run_all(arguments, names, folder, device, group, loaded)
    finally:
        if is_new:
            with suppress(OSError):  # nothing came of it: what is not empty stays
                folder.rmdir()


def _run_all(
    arguments: argparse.Namespace,
    names: Sequence[str],
    folder: Path,
    device: torch.device,
    group: Group,
    loaded: dict[str, Data],
) -> int:
    """Trains one model after the other, each into a folder of its own; a table ends it.

    Ctrl-C while the files of one are written stops the next before its first batch, which says how to go on.
    """
    rows = []
    interrupt = Interrupt()
    for name in names:
        if group.is_first:
            print(f"\n== {name}", flush=True)
            prepare_folder(folder / name)
        resume = arguments.resume / name if arguments.resume else None
        if resume and not any(checkpoint_path(resume, backend).exists() for backend in (OURS, NATIVE)):
            resume = None  # that run had not come so far
        done = _run_one(arguments, name, folder / name, resume, device, group, loaded, interrupt)
        if done.result.interrupted:
            if group.is_first:
                print(f"The other models too:\n  {_resume_command(ALL, folder)}")
            return done.exit_code
        verdict = "" if done.inside is None else "inside" if done.inside else "OUTSIDE"
        rows += [(name, *row, verdict) for row in comparison_rows(done.result.histories, OURS, NATIVE)]
    if group.is_first:
        print()
        print(table([("model", *COMPARISON_HEADER, "book's range"), *rows]))
    return 0


@dataclass(frozen=True)
class _Done:
    """How one model's session ended; `inside`: whether it was inside the book's range, None if that cannot be said."""

    result: Result
    inside: bool | None

    @property
    def exit_code(self) -> int:
        return INTERRUPTED if self.result.interrupted else 0


def _run_one(
    arguments: argparse.Namespace,
    name: str,
    folder: Path,
    resume: Path | None,
    device: torch.device,
    group: Group,
    loaded: dict[str, Data],
    interrupt: Interrupt | None = None,
) -> _Done:
    saved = _load_checkpoints(arguments, name, resume) if resume else {}
    task = models.spec(name).task
    if task not in loaded:
        loaded[task] = _data(arguments, task, device, group)
    data = loaded[task]
    configs = [_resumed(c, arguments) for c in saved.values()] if saved else _configs(arguments, name, data)
    trainers = [Trainer(config, data, device, group) for config in configs]
    for trainer in trainers:
        if saved:
            trainer.restore(saved[trainer.config.backend])
    if not saved:
        for trainer in trainers[1:]:
            trainer.model.load_state_dict(trainers[0].model.state_dict())
    if group.is_first:
        _announce(trainers, data)
    result = train(trainers, folder, interrupt=interrupt, tensorboard=arguments.tensorboard)
    inside = None
    if group.is_first:
        inside = _report(result, trainers, folder)
    return _Done(result, inside)


def _data(arguments: argparse.Namespace, task: str, device: torch.device, group: Group) -> Data:
    points = TASKS[task].points()
    if points is not None:
        if arguments.data and arguments.model != ALL:
            raise TrainingError(f"expected --data with a model of images, but {arguments.model!r} takes points")
        return points.to(device)
    notify = None if group.is_first else lambda text: None
    root = arguments.data or (SAMPLE if arguments.quick else None)
    data = load_fashion_mnist(root, device=device, notify=notify, download=None if group.is_first else False)
    return data.subset(*QUICK_IMAGES) if arguments.quick else data


def _configs(arguments: argparse.Namespace, model: str, data: Data) -> list[TrainConfig]:
    spec = models.spec(model)
    defaults = spec.sample_defaults if data.is_sample else spec.defaults
    backend = arguments.backend or OURS
    # A learning rate only means something for one optimizer, so neither is ever paired with a default of another kind.
    optimizer = arguments.optimizer or ("sgd" if arguments.lr else defaults.optimizer)
    lr = arguments.lr
    if lr is None:
        fitting = [s for s in (defaults, spec.defaults, spec.sample_defaults) if s.optimizer == optimizer]
        if not fitting:
            raise TrainingError(f"--optimizer {optimizer} needs --lr: {spec.name} has no default for it")
        lr = fitting[0].lr
    config = TrainConfig(
        model=model,
        batch_size=arguments.batch_size or defaults.batch_size,
        lr=lr,
        epochs=arguments.epochs or (min(QUICK_EPOCHS, defaults.epochs) if arguments.quick else defaults.epochs),
        optimizer=optimizer,
        seed=arguments.seed or 0,
        dtype=arguments.dtype or "float32",
        compile=arguments.compile,
        options=dict(arguments.option or []),
    )
    return [replace(config, backend=name) for name in ((OURS, NATIVE) if backend == BOTH else (backend,))]


def _new_folder(model: str) -> Path:
    path = Path("runs") / f"{model}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.split('_')[0]}_{number}")
    return path


def _resumed_folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _load_checkpoints(arguments: argparse.Namespace, name: str, path: Path) -> dict[str, checkpoint.Checkpoint]:
    """The checkpoints of the model to go on with, by back end."""
    backend = arguments.backend
    if path.is_dir():
        wanted: Sequence[str] = (OURS, NATIVE) if backend in (None, BOTH) else (backend,)
        paths = [p for p in (checkpoint_path(path, name) for name in wanted) if backend or p.exists()]
        if not paths:
            raise CheckpointError(f"expected {path} to hold a checkpoint (<backend>.safetensors), but there is none")
    else:
        paths = [path]
    found = {}
    for item in map(checkpoint.load, paths):
        try:
            model, found_backend = item.state["config"]["model"], item.state["config"]["backend"]
        except (KeyError, TypeError):
            raise CheckpointError(f"the checkpoint {item.path} is incomplete: it does not say of what it is") from None
        if model != name:
            raise CheckpointError(
                f"the checkpoint {item.path} belongs to another training: model is {model!r} there and {name!r} here"
            )
        found[found_backend] = item
    missing = {OURS, NATIVE} if backend == BOTH else {backend} if backend else set()
    if missing - found.keys():
        raise CheckpointError(
            f"--resume {path} holds a run with {', '.join(found)}, but --backend {backend} was asked for"
        )
    return found


def _resumed(saved: checkpoint.Checkpoint, arguments: argparse.Namespace) -> TrainConfig:
    """The configuration of a checkpoint, with what the arguments say on top; the trainer refuses what does not fit."""
    given = {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "lr": arguments.lr,
        "optimizer": arguments.optimizer,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "options": dict(arguments.option) if arguments.option else None,
        "compile": arguments.compile or None,
    }
    try:
        config = TrainConfig(**saved.state["config"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {saved.path} holds settings that do not fit: {error}") from None
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def _announce(trainers: Sequence[Trainer], data: Data) -> None:
    trainer, config = trainers[0], trainers[0].config
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    number = torch.get_num_threads()
    threads = f", {number} thread{'s' * (number > 1)}" if trainer.device.type == "cpu" else ""
    processes = f", in each of {trainer.group.size} processes" if trainer.group.size > 1 else ""
    done = f", going on after epoch {min(len(t.history) for t in trainers)}" if trainer.history else ""
    options = "".join(f", {name}={value}" for name, value in config.options.items())
    kind = "images" if isinstance(data, FashionMNIST) else "points"
    print(
        f"{config.model} ({parameters:,} parameters{options}) with {' and '.join(t.config.backend for t in trainers)} "
        f"on {trainer.device}{threads}{processes}, {config.dtype}{', compiled' if config.compile else ''}\n"
        f"{len(trainer.loader.inputs):,} training and {len(trainer.test_loader.inputs):,} test {kind} from "
        f"{data.source}\n"
        f"{config.settings}, seed {config.seed}{done}",
        flush=True,
    )
    if not checkpoint.available():
        print(f"no checkpoints will be written: {checkpoint.SAFETENSORS_ABSENT}", file=sys.stderr)


def _report(result: Result, trainers: Sequence[Trainer], folder: Path) -> bool | None:
    """Prints how a session ended. Returns whether it was inside the book's range; None if there is nothing to say."""
    model, data = trainers[0].config.model, trainers[0].data
    print()
    print(comparison_table(result.histories, OURS, NATIVE))
    inside = None
    if isinstance(data, Points):
        _report_weights(trainers, data)
    elif not result.interrupted:
        inside = _report_book(result, trainers[0].config, data)
    print()
    for what, path in (
        ("history", folder / "history.csv"),
        *((path.stem, path) for path in result.pictures),
        *(("weights", path) for path in result.checkpoints),
    ):
        print(f"{what + ':':12} {path}")
    if result.interrupted:
        saved = "saved" if result.checkpoints else "not saved, for want of safetensors"
        print(f"\nstopped before the last epoch ({saved}).", end=" ")
        if result.checkpoints:
            print(f"Go on with:\n  {_resume_command(model, folder)}", end="")
        print()
    return inside


def _resume_command(model: str, folder: Path) -> str:
    return f"python -m d2lkernels train {model} --resume {folder}"


def _report_weights(trainers: Sequence[Trainer], data: Points) -> None:
    """Prints a linear model's parameters beside those that the data were made with, where these can be found again."""
    if trainers[0].task.has_accuracy:
        return
    print(f"\nmade with    weight {' '.join(f'{w:.3f}' for w in data.weight)}, bias {data.bias:.3f}")
    for trainer in trainers:
        weight, bias = (parameter.detach().flatten().tolist() for parameter in trainer.model.parameters())
        print(f"{trainer.config.backend:12} weight {' '.join(f'{w:.3f}' for w in weight)}, bias {bias[0]:.3f}")


def _report_book(result: Result, config: TrainConfig, data: FashionMNIST) -> bool | None:
    book = book_results().get(config.model)
    if data.is_sample or book is None or len(data.train_images) != FULL_IMAGES:
        return None
    standard = TrainConfig(config.model, **asdict(models.spec(config.model).defaults), seed=config.seed)
    differing = [
        name
        for name, value in asdict(standard).items()
        if name not in ("backend", "compile") and value != getattr(config, name)
    ]
    if differing:
        print(f"\nnot compared with the book's runs, which differ in {', '.join(differing)}")
        return None
    print(
        f"\nthe range of the book's {book.runs} runs, from 5 to 95 % (half of them above {book.images_per_second:,.0f} "
        "images/s, on a V100):"
    )
    inside = True
    for backend, history in result.histories.items():
        one, words = book.verdict(history[-1])
        inside = inside and one
        print(f"  {backend:10}  {words}")
    return inside
