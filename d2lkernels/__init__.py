"""Hand-written C++ and CUDA kernels for the models of *Dive into Deep Learning*, bound into PyTorch.

from d2lkernels import nn        # torch.nn with our layers where there is a kernel
from d2lkernels import ops       # the same in functional form
from d2lkernels import models    # the book's models over either
"""

from . import _load

_C = _load.load_library()

from . import config, models, nn, ops  # noqa: E402
from .conversion import ConversionReport, convert  # noqa: E402
from .folding import FoldingReport, fold_batch_norm  # noqa: E402
from .nn.sequential import FusionPlan, fusion_plan  # noqa: E402
from .persistence import PersistenceError, load, load_parameters, save  # noqa: E402

__version__ = "0.1.0"
__all__ = [
    "ConversionReport",
    "FoldingReport",
    "FusionPlan",
    "PersistenceError",
    "__version__",
    "config",
    "convert",
    "fold_batch_norm",
    "fusion_plan",
    "load",
    "load_parameters",
    "models",
    "nn",
    "ops",
    "save",
]
