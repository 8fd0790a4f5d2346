"""Concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._autodiff import needs_python_autograd
from ._arguments import check_tensor

_concat = torch.ops.d2lkernels.concat.default


def concat(tensors: Sequence[Tensor], dim: int = 1) -> Tensor:
    """Joins tensors along a dimension, by channel unless another is given.

    Same as :func:`torch.cat`, except for the default of ``dim``, that bad values raise ``ValueError``, and that tensors
    of size (0) get no exception from the rule that sizes must match.

    Args:
        tensors: one or more tensors of equal sizes, but for dimension ``dim``.
        dim: the dimension; counts from the end if negative.

    Returns:
        A tensor of the size of the first, with the sum of the lengths in dimension ``dim``; of the dtype that those of
        the tensors promote to; channels_last if all tensors are.

    Raises:
        TypeError: what is no sequence of tensors.
        ValueError: no tensors, or sizes that do not match.
        RuntimeError: tensors on different devices.

    ====== ======== =============== ========== ==== ======== =============
    dtypes devices  double backward forward AD vmap autocast deterministic
    ====== ======== =============== ========== ==== ======== =============
    all    CPU CUDA yes             yes        yes  promotes yes
    ====== ======== =============== ========== ==== ======== =============

    The gradients are views of that of the output. To not copy at all, let layers write into one map:
    :func:`d2lkernels.ops.dense_block`.

    Example::

        >>> concat([torch.zeros(2, 3, 4, 4), torch.ones(2, 5, 4, 4)]).shape
        torch.Size([2, 8, 4, 4])
    """
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(f"concat(): expected tensors to be a sequence of Tensors, but got {type(tensors).__name__}")
    if not tensors:
        raise ValueError("concat(): expected tensors to hold at least one tensor, but got none")
    for i, tensor in enumerate(tensors):
        check_tensor("concat", f"tensors[{i}]", tensor)
    if not isinstance(dim, int):
        raise TypeError(f"concat(): expected dim to be an int, but got {dim!r}")
    if needs_python_autograd():
        return _Concat.apply(dim, *tensors)
    return _concat(tensors, dim)


class _Concat(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(dim, *tensors):
        return _concat(tensors, dim)

    @staticmethod
    def setup_context(ctx, inputs, output):
        dim, *tensors = inputs
        ctx.dim = dim % output.dim()
        ctx.sizes = [tensor.shape for tensor in tensors]
        ctx.dtypes = [tensor.dtype for tensor in tensors]

    @staticmethod
    def backward(ctx, grad):
        pieces = grad.split([size[ctx.dim] for size in ctx.sizes], ctx.dim)
        return None, *(piece.to(dtype) for piece, dtype in zip(pieces, ctx.dtypes, strict=True))

    @staticmethod
    def jvp(ctx, _, *tangents):
        given = next(tangent for tangent in tangents if tangent is not None)
        filled = [
            given.new_zeros(size, dtype=dtype) if tangent is None else tangent
            for tangent, size, dtype in zip(tangents, ctx.sizes, ctx.dtypes, strict=True)
        ]
        return torch.cat(filled, ctx.dim)  # which knows every kind of vmap, that of gradcheck included
