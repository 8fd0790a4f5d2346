"""Maximum and average pooling, regular and adaptive."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import linear_function, needs_python_autograd
from ._arguments import check_map_rank, check_tensor, pair

_ops = torch.ops.d2lkernels


def max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The maximum of each window of a map.

    Same as :func:`torch.nn.functional.max_pool2d`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``, and that integer tensors are not supported. For the backward pass one byte a window is kept (the
    offset of the maximum), and only if a gradient is wanted.

    .. math::
        \text{output}_{n,c,p,q} = \max_{r,s} \; \text{input}_{n,\,c,\;p \cdot \text{stride}_h + r \cdot
        \text{dilation}_h - \text{pad}_h,\; q \cdot \text{stride}_w + s \cdot \text{dilation}_w - \text{pad}_w}

    Args:
        input: maps of shape (N, C, H, W) or (C, H, W).
        kernel_size: size of a window in taps, an int or (height, width).
        stride: step between windows in pixels; None means ``kernel_size``.
        padding: rows and columns of minus infinity on each side, at most half of the window.
        dilation: distance between the taps of a window in pixels.
        ceil_mode: whether a last window may hang over the edge of the map.
        return_indices: whether to return the places of the maxima too.

    Returns:
        Maps of shape (N, C, P, Q) or (C, P, Q) in the memory format of ``input``; with ``return_indices`` also an int64
        tensor of that shape, holding h * W + w of each maximum (the first one; the last NaN if there is one).

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: sizes that do not fit.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> max_pool2d(torch.tensor([[[0., 1., 2.], [3., 4., 5.], [6., 7., 8.]]]), 2, stride=1)
        tensor([[[4., 5.],
                 [7., 8.]]])
    """
    op = "max_pool2d"
    if not return_indices and not is_dynamo_compiling():
        output = _C.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)
        if output is not None:
            return output
    check_tensor(op, "input", input)
    check_map_rank(op, input)
    kernel_size = pair(op, "kernel_size", kernel_size)
    stride = kernel_size if stride is None or stride == [] else pair(op, "stride", stride)
    padding, dilation = pair(op, "padding", padding), pair(op, "dilation", dilation)
    arguments = (kernel_size, stride, padding, dilation, ceil_mode)
    if not (return_indices or needs_python_autograd()):
        return _on_batch(_ops.max_pool2d.default, input, *arguments)
    return _with_places(_ops.max_pool2d_with_offsets.default, input, arguments, return_indices)


