"""From torch's layers to ours and back, in any model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import torch
from torch.nn import Module

from . import nn


@dataclasses.dataclass
class ConversionReport:
    """What :func:`convert` did: the layers that changed class, by name, and those that it left, with the reason."""

    changed: dict[str, str] = dataclasses.field(default_factory=dict)
    left: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name or '(model)'}: {what}" for name, what in self.changed.items()]
        lines += [f"{name or '(model)'}: left: {why}" for name, why in self.left.items()]
        return "\n".join(lines) or "nothing to convert"


def _pairs() -> Iterator[tuple[type, type]]:
    """(torch's class, ours) for every layer that has kernels of ours, Sequential included."""
    for name in dir(torch.nn):
        theirs, ours = getattr(torch.nn, name), getattr(nn, name, None)
        if isinstance(theirs, type) and isinstance(ours, type) and ours is not theirs and issubclass(ours, theirs):
            yield theirs, ours


def convert(
    model: Module,
    to: str = "ours",
    inplace: bool = False,
    channels_last: bool = True,
    report: ConversionReport | None = None,
) -> Module:
    """Swaps the layers of a model for ours, or ours for torch's.

    Parameters, buffers, names, hooks, training mode, tied weights, device and dtype stay as they are: a layer only
    changes its class. So does a ``torch.nn.Sequential``, which then fuses its neighbours. Subclasses are left alone,
    whose code may rely on the original; among them are parametrized layers.

    Args:
        model: any module.
        to: ``"ours"`` or ``"torch"``.
        inplace: whether to convert the model itself rather than a copy.
        channels_last: whether the weights of the convolutions that become ours are put in channels_last (same values,
            same Parameter), so that the model runs in that format.
        report: filled in with what was done.

    Returns:
        The converted model.

    Raises:
        TypeError: for what is no module.
        ValueError: for any other ``to``; for a model that cannot be copied, because lazy layers have seen no input.

    Example::

        >>> import torch
        >>> report = ConversionReport()
        >>> model = convert(torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.ReLU()), report=report)
        >>> print(report)
        (model): torch.nn.Sequential -> d2lkernels.nn.Sequential
        0: torch.nn.Conv2d -> d2lkernels.nn.Conv2d
        1: torch.nn.ReLU -> d2lkernels.nn.ReLU
    """
    if not isinstance(model, Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"convert(): expected model to be a torch.nn.Module, but got {given}")
    if to not in ("ours", "torch"):
        raise ValueError(f"convert(): expected to to be 'ours' or 'torch', but got {to!r}")
    report = ConversionReport() if report is None else report
    swap = {theirs: ours for theirs, ours in _pairs()}
    packages = ("torch.nn", "d2lkernels.nn")
    if to == "torch":
        swap = {ours: theirs for theirs, ours in swap.items()}
        packages = packages[::-1]
    model = model if inplace else _copied(model)
    for name, module in model.named_modules():
        before = type(module)
        if before in swap:
            after = swap[before]
            module.__class__ = after
            report.changed[name] = f"{packages[0]}.{before.__name__} -> {packages[1]}.{after.__name__}"
            if channels_last and to == "ours":
                _to_channels_last(module)
        elif before not in swap.values() and (base := next((one for one in before.__mro__ if one in swap), None)):
            if getattr(module, "parametrizations", None) is not None:
                report.left[name] = f"a parametrized {base.__name__}"
            elif not before.__module__.startswith("torch.nn."):
                report.left[name] = f"{before.__name__}, a subclass of {base.__name__}"
    return model


def _copied(model: Module) -> Module:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(
                "convert(): expected inplace=True for a model with lazy layers that have seen no input, which cannot "
                f"be copied, but got inplace=False and an uninitialized {name}"
            )
    return copy.deepcopy(model)


def _to_channels_last(module: Module) -> None:
    if not isinstance(module, torch.nn.Conv2d):
        return
    weight = module._parameters.get("weight")
    if weight is not None and not torch.nn.parameter.is_lazy(weight):
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
