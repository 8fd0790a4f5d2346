"""AlexNet, section 7.1 (Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012)."""

from __future__ import annotations

from types import ModuleType

import torch

from .registry import ModelSpec, Settings, check_positive, check_probability, register


def _map_size(image_size: int) -> int:
    """The height of the map that the linear layers see: 5 for images of 224 pixels."""
    size = (image_size + 2 - 11) // 4 + 1
    for _ in range(3):
        size = (size - 3) // 2 + 1
    return size


def alexnet(
    nn: ModuleType,
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int = 224,
    num_hiddens: int = 4096,
    dropout: float = 0.5,
) -> torch.nn.Module:
    """Five convolutions and three linear layers.

    Shapes: (N, in_channels, 224, 224) to (N, 96, 26, 26), (N, 256, 12, 12), (N, 256, 5, 5) and (N, num_classes).
    `image_size` is at least 65.

    Example:
        >>> from d2lkernels import models
        >>> model = models.build("alexnet", image_size=65, num_hiddens=64)
        >>> model(torch.zeros(2, 1, 65, 65)).shape
        torch.Size([2, 10])
    """
    check_positive(
        "alexnet", num_classes=num_classes, in_channels=in_channels, image_size=image_size, num_hiddens=num_hiddens
    )
    check_probability("alexnet", dropout=dropout)
    if _map_size(image_size) < 1:
        raise ValueError(f"models.build('alexnet'): expected image_size to be at least 65, but got {image_size}")
    return nn.Sequential(
        nn.Conv2d(in_channels, 96, kernel_size=11, stride=4, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(96, 256, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(256, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Flatten(),
        nn.Linear(256 * _map_size(image_size) ** 2, num_hiddens),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(num_hiddens, num_hiddens),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(num_hiddens, num_classes),
    )


ALEXNET = register(
    ModelSpec(
        name="alexnet",
        title="AlexNet (section 7.1): 5 convolutions, 3 linear layers",
        builder=alexnet,
        image_size=224,
        parameters=46_764_746,
        defaults=Settings(batch_size=128, lr=0.01, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.0003, epochs=5, optimizer="adam"),
    )
)
