"""``python -m d2lkernels train``: the arguments, and what they set going."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from .. import config as package_config
from .. import models
from ..data import FashionMNIST, load_fashion_mnist
from . import checkpoint
from .errors import CheckpointError, TrainingError
from .history import comparison_table
from .session import Result, checkpoint_path, prepare_folder, train
from .trainer import DTYPES, NATIVE, OPTIMIZERS, OURS, TrainConfig, Trainer, trainable

BOTH = "both"
INTERRUPTED = 130

_EPILOG = """\
files in the output folder: <backend>.safetensors (checkpoint), history.csv, curves.png.

with --backend both, our kernels and native torch start from the same weights, see the same batches and take turns
epoch by epoch; a table compares them at the end. "images/s" counts the training steps alone (forward, backward,
update), as the book does; the seconds of a line are the wall clock of the epoch, with loading and testing.

Ctrl-C stops after the batch in hand and saves; --resume goes on exactly as if there had been no stop.

environment: D2LKERNELS_DOWNLOAD=0 never downloads, D2LKERNELS_CACHE is the folder for downloads.
"""


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, but got {value}")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, but got {text}")
    return value


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, but got {text!r}")
    return name, int(value) if value.lstrip("-").isdigit() else value


def _defaults_text() -> str:
    lines = ["models, and their settings on the full data set (the book's) and on the embedded sample:"]
    width = max(map(len, trainable()))
    for name in trainable():
        spec = models.spec(name)
        lines.append(f"  {name:{width}}  {spec.defaults}; sample: {spec.sample_defaults}")
    return "\n".join(lines)


def add_parser(subparsers: Any) -> None:
    """Adds the command to a parser."""
    parser = subparsers.add_parser(
        "train",
        help="train a model of the book on Fashion-MNIST",
        description="Trains a model of the book on Fashion-MNIST, with our kernels, native torch, or both.",
        epilog=f"{_defaults_text()}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=f"one of: {', '.join(trainable())}")
    parser.add_argument(
        "--backend",
        choices=(OURS, NATIVE, BOTH),
        help=f"whose layers to train with (default: {OURS}; with --resume, those that were saved)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--epochs", type=_positive_int, metavar="N", help="default: see below")
    parser.add_argument("--batch-size", type=_positive_int, metavar="N", help="default: see below")
    parser.add_argument("--lr", type=_positive_float, help="learning rate (default: see below)")
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
        "--out", type=Path, metavar="FOLDER", help="default: runs/MODEL-DATE-TIME, or with --resume the same folder"
    )
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="float32, or autocast to bfloat16 or float16 (default: float32)"
    )
    parser.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    parser.add_argument(
        "--option",
        type=_option,
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains as the arguments say. Returns the exit code.

    Raises:
        TrainingError, DataError, ValueError, TypeError: something in the arguments or files does not fit.
    """
    models.spec(arguments.model)
    saved = _load_checkpoints(arguments) if arguments.resume else {}
    device = _device(arguments.device, (arguments.backend or OURS) if not saved else BOTH)
    folder = arguments.out or (_resumed_folder(arguments.resume) if saved else _new_folder(arguments.model))
    prepare_folder(folder)
    data = load_fashion_mnist(arguments.data, device=device)
    configs = [_resumed(c, arguments) for c in saved.values()] if saved else _configs(arguments, data)
    trainers = [Trainer(config, data, device) for config in configs]
    for trainer in trainers:
        if saved:
            trainer.restore(saved[trainer.config.backend])
    if not saved:
        for trainer in trainers[1:]:
            trainer.model.load_state_dict(trainers[0].model.state_dict())
    _announce(trainers, data)
    result = train(trainers, folder)
    _report(result, arguments.model, folder)
    return INTERRUPTED if result.interrupted else 0


def _device(name: str, backend: str) -> torch.device:
    our_kernels = backend != NATIVE
    if name == "auto":
        usable = torch.cuda.is_available() and (package_config.is_cuda_built() or not our_kernels)
        if torch.cuda.is_available() and not usable:
            print("training on the CPU: this build of d2lkernels has no CUDA kernels", file=sys.stderr)
        return torch.device("cuda", torch.cuda.current_device()) if usable else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"expected --device to be auto, cpu, cuda or cuda:N, but got {name!r}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError(f"--device {name} needs a GPU, but torch {torch.__version__} sees none")
        if our_kernels and not package_config.is_cuda_built():
            raise TrainingError(
                f"--device {name} needs our CUDA kernels, but this build has none (python -m d2lkernels info says why)"
            )
        index = torch.cuda.current_device() if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise TrainingError(f"--device {name}: expected a number below {torch.cuda.device_count()}")
        device = torch.device("cuda", index)
    return device


def _configs(arguments: argparse.Namespace, data: FashionMNIST) -> list[TrainConfig]:
    spec = models.spec(arguments.model)
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
        model=arguments.model,
        batch_size=arguments.batch_size or defaults.batch_size,
        lr=lr,
        epochs=arguments.epochs or defaults.epochs,
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


def _load_checkpoints(arguments: argparse.Namespace) -> dict[str, checkpoint.Checkpoint]:
    """The checkpoints to go on with, by back end."""
    path, backend = arguments.resume, arguments.backend
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
        if model != arguments.model:
            raise CheckpointError(
                f"the checkpoint {item.path} belongs to another training: model is {model!r} there and "
                f"{arguments.model!r} here"
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


def _announce(trainers: Sequence[Trainer], data: FashionMNIST) -> None:
    trainer, config = trainers[0], trainers[0].config
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    threads = f", {torch.get_num_threads()} threads" if trainer.device.type == "cpu" else ""
    done = f", going on after epoch {min(len(t.history) for t in trainers)}" if trainer.history else ""
    options = "".join(f", {name}={value}" for name, value in config.options.items())
    print(
        f"{config.model} ({parameters:,} parameters{options}) with {' and '.join(t.config.backend for t in trainers)} "
        f"on {trainer.device}{threads}, {config.dtype}{', compiled' if config.compile else ''}\n"
        f"{len(data.train_images):,} training and {len(data.test_images):,} test images from {data.source}\n"
        f"{config.settings}, seed {config.seed}{done}"
    )
    if not checkpoint.available():
        print(f"no checkpoints will be written: {checkpoint.SAFETENSORS_ABSENT}", file=sys.stderr)


def _report(result: Result, model: str, folder: Path) -> None:
    print()
    print(comparison_table(result.histories, OURS, NATIVE))
    print(f"\nhistory: {folder / 'history.csv'}")
    if result.curves:
        print(f"curves:  {result.curves}")
    for path in result.checkpoints:
        print(f"weights: {path}")
    if result.interrupted:
        saved = "saved" if result.checkpoints else "not saved, for want of safetensors"
        print(f"\nstopped before the last epoch ({saved}).", end=" ")
        if result.checkpoints:
            print(f"Go on with:\n  python -m d2lkernels train {model} --resume {folder}", end="")
        print()
