"""What the example scripts have in common: options, data, settings, pictures, and the line with what was measured."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..data import DataError, DownloadError
from ..training.book import book_results
from ..training.errors import TrainingError
from ..training.options import choose_device
from .animator import Animator
from .datasets import ImageLoader, load_data_fashion_mnist
from .extras import require
from .plotting import plot, show_images
from .training import Training, predict_ch3, train_ch6

QUICK_IMAGES = (24, 12)
"""Training and test images of a quick run."""

_FILE = re.compile(r"chapter_(\d+)_(\d+)_(\w+)")


@dataclass(frozen=True)
class Entry:
    """An example: its section, such as "6.2", its name, one line about it, and the script."""

    section: str
    name: str
    title: str
    path: Path

    @classmethod
    def of(cls, path: Path) -> Entry:
        """From the name of a script, ``chapter_06_2_name.py``, and its docstring."""
        match = _FILE.fullmatch(path.stem)
        assert match, path
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        title = docstring.partition("\n")[0].partition(": ")[2]
        return cls(f"{int(match[1])}.{int(match[2])}", match[3], title, path)


@dataclass
class Example:
    """One run of an example script.

    Args:
        entry: which.
        quick: whether to do as little as shows that it runs. What is then measured means nothing.
        out: the folder for pictures and tables; None to write none.
        data: the folder of the data set, ``"sample"``, or None (see :func:`load_data_fashion_mnist`).
        device: where to train.
        seed: of all random numbers.
    """

    entry: Entry
    quick: bool = False
    out: Path | None = None
    data: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    data_used: str = "none"

    def choose(self, full: Any, quick: Any) -> Any:
        """`full`, or `quick` in a quick run."""
        return quick if self.quick else full

    def path(self, name: str) -> Path | None:
        """Where a file goes: ``6.2-name`` in the output folder; None without one."""
        if self.out is None:
            return None
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out / f"{self.entry.section}-{name}"

    def plot(
        self, name: str, X: Any, Y: Any = None, xlabel: str | None = None, ylabel: str | None = None, **options: Any
    ) -> None:
        """Draws with :func:`d2lkernels.d2l.plot` and writes a PNG file, if there is an output folder."""
        if path := self.path(f"{name}.png"):
            axes = require("matplotlib.figure", "--out").Figure(figsize=(5, 3.5)).subplots()
            plot(X, Y, xlabel, ylabel, axes=axes, **options)
            axes.figure.savefig(path, dpi=110, bbox_inches="tight")

    def images(self, name: str, images: Any, rows: int, columns: int, titles: Sequence[str] | None = None) -> None:
        """The same for :func:`d2lkernels.d2l.show_images`."""
        if path := self.path(f"{name}.png"):
            cells = show_images(images, rows, columns, titles=titles)
            cells[0].figure.savefig(path, dpi=110, bbox_inches="tight")
            require("matplotlib.pyplot", "--out").close(cells[0].figure)

    def curves(self, name: str, animator: Animator) -> None:
        """Writes the curves of an Animator as PNG and CSV, if there is an output folder."""
        if path := self.path(name):
            animator.save(path.with_name(f"{path.name}.csv"))
            animator.save(path.with_name(f"{path.name}.png"))

    def fashion_mnist(self, batch_size: int, resize: int | None = None) -> tuple[ImageLoader, ImageLoader]:
        """Loaders of the training and the test images, on the device."""
        loaders = load_data_fashion_mnist(batch_size, resize, root=self.data, device=self.device)
        self.data_used = "sample" if loaders[0].is_sample else "full"
        if not self.quick:
            return loaders
        self.data_used = "a few images"
        train, test = (
            ImageLoader(loader.images[:count], loader.labels[:count], batch_size, loader.shuffle, resize, True)
            for loader, count in zip(loaders, QUICK_IMAGES, strict=True)
        )
        return train, test

    def settings(self, model: str) -> models.Settings:
        """How to train a model: as the book does on the full data set; on the 700 images of the sample with what learns
        there, since the book's few large batches do not."""
        spec = models.spec(model)
        if self.quick:
            return replace(spec.sample_defaults, batch_size=12, epochs=1)
        self.fashion_mnist(1)
        settings = spec.sample_defaults if self.data_used == "sample" else spec.defaults
        reason = "for the sample" if self.data_used == "sample" else "the book's"
        print(f"settings ({reason}): {settings}")
        return settings

    def train_classifier(self, model: str, net: torch.nn.Module | None = None, name: str = "training") -> Training:
        """Trains an image classifier as section 6.6 does, writes its curves, and shows what it predicts.

        Args:
            model: the model's name, for its settings.
            net: the model; None to build it.
            name: of the files.
        """
        spec, settings = models.spec(model), self.settings(model)
        train_iter, test_iter = self.fashion_mnist(settings.batch_size, spec.image_size)
        optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[settings.optimizer]
        net = models.build(model) if net is None else net
        result = train_ch6(net, train_iter, test_iter, settings.epochs, settings.lr, self.device, optimizer=optimizer)
        self.curves(name, result.animator)
        self.predictions(net, test_iter)
        if self.data_used == "full" and model in book_results():
            print(f"the book's runs: {_verdict(model, result)}")
        return result

    def predictions(self, net: Callable[[torch.Tensor], torch.Tensor], test_iter: ImageLoader) -> None:
        """Shows a few test images with their true and their predicted class."""
        answers = predict_ch3(net, test_iter, n=6, show=False)
        X, _ = next(iter(test_iter))
        self.images("predictions", X[:6], 1, 6, [f"{true}\n{guess}" for true, guess in answers])


