"""GoogLeNet, section 7.4 (Szegedy et al., Going deeper with convolutions, 2014)."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from ..nn.sequential import concat_paths
from .registry import ModelSpec, Settings, check_positive, layers, register


class Inception(torch.nn.Module):
    """Four parallel paths, joined by channel: (N, in_channels, H, W) to (N, c1 + c2[1] + c3[1] + c4, H, W).

    The paths are a 1 x 1 convolution; 1 x 1 and 3 x 3; 1 x 1 and 5 x 5; a 3 x 3 max pool and 1 x 1. A ReLU follows
    each convolution. Over our layers, the last convolutions store side by side into one map.

    Args:
        in_channels: channels of the input.
        c1: channels of the first path.
        c2, c3: channels of both convolutions of the second and third path.
        c4: channels of the fourth path.
        nn: the layers, as in :func:`d2lkernels.models.build`.

    Example:
        >>> Inception(192, 64, (96, 128), (16, 32), 32)(torch.zeros(2, 192, 12, 12)).shape
        torch.Size([2, 256, 12, 12])
    """

    def __init__(
        self,
        in_channels: int,
        c1: int,
        c2: tuple[int, int],
        c3: tuple[int, int],
        c4: int,
        *,
        nn: ModuleType | None = None,
    ) -> None:
        super().__init__()
        nn = layers(nn)
        self.p1 = nn.Sequential(nn.Conv2d(in_channels, c1, kernel_size=1), nn.ReLU())
        self.p2 = nn.Sequential(
            nn.Conv2d(in_channels, c2[0], kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(c2[0], c2[1], kernel_size=3, padding=1),
            nn.ReLU(),
        )
        self.p3 = nn.Sequential(
            nn.Conv2d(in_channels, c3[0], kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(c3[0], c3[1], kernel_size=5, padding=2),
            nn.ReLU(),
        )
        self.p4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1), nn.Conv2d(in_channels, c4, kernel_size=1), nn.ReLU()
        )

    def forward(self, input: Tensor) -> Tensor:
        return concat_paths([self.p1, self.p2, self.p3, self.p4], input)


def googlenet(nn: ModuleType, num_classes: int = 10, in_channels: int = 1) -> torch.nn.Module:
    """Three convolutions, nine Inception blocks in three stages, and a linear layer.

    Shapes: (N, in_channels, 96, 96) to (N, 64, 24, 24), (N, 192, 12, 12), (N, 480, 6, 6), (N, 832, 3, 3), (N, 1024)
    and (N, num_classes). Without the auxiliary classifiers of the paper.

    Example:
        >>> from d2lkernels import models
        >>> models.build("googlenet")(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """
    check_positive("googlenet", num_classes=num_classes, in_channels=in_channels)

    def pool() -> torch.nn.Module:
        return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    return nn.Sequential(
        nn.Sequential(nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3), nn.ReLU(), pool()),
        nn.Sequential(
            nn.Conv2d(64, 64, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(64, 192, kernel_size=3, padding=1),
            nn.ReLU(),
            pool(),
        ),
        nn.Sequential(
            Inception(192, 64, (96, 128), (16, 32), 32, nn=nn),
            Inception(256, 128, (128, 192), (32, 96), 64, nn=nn),
            pool(),
        ),
        nn.Sequential(
            Inception(480, 192, (96, 208), (16, 48), 64, nn=nn),
            Inception(512, 160, (112, 224), (24, 64), 64, nn=nn),
            Inception(512, 128, (128, 256), (24, 64), 64, nn=nn),
            Inception(512, 112, (144, 288), (32, 64), 64, nn=nn),
            Inception(528, 256, (160, 320), (32, 128), 128, nn=nn),
            pool(),
        ),
        nn.Sequential(
            Inception(832, 256, (160, 320), (32, 128), 128, nn=nn),
            Inception(832, 384, (192, 384), (48, 128), 128, nn=nn),
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Flatten(),
        ),
        nn.Linear(1024, num_classes),
    )


GOOGLENET = register(
    ModelSpec(
        name="googlenet",
        title="GoogLeNet (section 7.4): 57 convolutions in 9 Inception blocks, 1 linear layer",
        builder=googlenet,
        image_size=96,
        parameters=5_977_530,
        defaults=Settings(batch_size=128, lr=0.1, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.0005, epochs=12, optimizer="adam"),
    )
)
