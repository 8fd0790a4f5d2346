"""Products with a matrix of weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import bilinear_function, needs_python_autograd
from ._arguments import check_layer
from .activation import activation_function

_linear = torch.ops.d2lkernels.linear.default
_fused = torch.ops.d2lkernels.linear_activation.default


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Applies an affine map to the last axis of ``input``.

    Same as :func:`torch.nn.functional.linear`, except that ``weight`` has to be a matrix, that bad values raise
    ``ValueError`` and bad dtypes ``TypeError``, and that complex and integer tensors are not supported.

    .. math::
        \text{output}_{\ldots,j} = \text{bias}_j + \sum_i \text{weight}_{j,i} \; \text{input}_{\ldots,i}

    Args:
        input: shape (*, in_features), with any number of axes in front.
        weight: shape (out_features, in_features).
        bias: shape (out_features), or None.

    Returns:
        A contiguous tensor of shape (*, out_features).

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported or differs from input's.
        ValueError: sizes that do not fit; the message names what was expected.
        RuntimeError: tensors on different devices.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    16-bit types are summed in float32 and rounded once. float32 on CUDA devices follows
    ``torch.backends.cuda.matmul.fp32_precision``.

    Example::

        >>> input = torch.randn(2, 3, 8)
        >>> weight, bias = torch.randn(4, 8), torch.randn(4)
        >>> linear(input, weight, bias).shape
        torch.Size([2, 3, 4])

    Source: blocking and packing after Goto and van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, ACM
    TOMS 2008 (CPU); implicit GEMM of a 1x1 convolution (CUDA).
    """
    if not is_dynamo_compiling():
        output = _C.linear(input, weight, bias)
        if output is not None:
            return output
    return _general("linear", input, weight, bias)


def linear_activation(input: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "relu") -> Tensor:
    """An activation of :func:`linear`, applied where the sums are stored.

    Same as the two calls one after the other, up to one rounding less in 16-bit types. The backward needs the output,
    not the sums, and masks the gradient and sums it for the bias in one pass.

    Args:
        input: shape (*, in_features), with any number of axes in front.
        weight: shape (out_features, in_features).
        bias: shape (out_features), or None.
        activation: ``"none"``, ``"relu"``, ``"sigmoid"`` or ``"tanh"``.

    Returns:
        A contiguous tensor of shape (*, out_features).

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`linear`; ValueError for any other activation.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    Forward-mode AD and torch.func see the separate ops.

    Example::

        >>> linear_activation(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        tensor([[3., 0.]])
    """
    if not is_dynamo_compiling():
        output = _C.linear(input, weight, bias, activation)
        if output is not None:
            return output
    return _general("linear_activation", input, weight, bias, activation)


def _general(op: str, input: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    check_layer(op, input, weight, bias)
    activate = activation_function(op, activation)
    if input.dim() == 0:
        raise ValueError(f"{op}(): expected input to have at least one axis, but got a 0-D tensor")
    if input.dim() == 1:
        return _general(op, input.unsqueeze(0), weight, bias, activation).squeeze(0)
    if input.dim() > 2:
        return _general(op, input.flatten(0, -2), weight, bias, activation).unflatten(0, input.shape[:-1])
    if needs_python_autograd():
        output = _Linear.apply(input, weight)
        return activate(output if bias is None else output + bias)
    return _linear(input, weight, bias) if op == "linear" else _fused(input, weight, bias, activation)


def _linear_without_bias(input: Tensor, weight: Tensor) -> Tensor:
    function = _Linear.apply if needs_python_autograd() else _call_without_bias
    return function(input, weight)


def _call_without_bias(input: Tensor, weight: Tensor) -> Tensor:
    return _linear(input, weight, None)


# Bilinear, and its derivatives are products of the same kind.
_Linear = bilinear_function(
    "_Linear",
    _call_without_bias,
    _linear_without_bias,
    lambda grad, input, weight: _linear_without_bias(grad, weight.t()),
    lambda grad, input, weight: _linear_without_bias(grad.t(), input.t()),
)
