"""Two-dimensional cross-correlation ("convolution") and its derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import bilinear_function, needs_python_autograd
from ._arguments import check_layer, check_map_rank, pair

_conv2d = torch.ops.d2lkernels.conv2d.default
_input_grad = torch.ops.d2lkernels.conv2d_input_grad.default
_weight_grad = torch.ops.d2lkernels.conv2d_weight_grad.default


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    r"""Cross-correlates a batch of maps with a bank of kernels.

    Same as :func:`torch.nn.functional.conv2d`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``, and that complex and integer tensors are not supported.

    .. math::
        \text{output}_{n,k,p,q} = \text{bias}_k + \sum_{c,r,s} \text{weight}_{k,c,r,s} \;
        \text{input}_{n,\,c,\;p \cdot \text{stride}_h + r \cdot \text{dilation}_h - \text{pad}_h,\;
        q \cdot \text{stride}_w + s \cdot \text{dilation}_w - \text{pad}_w}

    Args:
        input: maps of shape (N, C, H, W) or (C, H, W).
        weight: kernels of shape (K, C / groups, R, S).
        bias: shape (K), or None.
        stride: step between windows in pixels, an int or (height, width).
        padding: rows and columns of zeros on each side, an int or (height, width); ``"valid"`` for none; ``"same"`` for
            as many as keep the size of the map (stride 1 only; an odd one goes to the bottom and the right).
        dilation: distance between the taps of a kernel in pixels, an int or (height, width).
        groups: into how many independent groups the channels are split; divides C and K.

    Returns:
        Maps of shape (N, K, P, Q) or (K, P, Q), channels_last if ``input`` or ``weight`` is.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported or differs from input's.
        ValueError: sizes, strides, paddings, dilations or groups that do not fit; the message names what was expected.
        RuntimeError: tensors on different devices.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    16-bit types are summed in float32 and rounded once.

    Example::

        >>> input = torch.randn(2, 3, 8, 8)
        >>> weight = torch.randn(4, 3, 3, 3)
        >>> conv2d(input, weight, padding=1).shape
        torch.Size([2, 4, 8, 8])

    Source: direct register-blocked convolution after Georganas et al., *Anatomy of High-Performance Deep Learning
    Convolutions on SIMD Architectures*, SC 2018 (CPU); implicit GEMM after Chetlur et al., *cuDNN: Efficient Primitives
    for Deep Learning*, 2014 (CUDA).
    """
    if not is_dynamo_compiling():
        output = _C.conv2d(input, weight, bias, stride, padding, dilation, groups)
        if output is not None:
            return output
    check_layer("conv2d", input, weight, bias)
    check_map_rank("conv2d", input)
    if input.dim() == 3:
        return conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    stride = pair("conv2d", "stride", stride)
    dilation = pair("conv2d", "dilation", dilation)
    pads = _four_pads(padding, weight, stride, dilation)
    if not isinstance(groups, int):
        raise TypeError(f"conv2d(): expected groups to be an int, but got {groups!r}")
    if needs_python_autograd():
        output = _Conv2d.apply(input, weight, stride, pads, dilation, groups)
        return output if bias is None else output + bias.view(-1, 1, 1)
    return _conv2d(input, weight, bias, stride, pads, dilation, groups)


def _four_pads(
    padding: str | int | Sequence[int], weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Top, bottom, left and right padding."""
    if not isinstance(padding, str):
        pad_h, pad_w = pair("conv2d", "padding", padding)
        return pad_h, pad_h, pad_w, pad_w
    if padding == "valid":
        return 0, 0, 0, 0
    if padding != "same":
        raise ValueError(f"conv2d(): expected padding to be 'same', 'valid', an int or a pair, but got {padding!r}")
    if stride != (1, 1):
        raise ValueError(f"conv2d(): expected stride to be 1 with padding='same', but got {list(stride)}")
    if weight.dim() != 4:
        raise ValueError(
            f"conv2d(): expected weight to be 4-D, but got a {weight.dim()}-D tensor of size {list(weight.shape)}"
        )
    total_h, total_w = dilation[0] * (weight.shape[2] - 1), dilation[1] * (weight.shape[3] - 1)
    return total_h // 2, total_h - total_h // 2, total_w // 2, total_w - total_w // 2


def conv2d_input_grad(
    grad_output: Tensor,
    weight: Tensor,
    input_size: Sequence[int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """The gradient of :func:`conv2d` for ``input``, of size ``input_size`` (N, C, H, W).

    Args:
        grad_output: shape (N, K, P, Q).
        weight: shape (K, C / groups, R, S).
        padding: (top, bottom, left, right).

    Differentiable in both tensors.
    """
    function = _Conv2dInputGrad.apply if needs_python_autograd() else _input_grad
    return function(grad_output, weight, input_size, stride, padding, dilation, groups)


def conv2d_weight_grad(
    grad_output: Tensor,
    input: Tensor,
    weight_size: Sequence[int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """The gradient of :func:`conv2d` for ``weight``, of size ``weight_size`` (K, C / groups, R, S).

    Args:
        grad_output: shape (N, K, P, Q).
        input: shape (N, C, H, W).
        padding: (top, bottom, left, right).

    Differentiable in both tensors.
    """
    function = _Conv2dWeightGrad.apply if needs_python_autograd() else _weight_grad
    return function(grad_output, input, weight_size, stride, padding, dilation, groups)


def _conv2d_without_bias(input: Tensor, weight: Tensor, *geometry) -> Tensor:
    function = _Conv2d.apply if needs_python_autograd() else _call_without_bias
    return function(input, weight, *geometry)


def _call_without_bias(input: Tensor, weight: Tensor, *geometry) -> Tensor:
    return _conv2d(input, weight, None, *geometry)


# Each of the three is bilinear, and its derivatives are the other two.
_Conv2d = bilinear_function(
    "_Conv2d",
    _call_without_bias,
    _conv2d_without_bias,
    lambda grad, input, weight, *rest: conv2d_input_grad(grad, weight, input.shape, *rest),
    lambda grad, input, weight, *rest: conv2d_weight_grad(grad, input, weight.shape, *rest),
)
_Conv2dInputGrad = bilinear_function(
    "_Conv2dInputGrad",
    _input_grad,
    conv2d_input_grad,
    lambda grad, grad_output, weight, input_size, *rest: _conv2d_without_bias(grad, weight, *rest),
    lambda grad, grad_output, weight, input_size, *rest: conv2d_weight_grad(grad_output, grad, weight.shape, *rest),
)
_Conv2dWeightGrad = bilinear_function(
    "_Conv2dWeightGrad",
    _weight_grad,
    conv2d_weight_grad,
    lambda grad, grad_output, input, weight_size, *rest: _conv2d_without_bias(input, grad, *rest),
    lambda grad, grad_output, input, weight_size, *rest: conv2d_input_grad(grad_output, grad, input.shape, *rest),
)
