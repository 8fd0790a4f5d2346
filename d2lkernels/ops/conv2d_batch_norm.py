"""Cross-correlation with batch normalisation behind it, and with what follows that in a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import needs_python_autograd
from ._arguments import check_tensor
from .conv2d import conv2d
from .conv2d_fused import _geometry
from .normalization import normalize

_moments = torch.ops.d2lkernels.conv2d_moments.default


def conv2d_batch_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "none",
) -> Tensor:
    r"""``activation(batch_norm(conv2d(...)) + residual)``, the statistics gathered where the sums are stored.

    Same as :func:`conv2d`, :func:`batch_norm`, an addition and an activation one after the other. In training the
    normalisation does not read the map to find its mean and variance: the convolution takes them while what it has
    computed is still in a cache (CPU) or in registers (CUDA). The rest is one pass, which also adds the residual and
    applies the activation, and keeps what :func:`batch_norm_add_relu` keeps.

    Args:
        input, weight, bias, stride, padding, dilation, groups: as in :func:`conv2d`; a batch of maps.
        running_mean, running_var, training, momentum, eps: as in :func:`batch_norm`.
        norm_weight, norm_bias: weight and bias of the normalisation, of shape (K), or None.
        residual: maps of the size and dtype of the output, or None.
        activation: ``"none"``, ``"relu"``, ``"sigmoid"`` or ``"tanh"``.

    Returns:
        Maps of shape (N, K, P, Q), channels_last if ``input`` or ``weight`` is.

    Raises:
        TypeError, ValueError, RuntimeError: as the ops that it is made of, before anything is changed.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    The statistics are those of the map as it is stored: 16-bit values are rounded before. Forward-mode AD and
    torch.func see the separate ops.

    Example::

        >>> input, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
        >>> output = conv2d_batch_norm(input, weight, None, None, None, training=True)
        >>> bool(output.mean((0, 2, 3)).abs().max() < 1e-5)
        True

    Source: Jung et al., *Restructuring Batch Normalization to Accelerate CNN Training*, MLSys 2019.
    """
    return convolve_and_normalize(
        (input, weight, bias, stride, padding, dilation, groups),
        (running_mean, running_var, norm_weight, norm_bias, training, momentum, eps, activation, residual, None),
    )


def convolve_and_normalize(convolution: tuple, normalization: tuple) -> Tensor:
    """The arguments of :func:`conv2d`, and those of :func:`normalize` behind its input. The short way checks all of
    them before the convolution."""
    training = normalization[4]
    if training and not is_dynamo_compiling():
        output = _C.conv2d_batch_norm(*convolution, *normalization)
        if output is not None:
            return output
    input, weight, bias, *numbers = convolution
    op = "conv2d_batch_norm"
    check_tensor(op, "input", input)
    if input.dim() != 4:
        raise ValueError(
            f"{op}(): expected input to be 4-D (N, C, H, W), "
            f"but got a {input.dim()}-D tensor of size {list(input.shape)}"
        )
    if not training or needs_python_autograd():
        return normalize(conv2d(*convolution), *normalization)
    geometry = _geometry(op, input, weight, bias, *numbers)
    map, mean, var = _moments(input, weight, bias, *geometry)
    return normalize(map, *(*normalization, (mean, var)))
