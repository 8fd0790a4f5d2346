"""The ops, with the signatures of torch.nn.functional."""

from . import _vmap
from .activation import relu, sigmoid, tanh
from .add_relu import add_relu
from .concat import concat
from .concat_convolutions import concat_convolutions
from .conv1d import conv1d
from .conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from .conv2d_batch_norm import conv2d_batch_norm
from .conv2d_fused import conv2d_activation, conv2d_avg_pool2d, conv2d_max_pool2d
from .dense_block import dense_block
from .dropout import dropout
from .linear import linear, linear_activation
from .loss import cross_entropy, mse_loss
from .normalization import batch_norm, batch_norm_add_relu, batch_norm_relu, batch_norm_sigmoid
from .pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from .softmax import log_softmax, softmax

_vmap.register()

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add_relu",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_add_relu",
    "batch_norm_relu",
    "batch_norm_sigmoid",
    "concat",
    "concat_convolutions",
    "conv1d",
    "conv2d",
    "conv2d_activation",
    "conv2d_avg_pool2d",
    "conv2d_batch_norm",
    "conv2d_input_grad",
    "conv2d_max_pool2d",
    "conv2d_weight_grad",
    "cross_entropy",
    "dense_block",
    "dropout",
    "linear",
    "linear_activation",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
