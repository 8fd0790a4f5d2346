"""Convolutions that end side by side in one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import needs_python_autograd
from ._arguments import check_tensor, pair
from .concat import concat
from .conv2d import _four_pads
from .conv2d_fused import conv2d_activation

_OP = "concat_convolutions"
_concat_convolutions = torch.ops.d2lkernels.concat_convolutions.default


def concat_convolutions(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    stride: int | Sequence[Any] = 1,
    padding: str | int | Sequence[Any] = 0,
    dilation: int | Sequence[Any] = 1,
    groups: int | Sequence[int] = 1,
    activation: str = "relu",
) -> Tensor:
    """Activations of convolutions of several inputs, joined by channel.

    The same as :func:`concat` of :func:`conv2d_activation` of each, up to one rounding less in 16-bit types, but each
    convolution stores straight into its channels of the result, and the backward reads the gradient in place. So end
    the paths of an Inception block.

    Args:
        inputs: maps of shape (N, C_i, H_i, W_i).
        weights: for each input kernels of shape (K_i, C_i / groups, R_i, S_i).
        biases: for each input shape (K_i); or None.
        stride, padding, dilation, groups: as in :func:`conv2d`, where one value (no sequence) is for all convolutions,
            and a sequence holds those of each. All have to give the same height and width.
        activation: ``"none"``, ``"relu"``, ``"sigmoid"`` or ``"tanh"``, of all.

    Returns:
        Maps of shape (N, K_1 + K_2 + ..., P, Q), channels_last if each convolution's result is.

    Raises:
        TypeError: what is no sequence of tensors, or a dtype that is not supported or differs from that of inputs[0].
        ValueError: no inputs, sequences of other lengths, sizes that do not fit.
        RuntimeError: tensors on different devices.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    Forward-mode AD and torch.func see the separate ops.

    Example::

        >>> input, one, three = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 1, 1), torch.randn(5, 3, 3, 3)
        >>> concat_convolutions([input, input], [one, three], padding=[0, 1]).shape
        torch.Size([2, 9, 8, 8])
    """
    if not is_dynamo_compiling():
        output = _C.concat_convolutions(inputs, weights, biases, stride, padding, dilation, groups, activation)
        if output is not None:
            return output
    _check_tensors("inputs", inputs)
    _check_tensors("weights", weights)
    if biases is not None:
        _check_tensors("biases", biases)
    count = len(inputs)
    if count == 0:
        raise ValueError(f"{_OP}(): expected inputs to hold at least one tensor, but got none")
    for name, tensors in (("weights", weights), ("biases", biases)):
        if tensors is not None and len(tensors) != count:
            raise ValueError(
                f"{_OP}(): expected {name} to hold one tensor for each of {count} inputs, but got {len(tensors)}"
            )
    strides = [pair(_OP, "stride", one) for one in _of_each("stride", stride, count)]
    dilations = [pair(_OP, "dilation", one) for one in _of_each("dilation", dilation, count)]
    each_groups = _of_each("groups", groups, count)
    for one in each_groups:
        if not isinstance(one, int):
            raise TypeError(f"{_OP}(): expected groups to be an int for each convolution, but got {one!r}")
    paddings = _of_each("padding", padding, count)
    if needs_python_autograd():
        each_bias: Sequence[Tensor | None] = [None] * count if biases is None else biases
        every = zip(inputs, weights, each_bias, strides, paddings, dilations, each_groups, strict=True)
        return concat([conv2d_activation(x, w, b, s, p, d, g, activation) for x, w, b, s, p, d, g in every])
    pads = [
        pad for arguments in zip(paddings, weights, strides, dilations, strict=True) for pad in _four_pads(*arguments)
    ]
    flat_strides, flat_dilations = ([number for one in pairs for number in one] for pairs in (strides, dilations))
    return _concat_convolutions(
        inputs, weights, biases or (), flat_strides, pads, flat_dilations, each_groups, activation
    )


def _check_tensors(name: str, tensors: Any) -> None:
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(f"{_OP}(): expected {name} to be a sequence of Tensors, but got {type(tensors).__name__}")
    for i, tensor in enumerate(tensors):
        check_tensor(_OP, f"{name}[{i}]", tensor)


def _of_each(name: str, value: Any, count: int) -> list[Any]:
    """The value of each convolution."""
    if not isinstance(value, (tuple, list)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{_OP}(): expected {name} to hold one value for each of {count} inputs, but got {value!r}")
    return list(value)
