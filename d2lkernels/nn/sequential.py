"""torch.nn.Sequential that runs neighbouring layers as one op where it can."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
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
        """Those that run, with their names: without identities, and in place of a nested Sequential its own."""
        return [(name, one) for name, one in _inside(self) if not (_is_nested(one) or fusion.is_nothing(one))]

    def _steps(self) -> list[Callable[[Tensor], Tensor]]:
        if torch.compiler.is_compiling():
            return fusion.plan([module for _, module in self._layers()])
        plan: _Plan | None = self.__dict__.get("_plan")
        if plan is None or not plan.holds():
            plan = self.__dict__["_plan"] = _Plan(self)
        return plan.steps

    def __getstate__(self) -> dict[str, Any]:
        """Without the plan: a copy makes its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_plan"}


_NESTED = (Sequential, torch.nn.Sequential)


def _is_nested(module: Module) -> bool:
    """Whether its children run as if they stood in its place."""
    return type(module) in _NESTED and not fusion.has_hooks(module)


def _inside(container: Module) -> Iterator[tuple[str, Module]]:
    """The children, each nested Sequential before its own, with their names."""
    for name, module in container._modules.items():
        if module is None:
            continue
        yield name, module
        if _is_nested(module):
            yield from ((f"{name}.{key}", one) for key, one in _inside(module))


class _Plan:
    """The steps of a Sequential, and all that they follow from."""

    def __init__(self, sequential: Sequential):
        inside = [module for _, module in _inside(sequential)]
        self.steps = fusion.plan([module for _, module in sequential._layers()])
        self._children = [(one, list(one._modules.values())) for one in (sequential, *filter(_is_nested, inside))]
        self._kinds = [(module, type(module), fusion.has_hooks(module)) for module in inside]

    def holds(self) -> bool:
        """Whether everything is still as it was."""
        for container, children in self._children:
            if list(container._modules.values()) != children:
                return False
        for module, kind, has_hooks in self._kinds:
            if type(module) is not kind or fusion.has_hooks(module) is not has_hooks:
                return False
        return True


def concat_paths(paths: SequenceOf[Module], input: Tensor) -> Tensor:
    """``torch.cat([path(input) for path in paths], 1)``. Where each path is a Sequential of ours that ends with a
    convolution and the same activation, and nothing (a hook, a subclass, a parametrisation) stands between, these last
    ones store side by side into one map: see :func:`d2lkernels.ops.concat_convolutions`."""
    plans = [] if fusion.has_global_hooks() else [_steps_to_convolution(path) for path in paths]
    last: list[Any] = [steps[-1] for steps in plans if steps]
    if len(last) != len(paths) or len({convolution.kind for convolution in last}) != 1:
        return torch.cat([path(input) for path in paths], dim=1)
    inputs = []
    for steps in plans:
        map = input
        for step in steps[:-1]:
            map = step(map)
        inputs.append(map)
    return fusion.concat_convolutions(last, inputs)


def _steps_to_convolution(path: Module) -> list[Callable[[Tensor], Tensor]]:
    """The steps of a path, if the last one is a convolution with an activation alone; none of another path."""
    if type(path) is not Sequential or fusion.has_hooks(path):
        return []
    steps = path._steps()
    return steps if steps and fusion.may_join(steps[-1]) else []


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
