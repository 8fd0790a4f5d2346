"""Losses: cross-entropy and the mean squared error."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn.functional import nll_loss

from .. import _C
from .._autodiff import needs_python_autograd
from ._arguments import check_tensor
from .softmax import log_softmax

_cross_entropy = torch.ops.d2lkernels.cross_entropy.default
_mse_loss = torch.ops.d2lkernels.mse_loss.default


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""The negative logarithm of the probability that a softmax gives to the right class.

    Same as :func:`torch.nn.functional.cross_entropy`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``, and that the deprecated ``size_average`` and ``reduce`` must be None. With class indices the softmax
    is part of the kernel: its values are never stored, two numbers a row are.

    .. math::
        \text{loss}_i = -\sum_c q_{i,c} \, w_c \log \text{softmax}(\text{input}_i)_c, \quad
        q_{i,c} = (1 - s) \, t_{i,c} + s / C

    with s = ``label_smoothing`` and t = ``target``, as probabilities or as 1 for the class it names and 0 for others.

    Args:
        input: scores of shape (C), (N, C) or (N, C, d1, ...).
        target: class indices (int64 or uint8) of shape (), (N) or (N, d1, ...), or probabilities of the shape and dtype
            of ``input``.
        weight: a weight w for each class, shape (C).
        ignore_index: the class index that does not count, neither in the loss nor in the mean.
        reduction: "none", "sum" or "mean": the sum divided by the weights of the targets that count (for
            probabilities by N d1 ...).
        label_smoothing: between 0 and 1.

    Returns:
        A number, or with "none" the losses in the shape of the class indices.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: sizes that do not fit, an unknown reduction, a label_smoothing outside of [0, 1].
        IndexError: on the CPU, a target that is neither a class nor ``ignore_index``. On CUDA devices such a target is
            taken for ``ignore_index``: to look at it, the host would have to wait for the device.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    float32  yes
    ============================== ======== ======== ========== ====== ======== =============

    With probabilities, and under torch.func transforms, the loss is composed of :func:`log_softmax` and torch's ops.

    Example::

        >>> cross_entropy(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), torch.tensor([0, 1]))
        tensor(0.6931)
    """
    op = "cross_entropy"
    if size_average is None and reduce is None and not is_dynamo_compiling():
        loss = _C.cross_entropy(input, target, weight, reduction, ignore_index, label_smoothing)
        if loss is not None:
            return loss
    check_tensor(op, "input", input)
    check_tensor(op, "target", target)
    if weight is not None:
        check_tensor(op, "weight", weight)
    if size_average is not None or reduce is not None:
        raise ValueError(f"{op}(): expected size_average and reduce to be None, but got {size_average} and {reduce}")
    if target.is_floating_point() and target.dtype == input.dtype and target.shape == input.shape:
        return _of_probabilities(input, target, weight, reduction, label_smoothing)
    if target.dtype == torch.uint8:
        target = target.long()
    arguments = (input, target, weight, reduction, ignore_index, label_smoothing)
    if needs_python_autograd():
        return _by_parts(*arguments)
    return _cross_entropy(*arguments)[0]


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    r"""The squared difference of two tensors.

    Same as :func:`torch.nn.functional.mse_loss`, except that bad values raise ``ValueError`` and bad dtypes
    ``TypeError``, that both dtypes have to be the same, and that the deprecated ``size_average`` and ``reduce`` must be
    None.

    .. math::
        \text{loss}_i = w_i (\text{input}_i - \text{target}_i)^2

    Args:
        input: any shape and strides.
        target: the same shape. Sizes that broadcast are broadcast, with a warning, as in torch.
        reduction: "none", "mean" or "sum".
        weight: the weights w, of the size of ``input``; None for ones. The mean is over the sum of the weights.

    Returns:
        A number, or with "none" the losses in the shape of the tensors.

    Raises:
        TypeError: an argument that is no tensor, or a dtype that is not supported.
        ValueError: sizes that do not fit, or an unknown reduction.

    ============================== ======== ======== ========== ====== ======== =============
    dtypes                         devices  double   forward AD vmap   autocast deterministic
                                            backward
    ============================== ======== ======== ========== ====== ======== =============
    float32/64, bfloat16, float16  CPU CUDA yes      yes        yes    float32  yes
    ============================== ======== ======== ========== ====== ======== =============

    Example::

        >>> mse_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
        tensor(2.5000)
    """
    op = "mse_loss"
    if size_average is None and reduce is None and weight is None and not is_dynamo_compiling():
        loss = _C.mse_loss(input, target, reduction)
        if loss is not None:
            return loss
    check_tensor(op, "input", input)
    check_tensor(op, "target", target)
    if size_average is not None or reduce is not None:
        raise ValueError(f"{op}(): expected size_average and reduce to be None, but got {size_average} and {reduce}")
    if input.shape != target.shape:
        input, target = _broadcast(input, target)
    if weight is not None:
        return _weighted_mse_loss(input, target, reduction, weight)
    if needs_python_autograd():
        return _mse_loss_by_parts(input, target, reduction)
    return _mse_loss(input, target, reduction)


