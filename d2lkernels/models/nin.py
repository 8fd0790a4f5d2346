"""NiN, section 7.3 (Lin et al., Network in network, 2013)."""

from __future__ import annotations

from types import ModuleType

import torch

from .registry import ModelSpec, Settings, check_positive, check_probability, layers, register


def nin_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    strides: int,
    padding: int,
    *,
    nn: ModuleType | None = None,
) -> torch.nn.Sequential:
    """A convolution and two 1 x 1 convolutions, each with ReLU: (N, C, H, W) to (N, out_channels, P, Q).

    Example:
        >>> nin_block(1, 8, kernel_size=11, strides=4, padding=0)(torch.zeros(2, 1, 31, 31)).shape
        torch.Size([2, 8, 6, 6])
    """
    nn = layers(nn)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, strides, padding),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, kernel_size=1),
        nn.ReLU(),
    )


def nin(nn: ModuleType, num_classes: int = 10, in_channels: int = 1, dropout: float = 0.5) -> torch.nn.Module:
    """Four NiN blocks and a global average pool in place of linear layers.

    Shapes: (N, in_channels, 224, 224) to (N, 96, 26, 26), (N, 256, 12, 12), (N, 384, 5, 5), (N, num_classes, 5, 5) and
    (N, num_classes). Images have at least 67 pixels a side. The last block ends in a ReLU: where all its outputs are
    negative no gradient is left, so some initial weights never learn.

    Example:
        >>> from d2lkernels import models
        >>> models.build("nin")(torch.zeros(2, 1, 67, 67)).shape
        torch.Size([2, 10])
    """
    check_positive("nin", num_classes=num_classes, in_channels=in_channels)
    check_probability("nin", dropout=dropout)
    return nn.Sequential(
        nin_block(in_channels, 96, kernel_size=11, strides=4, padding=0, nn=nn),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nin_block(96, 256, kernel_size=5, strides=1, padding=2, nn=nn),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nin_block(256, 384, kernel_size=3, strides=1, padding=1, nn=nn),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Dropout(dropout),
        nin_block(384, num_classes, kernel_size=3, strides=1, padding=1, nn=nn),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
    )


NIN = register(
    ModelSpec(
        name="nin",
        title="NiN (section 7.3): 12 convolutions",
        builder=nin,
        image_size=224,
        parameters=1_992_166,
        defaults=Settings(batch_size=128, lr=0.1, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.0005, epochs=15, optimizer="adam"),
    )
)
