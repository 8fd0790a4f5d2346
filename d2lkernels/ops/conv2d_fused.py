"""Cross-correlation with what follows it in a network: an activation, and a pool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import needs_python_autograd
from ._arguments import check_layer, check_map_rank, check_tensor, pair
from .activation import activation_function
from .conv2d import _four_pads, conv2d
from .pooling import avg_pool2d, max_pool2d

_ops = torch.ops.d2lkernels


def conv2d_activation(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "relu",
) -> Tensor:
    """An activation of :func:`conv2d`, applied where the sums are stored.

    Same as the two calls one after the other, up to one rounding less in 16-bit types. The backward needs the output,
    not the sums, and masks the gradient and sums it for the bias in one pass.

    Args:
        input, weight, bias, stride, padding, dilation, groups: as in :func:`conv2d`.
        activation: ``"none"``, ``"relu"``, ``"sigmoid"`` or ``"tanh"``.

    Returns:
        Maps of shape (N, K, P, Q) or (K, P, Q), channels_last if ``input`` or ``weight`` is.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`conv2d`; ValueError for any other activation.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    Forward-mode AD and torch.func see the separate ops.

    Example::

        >>> input, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
        >>> bool((conv2d_activation(input, weight, activation="sigmoid") > 0).all())
        True
    """
    op = "conv2d_activation"
    if not is_dynamo_compiling():
        output = _C.conv2d_fused(input, weight, bias, stride, padding, dilation, groups, activation)
        if output is not None:
            return output
    if needs_python_autograd() or _is_unbatched(op, input):
        return activation_function(op, activation)(conv2d(input, weight, bias, stride, padding, dilation, groups))
    geometry = _geometry(op, input, weight, bias, stride, padding, dilation, groups)
    return _ops.conv2d_activation.default(input, weight, bias, *geometry, activation)


def conv2d_max_pool2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "relu",
    pool_size: int | Sequence[int] = 2,
    pool_stride: int | Sequence[int] | None = None,
    pool_padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """:func:`max_pool2d` of an activation of :func:`conv2d`, in one call.

    The map between convolution and pool is not kept: the backward needs the pooled output and one byte for each of its
    elements.

    Args:
        input, weight, bias, stride, padding, dilation, groups, activation: as in :func:`conv2d_activation`.
        pool_size, pool_stride, pool_padding, ceil_mode: kernel_size, stride, padding and ceil_mode of
            :func:`max_pool2d`.

    Returns:
        The pooled maps, channels_last if ``input`` or ``weight`` is.

    Raises:
        TypeError, ValueError, RuntimeError: as the ops that it is made of.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    Forward-mode AD and torch.func see the separate ops.

    Example::

        >>> input, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
        >>> conv2d_max_pool2d(input, weight, padding=1).shape
        torch.Size([2, 4, 4, 4])
    """
    op = "conv2d_max_pool2d"
    if not is_dynamo_compiling():
        convolution = (input, weight, bias, stride, padding, dilation, groups, activation)
        output = _C.conv2d_fused(*convolution, "max", pool_size, pool_stride, pool_padding, ceil_mode, True)
        if output is not None:
            return output
    if needs_python_autograd() or _is_unbatched(op, input):
        map = activation_function(op, activation)(conv2d(input, weight, bias, stride, padding, dilation, groups))
        pooled = max_pool2d(map, pool_size, pool_stride, pool_padding, ceil_mode=ceil_mode)
        assert isinstance(pooled, Tensor)
        return pooled
    geometry = _geometry(op, input, weight, bias, stride, padding, dilation, groups)
    pool = _pool(op, pool_size, pool_stride, pool_padding)
    return _ops.conv2d_max_pool2d.default(input, weight, bias, *geometry, activation, *pool, ceil_mode, False)[0]


def conv2d_avg_pool2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "relu",
    pool_size: int | Sequence[int] = 2,
    pool_stride: int | Sequence[int] | None = None,
    pool_padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """:func:`avg_pool2d` of an activation of :func:`conv2d`, in one call.

    Where no gradient is wanted, the map between convolution and pool never leaves the cache.

    Args:
        input, weight, bias, stride, padding, dilation, groups, activation: as in :func:`conv2d_activation`.
        pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad: kernel_size, stride, padding, ceil_mode and
            count_include_pad of :func:`avg_pool2d`.

    Returns:
        The pooled maps, channels_last if ``input`` or ``weight`` is.

    Raises:
        TypeError, ValueError, RuntimeError: as the ops that it is made of.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    Forward-mode AD and torch.func see the separate ops.

    Example::

        >>> input, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
        >>> conv2d_avg_pool2d(input, weight, padding=1, activation="sigmoid").shape
        torch.Size([2, 4, 4, 4])
    """
    op = "conv2d_avg_pool2d"
    if not is_dynamo_compiling():
        convolution = (input, weight, bias, stride, padding, dilation, groups, activation)
        window = (pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad)
        output = _C.conv2d_fused(*convolution, "avg", *window)
        if output is not None:
            return output
    if needs_python_autograd() or _is_unbatched(op, input):
        map = activation_function(op, activation)(conv2d(input, weight, bias, stride, padding, dilation, groups))
        return avg_pool2d(map, pool_size, pool_stride, pool_padding, ceil_mode, count_include_pad)
    geometry = _geometry(op, input, weight, bias, stride, padding, dilation, groups)
    pool = _pool(op, pool_size, pool_stride, pool_padding)
    return _ops.conv2d_avg_pool2d.default(
        input, weight, bias, *geometry, activation, *pool, ceil_mode, count_include_pad, False
    )[0]


def _is_unbatched(op: str, input: Tensor) -> bool:
    check_tensor(op, "input", input)
    check_map_rank(op, input)
    return input.dim() == 3


def _geometry(op: str, input: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups):
    check_layer(op, input, weight, bias)
    stride, dilation = pair(op, "stride", stride), pair(op, "dilation", dilation)
    return stride, _four_pads(padding, weight, stride, dilation), dilation, groups


def _pool(op: str, size, stride, padding):
    size = pair(op, "pool_size", size)
    return size, size if stride is None else pair(op, "pool_stride", stride), pair(op, "pool_padding", padding)
