"""ResNet, section 7.6 (He et al., Deep residual learning for image recognition, 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from ..nn.fusion import residual_tail, run
from .registry import ModelSpec, Settings, check_all_positive, check_positive, layers, register

# Blocks of each stage, and whether they are bottlenecks: table 1 of the paper.
RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}


class Residual(torch.nn.Module):
    """Two 3 x 3 convolutions whose result is added to the input: (N, input_channels, H, W) to (N, num_channels, P, Q).

    As in the book the convolutions have biases, and no batch normalisation follows the 1 x 1 convolution.

    Args:
        input_channels: channels of the input.
        num_channels: channels of the output; the same, unless `use_1x1conv`.
        use_1x1conv: whether a 1 x 1 convolution brings the input to the shape of the output.
        strides: of the first convolution, and of the 1 x 1 convolution. P = ceil(H / strides).
        nn: the layers, as in :func:`d2lkernels.models.build`.

    Example:
        >>> Residual(3, 6, use_1x1conv=True, strides=2)(torch.rand(4, 3, 6, 6)).shape
        torch.Size([4, 6, 3, 3])
    """

    expansion = 1
    NORMALIZED = (("conv1", "bn1"), ("conv2", "bn2"))  # for fold_batch_norm

    def __init__(
        self,
        input_channels: int,
        num_channels: int,
        use_1x1conv: bool = False,
        strides: int = 1,
        *,
        nn: ModuleType | None = None,
    ) -> None:
        super().__init__()
        nn = layers(nn)
        self.conv1 = nn.Conv2d(input_channels, num_channels, kernel_size=3, padding=1, stride=strides)
        self.conv2 = nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1)
        self.conv3 = nn.Conv2d(input_channels, num_channels, kernel_size=1, stride=strides) if use_1x1conv else None
        self.bn1 = nn.BatchNorm2d(num_channels)
        self.bn2 = nn.BatchNorm2d(num_channels)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        output = run((self.conv1, self.bn1, self.relu), input)
        residual = input if self.conv3 is None else self.conv3(input)
        return residual_tail(self.conv2, self.bn2, self.relu, output, residual)


class Bottleneck(torch.nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions whose result is added to the input, with four times `num_channels` channels.

    (N, input_channels, H, W) to (N, 4 num_channels, P, Q). The arguments are those of :class:`Residual`; without
    `use_1x1conv`, `input_channels` is 4 `num_channels`. The 3 x 3 convolution has the stride.

    Example:
        >>> Bottleneck(16, 8, use_1x1conv=True, strides=2)(torch.rand(4, 16, 6, 6)).shape
        torch.Size([4, 32, 3, 3])
    """

    expansion = 4
    NORMALIZED = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))  # for fold_batch_norm

    def __init__(
        self,
        input_channels: int,
        num_channels: int,
        use_1x1conv: bool = False,
        strides: int = 1,
        *,
        nn: ModuleType | None = None,
    ) -> None:
        super().__init__()
        nn = layers(nn)
        out_channels = self.expansion * num_channels
        self.conv1 = nn.Conv2d(input_channels, num_channels, kernel_size=1)
        self.conv2 = nn.Conv2d(num_channels, num_channels, kernel_size=3, padding=1, stride=strides)
        self.conv3 = nn.Conv2d(num_channels, out_channels, kernel_size=1)
        self.conv4 = nn.Conv2d(input_channels, out_channels, kernel_size=1, stride=strides) if use_1x1conv else None
        self.bn1 = nn.BatchNorm2d(num_channels)
        self.bn2 = nn.BatchNorm2d(num_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        output = run((self.conv1, self.bn1, self.relu, self.conv2, self.bn2, self.relu), input)
        residual = input if self.conv4 is None else self.conv4(input)
        return residual_tail(self.conv3, self.bn3, self.relu, output, residual)


def resnet_block(
    input_channels: int,
    num_channels: int,
    num_residuals: int,
    first_block: bool = False,
    *,
    block: type[Residual] | type[Bottleneck] = Residual,
    nn: ModuleType | None = None,
) -> list[torch.nn.Module]:
    """A stage: `num_residuals` blocks, of which the first halves height and width, unless `first_block`.

    Example:
        >>> stage = torch.nn.Sequential(*resnet_block(8, 16, 2))
        >>> stage(torch.rand(2, 8, 6, 6)).shape
        torch.Size([2, 16, 3, 3])
    """
    out_channels = block.expansion * num_channels
    strides = 1 if first_block else 2
    first = block(input_channels, num_channels, strides > 1 or input_channels != out_channels, strides, nn=nn)
    return [first, *(block(out_channels, num_channels, nn=nn) for _ in range(num_residuals - 1))]


def resnet(
    nn: ModuleType,
    num_classes: int = 10,
    in_channels: int = 1,
    num_blocks: Sequence[int] = RESNETS["resnet18"][0],
    bottleneck: bool = False,
) -> torch.nn.Module:
    """A 7 x 7 convolution, stages of residual blocks, and a linear layer.

    Shapes: (N, in_channels, 96, 96) to (N, 64, 24, 24), (N, 64, 24, 24), (N, 128, 12, 12), (N, 256, 6, 6),
    (N, 512, 3, 3) and (N, num_classes); four times the channels with bottlenecks. `num_blocks` has the number of
    residual blocks of each stage.

    Example:
        >>> from d2lkernels import models
        >>> models.build("resnet18", num_blocks=(1, 1))(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """
    check_positive("resnet", num_classes=num_classes, in_channels=in_channels)
    check_all_positive("resnet", "num_blocks", num_blocks)
    block = Bottleneck if bottleneck else Residual
    stages, channels = [], 64
    for stage, number in enumerate(num_blocks):
        width = 64 * 2**stage
        stages.append(nn.Sequential(*resnet_block(channels, width, number, stage == 0, block=block, nn=nn)))
        channels = block.expansion * width
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        ),
        *stages,
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(channels, num_classes),
    )


for _name, _parameters in (
    ("resnet18", 11_178_378),
    ("resnet34", 21_290_250),
    ("resnet50", 23_541_130),
    ("resnet101", 42_559_370),
    ("resnet152", 58_226_058),
):
    _num_blocks, _bottleneck = RESNETS[_name]
    _kind = "bottleneck" if _bottleneck else "residual"
    register(
        ModelSpec(
            name=_name,
            title=f"ResNet-{_name[6:]} (section 7.6): {sum(_num_blocks)} {_kind} blocks, 1 linear layer",
            builder=partial(resnet, num_blocks=_num_blocks, bottleneck=_bottleneck),
            image_size=96,
            parameters=_parameters,
            defaults=Settings(batch_size=256, lr=0.05, epochs=10),
            sample_defaults=Settings(batch_size=20, lr=0.0005, epochs=5, optimizer="adam"),
        )
    )
