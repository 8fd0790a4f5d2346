"""torch.nn.Sequential that runs neighbouring layers as one op where it can."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceOf
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from . import fusion

__all__ = ["Sequential"]


class Sequential(torch.nn.Sequential):
    """Same as :class:`torch.nn.Sequential`, except that neighbours are fused: a :class:`Conv2d` of ours, the ReLU,
    Sigmoid or Tanh behind it and the MaxPool2d or AvgPool2d behind that run as one op, and so do a :class:`Linear`,
    :class:`BatchNorm1d` or :class:`BatchNorm2d` of ours and such an activation, across nested Sequentials too.

    A BatchNorm2d may follow the convolution of a group. In training the group is then two or three ops, of which the
    first, the convolution, gathers the statistics for the normalisation. In inference
    without gradients, of float32 and float64, the normalisation goes into the weights (anew in each call) where the map
    is larger than they are, and the group is one op. That rounds the weights once more: results differ by as much as
    those of two algorithms for one convolution.

    The result is that of the layers one by one. A layer with hooks or a forward of its own, a subclass and a
    parametrized layer stay alone, and while global module hooks are set, all do. What was fused, and why something was
    not, says :func:`d2lkernels.fusion_plan`.

    Example::

        >>> import d2lkernels
        >>> from d2lkernels import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 6, 5), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten())
        >>> print(d2lkernels.fusion_plan(net))
        Sequential:
          0, 1, 2: fused: Conv2d + Sigmoid + AvgPool2d
    """

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        if fusion.has_global_hooks():
            for module in self:
                input = module(input)
            return input
        for step in self._steps():
            input = step(input)
        return input

    def _layers(self) -> list[tuple[str, Module]]:
        children = [(name, module) for name, module in self._modules.items() if module is not None]
        return fusion.flattened(children, (Sequential, torch.nn.Sequential))

    def _steps(self) -> Any:
        layers = [module for _, module in self._layers()]
        if torch.compiler.is_compiling():
            return fusion.plan(layers)
        signature = [(module, type(module), fusion.has_hooks(module)) for module in layers]
        known = self.__dict__.get("_plan")
        if known is None or known[0] != signature:
            known = (signature, fusion.plan(layers))
            self.__dict__["_plan"] = known
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the plan: a copy makes its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_plan"}


def concat_paths(paths: SequenceOf[Module], input: Tensor) -> Tensor:
    """``torch.cat([path(input) for path in paths], 1)``. Where each path is a Sequential of ours that ends with a
    convolution and the same activation, and nothing (a hook, a subclass, a parametrisation) stands between, these last
    ones store side by side into one map: see :func:`d2lkernels.ops.concat_convolutions`."""
    halves = [] if fusion.has_global_hooks() else [_without_last_convolution(path) for path in paths]
    split = [one for one in halves if one is not None]
    if len(split) != len(paths) or len({convolution.kind for _, convolution in split}) != 1:
        return torch.cat([path(input) for path in paths], dim=1)
    inputs: list[Tensor] = []
    last: list[fusion.FusedConvolution] = []
    for steps, convolution in split:
        map = input
        for step in steps:
            map = step(map)
        inputs.append(map)
        last.append(convolution)
    return fusion.concat_convolutions(last, inputs)


def _without_last_convolution(path: Module) -> tuple[list, fusion.FusedConvolution] | None:
    """All steps but the last, and that, if it is a convolution with an activation alone."""
    if type(path) is not Sequential or fusion.has_hooks(path):
        return None
    steps = path._steps()
    return (steps[:-1], steps[-1]) if steps and fusion.may_join(steps[-1]) else None


@dataclasses.dataclass(frozen=True)
class FusionPlan:
    """What :func:`fusion_plan` found: for each Sequential (by name) the groups of layers that run as one op, and the
    layers that could be fused but are not, with the reason."""

    fused: dict[str, list[tuple[tuple[str, ...], str]]]
    alone: dict[str, list[tuple[str, str]]]

    def __str__(self) -> str:
        lines = []
        for name in self.fused:
            lines.append(f"{name or 'Sequential'}:")
            lines += [f"  {', '.join(names)}: fused: {what}" for names, what in self.fused[name]]
            lines += [f"  {layer}: alone: {why}" for layer, why in self.alone[name]]
        return "\n".join(lines) or "no Sequential of d2lkernels.nn"


def fusion_plan(model: Module) -> FusionPlan:
    """What the Sequentials of a model run as one op, and what not, and why. Print it.

    Args:
        model: any module. Sequentials inside others that were fused across are listed with the outermost one.
    """
    fused: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    alone: dict[str, list[tuple[str, str]]] = {}
    inside: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, Sequential) or type(module).forward is not Sequential.forward or id(module) in inside:
            continue
        layers = module._layers()
        direct = {id(layer) for _, layer in layers}
        inside |= {id(one) for one in module.modules() if type(one) is Sequential and id(one) not in direct}
        names = iter([layer for layer, _ in layers])
        fused[name], alone[name] = [], []
        for step in fusion.plan([layer for _, layer in layers]):
            group = fusion.names_of(step, names)
            if isinstance(step, fusion.Group):
                fused[name].append((tuple(group), repr(step)))
            elif isinstance(step, Module) and (why := fusion.why_alone(step)) is not None:
                alone[name].append((group[0], why))
    return FusionPlan(fused, alone)
