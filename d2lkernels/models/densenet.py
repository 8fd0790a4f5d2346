"""DenseNet, section 7.7 (Huang et al., Densely connected convolutional networks, 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from ..nn.dense_block import dense_block_forward
from .registry import ModelSpec, Settings, check_all_positive, check_positive, layers, register


def conv_block(
    input_channels: int, num_channels: int, bottleneck: bool = False, *, nn: ModuleType | None = None
) -> torch.nn.Sequential:
    """Batch normalisation, ReLU, 3 x 3 convolution: (N, input_channels, H, W) to (N, num_channels, H, W).

    With `bottleneck`, the same with a 1 x 1 convolution to 4 `num_channels` channels comes first (the paper's
    DenseNet-B).

    Example:
        >>> conv_block(3, 10)(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4, 10, 8, 8])
    """
    nn = layers(nn)
    block: list[torch.nn.Module] = []
    if bottleneck:
        width = 4 * num_channels
        block += [nn.BatchNorm2d(input_channels), nn.ReLU(), nn.Conv2d(input_channels, width, kernel_size=1)]
        input_channels = width
    block += [nn.BatchNorm2d(input_channels), nn.ReLU()]
    return nn.Sequential(*block, nn.Conv2d(input_channels, num_channels, kernel_size=3, padding=1))


class DenseBlock(torch.nn.Module):
    """Each :func:`conv_block` sees the input and the results of all earlier ones, joined by channel.

    (N, input_channels, H, W) to (N, input_channels + num_convs * num_channels, H, W).

    Args:
        num_convs: the number of conv blocks.
        input_channels: channels of the input.
        num_channels: channels that each conv block adds, the growth rate.
        bottleneck: as in :func:`conv_block`.
        nn: the layers, as in :func:`d2lkernels.models.build`.

    Example:
        >>> DenseBlock(2, 3, 10)(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4, 23, 8, 8])
    """

    def __init__(
        self,
        num_convs: int,
        input_channels: int,
        num_channels: int,
        bottleneck: bool = False,
        *,
        nn: ModuleType | None = None,
    ) -> None:
        super().__init__()
        self.net = layers(nn).Sequential(
            *(conv_block(input_channels + i * num_channels, num_channels, bottleneck, nn=nn) for i in range(num_convs))
        )

    def forward(self, input: Tensor) -> Tensor:
        return dense_block_forward(self.net, input)


def transition_block(input_channels: int, num_channels: int, *, nn: ModuleType | None = None) -> torch.nn.Sequential:
    """Batch normalisation, ReLU, 1 x 1 convolution, average pool: (N, C, H, W) to (N, num_channels, H/2, W/2).

    Example:
        >>> transition_block(23, 10)(torch.rand(4, 23, 8, 8)).shape
        torch.Size([4, 10, 4, 4])
    """
    nn = layers(nn)
    return nn.Sequential(
        nn.BatchNorm2d(input_channels),
        nn.ReLU(),
        nn.Conv2d(input_channels, num_channels, kernel_size=1),
        nn.AvgPool2d(kernel_size=2, stride=2),
    )


def densenet(
    nn: ModuleType,
    num_classes: int = 10,
    in_channels: int = 1,
    num_convs: Sequence[int] = (4, 4, 4, 4),
    growth_rate: int = 32,
    bottleneck: bool = False,
) -> torch.nn.Module:
    """A 7 x 7 convolution, dense blocks with transitions that halve channels, height and width, and a linear layer.

    Shapes: (N, in_channels, 96, 96) to (N, 64, 24, 24), (N, 96, 12, 12), (N, 112, 6, 6), (N, 120, 3, 3),
    (N, 248, 3, 3) and (N, num_classes). `num_convs` has the number of conv blocks of each dense block.

    Example:
        >>> from d2lkernels import models
        >>> models.build("densenet", growth_rate=8)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """
    check_positive("densenet", num_classes=num_classes, in_channels=in_channels, growth_rate=growth_rate)
    check_all_positive("densenet", "num_convs", num_convs)
    channels = 64
    blocks: list[torch.nn.Module] = []
    for number in num_convs:
        if blocks:
            blocks.append(transition_block(channels, channels // 2, nn=nn))
            channels //= 2
        blocks.append(DenseBlock(number, channels, growth_rate, bottleneck, nn=nn))
        channels += number * growth_rate
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        ),
        *blocks,
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(channels, num_classes),
    )


DENSENET = register(
    ModelSpec(
        name="densenet",
        title="DenseNet (section 7.7): 4 dense blocks of 4 convolutions, 1 linear layer",
        builder=densenet,
        image_size=96,
        parameters=758_226,
        defaults=Settings(batch_size=256, lr=0.1, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.001, epochs=8, optimizer="adam"),
    )
)

DENSENET121 = register(
    ModelSpec(
        name="densenet121",
        title="DenseNet-121 (section 7.7): 4 dense blocks of 6, 12, 24 and 16 bottlenecks, 1 linear layer",
        builder=partial(densenet, num_convs=(6, 12, 24, 16), bottleneck=True),
        image_size=96,
        parameters=6_968_074,
        defaults=Settings(batch_size=256, lr=0.1, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.001, epochs=5, optimizer="adam"),
    )
)
