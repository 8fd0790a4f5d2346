"""The book's models, each written once over a namespace of layers: ours by default, or torch.nn.

>>> from d2lkernels import models
>>> "lenet" in models.names()
True
"""

from . import lenet as _lenet  # noqa: F401  (importing a model's module registers it)
from .registry import ModelSpec, Settings, build, names, register, spec, xavier_uniform_

__all__ = ["ModelSpec", "Settings", "build", "names", "register", "spec", "xavier_uniform_"]
