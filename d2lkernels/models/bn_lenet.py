"""LeNet with batch normalisation, section 7.5 (Ioffe and Szegedy, Batch normalization, 2015)."""

from __future__ import annotations

from types import ModuleType

import torch

from .registry import ModelSpec, Settings, check_positive, choose, register


def bn_lenet(
    nn: ModuleType, num_classes: int = 10, in_channels: int = 1, activation: str = "sigmoid", pool: str = "avg"
) -> torch.nn.Module:
    """LeNet with a batch normalisation in front of each activation, and without padding.

    Shapes: (N, in_channels, 28, 28) to (N, 6, 12, 12), (N, 16, 4, 4), 256, 120, 84 and (N, num_classes).

    Example:
        >>> from d2lkernels import models
        >>> models.build("bn_lenet")(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    check_positive("bn_lenet", num_classes=num_classes, in_channels=in_channels)
    act = choose("bn_lenet", "activation", activation, {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh})
    pool2d = choose("bn_lenet", "pool", pool, {"avg": nn.AvgPool2d, "max": nn.MaxPool2d})
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, kernel_size=5),
        nn.BatchNorm2d(6),
        act(),
        pool2d(kernel_size=2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.BatchNorm2d(16),
        act(),
        pool2d(kernel_size=2, stride=2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 120),
        nn.BatchNorm1d(120),
        act(),
        nn.Linear(120, 84),
        nn.BatchNorm1d(84),
        act(),
        nn.Linear(84, num_classes),
    )


BN_LENET = register(
    ModelSpec(
        name="bn_lenet",
        title="LeNet with batch normalisation (section 7.5): 2 convolutions, 3 linear layers",
        builder=bn_lenet,
        image_size=28,
        parameters=44_878,
        defaults=Settings(batch_size=256, lr=1.0, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.003, epochs=15, optimizer="adam"),
    )
)
