"""LeNet, the book's section 6.6 (LeCun et al., Gradient-based learning applied to document recognition, 1998)."""

from __future__ import annotations

from types import ModuleType

import torch

from .registry import ModelSpec, Settings, check_positive, choose, register


def lenet(
    nn: ModuleType, num_classes: int = 10, in_channels: int = 1, activation: str = "sigmoid", pool: str = "avg"
) -> torch.nn.Module:
    """Two convolutions with pooling, then three linear layers.

    Shapes: (N, in_channels, 28, 28) to (N, 6, 14, 14), (N, 16, 5, 5), 120, 84 and (N, num_classes).

    Example:
        >>> from d2lkernels import models
        >>> models.build("lenet", activation="relu")(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    check_positive("lenet", num_classes=num_classes, in_channels=in_channels)
    act = choose("lenet", "activation", activation, {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh})
    pool2d = choose("lenet", "pool", pool, {"avg": nn.AvgPool2d, "max": nn.MaxPool2d})
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, kernel_size=5, padding=2),
        act(),
        pool2d(kernel_size=2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5),
        act(),
        pool2d(kernel_size=2, stride=2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        act(),
        nn.Linear(120, 84),
        act(),
        nn.Linear(84, num_classes),
    )


LENET = register(
    ModelSpec(
        name="lenet",
        title="LeNet (section 6.6): 2 convolutions, 3 linear layers",
        builder=lenet,
        image_size=28,
        parameters=61_706,
        defaults=Settings(batch_size=256, lr=0.9, epochs=10),
        # With sigmoids and SGD the loss stays on a plateau for the first 2,000 to 8,000 steps, as chance has it. On 700
        # images that is hundreds of epochs, so these use Adam, which leaves the plateau after a few hundred steps.
        sample_defaults=Settings(batch_size=20, lr=0.003, epochs=80, optimizer="adam"),
    )
)
