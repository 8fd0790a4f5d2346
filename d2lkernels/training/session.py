"""Runs one trainer, or several in turn, to the end: lines, bar, checkpoints, curves, and a clean stop on Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from . import checkpoint
from .errors import TrainingError
from .history import MATPLOTLIB_ABSENT, History, draw_curves, write_csv
from .progress import Progress
from .trainer import Trainer

CHECKPOINT_SECONDS = 30.0


@dataclass
class Result:
    """How a session ended: the runs' histories, whether it was stopped early, and the files it wrote."""

    histories: dict[str, History]
    interrupted: bool
    curves: Path | None
    checkpoints: list[Path]


class Interrupt:
    """Turns the first Ctrl-C into a flag, so that a step is never cut in two; the second stops at once."""

    def __init__(self) -> None:
        self._flag = False

    def __call__(self) -> bool:
        return self._flag

    @contextmanager
    def watched(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self._flag = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        previous: Any = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


def prepare_folder(folder: Path) -> None:
    """Makes the output folder and proves that it can be written. Raises TrainingError if not."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise TrainingError(
            f"expected the output folder {folder} to be writable, but got: {error.strerror or error}. "
            "Choose another with --out"
        ) from None


def checkpoint_path(folder: Path, backend: str) -> Path:
    """Where a session keeps the checkpoint of a back end."""
    return folder / f"{backend}{checkpoint.SUFFIX}"


def train(
    trainers: Sequence[Trainer], folder: Path, *, bar: bool | None = None, interrupt: Interrupt | None = None
) -> Result:
    """Trains to the last epoch, or to Ctrl-C.

    Several trainers take turns epoch by epoch, so that whatever else the machine does disturbs all of them alike.

    Args:
        trainers: the runs; each with a back end of its own.
        folder: an existing folder for the checkpoints, ``history.csv`` and ``curves.png``.
        bar: whether to show a progress bar; None where stderr is a terminal.
        interrupt: what stops the session; None for Ctrl-C.

    Raises:
        TrainingError: the loss is not finite, or a file cannot be written.
    """
    interrupt = interrupt or Interrupt()
    session = _Session(trainers, folder)
    batches = sum(
        len(t.loader) * (t.config.epochs - len(t.history)) - t.loader.next_batch for t in trainers if not t.finished
    )
    with interrupt.watched(), Progress(batches, bar) as progress:
        while (trainer := session.next_trainer()) and not interrupt():
            epoch, epochs = len(trainer.history) + 1, trainer.config.epochs
            progress.describe(f"{trainer.config.backend} {epoch}/{epochs}")
            if not trainer.run_epoch(progress.advance, interrupt):
                break
            width, name_width = len(str(epochs)), max(len(t.config.backend) for t in trainers)
            progress.line(
                f"epoch {epoch:{width}}/{epochs}  {trainer.config.backend:{name_width}}  {trainer.history[-1].line()}"
            )
            session.save_if_due()
    return session.finish()


class _Session:
    def __init__(self, trainers: Sequence[Trainer], folder: Path) -> None:
        self._trainers = trainers
        self._folder = folder
        self._saves = checkpoint.available()
        self._last_save = time.monotonic()

    def next_trainer(self) -> Trainer | None:
        """The one that is furthest behind; who goes first changes from epoch to epoch."""
        waiting = [trainer for trainer in self._trainers if not trainer.finished]
        if not waiting:
            return None
        behind = min(len(trainer.history) for trainer in waiting)
        candidates = [trainer for trainer in waiting if len(trainer.history) == behind]
        return candidates[-1 if behind % 2 else 0]

    def save_if_due(self) -> None:
        if time.monotonic() - self._last_save >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> list[Path]:
        if not self._saves:
            return []
        paths = []
        for trainer in self._trainers:
            paths.append(checkpoint_path(self._folder, trainer.config.backend))
            trainer.save(paths[-1])
        self._last_save = time.monotonic()
        return paths

    def finish(self) -> Result:
        histories = {trainer.config.backend: trainer.history for trainer in self._trainers}
        checkpoints = self.save()
        curves = None
        try:
            write_csv(self._folder / "history.csv", histories)
            if any(histories.values()):
                path = self._folder / "curves.png"
                config = self._trainers[0].config
                title = f"{config.model}: {config.settings}, {config.dtype}"
                if draw_curves(path, histories, title):
                    curves = path
                else:
                    print(MATPLOTLIB_ABSENT, flush=True)
        except OSError as error:
            raise TrainingError(f"the history cannot be written to {self._folder}: {error.strerror or error}") from None
        interrupted = not all(trainer.finished for trainer in self._trainers)
        return Result(histories, interrupted, curves, checkpoints)