def _broadcast(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    # strict=False: missing axes broadcast, too.
    if any(a != b and 1 not in (a, b) for a, b in zip(input.shape[::-1], target.shape[::-1], strict=False)):
        raise ValueError(
            f"mse_loss(): expected target to have the size of input {list(input.shape)} or to broadcast with it, "
            f"but got {list(target.shape)}"
        )
    warnings.warn(
        f"mse_loss(): input has size {list(input.shape)} and target has size {list(target.shape)}; they are broadcast, "
        "which is seldom what is wanted",
        stacklevel=3,
    )
    input, target = torch.broadcast_tensors(input, target)
    return input, target


def _weighted_mse_loss(input: Tensor, target: Tensor, reduction: str, weight: Tensor) -> Tensor:
    check_tensor("mse_loss", "weight", weight)
    if weight.shape != input.shape:
        raise ValueError(
            f"mse_loss(): expected weight to have the size of input {list(input.shape)}, but got {list(weight.shape)}"
        )
    _mse_loss(*_on_meta(input, target), reduction)  # checks the rest
    losses = mse_loss(input, target, reduction="none") * weight
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / weight.sum()


def _mse_loss_by_parts(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    """The same in parts that torch transforms."""
    _mse_loss(*_on_meta(input, target), reduction)  # checks
    losses = (input - target).square()
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def _axis_of_classes(input: Tensor) -> int:
    return 0 if input.dim() == 1 else 1


def _along_classes(weight: Tensor, input: Tensor) -> Tensor:
    return weight.view(-1, *(1 for _ in input.shape[2:]))


def _of_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float
) -> Tensor:
    _check_options(input, weight, reduction, label_smoothing)
    device = input.device.type
    if torch.is_autocast_enabled(device) and input.dtype != torch.float64:
        input, target = input.float(), target.float()
        weight = None if weight is None else weight.float()
    axis = _axis_of_classes(input)
    if label_smoothing > 0:
        target = target * (1 - label_smoothing) + label_smoothing / input.shape[axis]
    terms = log_softmax(input, axis) * target
    if weight is not None:
        terms = terms * _along_classes(weight, input)
    losses = -terms.sum(axis)
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / (input.numel() // input.shape[axis])


def _check_options(input: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float) -> None:
    """In words of the C++ op, which is asked about tensors of no memory."""
    if input.dim() == 0:
        size: tuple[int, ...] = ()
    else:
        axis = _axis_of_classes(input)
        size = tuple(length for place, length in enumerate(input.shape) if place != axis)
    on_meta = [
        None if one is None else torch.empty(one.shape, dtype=one.dtype, device="meta") for one in (input, weight)
    ]
    target = torch.empty(size, dtype=torch.int64, device="meta")
    _cross_entropy(on_meta[0], target, on_meta[1], reduction, 0, label_smoothing)


def _by_parts(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignore_index: int, label_smoothing: float
) -> Tensor:
    """The same in parts that torch transforms."""
    axis = _axis_of_classes(input)
    if target.dtype != torch.int64 or target.shape != input.shape[:axis] + input.shape[axis + 1 :]:
        _cross_entropy(*_on_meta(input, target, weight), reduction, ignore_index, label_smoothing)  # says what is wrong
    _check_options(input, weight, reduction, label_smoothing)
    logarithms = log_softmax(input, axis)
    loss = nll_loss(logarithms, target, weight, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing == 0:
        return loss
    counts = target != ignore_index
    terms = logarithms if weight is None else logarithms * _along_classes(weight, input)
    smooth = torch.where(counts, -terms.sum(axis), 0.0)
    if reduction != "none":
        smooth = smooth.sum()
    if reduction == "mean":
        weights = counts.to(input.dtype) if weight is None else torch.where(counts, weight[target.clamp(min=0)], 0.0)
        smooth = smooth / weights.sum()
    return (1 - label_smoothing) * loss + label_smoothing / input.shape[axis] * smooth


def _on_meta(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if one is None else torch.empty(one.shape, dtype=one.dtype, device="meta") for one in tensors]
