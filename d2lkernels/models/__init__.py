"""The book's models, each written once over a namespace of layers: ours by default, or torch.nn.

>>> from d2lkernels import models
>>> "lenet" in models.names()
True

Their building blocks are public, under the book's names and with its arguments; `nn` names the layers there too:

>>> import torch
>>> block = models.Residual(3, 6, use_1x1conv=True, strides=2)
>>> block(torch.rand(4, 3, 6, 6)).shape
torch.Size([4, 6, 3, 3])
"""

from . import alexnet as _alexnet  # noqa: F401  (importing a model's module registers it)
from . import bn_lenet as _bn_lenet  # noqa: F401
from . import lenet as _lenet  # noqa: F401
from . import linear as _linear  # noqa: F401
from . import mlp as _mlp  # noqa: F401
from .densenet import DenseBlock, conv_block, transition_block
from .googlenet import Inception
from .nin import nin_block
from .registry import ModelSpec, Settings, build, names, normal_, register, spec, xavier_uniform_
from .resnet import Bottleneck, Residual, resnet_block
from .vgg import vgg_block

__all__ = [
    "Bottleneck",
    "DenseBlock",
    "Inception",
    "ModelSpec",
    "Residual",
    "Settings",
    "build",
    "conv_block",
    "names",
    "nin_block",
    "normal_",
    "register",
    "resnet_block",
    "spec",
    "transition_block",
    "vgg_block",
    "xavier_uniform_",
]
