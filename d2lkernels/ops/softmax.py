"""Softmax and its logarithm."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import has_nested_forward_mode, needs_python_autograd
from ._arguments import check_tensor

_softmax = torch.ops.d2lkernels.softmax.default
_log_softmax = torch.ops.d2lkernels.log_softmax.default


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    r"""Exponentials of the elements along an axis, divided by their sum.

    Same as :func:`torch.nn.functional.softmax`, except that bad dtypes raise ``TypeError``, and that integer
    tensors need a floating-point ``dtype``.

    .. math::
        \text{output}_c = \frac{\exp(\text{input}_c - \max_k \text{input}_k)}
        {\sum_j \exp(\text{input}_j - \max_k \text{input}_k)}

    Args:
        input: any shape and strides.
        dim: the axis along which the outputs add up to one. None guesses (axis 0 of 0, 1 or 3 axes, else 1) and warns.
        dtype: what ``input`` is converted to beforehand.

    Returns:
        A contiguous tensor of the shape of ``input``.

    Raises:
        TypeError: an argument that is no tensor, a ``dim`` that is no int, or a dtype that is not supported.
        IndexError: a ``dim`` that ``input`` does not have.

    ============================== ======== ======== ========== ====== ==================== =============
    dtypes                         devices  double   forward AD vmap   autocast             deterministic
                                            backward
    ============================== ======== ======== ========== ====== ==================== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    CUDA: float32,       yes
                                                                       CPU: input dtype
    ============================== ======== ======== ========== ====== ==================== =============

    Example::

        >>> softmax(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]), 1)
        tensor([[0.5000, 0.5000],
                [1.0000, 0.0000]])
    """
    if dtype is None and not is_dynamo_compiling():
        output = _C.softmax(input, dim)
        if output is not None:
            return output
    return _general(False, input, dim, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    r"""The logarithm of :func:`softmax`, computed without the quotient.

    Same as :func:`torch.nn.functional.log_softmax`, except that bad dtypes raise ``TypeError``, and that integer
    tensors need a floating-point ``dtype``.

    .. math::
        \text{output}_c = \text{input}_c - \max_k \text{input}_k - \log \sum_j \exp(\text{input}_j - \max_k
        \text{input}_k)

    Args:
        input: any shape and strides.
        dim: the axis along which the exponentials of the outputs add up to one. None guesses (axis 0 of 0, 1 or 3 axes,
            else 1) and warns.
        dtype: what ``input`` is converted to beforehand.

    Returns:
        A contiguous tensor of the shape of ``input``.

    Raises:
        TypeError: an argument that is no tensor, a ``dim`` that is no int, or a dtype that is not supported.
        IndexError: a ``dim`` that ``input`` does not have.

    ============================== ======== ======== ========== ====== ==================== =============
    dtypes                         devices  double   forward AD vmap   autocast             deterministic
                                            backward
    ============================== ======== ======== ========== ====== ==================== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    CUDA: float32,       yes
                                                                       CPU: input dtype
    ============================== ======== ======== ========== ====== ==================== =============

    Example::

        >>> log_softmax(torch.tensor([1000.0, 0.0]), 0)
        tensor([    0., -1000.])
    """
    if dtype is None and not is_dynamo_compiling():
        output = _C.log_softmax(input, dim)
        if output is not None:
            return output
    return _general(True, input, dim, dtype)


def _general(is_log: bool, input: Tensor, dim: int | None, dtype: torch.dtype | None) -> Tensor:
    name = "log_softmax" if is_log else "softmax"
    check_tensor(name, "input", input)
    if dim is None:
        warnings.warn(
            f"{name}(): expected dim to be given; axis {0 if input.dim() in (0, 1, 3) else 1} is taken",
            stacklevel=4,
        )
        dim = 0 if input.dim() in (0, 1, 3) else 1
    if not isinstance(dim, int):
        raise TypeError(f"{name}(): expected dim to be an int, but got {dim!r}")
    if dtype is not None:
        input = input.to(dtype)
    if not needs_python_autograd():
        return (_log_softmax if is_log else _softmax)(input, dim)
    if has_nested_forward_mode():
        return (torch.log_softmax if is_log else torch.softmax)(input, dim)
    return (_LogSoftmax if is_log else _Softmax).apply(input, dim)


# ---- torch.func and forward-mode AD: values from our kernels, derivatives in ops that torch transforms --------------


class _Softmax(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(input, dim):
        return _softmax(input, dim)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.dim = inputs
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx, grad):
        return _Softmax._derivative(ctx, grad), None

    @staticmethod
    def jvp(ctx, tangent, _):
        return _Softmax._derivative(ctx, tangent)

    @staticmethod
    def _derivative(ctx, values):
        """Symmetric: of both modes."""
        (y,) = ctx.saved_tensors
        return y * (values - (values * y).sum(ctx.dim, keepdim=True))


class _LogSoftmax(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(input, dim):
        return _log_softmax(input, dim)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.dim = inputs
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad - y.exp() * grad.sum(ctx.dim, keepdim=True), None

    @staticmethod
    def jvp(ctx, tangent, _):
        (y,) = ctx.saved_tensors
        return tangent - (tangent * y.exp()).sum(ctx.dim, keepdim=True)
