"""The ops, with the signatures of torch.nn.functional."""

from . import _vmap
from .conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from .normalization import batch_norm
from .pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d

_vmap.register()

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "max_pool2d",
]
