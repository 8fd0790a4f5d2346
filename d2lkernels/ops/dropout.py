"""Dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from .._autodiff import linear_function, needs_python_autograd
from ._arguments import check_tensor

_dropout = torch.ops.d2lkernels.dropout.default

_SEEDS = 2**63 - 1


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    r"""Sets elements to zero at random, and scales the others so that the mean stays.

    Same as :func:`torch.nn.functional.dropout`, except that other elements are chosen, and that bad dtypes raise
    ``TypeError``.

    .. math::
        \text{output}_i = \frac{k_i}{1 - p} \, \text{input}_i,
        \quad k_i = 0 \text{ with probability } p \text{, else } 1

    Args:
        input: any shape and strides.
        p: the probability of an element to be dropped, between 0 and 1.
        training: whether to drop anything; if not, the result is ``input``.
        inplace: whether to write the result to ``input``.

    Returns:
        A tensor of the shape and memory format of ``input``.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: a p outside of [0, 1].

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    input dtype by seed
    ============================== ======== ======== ========== ====== =========== =============

    A call draws one number from torch's generator of the device (none if p is 0 or 1), so ``torch.manual_seed`` repeats
    it and ``torch.utils.checkpoint`` recomputes it. That seed and the place of an element decide about it, whatever the
    device, the instruction set, the number of threads and the strides; nothing else is kept for the backward pass.
    Under vmap, ``randomness`` says whether problems share a seed.

    Example::

        >>> dropout(torch.ones(3), p=1.0)
        tensor([0., 0., 0.])

    Source: Srivastava et al., *Dropout: A Simple Way to Prevent Neural Networks from Overfitting*, 2014; random numbers
    after Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011.
    """
    check_tensor("dropout", "input", input)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout(): expected p to be between 0 and 1, but got {p}")
    if not training:
        return input
    if 0.0 < p < 1.0:
        seed = torch.randint(_SEEDS, (), dtype=torch.int64, device=input.device)
    else:  # nothing to choose
        seed = torch.zeros((), dtype=torch.int64, device=input.device)
    output = _call(input, seed, p)
    return input.copy_(output) if inplace else output


def _call(input: Tensor, seed: Tensor, p: float) -> Tensor:
    function = _Dropout.apply if needs_python_autograd() else _dropout
    return function(input, seed, p)


# Linear, and its own transpose.
_Dropout = linear_function("_Dropout", _dropout, _call, lambda grad, size, seed, p: _call(grad, seed, p))
