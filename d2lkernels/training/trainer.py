"""Trains one model with one back end, as the book does, and keeps what it measures on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import models
from . import checkpoint
from .errors import CheckpointError, TrainingError
from .history import Epoch, History
from .parallel import Group, convert_batch_norm, data_parallel
from .random_state import RandomState
from .tasks import TASKS, Data
from .timer import SpanTimer

OURS, NATIVE = "d2lkernels", "torch"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {  # fused: one pass over all parameters
    "sgd": partial(torch.optim.SGD, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
}
_RANK_SEED = 1_000_003


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, and how.

    Args:
        model: a name of :func:`d2lkernels.models.names`.
        batch_size, lr, epochs: as usual; several processes divide a batch among them.
        optimizer: "sgd", as in the book without momentum, or "adam".
        backend: "d2lkernels" or "torch".
        seed: of the initial weights and of the order of the images.
        dtype: "float32", or "bfloat16" or "float16" for autocast (float16 with loss scaling).
        compile: whether to run the model through torch.compile.
        options: options of the model. The data set decides about ``in_channels``.
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
        spec = models.spec(self.model)
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
        if "in_channels" in self.options:
            raise ValueError(
                "TrainConfig(): expected options to leave in_channels to the data set, but got "
                f"in_channels={self.options['in_channels']!r}"
            )
        classes, least = self.options.get("num_classes"), 10 if spec.task == "classification" else 1
        if isinstance(classes, int) and (classes < least or least == 1 != classes):
            raise ValueError(
                f"TrainConfig(): expected num_classes of {self.model!r} to be "
                f"{'at least 10' if least == 10 else '1'} for its data set, but got {classes}"
            )

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
        data: the data set, on `device`: Fashion-MNIST, or the points of the model's task.
        device: where to train.
        group: the processes that divide every batch among them, already joined; None for this one alone. Each makes
            the same Trainer; all calls but :meth:`predict` are made by all of them. The results are those of one
            process up to rounding, but for dropout, which each process draws for itself.
    """

    def __init__(
        self, config: TrainConfig, data: Data, device: torch.device | str = "cpu", group: Group | None = None
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.group = group or Group()
        self.data = data
        self.history = History()
        self._random = RandomState(config.seed, self.device)
        spec = models.spec(config.model)
        namespace: Any = torch.nn
        if config.backend == OURS:
            from .. import nn as namespace
        with self._random.active():
            self.model = spec.initialize(models.build(config.model, nn=namespace, **config.options))
        self.model.to(self.device)
        forward: Callable[[torch.Tensor], torch.Tensor] = self.model
        if self.group.size > 1:
            self.model = convert_batch_norm(self.model, self.device)
            forward = data_parallel(self.model, self.device)
            if self.group.rank > 0:
                self._random = RandomState(config.seed + _RANK_SEED * self.group.rank, self.device)
        self._forward = torch.compile(forward) if config.compile else forward
        self.task = TASKS[spec.task]
        self._loss = self.task.loss(namespace, "mean" if self.group.size == 1 else "sum")
        self.optimizer = OPTIMIZERS[config.optimizer](self.model.parameters(), lr=config.lr)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.dtype == "float16")
        self.loader, self.test_loader = self.task.loaders(
            data,
            config.batch_size,
            config.seed,
            config.options.get("image_size", spec.image_size),
            self.group.share,
        )
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

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One step on this process's share of a batch of `count`: the output, and the sum of the losses."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output = self._forward(inputs)
            loss = self._loss(output.float(), targets)
        if self.group.size > 1:  # the average over the processes, of whatever shares, is that over the batch
            total, loss = loss.detach(), loss * (self.group.size / count)
        else:
            total = loss.detach() * count
        self._scaler.scale(loss).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return output.detach(), total

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
            for batch, (inputs, targets) in enumerate(self.loader, self.loader.next_batch):
                begin, end = self.loader.bounds(batch)
                with self._timer:
                    output, loss = self._step(inputs, targets, end - begin)
                self._loss_sum += loss
                self._correct += self.task.correct(output, targets)
                advance()
                if self.loader.next_batch and self.group.any(interrupted()):
                    self._step_seconds += self._timer.take()
                    self._epoch_seconds += time.perf_counter() - start
                    return False
        self._step_seconds += self._timer.take()
        number = len(self.history) + 1
        images_seen = len(self.loader.inputs)
        loss_mean = float(self.group.sum_(self._loss_sum)) / images_seen
        if not math.isfinite(loss_mean):
            raise TrainingError(
                f"{self.config.backend}: the loss became {loss_mean} in epoch {number}: the learning rate is too high "
                f"(--lr, now {self.config.lr:g})"
                + ("" if self.config.dtype == "float32" else f", or {self.config.dtype} too narrow (--dtype)")
            )
        correct = int(self.group.sum_(self._correct))
        train_accuracy = correct / images_seen if self.task.has_accuracy else math.nan
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
        """The accuracy on the test data; NaN where the task knows no right and wrong."""
        if not self.task.has_accuracy:
            return math.nan
        self.model.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for inputs, targets in self.test_loader:
            if len(inputs):
                with self._autocast():
                    correct += self.task.correct(self._forward(inputs), targets)
        return int(self.group.sum_(correct)) / len(self.test_loader.inputs)

    @torch.no_grad()
    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        """The outputs for inputs as the loaders give them, in evaluation mode and float32."""
        self.model.eval()
        with self._autocast():
            return self.model(inputs).float()

    def _random_name(self, name: str, rank: int) -> str:
        return f"random.{name}.{rank}" if rank else f"random.{name}"

    def _tensors(self) -> dict[str, torch.Tensor]:
        """All tensors of a checkpoint but the optimizer's. The random states are this process's, for each rank."""
        return {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{
                self._random_name(name, rank): tensor
                for name, tensor in self._random.state_dict().items()
                for rank in range(self.group.size)
            },
            "loader.generator": self.loader.state_dict()["generator"],
            "epoch.loss_sum": self._loss_sum,
            "epoch.correct": self._correct,
        }

    def save(self, path: Path) -> None:
        """Writes a checkpoint, from the first process. Raises CheckpointError if it cannot be written."""
        tensors = self._tensors()
        for name, tensor in self._random.state_dict().items():
            for rank, theirs in enumerate(self.group.gather(tensor)):
                tensors[self._random_name(name, rank)] = theirs
        for name in ("epoch.loss_sum", "epoch.correct"):
            tensors[name] = self.group.sum_(tensors[name].clone())
        if not self.group.is_first:
            return
        optimizer = {f"optimizer.{name}": tensor for name, tensor in checkpoint.pack_optimizer(self.optimizer).items()}
        state = {
            "config": asdict(self.config),
            "data": self.data.fingerprint,
            "device": self.device.type,
            "processes": self.group.size,
            "next_batch": self.loader.next_batch,
            "step_seconds": self._step_seconds,
            "epoch_seconds": self._epoch_seconds,
            "scaler": self._scaler.state_dict(),
            "history": self.history.to_rows(),
        }
        checkpoint.save(path, {**tensors, **optimizer}, state)

    def checkpoint_bytes(self) -> int:
        """About how large a checkpoint is."""
        tensors = [*self._tensors().values(), *checkpoint.optimizer_layout(self.optimizer).values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + 100_000

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
        names = {name: self._random_name(name, self.group.rank) for name in self._random.state_dict()}
        self._check_random(
            saved,
            {"loader.generator": self.device, **{full: torch.device(name).type for name, full in names.items()}},
        )
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
        self._random.load_state_dict({name: saved.tensors[full] for name, full in names.items()})
        self.loader.load_state_dict({"generator": generator, "next_batch": next_batch})
        self._scaler.load_state_dict(scaler)
        for total, name in ((self._loss_sum, "epoch.loss_sum"), (self._correct, "epoch.correct")):
            total.copy_(saved.tensors[name] if self.group.is_first else torch.zeros_like(total))
        self._step_seconds, self._epoch_seconds = step_seconds, epoch_seconds
        self.history = history

    def _difference(self, saved: checkpoint.Checkpoint) -> str:
        """How this run differs from the one of the checkpoint; an empty string if it does not."""
        state, own = saved.state, asdict(self.config)
        pairs = [
            ("the data set", state["data"], self.data.fingerprint),
            ("device", state["device"], self.device.type),
            ("the number of processes", state.get("processes", 1), self.group.size),
        ]
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
