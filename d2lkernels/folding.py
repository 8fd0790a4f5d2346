"""Batch normalisation into the convolutions in front of it, for good: for models that are done with training."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch.nn import Module

from . import nn
from .nn import fusion


@dataclasses.dataclass
class FoldingReport:
    """What :func:`fold_batch_norm` did: for each convolution that changed the normalisation that went into it, and the
    normalisations behind convolutions that it left, with the reason."""

    folded: dict[str, str] = dataclasses.field(default_factory=dict)
    left: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{convolution}: {norm} is folded into it" for convolution, norm in self.folded.items()]
        lines += [f"{norm}: left: {why}" for norm, why in self.left.items()]
        return "\n".join(lines) or "no batch normalisation behind a convolution"


def fold_batch_norm(model: Module, inplace: bool = False, report: FoldingReport | None = None) -> Module:
    """Puts batch normalisation into the weights of the convolutions in front of it, for inference.

    A Conv2d and the BatchNorm2d behind it (torch's or ours), in a Sequential or in a residual block of
    :mod:`d2lkernels.models`, become one convolution: weight * gamma / sqrt(var + eps), and a bias to match. An identity
    takes the place of the normalisation, so that no other layer changes its name; the state_dict is another one.
    Outputs stay the same up to rounding: as close as those of two algorithms for one convolution.

    A Sequential is taken to run its layers one after the other. Layers with hooks or a forward of their own,
    subclasses (parametrized layers among them) and convolutions that occur more than once are left alone.

    Args:
        model: any module in eval mode, with the statistics that it is to keep.
        inplace: whether to change the model itself rather than a copy.
        report: filled in with what was done.

    Returns:
        The folded model. Its folded parameters are new ones, tied to no others.

    Raises:
        ValueError: for a model, or a normalisation in it that would be folded, in training mode. Nothing has changed
            then.

    Example::

        >>> import torch
        >>> report = FoldingReport()
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.BatchNorm2d(6), torch.nn.ReLU()).eval()
        >>> folded = fold_batch_norm(model, report=report)
        >>> print(report)
        0: 1 is folded into it
        >>> folded[1]
        Identity()
    """
    if model.training:
        raise ValueError("fold_batch_norm(): expected model to be in eval mode, but got one in training mode")
    report = FoldingReport() if report is None else report
    model = model if inplace else copy.deepcopy(model)
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    pairs: list[tuple[Module, str, Any, Any]] = []
    for prefix, parent in model.named_modules():
        for first, second in _neighbours(parent):
            convolution, norm = parent._modules[first], parent._modules[second]
            if not isinstance(convolution, torch.nn.Conv2d) or not isinstance(norm, torch.nn.BatchNorm2d):
                continue
            name = f"{prefix}.{second}" if prefix else second
            why = _why_left(convolution, norm, uses)
            if why is not None:
                report.left[name] = why
                continue
            if norm.training:
                raise ValueError(f"fold_batch_norm(): expected {name} to be in eval mode, but got it in training mode")
            report.folded[f"{prefix}.{first}" if prefix else first] = name
            pairs.append((parent, second, convolution, norm))
    for parent, second, convolution, norm in pairs:
        _fold(convolution, norm)
        parent._modules[second] = torch.nn.Identity().eval()
    return model


def _neighbours(parent: Module) -> Iterator[tuple[str, str]]:
    """Names of children of which the second reads what the first makes, and nothing else does."""
    if "forward" in parent.__dict__:
        return
    kind = type(parent)
    if kind.forward in (torch.nn.Sequential.forward, nn.Sequential.forward):
        names = [name for name, child in parent._modules.items() if child is not None]
        yield from pairwise(names)
    # A class says of its own forward which of its normalisations follow which convolutions.
    owner = next((one for one in kind.__mro__ if "NORMALIZED" in vars(one)), None)
    if owner is not None and kind.forward is vars(owner).get("forward"):
        yield from owner.NORMALIZED  # type: ignore[attr-defined]


def _why_left(convolution: Any, norm: Any, uses: Counter[int]) -> str | None:
    if type(convolution) not in (torch.nn.Conv2d, nn.Conv2d) or type(norm) not in (
        torch.nn.BatchNorm2d,
        nn.BatchNorm2d,
    ):
        return "a subclass with code of its own"
    if fusion.has_hooks(convolution) or fusion.has_hooks(norm):
        return "it or its convolution has hooks or a forward of its own"
    if norm.running_mean is None or norm.running_var is None:
        return "it has no running statistics"
    if norm.num_features != convolution.out_channels:
        return f"it has {norm.num_features} channels, its convolution {convolution.out_channels}"
    if uses[id(convolution)] > 1:
        return "its convolution is used more than once"
    return None


def _fold(convolution: Any, norm: Any) -> None:
    """In float64, rounded once."""
    with torch.no_grad():
        exact = copy.deepcopy(norm).double()
        weight, bias = convolution.weight, convolution.bias
        values = fusion.folded(weight.double(), None if bias is None else bias.double(), exact)
        for name, value in zip(("weight", "bias"), values, strict=True):
            parameter = torch.nn.Parameter(value.to(weight.dtype), requires_grad=weight.requires_grad)
            setattr(convolution, name, parameter)
