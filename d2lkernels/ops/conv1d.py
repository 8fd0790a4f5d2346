"""One-dimensional cross-correlation, computed as a two-dimensional one on maps of one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._arguments import check_tensor
from .conv2d import conv2d

_OP = "conv1d"
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    r"""Cross-correlates a batch of sequences with a bank of kernels: :func:`conv2d` on maps of one row.

    Same as :func:`torch.nn.functional.conv1d`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``, and that complex and integer tensors are not supported.

    .. math::
        \text{output}_{n,k,q} = \text{bias}_k + \sum_{c,s} \text{weight}_{k,c,s} \;
        \text{input}_{n,\,c,\;q \cdot \text{stride} + s \cdot \text{dilation} - \text{pad}}

    Args:
        input: sequences of shape (N, C, L) or (C, L).
        weight: kernels of shape (K, C / groups, S).
        bias: shape (K), or None.
        stride: step between windows, an int or a sequence of one.
        padding: zeros on each side, an int or a sequence of one; ``"valid"`` for none; ``"same"`` for as many as keep
            the length (stride 1 only; an odd one goes to the end).
        dilation: distance between the taps of a kernel, an int or a sequence of one.
        groups: into how many independent groups the channels are split; divides C and K.

    Returns:
        Sequences of shape (N, K, Q) or (K, Q), contiguous unless ``weight`` is transposed.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported or differs from input's.
        ValueError: sizes, strides, paddings, dilations or groups that do not fit; the message names what was expected.
        RuntimeError: tensors on different devices.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    yes      yes
    ============================== ======== ======== ========== ====== ======== =============

    16-bit types are summed in float32 and rounded once.

    Example::

        >>> conv1d(torch.randn(2, 3, 8), torch.randn(4, 3, 3), padding=1).shape
        torch.Size([2, 4, 8])
    """
    _check_tensors(input, weight, bias)
    step, reach = _one("stride", stride, 1), _one("dilation", dilation, 1)
    _check_sizes(input, weight, bias, groups)
    pad = padding if isinstance(padding, str) else _one("padding", padding, 0)
    _check_padding(input.shape[-1], weight.shape[-1], step, pad, reach)
    pads: Any = pad if isinstance(pad, str) else (0, pad)
    # As in torch: transposed sequences are not to pass for maps in channels_last, but transposed kernels do.
    rows, kernels = input.contiguous().unsqueeze(-2), weight.unsqueeze(-2)
    return conv2d(rows, kernels, bias, (1, step), pads, (1, reach), groups).squeeze(-2)


def _check_tensors(input: Any, weight: Any, bias: Any) -> None:
    given = {"input": input, "weight": weight} | ({} if bias is None else {"bias": bias})
    for name, tensor in given.items():
        check_tensor(_OP, name, tensor)
    if input.dim() not in (2, 3):
        raise ValueError(
            f"{_OP}(): expected input to be 2-D (C, L) or 3-D (N, C, L), "
            f"but got a {input.dim()}-D tensor of size {list(input.shape)}"
        )
    if weight.dim() != 3:
        raise ValueError(
            f"{_OP}(): expected weight to be 3-D, but got a {weight.dim()}-D tensor of size {list(weight.shape)}"
        )
    if input.dtype not in _DTYPES:
        raise TypeError(f"{_OP}(): expected input to be float32, float64, bfloat16 or float16, but got {input.dtype}")
    casts = input.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(input.device.type)
    for name, tensor in given.items():
        if tensor.dtype != input.dtype and not casts:
            raise TypeError(
                f"{_OP}(): expected {name} to have the dtype of input ({input.dtype}), but got {tensor.dtype}"
            )
        if tensor.device != input.device:
            raise RuntimeError(
                f"{_OP}(): expected {name} to be on the device of input ({input.device}), but got {tensor.device}"
            )


def _one(name: str, value: Any, minimum: int) -> int:
    """An int, alone or in a sequence of one."""
    one = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    if not isinstance(one, int) or isinstance(one, bool):
        error = ValueError if isinstance(value, (tuple, list)) else TypeError
        raise error(f"{_OP}(): expected {name} to be an int or a sequence of one int, but got {value!r}")
    if one < minimum:
        raise ValueError(f"{_OP}(): expected {name} to be at least {minimum}, but got {one}")
    return one


def _check_sizes(input: Tensor, weight: Tensor, bias: Tensor | None, groups: Any) -> None:
    if not isinstance(groups, int):
        raise TypeError(f"{_OP}(): expected groups to be an int, but got {groups!r}")
    if groups < 1:
        raise ValueError(f"{_OP}(): expected groups to be at least 1, but got {groups}")
    channels, outputs = input.shape[-2], weight.shape[0]
    for what, count, tensor in (
        ("channels of input", channels, input),
        ("output channels of weight", outputs, weight),
    ):
        if count % groups != 0:
            name = what.rsplit(" ", 1)[1]
            raise ValueError(
                f"{_OP}(): expected the {what} to be divisible by groups={groups}, "
                f"but got {name} of size {list(tensor.shape)}"
            )
    if weight.shape[1] != channels // groups:
        raise ValueError(
            f"{_OP}(): expected weight to have {channels // groups} input channels per group (input has {channels}, "
            f"groups={groups}), but got weight of size {list(weight.shape)}"
        )
    if channels == 0 or outputs == 0 or weight.shape[2] == 0:
        raise ValueError(
            f"{_OP}(): expected input and weight to have at least one channel and one tap, but got input of size "
            f"{list(input.shape)} and weight of size {list(weight.shape)}"
        )
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != outputs):
        raise ValueError(
            f"{_OP}(): expected bias to have size [{outputs}] (the output channels of weight), "
            f"but got {list(bias.shape)}"
        )


def _check_padding(length: int, taps: int, stride: int, padding: int | str, dilation: int) -> None:
    if padding == "same":
        if stride != 1:
            raise ValueError(f"{_OP}(): expected stride to be 1 with padding='same', but got {stride}")
        return
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(f"{_OP}(): expected padding to be 'same', 'valid' or an int, but got {padding!r}")
    padded = length + (0 if isinstance(padding, str) else 2 * padding)
    extent = dilation * (taps - 1) + 1
    if padded < extent:
        raise ValueError(
            f"{_OP}(): expected the kernel (dilation included) to fit into the padded input of {padded}, "
            f"but got a kernel of {extent}"
        )