def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None] | None, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The maximum of each of P x Q windows that split a map as evenly as they can.

    Same as :func:`torch.nn.functional.adaptive_max_pool2d`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``. Window p covers the rows from floor(p H / P) to ceil((p + 1) H / P) - 1.

    Args:
        input: maps of shape (N, C, H, W) or (C, H, W).
        output_size: P and Q, or one int for both; None keeps that size of the input.
        return_indices: whether to return the places of the maxima too.

    Returns:
        Maps of shape (N, C, P, Q) or (C, P, Q); with ``return_indices`` also the int64 places h * W + w.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: sizes that do not fit.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> adaptive_max_pool2d(torch.arange(6.).view(1, 2, 3), (1, 3))
        tensor([[[3., 4., 5.]]])
    """
    op = "adaptive_max_pool2d"
    if not return_indices and not is_dynamo_compiling():
        output = _C.adaptive_max_pool2d(input, output_size)
        if output is not None:
            return output
    check_tensor(op, "input", input)
    check_map_rank(op, input)
    output_size = _output_size(op, input, output_size)
    if not (return_indices or needs_python_autograd()):
        return _on_batch(_ops.adaptive_max_pool2d.default, input, output_size)
    return _with_places(_ops.adaptive_max_pool2d_with_offsets.default, input, (output_size,), return_indices)


def avg_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    r"""The average of each window of a map.

    Same as :func:`torch.nn.functional.avg_pool2d`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``, and that integer tensors are not supported.

    .. math::
        \text{output}_{n,c,p,q} = \frac{1}{\text{divisor}} \sum_{r,s} \; \text{input}_{n,\,c,\;
        p \cdot \text{stride}_h + r - \text{pad}_h,\; q \cdot \text{stride}_w + s - \text{pad}_w}

    Args:
        input: maps of shape (N, C, H, W) or (C, H, W).
        kernel_size: size of a window in pixels, an int or (height, width).
        stride: step between windows in pixels; None means ``kernel_size``.
        padding: rows and columns of zeros on each side, at most half of the window.
        ceil_mode: whether a last window may hang over the edge of the map.
        count_include_pad: whether the divisor counts the zeros of the padding.
        divisor_override: the divisor to use in place of the size of the window; not 0.

    Returns:
        Maps of shape (N, C, P, Q) or (C, P, Q) in the memory format of ``input``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: sizes that do not fit.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> avg_pool2d(torch.tensor([[[0., 1., 2.], [3., 4., 5.], [6., 7., 8.]]]), 2, stride=1)
        tensor([[[2., 3.],
                 [5., 6.]]])
    """
    op = "avg_pool2d"
    if divisor_override is None and not is_dynamo_compiling():
        output = _C.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
        if output is not None:
            return output
    check_tensor(op, "input", input)
    check_map_rank(op, input)
    kernel_size = pair(op, "kernel_size", kernel_size)
    stride = kernel_size if stride is None or stride == [] else pair(op, "stride", stride)
    padding = pair(op, "padding", padding)
    return _on_batch(_avg_pool2d, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    r"""The average of each of P x Q windows that split a map as evenly as they can.

    Same as :func:`torch.nn.functional.adaptive_avg_pool2d`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``. Window p covers the rows from floor(p H / P) to ceil((p + 1) H / P) - 1.

    Args:
        input: maps of shape (N, C, H, W) or (C, H, W).
        output_size: P and Q, or one int for both; None keeps that size of the input.

    Returns:
        Maps of shape (N, C, P, Q) or (C, P, Q) in the memory format of ``input``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: sizes that do not fit.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> adaptive_avg_pool2d(torch.arange(6.).view(1, 2, 3), 1)
        tensor([[[2.5000]]])
    """
    op = "adaptive_avg_pool2d"
    if not is_dynamo_compiling():
        output = _C.adaptive_avg_pool2d(input, output_size)
        if output is not None:
            return output
    check_tensor(op, "input", input)
    check_map_rank(op, input)
    return _on_batch(_adaptive_avg_pool2d, input, _output_size(op, input, output_size))


def _output_size(op: str, input: Tensor, output_size: int | Sequence[int | None] | None) -> tuple[int, int]:
    sizes = (output_size, output_size) if output_size is None or isinstance(output_size, int) else output_size
    if isinstance(sizes, (tuple, list)) and len(sizes) == 2:
        sizes = [input.shape[axis] if size is None else size for axis, size in zip((-2, -1), sizes, strict=True)]
    return pair(op, "output_size", sizes)


def _on_batch(function, input: Tensor, *arguments):
    """Calls a function of (N, C, H, W) with an input that may lack N."""
    if input.dim() == 4:
        return function(input, *arguments)
    return function(input.unsqueeze(0), *arguments).squeeze(0)


# ---- maxima: their values are gathered from the input over the offsets, and gradients scattered over them ---


def _with_places(op, input: Tensor, arguments: tuple, return_indices: bool):
    batch = input if input.dim() == 4 else input.unsqueeze(0)
    if needs_python_autograd():
        with torch.no_grad():
            _, offsets = op(batch.detach(), *arguments)
        output = _gather(batch, offsets, _window(*arguments))
        outside = _windows_outside(batch, offsets, _window(*arguments))
        if outside is not None:
            output = output.masked_fill(outside, float("-inf"))
    else:
        output, offsets = op(batch, *arguments)
    if not return_indices:
        return output if input.dim() == 4 else output.squeeze(0)
    indices = _ops.max_pool2d_indices.default(offsets, batch.shape, _window(*arguments))
    return (output, indices) if input.dim() == 4 else (output.squeeze(0), indices.squeeze(0))


def _window(first, *rest) -> list[int]:
    """The `window` of registration.cpp from the arguments of max_pool2d or adaptive_max_pool2d."""
    return [*first, *rest[0], *rest[1], *rest[2]] if rest else []


def _windows_outside(input: Tensor, offsets: Tensor, window: list[int]) -> Tensor | None:
    """A (P, Q) mask of the windows that hold no pixel, whose maximum is minus infinity; None if there are none.

    Only taps further apart than the map is wide (dilation) can all miss it.
    """
    if not window or window[6:] == [1, 1]:
        return None
    outside = [
        [
            not any(0 <= i * stride - pad + r * dilation < input.shape[axis] for r in range(kernel))
            for i in range(offsets.shape[axis])
        ]
        for axis, kernel, stride, pad, dilation in zip((2, 3), *(window[i : i + 2] for i in (0, 2, 4, 6)), strict=True)
    ]
    if not any(map(any, outside)):
        return None
    rows, columns = (torch.tensor(flags, device=input.device) for flags in outside)
    return rows[:, None] | columns


def _gather(input: Tensor, offsets: Tensor, window: list[int]) -> Tensor:
    function = _MaxPool2dGather.apply if needs_python_autograd() else _ops.max_pool2d_gather.default
    return function(input, offsets, window)


def _max_pool2d_input_grad(
    grad_output: Tensor, offsets: Tensor, input_size: Sequence[int], window: list[int]
) -> Tensor:
    function = _MaxPool2dInputGrad.apply if needs_python_autograd() else _ops.max_pool2d_input_grad.default
    return function(grad_output, offsets, input_size, window)


_MaxPool2dGather = linear_function(
    "_MaxPool2dGather",
    _ops.max_pool2d_gather.default,
    _gather,
    lambda grad, size, offsets, window: _max_pool2d_input_grad(grad, offsets, size, window),
)
_MaxPool2dInputGrad = linear_function(
    "_MaxPool2dInputGrad",
    _ops.max_pool2d_input_grad.default,
    _max_pool2d_input_grad,
    lambda grad, size, offsets, input_size, window: _gather(grad, offsets, window),
)


# ---- averages: pooling and its transpose are each other's derivative ---


def _avg_pool2d(input: Tensor, *arguments) -> Tensor:
    function = _AvgPool2d.apply if needs_python_autograd() else _ops.avg_pool2d.default
    return function(input, *arguments)


def _avg_pool2d_input_grad(grad_output: Tensor, input_size: Sequence[int], *arguments) -> Tensor:
    function = _AvgPool2dInputGrad.apply if needs_python_autograd() else _ops.avg_pool2d_input_grad.default
    return function(grad_output, input_size, *arguments)


def _adaptive_avg_pool2d(input: Tensor, output_size: tuple[int, int]) -> Tensor:
    function = _AdaptiveAvgPool2d.apply if needs_python_autograd() else _ops.adaptive_avg_pool2d.default
    return function(input, output_size)


def _adaptive_avg_pool2d_input_grad(grad_output: Tensor, input_size: Sequence[int]) -> Tensor:
    function = (
        _AdaptiveAvgPool2dInputGrad.apply if needs_python_autograd() else _ops.adaptive_avg_pool2d_input_grad.default
    )
    return function(grad_output, input_size)


_AvgPool2d = linear_function(
    "_AvgPool2d",
    _ops.avg_pool2d.default,
    _avg_pool2d,
    lambda grad, size, *arguments: _avg_pool2d_input_grad(grad, size, *arguments),
)
_AvgPool2dInputGrad = linear_function(
    "_AvgPool2dInputGrad",
    _ops.avg_pool2d_input_grad.default,
    _avg_pool2d_input_grad,
    lambda grad, size, input_size, *arguments: _avg_pool2d(grad, *arguments),
)
_AdaptiveAvgPool2d = linear_function(
    "_AdaptiveAvgPool2d",
    _ops.adaptive_avg_pool2d.default,
    _adaptive_avg_pool2d,
    lambda grad, size, output_size: _adaptive_avg_pool2d_input_grad(grad, size),
)
_AdaptiveAvgPool2dInputGrad = linear_function(
    "_AdaptiveAvgPool2dInputGrad",
    _ops.adaptive_avg_pool2d_input_grad.default,
    _adaptive_avg_pool2d_input_grad,
    lambda grad, size, input_size: _adaptive_avg_pool2d(grad, size[2:]),
)
