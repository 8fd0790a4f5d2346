"""A log that TensorBoard shows: ``tensorboard --logdir FOLDER``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .errors import TrainingError
from .history import Epoch


class TensorBoard:
    """Writes the figures of each epoch, one run per back end.

    Raises:
        TrainingError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
        self._make = SummaryWriter
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def add(self, backend: str, epoch: Epoch) -> None:
        if backend not in self._writers:
            self._writers[backend] = self._make(str(self._folder / backend))
        for name, value in (
            ("loss", epoch.loss),
            ("accuracy/train", epoch.train_accuracy),
            ("accuracy/test", epoch.test_accuracy),
            ("images per second", epoch.images_per_second),
            ("seconds per epoch", epoch.epoch_seconds),
        ):
            if not math.isnan(value):
                self._writers[backend].add_scalar(name, value, epoch.epoch)
        self._writers[backend].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
