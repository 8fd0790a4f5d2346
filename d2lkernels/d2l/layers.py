"""Convolutions, pooling and batch normalisation of chapters 6 and 7 under the book's names, computed by our kernels.

They run on the device of their input, are differentiable, and check their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import models, nn, ops
from ..models import vgg as _vgg


def _floating(function: str, name: str, tensor: Tensor, *dims: int) -> Tensor:
    """A tensor of one of these numbers of dimensions; integers become floats."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{function}(): expected {name} to be a Tensor, but got {type(tensor).__name__}")
    if tensor.dim() not in dims:
        raise ValueError(
            f"{function}(): expected {name} to have {' or '.join(map(str, dims))} dimensions, but got size "
            f"{list(tensor.shape)}"
        )
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def corr2d(X: Tensor, K: Tensor) -> Tensor:
    """Cross-correlation of one map with one kernel (6.2): (H, W) and (R, S) to (H - R + 1, W - S + 1).

    Example:
        >>> corr2d(torch.arange(9.0).reshape(3, 3), torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        tensor([[19., 25.],
                [37., 43.]])
    """
    X, K = _floating("corr2d", "X", X, 2), _floating("corr2d", "K", K, 2)
    return ops.conv2d(X[None, None], K[None, None])[0, 0]


class Conv2D(torch.nn.Module):
    """A layer of one channel (6.2): :func:`corr2d` with a learned kernel, plus a learned bias.

    Args:
        kernel_size: height and width.

    Example:
        >>> Conv2D((1, 2))(torch.ones(6, 8)).shape
        torch.Size([6, 7])
    """

    def __init__(self, kernel_size: Sequence[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(*kernel_size))
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return corr2d(x, self.weight) + self.bias


def comp_conv2d(conv2d: torch.nn.Module, X: Tensor) -> Tensor:
    """Runs a layer for batches of channels on a single map (6.3): (H, W) to (P, Q), or (K, P, Q) with K channels."""
    Y = conv2d(_floating("comp_conv2d", "X", X, 2)[None, None])[0]
    return Y[0] if len(Y) == 1 else Y


def corr2d_multi_in(X: Tensor, K: Tensor) -> Tensor:
    """Cross-correlation summed over the input channels (6.4): (C, H, W) and (C, R, S) to (P, Q)."""
    X, K = _floating("corr2d_multi_in", "X", X, 3), _floating("corr2d_multi_in", "K", K, 3)
    return ops.conv2d(X[None], K[None])[0, 0]


def corr2d_multi_in_out(X: Tensor, K: Tensor) -> Tensor:
    """Cross-correlation with a kernel for each output channel (6.4): (C, H, W) and (K, C, R, S) to (K, P, Q)."""
    X, K = _floating("corr2d_multi_in_out", "X", X, 3), _floating("corr2d_multi_in_out", "K", K, 4)
    return ops.conv2d(X[None], K)[0]


def corr2d_multi_in_out_1x1(X: Tensor, K: Tensor) -> Tensor:
    """The same for kernels of one pixel, as the product of matrices that it is (6.4).

    (C, H, W) and (K, C, 1, 1) to (K, H, W): one linear layer over the channels, for every pixel.
    """
    X, K = _floating("corr2d_multi_in_out_1x1", "X", X, 3), _floating("corr2d_multi_in_out_1x1", "K", K, 4)
    if tuple(K.shape[2:]) != (1, 1) or K.shape[1] != len(X):
        raise ValueError(
            f"corr2d_multi_in_out_1x1(): expected K to have size [K, {len(X)}, 1, 1], but got {list(K.shape)}"
        )
    return (K.flatten(1) @ X.flatten(1)).reshape(len(K), *X.shape[1:])


def pool2d(X: Tensor, pool_size: Sequence[int], mode: str = "max") -> Tensor:
    """Pooling of one map with stride 1 (6.5): (H, W) to (H - R + 1, W - S + 1).

    Args:
        X: the map.
        pool_size: height R and width S of the window.
        mode: ``"max"`` or ``"avg"``.

    Example:
        >>> pool2d(torch.arange(9.0).reshape(3, 3), (2, 2), "avg")
        tensor([[2., 3.],
                [5., 6.]])
    """
    X = _floating("pool2d", "X", X, 2)
    pools = {"max": ops.max_pool2d, "avg": ops.avg_pool2d}
    if mode not in pools:
        raise ValueError(f"pool2d(): expected mode to be 'max' or 'avg', but got {mode!r}")
    pooled = pools[mode](X[None], tuple(pool_size), stride=1)
    assert isinstance(pooled, Tensor)
    return pooled[0]


def batch_norm(
    X: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moving_mean: Tensor,
    moving_var: Tensor,
    eps: float,
    momentum: float,
    training: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation with the book's conventions (7.5).

    They differ from those of ``nn.BatchNorm2d`` and :func:`d2lkernels.ops.batch_norm`: `momentum` weighs the old value
    of a moving statistic, and the moving variance is the biased one.

    Args:
        X: of size (N, C) or (N, C, H, W).
        gamma, beta: scale and shift of each channel: C elements, in any shape.
        moving_mean, moving_var: statistics of each channel, likewise; they are left as they are.
        eps: added to the variance.
        momentum: how much of the old moving statistics stays.
        training: whether to normalise by the batch and move the statistics; None: if gradients are enabled.

    Returns:
        The normalised X, and the new moving mean and variance in the shape of the old ones.
    """
    X = _floating("batch_norm", "X", X, 2, 4)
    weight, bias = gamma.reshape(-1), beta.reshape(-1)
    if not (torch.is_grad_enabled() if training is None else training):
        mean, var = moving_mean.reshape(-1), moving_var.reshape(-1)
        return ops.batch_norm(X, mean, var, weight, bias, False, 0.0, eps), moving_mean, moving_var
    # With a momentum of 1 the op hands out the statistics of the batch, with the unbiased variance.
    mean, var = torch.zeros_like(moving_mean).reshape(-1), torch.ones_like(moving_var).reshape(-1)
    Y = ops.batch_norm(X, mean, var, weight, bias, True, 1.0, eps)
    count = X.numel() // X.shape[1]
    var = var * ((count - 1) / count)
    with torch.no_grad():
        moving_mean = torch.lerp(mean.reshape(moving_mean.shape), moving_mean, momentum)
        moving_var = torch.lerp(var.reshape(moving_var.shape), moving_var, momentum)
    return Y, moving_mean, moving_var


class BatchNorm(torch.nn.Module):
    """A layer of :func:`batch_norm` (7.5). Its moving statistics are buffers: they move with it and are saved.

    Args:
        num_features: the number of channels C.
        num_dims: 2 for inputs of size (N, C), 4 for (N, C, H, W).

    Example:
        >>> BatchNorm(6, num_dims=4)(torch.rand(2, 6, 5, 5)).shape
        torch.Size([2, 6, 5, 5])
    """

    moving_mean: Tensor
    moving_var: Tensor

    def __init__(self, num_features: int, num_dims: int) -> None:
        super().__init__()
        if num_dims not in (2, 4):
            raise ValueError(f"BatchNorm(): expected num_dims to be 2 or 4, but got {num_dims}")
        shape = (1, num_features, 1, 1)[:num_dims]
        self.gamma = torch.nn.Parameter(torch.ones(shape))
        self.beta = torch.nn.Parameter(torch.zeros(shape))
        self.register_buffer("moving_mean", torch.zeros(shape))
        self.register_buffer("moving_var", torch.ones(shape))

    def forward(self, X: Tensor) -> Tensor:
        Y, mean, var = batch_norm(
            X, self.gamma, self.beta, self.moving_mean, self.moving_var, 1e-5, 0.9, training=self.training
        )
        if self.training:
            self.moving_mean.copy_(mean)
            self.moving_var.copy_(var)
        return Y


def vgg(conv_arch: Sequence[tuple[int, int]]) -> torch.nn.Module:
    """VGG for images of one channel and 224 pixels (7.2): a list of (convolutions, channels), one for each block."""
    return _vgg.vgg(nn, conv_arch=tuple(map(tuple, conv_arch)), ratio=1)  # type: ignore[arg-type]


class CenteredLayer(torch.nn.Module):
    """Takes the mean of all elements away (5.4)."""

    def forward(self, X: Tensor) -> Tensor:
        return X - X.mean()


class MyLinear(torch.nn.Module):
    """A linear layer with ReLU (5.4): (N, in_units) to (N, units). Its parameters learn."""

    def __init__(self, in_units: int, units: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(in_units, units))
        self.bias = torch.nn.Parameter(torch.randn(units))

    def forward(self, X: Tensor) -> Tensor:
        return ops.relu(X @ self.weight + self.bias)


class MySequential(torch.nn.Module):
    """Modules one after the other (5.1)."""

    def __init__(self, *args: torch.nn.Module) -> None:
        super().__init__()
        for number, module in enumerate(args):
            self.add_module(str(number), module)

    def forward(self, X: Tensor) -> Tensor:
        for module in self.children():
            X = module(X)
        return X


Residual = models.Residual
resnet_block = models.resnet_block
vgg_block = models.vgg_block
nin_block = models.nin_block
Inception = models.Inception
conv_block = models.conv_block
DenseBlock = models.DenseBlock
transition_block = models.transition_block
