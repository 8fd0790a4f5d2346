"""torch.nn with hand-written layers where there is a kernel, and torch's own for the rest.

Our classes subclass torch's: constructor, repr, state_dict and isinstance hold, and weights move both ways.
"""

from importlib import import_module
from typing import Any

import torch.nn as _torch_nn
from torch.nn import *  # noqa: F403

from .activations import *  # noqa: F403
from .dense_block import *  # noqa: F403
from .losses import *  # noqa: F403
from .modules import *  # noqa: F403
from .sequential import *  # noqa: F403

# torch.nn's star brought torch's submodules along: `functional` becomes ours, `modules` (just imported) torch's again.
functional = import_module(".functional", __name__)
modules = _torch_nn.modules


def __getattr__(name: str) -> Any:
    """Submodules and whatever else torch.nn has (nn.init, nn.utils, ...)."""
    return getattr(_torch_nn, name)


def __dir__() -> list[str]:
    return sorted({*dir(_torch_nn), *globals()})
