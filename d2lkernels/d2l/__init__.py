"""The book's own helpers, chapters 2 to 7, under the names of the Chinese edition.

>>> from d2lkernels import d2l, nn
>>> d2l.corr2d(d2l.ones((3, 3)), d2l.ones((2, 2)))
tensor([[4., 4.],
        [4., 4.]])

These two imports stand for the book's two. What the book exports is here, and what it only defines in passing:
``vgg_block``, ``pool2d``, ``batch_norm``, ``k_fold`` and the like. Whatever has a kernel of ours runs on it, and
everything runs on the device of its input. matplotlib, pandas and IPython are imported when they are
needed (``pip install "d2lkernels[book]"``); in a script, training prints lines in place of a live plot.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import nn
from ..nn import functional as F
from .aliases import *  # noqa: F403
from .aliases import __all__ as _aliases
from .animator import Animator
from .datasets import (
    ImageLoader,
    get_dataloader_workers,
    get_fashion_mnist_labels,
    load_data_fashion_mnist,
)
from .downloads import DATA_HUB, DATA_URL, download, download_all, download_extract
from .extras import MissingPackageError, require
from .houses import (
    generate_houses,
    get_k_fold_data,
    get_net,
    k_fold,
    load_houses,
    log_rmse,
    train_and_pred,
    train_house,
)
from .layers import (
    BatchNorm,
    CenteredLayer,
    Conv2D,
    DenseBlock,
    Inception,
    MyLinear,
    MySequential,
    Residual,
    batch_norm,
    comp_conv2d,
    conv_block,
    corr2d,
    corr2d_multi_in,
    corr2d_multi_in_out,
    corr2d_multi_in_out_1x1,
    nin_block,
    pool2d,
    resnet_block,
    transition_block,
    vgg,
    vgg_block,
)
from .linear import (
    cross_entropy,
    data_iter,
    dropout_layer,
    init_weights,
    l2_penalty,
    linreg,
    load_array,
    relu,
    sgd,
    softmax,
    squared_loss,
    synthetic_data,
)
from .measuring import Accumulator, Timer
from .plotting import plot, save_figures, set_axes, set_figsize, show_images, use_svg_display
from .tables import frame_to_tensor, read_csv
from .training import (
    Training,
    accuracy,
    evaluate_accuracy,
    evaluate_accuracy_gpu,
    evaluate_loss,
    predict_ch3,
    train_ch3,
    train_ch6,
    train_epoch_ch3,
    try_all_gpus,
    try_gpu,
)

__all__ = [
    *_aliases,
    "DATA_HUB",
    "DATA_URL",
    "Accumulator",
    "Animator",
    "BatchNorm",
    "CenteredLayer",
    "Conv2D",
    "DenseBlock",
    "F",
    "ImageLoader",
    "Inception",
    "MissingPackageError",
    "MyLinear",
    "MySequential",
    "Residual",
    "Timer",
    "Training",
    "accuracy",
    "batch_norm",
    "comp_conv2d",
    "conv_block",
    "corr2d",
    "corr2d_multi_in",
    "corr2d_multi_in_out",
    "corr2d_multi_in_out_1x1",
    "cross_entropy",
    "data_iter",
    "download",
    "download_all",
    "download_extract",
    "dropout_layer",
    "evaluate_accuracy",
    "evaluate_accuracy_gpu",
    "evaluate_loss",
    "frame_to_tensor",
    "generate_houses",
    "get_dataloader_workers",
    "get_fashion_mnist_labels",
    "get_k_fold_data",
    "get_net",
    "init_weights",
    "k_fold",
    "l2_penalty",
    "linreg",
    "load_array",
    "load_data_fashion_mnist",
    "load_houses",
    "log_rmse",
    "nin_block",
    "nn",
    "plot",
    "pool2d",
    "predict_ch3",
    "read_csv",
    "relu",
    "resnet_block",
    "save_figures",
    "set_axes",
    "set_figsize",
    "sgd",
    "show_images",
    "softmax",
    "squared_loss",
    "synthetic_data",
    "torch",
    "train_and_pred",
    "train_ch3",
    "train_ch6",
    "train_epoch_ch3",
    "train_house",
    "transition_block",
    "try_all_gpus",
    "try_gpu",
    "use_svg_display",
    "vgg",
    "vgg_block",
]

_MODULES = {
    "plt": "matplotlib.pyplot",
    "np": "numpy",
    "pd": "pandas",
    "display": "IPython.display",
    "torchvision": "torchvision",
    "transforms": "torchvision.transforms",
}
"""Modules that the book's helpers bring along: ``d2l.plt`` and so on, imported when they are used."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return require(_MODULES[name], f"d2l.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
