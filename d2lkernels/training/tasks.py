"""What models are trained to do: the loss, what counts as right, and the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any

import torch

from ..data import BatchLoader, DeviceLoader, FashionMNIST, Points, linear_points, separable_points

Data = FashionMNIST | Points
_EVALUATION_BATCH = 256


class Task(ABC):
    """A kind of training."""

    has_accuracy = True

    @abstractmethod
    def loss(self, nn: ModuleType, reduction: str) -> torch.nn.Module:
        """The loss, over a namespace of layers: of outputs and targets."""

    @abstractmethod
    def correct(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The number of right outputs, as a tensor on their device."""

    @abstractmethod
    def loaders(
        self, data: Data, batch_size: int, seed: int, image_size: int | None, share: tuple[int, int]
    ) -> tuple[BatchLoader, BatchLoader]:
        """Loaders of the training data, shuffled, and of the test data."""

    def points(self) -> Points | None:
        """The data, if the task brings its own; None if it is Fashion-MNIST."""
        return None


class Classification(Task):
    """Images of Fashion-MNIST into ten classes, with cross-entropy."""

    def loss(self, nn: ModuleType, reduction: str) -> torch.nn.Module:
        return nn.CrossEntropyLoss(reduction=reduction)

    def correct(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (output.argmax(dim=1) == targets).sum()

    def loaders(
        self, data: Data, batch_size: int, seed: int, image_size: int | None, share: tuple[int, int]
    ) -> tuple[BatchLoader, BatchLoader]:
        assert isinstance(data, FashionMNIST)
        common: dict[str, Any] = {"resize": image_size, "share": share}
        return (
            DeviceLoader(data.train_images, data.train_labels, batch_size, shuffle=True, seed=seed, **common),
            DeviceLoader(data.test_images, data.test_labels, _EVALUATION_BATCH, **common),
        )


class _OfPoints(Task):
    def loaders(
        self, data: Data, batch_size: int, seed: int, image_size: int | None, share: tuple[int, int]
    ) -> tuple[BatchLoader, BatchLoader]:
        assert isinstance(data, Points)
        return (
            BatchLoader(data.train_inputs, data.train_targets, batch_size, shuffle=True, seed=seed, share=share),
            BatchLoader(data.test_inputs, data.test_targets, _EVALUATION_BATCH, share=share),
        )


class Regression(_OfPoints):
    """Linear regression with the mean square as loss; there is no right and wrong."""

    has_accuracy = False

    def loss(self, nn: ModuleType, reduction: str) -> torch.nn.Module:
        return nn.MSELoss(reduction=reduction)

    def correct(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.zeros((), dtype=torch.int64, device=output.device)

    def points(self) -> Points:
        return linear_points()


class PerceptronLoss(torch.nn.Module):
    """``max(0, -s y)`` for an output s and a label y of 1 or -1."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = (-output * targets).relu()
        return losses.sum() if self.reduction == "sum" else losses.mean()


class Separation(_OfPoints):
    """Points on either side of a line, by the perceptron's rule."""

    def loss(self, nn: ModuleType, reduction: str) -> torch.nn.Module:
        return PerceptronLoss(reduction)

    def correct(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (output * targets > 0).sum()

    def points(self) -> Points:
        return separable_points()


TASKS: dict[str, Task] = {
    "classification": Classification(),
    "regression": Regression(),
    "separation": Separation(),
}
"""The tasks by the name that :class:`d2lkernels.models.ModelSpec` gives."""
