"""Trains one model with one back end, as the book does, and keeps what it measures on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..data import DeviceLoader, FashionMNIST
from . import checkpoint
from .errors import CheckpointError, TrainingError
from .history import Epoch, History
from .random_state import RandomState
from .timer import SpanTimer

OURS, NATIVE = "d2lkernels", "torch"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, and how.

    Args:
        model: a name of :func:`d2lkernels.models.names`.
        batch_size, lr, epochs: as usual.
        optimizer: "sgd", as in the book without momentum, or "adam".
        backend: "d2lkernels" or "torch".
        seed: of the initial weights and of the order of the images.
        dtype: "float32", or "bfloat16" or "float16" for autocast (float16 with loss scaling).
        compile: whether to run the model through torch.compile.
        options: options of the model.
    """

    model: str
    batch_size: int
    lr: float
    epochs: int
    optimizer: str = "sgd"
    backend: str = OURS
    seed: int = 0
    dtype: str = "float32"
    compile: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        models.spec(self.model)
        for name, value, choices in (
            ("backend", self.backend, (OURS, NATIVE)),
            ("dtype", self.dtype, tuple(DTYPES)),
            ("optimizer", self.optimizer, tuple(OPTIMIZERS)),
        ):
            if value not in choices:
                raise ValueError(f"TrainConfig(): expected {name} to be one of {', '.join(choices)}, but got {value!r}")
        if self.batch_size < 1 or self.epochs < 1:
            raise ValueError(
                "TrainConfig(): expected batch_size and epochs to be at least 1, but got "
                f"batch_size={self.batch_size}, epochs={self.epochs}"
            )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"TrainConfig(): expected lr to be positive and finite, but got {self.lr}")

    @property
    def settings(self) -> models.Settings:
        return models.Settings(self.batch_size, self.lr, self.epochs, self.optimizer)


