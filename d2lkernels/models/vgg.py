"""VGG, section 7.2.

Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType

import torch

from .registry import ModelSpec, Settings, check_positive, check_probability, is_positive_int, layers, register

CHANNELS = (64, 128, 256, 512, 512)
# Convolutions of each block: columns A, B, D and E of table 1 of the paper.
VGG_CONVS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def vgg_block(
    num_convs: int, in_channels: int, out_channels: int, *, nn: ModuleType | None = None
) -> torch.nn.Sequential:
    """`num_convs` times a 3 x 3 convolution with ReLU, then a max pool: (N, C, H, W) to (N, out_channels, H/2, W/2).

    Example:
        >>> vgg_block(2, 3, 8)(torch.zeros(2, 3, 10, 10)).shape
        torch.Size([2, 8, 5, 5])
    """
    nn = layers(nn)
    block: list[torch.nn.Module] = []
    for _ in range(num_convs):
        block += [nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1), nn.ReLU()]
        in_channels = out_channels
    return nn.Sequential(*block, nn.MaxPool2d(kernel_size=2, stride=2))


def _divided(conv_arch: Sequence[tuple[int, int]], ratio: int) -> list[tuple[int, int]]:
    """`conv_arch` with all channels divided by `ratio`. Raises ValueError if that is no list of blocks."""
    try:
        arch = [(num_convs, channels // ratio) for num_convs, channels in conv_arch]
    except (TypeError, ValueError):
        arch = []
    if not arch or not all(is_positive_int(number) for block in arch for number in block):
        raise ValueError(
            "models.build('vgg'): expected conv_arch to be a sequence of pairs (convolutions, channels), with channels "
            f"of at least ratio={ratio}, but got {conv_arch!r}"
        )
    return arch


def vgg(
    nn: ModuleType,
    num_classes: int = 10,
    in_channels: int = 1,
    conv_arch: Sequence[tuple[int, int]] = tuple(zip(VGG_CONVS["vgg11"], CHANNELS, strict=True)),
    ratio: int = 4,
    image_size: int = 224,
    num_hiddens: int = 4096,
    dropout: float = 0.5,
) -> torch.nn.Module:
    """Blocks of 3 x 3 convolutions and three linear layers.

    Shapes: (N, in_channels, 224, 224), halved by each of the five blocks, to (N, 512 / ratio, 7, 7) and
    (N, num_classes). `conv_arch` has the number of convolutions and the channels of each block; `ratio` divides all
    the channels: 4 is what the book trains, 1 what the paper describes.

    Example:
        >>> from d2lkernels import models
        >>> model = models.build("vgg11", conv_arch=((1, 16), (2, 32)), image_size=28, num_hiddens=64)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    check_positive(
        "vgg",
        num_classes=num_classes,
        in_channels=in_channels,
        ratio=ratio,
        image_size=image_size,
        num_hiddens=num_hiddens,
    )
    check_probability("vgg", dropout=dropout)
    arch = _divided(conv_arch, ratio)
    map_size = image_size // 2 ** len(arch)
    if map_size < 1:
        raise ValueError(
            f"models.build('vgg'): expected image_size to be at least {2 ** len(arch)}, but got {image_size}"
        )
    blocks = []
    for num_convs, channels in arch:
        blocks.append(vgg_block(num_convs, in_channels, channels, nn=nn))
        in_channels = channels
    return nn.Sequential(
        *blocks,
        nn.Flatten(),
        nn.Linear(in_channels * map_size**2, num_hiddens),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(num_hiddens, num_hiddens),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(num_hiddens, num_classes),
    )


for _name, _parameters in (("vgg11", 43_093_322), ("vgg13", 43_104_890), ("vgg16", 43_436_986), ("vgg19", 43_769_082)):
    register(
        ModelSpec(
            name=_name,
            title=f"VGG-{_name[3:]} (section 7.2): {sum(VGG_CONVS[_name])} convolutions, 3 linear layers",
            builder=partial(vgg, conv_arch=tuple(zip(VGG_CONVS[_name], CHANNELS, strict=True))),
            image_size=224,
            parameters=_parameters,
            defaults=Settings(batch_size=128, lr=0.05, epochs=10),
            sample_defaults=Settings(batch_size=20, lr=0.0003, epochs=6, optimizer="adam"),
        )
    )
