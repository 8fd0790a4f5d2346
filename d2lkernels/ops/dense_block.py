"""Dense blocks over one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from .._autodiff import needs_python_autograd
from ._arguments import check_tensor
from .activation import relu
from .concat import concat
from .conv2d import conv2d
from .normalization import batch_norm

_dense_block = torch.ops.d2lkernels.dense_block.default


def dense_block(
    input: Tensor,
    parameters: Sequence[Tensor],
    statistics: Sequence[Tensor] = (),
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Layers of batch normalisation, ReLU and 3 x 3 convolution, each of which reads the channels of all before it.

    The same as ``map = torch.cat([map, conv2d(relu(batch_norm(map)))], 1)`` for each layer, but in one map of the size
    of the output: each convolution writes its channels behind those that are there. The statistics of a channel are
    computed once, and what the convolutions read is normalised again in the backward pass, so that memory grows
    linearly with the depth.

    Args:
        input: maps of shape (N, C, H, W).
        parameters: for layer i four tensors: weight and bias of the normalisation, of shape (C + i G), weight of the
            convolution, of shape (G, C + i G, 3, 3), and its bias, of shape (G). All have the dtype of ``input``;
            those of normalisations may be float32 if it has 16 bits.
        statistics: for each layer mean and variance, of shape (C + i G), to normalise with; none in training, where
            they are those of the map.
        eps: is added to the variances.

    Returns:
        The map of shape (N, C + layers * G, H, W), channels_last if ``input`` is; and mean and variance of its first
        channels, all but the last G, in float64 (float32 for 16-bit maps; empty if ``statistics`` were given). They
        are not differentiated.

    Raises:
        TypeError: a dtype that is not supported or differs from input's.
        ValueError: sizes that do not fit; one value per channel in training.
        RuntimeError: tensors on different devices.

    ============================== ======== ======== ========== ====== =========== =============
    dtypes                         devices  double   forward AD vmap   autocast    deterministic
                                            backward
    ============================== ======== ======== ========== ====== =========== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    promotes    yes
    ============================== ======== ======== ========== ====== =========== =============

    Example::

        >>> parameters = [torch.ones(3), torch.zeros(3), torch.randn(4, 3, 3, 3), torch.zeros(4)]
        >>> dense_block(torch.randn(2, 3, 8, 8), parameters)[0].shape
        torch.Size([2, 7, 8, 8])

    Source: Huang et al., *Densely Connected Convolutional Networks*, 2016; Pleiss et al., *Memory-Efficient
    Implementation of DenseNets*, 2017.
    """
    if not is_dynamo_compiling():
        results = _C.dense_block(input, parameters, statistics, eps)
        if results is not None:
            return results
    check_tensor("dense_block", "input", input)
    for name, tensors in (("parameters", parameters), ("statistics", statistics)):
        for i, tensor in enumerate(tensors):
            check_tensor("dense_block", f"{name}[{i}]", tensor)
    if needs_python_autograd() or _autocasts_layers(input):
        return _composed(input, parameters, statistics, eps)
    return _dense_block(input, parameters, statistics, eps)


def _autocasts_layers(input: Tensor) -> bool:
    """Whether autocast gives the layers other dtypes than the input's."""
    device = input.device.type
    if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return False
    return input.dtype != torch.get_autocast_dtype(device)


def _composed(
    input: Tensor, parameters: Sequence[Tensor], statistics: Sequence[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """In ops that know autocast, forward mode and torch.func."""
    on_meta = [torch.empty(one.shape, dtype=one.dtype, device="meta") for one in (input, *parameters, *statistics)]
    _dense_block(on_meta[0], on_meta[1 : 1 + len(parameters)], on_meta[1 + len(parameters) :], eps)
    map = input
    for i in range(0, len(parameters), 4):
        norm_weight, norm_bias, weight, bias = parameters[i : i + 4]
        mean, var = statistics[i // 2 : i // 2 + 2] if statistics else (None, None)
        normalized = relu(batch_norm(map, mean, var, norm_weight, norm_bias, not statistics, 0.0, eps))
        map = concat([map, conv2d(normalized, weight, bias, padding=1)])
    known = input.new_empty(0) if statistics else map[:, : -parameters[-1].shape[0]].detach()
    if statistics:
        return map, known, known
    known = known.to(torch.promote_types(known.dtype, torch.float32))
    return map, known.mean((0, 2, 3)), known.var((0, 2, 3), correction=0)
