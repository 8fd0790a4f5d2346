"""Activations element by element: relu, sigmoid and tanh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import has_nested_forward_mode, needs_python_autograd
from ._arguments import check_tensor

_ops = torch.ops.d2lkernels


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""The larger of each element and zero.

    Same as :func:`torch.nn.functional.relu`, except that bad dtypes raise ``TypeError``, and that integer tensors are
    not supported.

    .. math::
        \text{output}_i = \max(\text{input}_i, 0)

    Args:
        input: any shape and strides.
        inplace: whether to write the result to ``input``, as torch's own op does it.

    Returns:
        A tensor of the shape and memory format of ``input``; ``input`` itself if ``inplace``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    The backward pass needs the output alone.

    Example::

        >>> relu(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0., 0., 2.])
    """
    if not inplace and not is_dynamo_compiling():
        output = _C.relu(input)
        if output is not None:
            return output
    if inplace:
        check_tensor("relu", "input", input)
        _check_in_place(input)
        return torch.relu_(input)
    return _general("relu", input)


def sigmoid(input: Tensor) -> Tensor:
    r"""The logistic function of each element.

    Same as :func:`torch.sigmoid`, except that bad dtypes raise ``TypeError``, and that integer tensors are not
    supported.

    .. math::
        \text{output}_i = \frac{1}{1 + \exp(-\text{input}_i)}

    Args:
        input: any shape and strides.

    Returns:
        A tensor of the shape and memory format of ``input``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    The error is below 2.5 units in the last place. The backward pass needs the output alone.

    Example::

        >>> sigmoid(torch.tensor([0.0, -200.0]))
        tensor([0.5000, 0.0000])
    """
    if not is_dynamo_compiling():
        output = _C.sigmoid(input)
        if output is not None:
            return output
    return _general("sigmoid", input)


def tanh(input: Tensor) -> Tensor:
    r"""The hyperbolic tangent of each element.

    Same as :func:`torch.tanh`, except that bad dtypes raise ``TypeError``, and that integer tensors are not supported.

    .. math::
        \text{output}_i = \frac{1 - \exp(-2 \, \text{input}_i)}{1 + \exp(-2 \, \text{input}_i)}

    Args:
        input: any shape and strides.

    Returns:
        A tensor of the shape and memory format of ``input``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    The error is below 2.5 units in the last place. The backward pass needs the output alone.

    Example::

        >>> tanh(torch.tensor([0.0, 100.0]))
        tensor([0., 1.])
    """
    if not is_dynamo_compiling():
        output = _C.tanh(input)
        if output is not None:
            return output
    return _general("tanh", input)


def activation_function(op: str, name: str) -> Callable[[Tensor], Tensor]:
    """By the name that the fused ops take."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"{op}(): expected activation to be one of none, relu, sigmoid, tanh, but got '{name}'")
    return _ACTIVATIONS[name]


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda input: input,
    "relu": relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
}


def _general(name: str, input: Tensor) -> Tensor:
    check_tensor(name, "input", input)
    if not needs_python_autograd():
        return _FORWARD[name](input)
    if has_nested_forward_mode():
        return _BY_TORCH[name](input)
    return _FUNCTIONS[name].apply(input)


def _check_in_place(input: Tensor) -> None:
    if input.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        _FORWARD["relu"](input)  # says what is wrong


# ---- torch.func and forward-mode AD: values from our kernels, derivatives in ops that torch transforms --------------

_FORWARD = {name: getattr(_ops, name).default for name in ("relu", "sigmoid", "tanh")}
_BY_TORCH: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
_DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda y: (y > 0).to(y.dtype),
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
}


def _function(name: str) -> type[torch.autograd.Function]:
    def forward(input):
        return _FORWARD[name](input)

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    def derivative(ctx, gradient):
        (output,) = ctx.saved_tensors
        return gradient * _DERIVATIVES[name](output)

    members: dict[str, Any] = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(derivative),
        "jvp": staticmethod(derivative),
        "generate_vmap_rule": True,
    }
    return type(f"_{name.capitalize()}", (torch.autograd.Function,), members)


_FUNCTIONS = {name: _function(name) for name in _FORWARD}
