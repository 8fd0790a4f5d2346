"""torch.nn with hand-written layers where there is a kernel, and torch's own for the rest.

Our classes subclass torch's: constructor, repr, state_dict and isinstance hold, and weights move both ways.
"""

from typing import Any

import torch.nn as _torch_nn
from torch.nn import *  # noqa: F403

from . import functional  # noqa: F401
from .modules import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, Conv2d, LazyConv2d, MaxPool2d

OURS = ("AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "Conv2d", "LazyConv2d", "MaxPool2d")


def __getattr__(name: str) -> Any:
    """Submodules and whatever else torch.nn has (nn.init, nn.utils, ...)."""
    return getattr(_torch_nn, name)


def __dir__() -> list[str]:
    return sorted({*dir(_torch_nn), *OURS})
