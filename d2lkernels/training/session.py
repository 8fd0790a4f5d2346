"""Runs one trainer, or several in turn, to the end: lines, bar, checkpoints, curves, and a clean stop on Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from . import checkpoint
from .errors import CheckpointError, TrainingError
from .history import MATPLOTLIB_ABSENT, History, draw_curves, write_csv
from .pictures import draw_predictions
from .progress import Progress
from .tensorboard import TensorBoard
from .trainer import Trainer

CHECKPOINT_SECONDS = 30.0


@dataclass
class Result:
    """How a session ended: the runs' histories, whether it was stopped early, and the files it wrote."""

    histories: dict[str, History]
    interrupted: bool
    pictures: list[Path]
    checkpoints: list[Path]


class Interrupt:
    """Turns the first Ctrl-C into a flag, so that no step and no file is cut in two; the second stops at once."""

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


def prepare_folder(folder: Path, size: int = 0) -> None:
    """Makes the output folder and proves that `size` bytes can be written there. Raises TrainingError if not."""
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("wb") as file:
                if size and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        wanted = f"have room for checkpoints ({size / 1e6:,.0f} MB)" if size else "be writable"
        raise TrainingError(
            f"expected the output folder {folder} to {wanted}, but got: {error.strerror or error}. "
            "Choose another with --out"
        ) from None


def checkpoint_path(folder: Path, backend: str) -> Path:
    """Where a session keeps the checkpoint of a back end."""
    return folder / f"{backend}{checkpoint.SUFFIX}"


def train(
    trainers: Sequence[Trainer],
    folder: Path,
    *,
    bar: bool | None = None,
    interrupt: Interrupt | None = None,
    tensorboard: bool = False,
) -> Result:
    """Trains to the last epoch, or to Ctrl-C.

    Several trainers take turns epoch by epoch, so that whatever else the machine does disturbs all of them alike. Of
    several processes the first prints and writes; Ctrl-C in any of them stops all after the same batch.

    Args:
        trainers: the runs; each with a back end of its own.
        folder: an existing folder for the checkpoints, ``history.csv`` (a row more after each epoch) and the pictures.
        bar: whether to show a progress bar; None where stderr is a terminal.
        interrupt: what stops the session; None for Ctrl-C.
        tensorboard: whether to log for TensorBoard too, to ``folder/tensorboard``.

    Raises:
        TrainingError: the loss is not finite, there is no room for two checkpoints of each run, a file cannot be
            written at the end, or tensorboard is asked for but not installed.
    """
    interrupt = interrupt or Interrupt()
    group = trainers[0].group
    session = _Session(
        trainers, folder, TensorBoard(folder / "tensorboard") if tensorboard and group.is_first else None
    )
    batches = sum(
        len(t.loader) * (t.config.epochs - len(t.history)) - t.loader.next_batch for t in trainers if not t.finished
    )
    with interrupt.watched():
        with Progress(batches, bar if group.is_first else False) as progress:
            while (trainer := session.next_trainer()) and not group.any(interrupt()):
                epoch, epochs = len(trainer.history) + 1, trainer.config.epochs
                progress.describe(f"{trainer.config.backend} {epoch}/{epochs}")
                if not trainer.run_epoch(progress.advance, interrupt):
                    break
                width, name_width = len(str(epochs)), max(len(t.config.backend) for t in trainers)
                if group.is_first:
                    progress.line(
                        f"epoch {epoch:{width}}/{epochs}  {trainer.config.backend:{name_width}}  "
                        f"{trainer.history[-1].line()}"
                    )
                session.log(trainer)
                session.save_if_due()
        return session.finish()


class _Session:
    def __init__(self, trainers: Sequence[Trainer], folder: Path, board: TensorBoard | None) -> None:
        self._trainers = trainers
        self._folder = folder
        self._group = trainers[0].group
        self._board = board
        self._saves = checkpoint.available()
        self._last_save = time.monotonic()
        if self._saves and self._group.is_first:  # a new checkpoint is complete before the last one goes
            prepare_folder(folder, sum(trainer.checkpoint_bytes() for trainer in trainers) * 2)

    def next_trainer(self) -> Trainer | None:
        """The one that is furthest behind; who goes first changes from epoch to epoch."""
        waiting = [trainer for trainer in self._trainers if not trainer.finished]
        if not waiting:
            return None
        behind = min(len(trainer.history) for trainer in waiting)
        candidates = [trainer for trainer in waiting if len(trainer.history) == behind]
        return candidates[-1 if behind % 2 else 0]

    @property
    def _histories(self) -> dict[str, History]:
        return {trainer.config.backend: trainer.history for trainer in self._trainers}

    def log(self, trainer: Trainer) -> None:
        """Writes down the last epoch of a run. What the disk refuses now it is asked for again with the next epoch."""
        if not self._group.is_first:
            return
        try:
            write_csv(self._folder / "history.csv", self._histories)
            if self._board:
                self._board.add(trainer.config.backend, trainer.history[-1])
        except OSError as error:
            print(f"the history cannot be written now: {error.strerror or error}", file=sys.stderr)

    def save_if_due(self) -> None:
        """Saves now and then. Training goes on if the disk refuses: it may have room again at the end."""
        if self._group.any(self._group.is_first and time.monotonic() - self._last_save >= CHECKPOINT_SECONDS):
            try:
                self.save()
            except CheckpointError as error:
                print(error, file=sys.stderr)

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
        checkpoints = self.save()
        pictures = self._write_history() if self._group.is_first else []
        if self._board:
            self._board.close()
        interrupted = not all(trainer.finished for trainer in self._trainers)
        return Result(self._histories, interrupted, pictures, checkpoints)

    def _write_history(self) -> list[Path]:
        """Writes the table and draws the pictures. Returns the pictures."""
        curves, predictions = (self._folder / name for name in ("curves.png", "predictions.png"))
        config = self._trainers[0].config
        try:
            write_csv(self._folder / "history.csv", self._histories)
            if not any(self._histories.values()):
                return []
            if not draw_curves(curves, self._histories, f"{config.model}: {config.settings}, {config.dtype}"):
                print(MATPLOTLIB_ABSENT, flush=True)
                return []
            draw_predictions(predictions, self._trainers)
        except OSError as error:
            raise TrainingError(f"the history cannot be written to {self._folder}: {error.strerror or error}") from None
        return [curves, predictions]