class Trainer:
    """A training run: model, optimizer, loaders, random state and history.

    The loss and the number of right answers add up on the device and are read once an epoch. The order of the images
    and all other random numbers come from the seed alone: two trainers that differ only in the back end start from
    the same weights and see the same batches.

    Args:
        config: what to train.
        data: the data set, on `device`.
        device: where to train.

    Raises:
        TrainingError: the device is not usable.
    """

    def __init__(self, config: TrainConfig, data: FashionMNIST, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.data_fingerprint = data.fingerprint
        self.history = History()
        self._random = RandomState(config.seed, self.device)
        namespace: Any = torch.nn
        if config.backend == OURS:
            from .. import nn as namespace
        with self._random.active():
            self.model = models.xavier_uniform_(models.build(config.model, nn=namespace, **config.options))
        self.model.to(self.device)
        self._forward: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(self.model) if config.compile else self.model
        )
        self._loss = namespace.CrossEntropyLoss()
        self.optimizer = OPTIMIZERS[config.optimizer](self.model.parameters(), lr=config.lr)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.dtype == "float16")
        size = models.spec(config.model).image_size
        self.loader = DeviceLoader(
            data.train_images, data.train_labels, config.batch_size, shuffle=True, seed=config.seed, resize=size
        )
        self.test_loader = DeviceLoader(data.test_images, data.test_labels, _EVALUATION_BATCH, resize=size)
        self._timer = SpanTimer(self.device)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._step_seconds = 0.0
        self._epoch_seconds = 0.0

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.config.epochs

    def _autocast(self) -> torch.autocast:
        dtype = DTYPES[self.config.dtype]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output = self._forward(images)
            loss = self._loss(output.float(), labels)
        self._scaler.scale(loss).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return output.detach(), loss.detach()

    def run_epoch(
        self, advance: Callable[[], None] = lambda: None, interrupted: Callable[[], bool] = lambda: False
    ) -> bool:
        """Trains for one epoch, or for the rest of one that was interrupted, and tests.

        Args:
            advance: called after each batch.
            interrupted: asked after each batch; training stops there if it says so.

        Returns:
            Whether the epoch is complete: its figures are then the last of `history`.

        Raises:
            TrainingError: the loss is not finite.
        """
        start = time.perf_counter()
        self.model.train()
        with self._random.active():
            for images, labels in self.loader:
                with self._timer:
                    output, loss = self._step(images, labels)
                self._loss_sum += loss * len(labels)
                self._correct += (output.argmax(dim=1) == labels).sum()
                advance()
                if self.loader.next_batch and interrupted():
                    self._step_seconds += self._timer.take()
                    self._epoch_seconds += time.perf_counter() - start
                    return False
        self._step_seconds += self._timer.take()
        number = len(self.history) + 1
        images_seen = min(len(self.loader) * self.config.batch_size, len(self.loader.images))
        loss_mean = float(self._loss_sum) / images_seen
        if not math.isfinite(loss_mean):
            raise TrainingError(
                f"{self.config.backend}: the loss became {loss_mean} in epoch {number}: the learning rate is too high "
                f"(--lr, now {self.config.lr:g})"
                + ("" if self.config.dtype == "float32" else f", or {self.config.dtype} too narrow (--dtype)")
            )
        train_accuracy = int(self._correct) / images_seen
        test_accuracy = self.evaluate()
        self.history.append(
            Epoch(
                epoch=number,
                loss=loss_mean,
                train_accuracy=train_accuracy,
                test_accuracy=test_accuracy,
                images=images_seen,
                step_seconds=self._step_seconds,
                epoch_seconds=self._epoch_seconds + time.perf_counter() - start,
            )
        )
        self._loss_sum.zero_()
        self._correct.zero_()
        self._step_seconds = self._epoch_seconds = 0.0
        return True

    @torch.no_grad()
    def evaluate(self) -> float:
        """The accuracy on the test images."""
        self.model.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for images, labels in self.test_loader:
            with self._autocast():
                correct += (self._forward(images).argmax(dim=1) == labels).sum()
        return int(correct) / len(self.test_loader.images)

    def save(self, path: Path) -> None:
        """Writes a checkpoint. Raises CheckpointError if it cannot be written."""
        loader = self.loader.state_dict()
        optimizer_tensors, optimizer_rest = checkpoint.pack_optimizer(self.optimizer)
        tensors = {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"optimizer.{name}": tensor for name, tensor in optimizer_tensors.items()},
            **{f"random.{name}": tensor for name, tensor in self._random.state_dict().items()},
            "loader.generator": loader["generator"],
            "epoch.loss_sum": self._loss_sum,
            "epoch.correct": self._correct,
        }
        state = {
            "config": asdict(self.config),
            "data": self.data_fingerprint,
            "device": self.device.type,
            "next_batch": loader["next_batch"],
            "step_seconds": self._step_seconds,
            "epoch_seconds": self._epoch_seconds,
            "optimizer": optimizer_rest,
            "scaler": self._scaler.state_dict(),
            "history": self.history.to_rows(),
        }
        checkpoint.save(path, tensors, state)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Goes to where the run stood that wrote the checkpoint. Only `epochs` and `compile` may differ from it.

        Raises:
            CheckpointError: it belongs to another training. Nothing is changed then.
        """
        state = saved.state
        weights = saved.group("model")
        try:
            difference = self._difference(state) or checkpoint.describe_difference(self.model.state_dict(), weights)
            if difference:
                raise CheckpointError(f"the checkpoint {saved.path} belongs to another training: {difference}")
            history = History.from_rows(state["history"])
            generator = saved.tensors["loader.generator"]
            loss_sum, correct = saved.tensors["epoch.loss_sum"], saved.tensors["epoch.correct"]
            position = {"generator": generator, "next_batch": state["next_batch"]}
            seconds = float(state["step_seconds"]), float(state["epoch_seconds"])
            optimizer_rest, scaler = state["optimizer"], state["scaler"]
            self.loader.load_state_dict(position)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the checkpoint {saved.path} is incomplete: {error} is missing or damaged") from None
        self.model.load_state_dict(weights)
        checkpoint.unpack_optimizer(self.optimizer, saved.group("optimizer"), optimizer_rest)
        self._random.load_state_dict(saved.group("random"))
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(scaler)
        self._loss_sum.copy_(loss_sum)
        self._correct.copy_(correct)
        self._step_seconds, self._epoch_seconds = seconds
        self.history = history

    def _difference(self, state: dict[str, Any]) -> str:
        pairs = [("the data set", state["data"], self.data_fingerprint), ("device", state["device"], self.device.type)]
        own = asdict(self.config)
        for name in own:
            if name not in ("epochs", "compile"):
                pairs.append((name, state["config"][name], own[name]))
        return "; ".join(f"{name} is {there!r} there and {here!r} here" for name, there, here in pairs if there != here)