def _verdict(model: str, result: Training) -> str:
    """Each metric, and whether nine tenths of the book's own runs ended there."""
    bands = book_results()[model].bands
    values = {"loss": result.loss, "train_accuracy": result.train_acc, "test_accuracy": result.test_acc}
    return "; ".join(
        f"{band.label} {values[metric]:.3f} {'inside' if band.holds(values[metric]) else 'OUTSIDE'} "
        f"{band.low:.3f}-{band.high:.3f}"
        for metric, band in bands.items()
    )


def measurements(result: Training) -> dict[str, float]:
    """What a training measured, as an example reports it."""
    return {
        "loss": result.loss,
        "train_acc": result.train_acc,
        "test_acc": result.test_acc,
        "examples_per_second": round(result.examples_per_second, 1),
        "epoch_seconds": result.epoch_seconds,
    }


def show_shapes(net: torch.nn.Module, X: torch.Tensor) -> None:
    """Prints what comes out of each layer of a sequence. The layers' state stays as it was."""
    mode = net.training
    net.eval()
    with torch.no_grad():
        for layer in net.children():
            X = layer(X)
            print(f"{type(layer).__name__:18} output {tuple(X.shape)}")
    net.train(mode)


def run_example(example: Example, main: Callable[[Example], dict[str, Any]]) -> dict[str, Any]:
    """Runs a script's `main`, prints what it measured as one line of JSON, and writes that beside the pictures."""
    if example.out is not None:
        try:
            example.out.mkdir(parents=True, exist_ok=True)
            (example.out / ".writable").write_bytes(b"")
            (example.out / ".writable").unlink()
        except OSError as error:
            raise DataError(
                f"expected --out {example.out} to be writable, but got: {error.strerror or error}"
            ) from None
    torch.manual_seed(example.seed)
    begin = time.perf_counter()
    values = main(example)
    measured = {
        "section": example.entry.section,
        "example": example.entry.name,
        "data": example.data_used,
        "quick": example.quick,
        "seconds": time.perf_counter() - begin,
        **values,
    }
    measured = {key: _plain(value) for key, value in measured.items()}
    print(json.dumps(measured), flush=True)
    if path := example.path(f"{example.entry.name}.json"):
        path.write_text(json.dumps(measured, indent=1) + "\n")
    return measured


def _plain(value: Any) -> Any:
    """As JSON has it, with numbers to six digits."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every example."""
    parser.add_argument("--quick", action="store_true", help="a few images and steps, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write pictures, curves and results there")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help='folder with the data set, or "sample" (default: ../data, the cache, a download, else the sample)',
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")


def example_of(entry: Entry, arguments: argparse.Namespace) -> Example:
    """The run that the options ask for. Raises TrainingError for a device that cannot be used."""
    device = choose_device(arguments.device, our_kernels=True)
    return Example(entry, arguments.quick, arguments.out, arguments.data, device, arguments.seed)


def run_script(main: Callable[[Example], dict[str, Any]]) -> None:
    """The end of every example script: reads the command line and runs `main`."""
    entry = Entry.of(Path(sys.argv[0]).resolve())
    parser = argparse.ArgumentParser(description=f"Section {entry.section}: {entry.title}")
    add_options(parser)
    try:
        run_example(example_of(entry, parser.parse_args()), main)
    except (DataError, DownloadError, TrainingError, ImportError, ValueError) as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        os._exit(1)
