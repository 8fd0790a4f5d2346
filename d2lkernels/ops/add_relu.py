"""An addition with a ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from .._autodiff import needs_python_autograd
from ._arguments import check_tensor

_add_relu = torch.ops.d2lkernels.add_relu.default


def add_relu(input: Tensor, other: Tensor) -> Tensor:
    r"""``relu(input + other)`` in one pass, as a residual block ends.

    Same as an addition and :func:`torch.relu` of tensors of one size and dtype, but the sum is not written.

    .. math::
        \text{output}_i = \max(\text{input}_i + \text{other}_i, 0)

    Args:
        input: a tensor of any size.
        other: a tensor of the same size and dtype.

    Returns:
        A tensor of the size and memory format of ``input``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: sizes that differ.
        RuntimeError: tensors on different devices.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> add_relu(torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 3.0]))
        tensor([0., 5.])
    """
    check_tensor("add_relu", "input", input)
    check_tensor("add_relu", "other", other)
    if not needs_python_autograd():
        return _add_relu(input, other)
    _add_relu(*(torch.empty(one.shape, dtype=one.dtype, device="meta") for one in (input, other)))
    return torch.relu(input + other)
