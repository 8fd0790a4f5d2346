"""Forward-mode AD, torch.func and vmap for ops whose reverse mode is a C++ autograd function.

The usual call goes straight to the C++ op: its autograd costs what a native op's costs, and torch.compile traces it.
C++ autograd functions know no tangents and no functorch levels, so while one of these is active the wrappers in
d2lkernels.ops enter a Python ``autograd.Function`` instead. Those are made here, from the structure that all our ops
share: each is linear, or linear in each of two arguments, and its derivatives are ops of ours again.

The private names of torch that this needs are used in this file alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch import pyfunctorch
from torch.autograd import forward_ad


def needs_python_autograd() -> bool:
    """Whether a torch.func transform or a forward-mode level is active (never inside torch.compile)."""
    return not torch.compiler.is_compiling() and (
        forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()
    )


def has_nested_forward_mode() -> bool:
    """Whether a torch.func.jvp runs inside another.

    Torch then drops, silently, the outer tangents of what a Python Function saved: its jvp is right to first order
    only.
    """
    levels = pyfunctorch.retrieve_all_functorch_interpreters() if torch._C._are_functorch_transforms_active() else ()
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in levels) > 1


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


class _Leaf:
    """An argument that is a sequence, as one opaque value. torch.func takes arguments apart that are pytrees, and then
    finds fewer tangents than arguments when forward mode meets vmap (hessian does)."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value


def _unwrapped(rest: tuple) -> tuple:
    return tuple(item.value if isinstance(item, _Leaf) else item for item in rest)


def _save(ctx, tensors: tuple[Tensor, ...], rest: tuple) -> None:
    """Keeps what backward and jvp need. Tensors go through torch, which tracks their vmap levels and versions."""
    ctx.rest = [None if isinstance(item, Tensor) else item for item in rest]
    ctx.tensor_places = [i for i, item in enumerate(rest) if isinstance(item, Tensor)]
    saved = (*tensors, *(rest[i] for i in ctx.tensor_places))
    ctx.save_for_backward(*saved)
    ctx.save_for_forward(*saved)


def _saved(ctx) -> tuple[tuple[Tensor, ...], list]:
    count = len(ctx.saved_tensors) - len(ctx.tensor_places)
    rest = list(ctx.rest)
    for place, tensor in zip(ctx.tensor_places, ctx.saved_tensors[count:], strict=True):
        rest[place] = tensor
    return ctx.saved_tensors[:count], rest


def linear_function(name: str, op: Callable, call: Callable, transpose: Callable) -> type[torch.autograd.Function]:
    """The Function of ``op(x, *rest)``, linear in x.

    Args:
        op: the C++ op.
        call: the public wrapper, so that a derivative of a derivative finds its way here again.
        transpose: ``transpose(grad, x_size, *rest)``, the gradient for x.
    """

    def forward(x, *rest):
        return op(x, *_unwrapped(rest))

    def setup_context(ctx, inputs, output):
        ctx.x_size = tuple(inputs[0].shape)
        _save(ctx, (), _unwrapped(inputs[1:]))

    def backward(ctx, grad):
        _, rest = _saved(ctx)
        gradient = transpose(grad, ctx.x_size, *rest) if ctx.needs_input_grad[0] else None
        return gradient, *(None for _ in rest)

    def jvp(ctx, tangent, *_):
        _, rest = _saved(ctx)
        return call(tangent, *rest)

    return _make_function(name, forward, setup_context, backward, jvp)


def bilinear_function(
    name: str, op: Callable, call: Callable, grad_a: Callable, grad_b: Callable
) -> type[torch.autograd.Function]:
    """The Function of ``op(a, b, *rest)``, linear in a and in b.

    Args:
        op: the C++ op.
        call: the public wrapper.
        grad_a, grad_b: ``grad_a(grad, a, b, *rest)``, the gradients for a and b.
    """

    def forward(a, b, *rest):
        return op(a, b, *_unwrapped(rest))

    def setup_context(ctx, inputs, output):
        _save(ctx, inputs[:2], _unwrapped(inputs[2:]))

    def backward(ctx, grad):
        (a, b), rest = _saved(ctx)
        gradient_a = grad_a(grad, a, b, *rest) if ctx.needs_input_grad[0] else None
        gradient_b = grad_b(grad, a, b, *rest) if ctx.needs_input_grad[1] else None
        return gradient_a, gradient_b, *(None for _ in rest)

    def jvp(ctx, tangent_a, tangent_b, *_):
        (a, b), rest = _saved(ctx)
        from_a = None if tangent_a is None else call(tangent_a, b, *rest)
        from_b = None if tangent_b is None else call(a, tangent_b, *rest)
        return _sum(from_a, from_b)

    return _make_function(name, forward, setup_context, backward, jvp, saves_factors=True)


def _make_function(name: str, *methods: Callable, saves_factors: bool = False) -> type[torch.autograd.Function]:
    members: dict[str, Any] = {method.__name__: staticmethod(method) for method in methods}
    members |= {"generate_vmap_rule": True, "saves_factors": saves_factors}
    return type(name, (_FunctionOfLeaves,), members)


class _FunctionOfLeaves(torch.autograd.Function):
    saves_factors: bool  # its jvp uses saved inputs, so that it is right to first order only

    @classmethod
    def apply(cls, *arguments):
        if cls.saves_factors and has_nested_forward_mode():
            raise NotImplementedError(
                f"{cls.__name__.lstrip('_')}: expected one level of forward-mode AD, but got a torch.func.jvp or "
                "jacfwd inside another; use torch.func.hessian (forward over reverse) for second derivatives"
            )
        return super().apply(*(_Leaf(one) if isinstance(one, (tuple, list)) else one for one in arguments))
