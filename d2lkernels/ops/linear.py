"""Products with a matrix of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from .._autodiff import bilinear_function, needs_python_autograd
from ._arguments import check_devices_when_compiling, check_tensor

_linear = torch.ops.d2lkernels.linear.default


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
    check_tensor("linear", "input", input)
    check_tensor("linear", "weight", weight)
    if bias is not None:
        check_tensor("linear", "bias", bias)
    check_devices_when_compiling("linear", input, weight=weight, bias=bias)
    if input.dim() == 0:
        raise ValueError("linear(): expected input to have at least one axis, but got a 0-D tensor")
    if input.dim() == 1:
        return linear(input.unsqueeze(0), weight, bias).squeeze(0)
    if input.dim() > 2:
        return linear(input.flatten(0, -2), weight, bias).unflatten(0, input.shape[:-1])
    if needs_python_autograd():
        output = _Linear.apply(input, weight)
        return output if bias is None else output + bias
    return _linear(input, weight, bias)


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
