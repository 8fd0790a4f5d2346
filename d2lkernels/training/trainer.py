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
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
_EVALUATION_BATCH = 256


def trainable() -> list[str]:
    """The names of the models that take images, and so can be trained on Fashion-MNIST."""
    return [name for name in models.names() if models.spec(name).image_size is not None]


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
        if self.model not in trainable():
            models.spec(self.model)
            raise ValueError(
                f"TrainConfig(): expected model to take images, but got {self.model!r}, which takes vectors; "
                f"these take images: {', '.join(trainable())}"
            )
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
        spec = models.spec(config.model)
        namespace: Any = torch.nn
        if config.backend == OURS:
            from .. import nn as namespace
        with self._random.active():
            self.model = spec.initialize(models.build(config.model, nn=namespace, **config.options))
        self.model.to(self.device)
        self._forward: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(self.model) if config.compile else self.model
        )
        self._loss = namespace.CrossEntropyLoss()
        self.optimizer = OPTIMIZERS[config.optimizer](self.model.parameters(), lr=config.lr)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.dtype == "float16")
        self.loader = DeviceLoader(
            data.train_images,
            data.train_labels,
            config.batch_size,
            shuffle=True,
            seed=config.seed,
            resize=spec.image_size,
        )
        self.test_loader = DeviceLoader(data.test_images, data.test_labels, _EVALUATION_BATCH, resize=spec.image_size)
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

    def _tensors(self) -> dict[str, torch.Tensor]:
        """All tensors of a checkpoint but the optimizer's."""
        return {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"random.{name}": tensor for name, tensor in self._random.state_dict().items()},
            "loader.generator": self.loader.state_dict()["generator"],
            "epoch.loss_sum": self._loss_sum,
            "epoch.correct": self._correct,
        }

    def save(self, path: Path) -> None:
        """Writes a checkpoint. Raises CheckpointError if it cannot be written."""
        optimizer = {f"optimizer.{name}": tensor for name, tensor in checkpoint.pack_optimizer(self.optimizer).items()}
        state = {
            "config": asdict(self.config),
            "data": self.data_fingerprint,
            "device": self.device.type,
            "next_batch": self.loader.next_batch,
            "step_seconds": self._step_seconds,
            "epoch_seconds": self._epoch_seconds,
            "scaler": self._scaler.state_dict(),
            "history": self.history.to_rows(),
        }
        checkpoint.save(path, {**self._tensors(), **optimizer}, state)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Goes to where the run stood that wrote the checkpoint. Only `epochs` and `compile` may differ from it.

        Raises:
            CheckpointError: it belongs to another training, or is incomplete. Nothing is changed then.
        """
        try:
            difference = self._difference(saved)
            history = History.from_rows(saved.state["history"])
            next_batch, scaler = int(saved.state["next_batch"]), saved.state["scaler"]
            step_seconds, epoch_seconds = (float(saved.state[name]) for name in ("step_seconds", "epoch_seconds"))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint {saved.path} is incomplete: {error} is missing or damaged") from None
        if difference:
            raise CheckpointError(f"the checkpoint {saved.path} belongs to another training: {difference}")
        generator = saved.tensors["loader.generator"]
        self._check_random(saved, {"loader.generator": self.device, "random.cpu": "cpu", "random.cuda": self.device})
        if not 0 <= next_batch < len(self.loader):
            raise CheckpointError(
                f"the checkpoint {saved.path} is damaged: expected next_batch to be from 0 to {len(self.loader) - 1}, "
                f"but got {next_batch}"
            )
        if scaler.keys() != self._scaler.state_dict().keys():
            raise CheckpointError(
                f"the checkpoint {saved.path} is incomplete: the state of the loss scaling is missing"
            )
        self.model.load_state_dict(saved.group("model"))
        checkpoint.unpack_optimizer(self.optimizer, saved.group("optimizer"))
        self._random.load_state_dict(saved.group("random"))
        self.loader.load_state_dict({"generator": generator, "next_batch": next_batch})
        self._scaler.load_state_dict(scaler)
        self._loss_sum.copy_(saved.tensors["epoch.loss_sum"])
        self._correct.copy_(saved.tensors["epoch.correct"])
        self._step_seconds, self._epoch_seconds = step_seconds, epoch_seconds
        self.history = history

    def _difference(self, saved: checkpoint.Checkpoint) -> str:
        """How this run differs from the one of the checkpoint; an empty string if it does not."""
        state, own = saved.state, asdict(self.config)
        pairs = [("the data set", state["data"], self.data_fingerprint), ("device", state["device"], self.device.type)]
        pairs += [(name, state["config"][name], own[name]) for name in own if name not in ("epochs", "compile")]
        settings = "; ".join(
            f"{name} is {there!r} there and {here!r} here" for name, there, here in pairs if there != here
        )
        if settings:
            return settings
        expected, found = self._tensors(), dict(saved.tensors)
        optimizer = {name: found.pop(name) for name in list(found) if name.startswith("optimizer.")}
        if optimizer:  # there is none before the first step
            layout = checkpoint.optimizer_layout(self.optimizer)
            expected |= {f"optimizer.{name}": tensor for name, tensor in layout.items()}
            found |= optimizer
        return checkpoint.describe_difference(expected, found)

    @staticmethod
    def _check_random(saved: checkpoint.Checkpoint, devices: dict[str, torch.device | str]) -> None:
        for name, device in devices.items():
            if name in saved.tensors:
                try:
                    torch.Generator(device).set_state(saved.tensors[name])
                except (RuntimeError, TypeError) as error:
                    raise CheckpointError(
                        f"the checkpoint {saved.path} is damaged: {name} is no state of a generator ({error})"
                    ) from None
