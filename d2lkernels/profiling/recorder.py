"""Watches a model's forward pass op by op, and measures each op where it runs."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from ..nn import fusion
from . import counting

_LOOP_SECONDS = 5e-4
_RESHAPES = ("flatten", "reshape", "unflatten")


@dataclass(frozen=True)
class Layer:
    """What runs as one op of a model, for one batch. Bytes and times are those of the whole batch.

    Attributes:
        name: where in the model; several names, joined by commas, of layers that run as one.
        kind: their classes.
        output: the size of the output.
        parameters: how many the op reads.
        macs: multiply-accumulates of the forward pass; 0 of all but convolutions and matrix products.
        moved: bytes that the forward pass has to read and write at the least.
        moved_backward: the same of the backward pass.
        saved: bytes that stay until the backward pass and that no earlier layer keeps already.
        transient: bytes of the gradients that the backward pass handles besides, parameters' not counted.
        forward_ms, backward_ms: medians in milliseconds; NaN if nothing was timed.
        kernel: the op, with the activation and the addition that are part of it.
        algorithm: how it is computed where there is a choice: of forward, input gradient and weight gradient.
        needs_input_grad: whether the backward pass goes on to earlier layers.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    moved: int
    moved_backward: int
    saved: int
    transient: int
    forward_ms: float
    backward_ms: float
    kernel: str
    algorithm: str
    needs_input_grad: bool

    @property
    def backward_macs(self) -> int:
        """Of the weight gradient, and of the input gradient where there is one."""
        return self.macs * (1 + self.needs_input_grad)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Each memory once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


class Recorder(TorchFunctionMode):
    """Inside ``with Recorder(model, ...)``, call the model once; then `layers` holds what ran.

    An op is a layer if it reads the model's input or what an earlier one returned. Each is taken out of the graph, so
    that its own backward pass can be timed; what training would save is kept until the recorder goes.

    Args:
        model: any module, in training mode for the backward pass to be what training has.
        repeats: how often to time each op; 0 for not at all.
    """

    def __init__(self, model: torch.nn.Module, repeats: int) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._repeats = repeats
        self._modules = {id(module): name or type(module).__name__ for name, module in model.named_modules()}
        self._parameters = {id(parameter): parameter for parameter in model.parameters()}
        self._owners = {
            id(parameter): (name, module)
            for name, module in model.named_modules()
            for parameter in module.parameters(recurse=False)
        }
        self._activations: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._persistent = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self._kept: dict[int, Tensor] = {}

    def watch(self, input: Tensor) -> Tensor:
        """Says that this is the model's input. Its memory is not counted as a layer's."""
        self._activations[input] = True
        self._persistent.add(input.data_ptr())
        return input

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict | None = None) -> Any:
        keywords = kwargs or {}
        reads = [tensor for tensor in _tensors((args, keywords)) if tensor in self._activations]
        if not reads or getattr(func, "__name__", "") == "__get__":
            return func(*args, **keywords)
        args, keywords = tree_map(self._detached, (tuple(args), keywords))
        saved: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            saved.append(tensor.detach())  # the tensor itself may be the output, which holds the graph
            return saved[-1]

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = func(*args, **keywords)
        output = result[0] if isinstance(result, tuple | list) and result else result
        if not isinstance(output, Tensor) or output.dim() == 0 or not output.is_floating_point():
            return result
        self.layers.append(self._layer(func, args, keywords, output, saved, sys._getframe(1)))
        self._activations[output] = True
        return result

    def _detached(self, value: Any) -> Any:
        """An activation without what led to it, that takes a gradient if it had one; anything else as it is."""
        if not isinstance(value, Tensor) or value not in self._activations:
            return value
        return value.detach().requires_grad_(value.requires_grad)

    def _layer(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        keywords: dict,
        output: Tensor,
        saved: list[Tensor],
        frame: FrameType,
    ) -> Layer:
        given = _tensors((args, keywords))
        learned = [tensor for tensor in given if id(tensor) in self._parameters]
        inputs = [tensor for tensor in given if id(tensor) not in self._parameters and tensor.requires_grad]
        is_view = any(output.data_ptr() == tensor.data_ptr() and output.numel() for tensor in given)
        returns_view = is_view or counting.op_name(function) in _RESHAPES  # gradients come in the order of the sizes
        name, kind = self._place(frame, learned)
        fresh = {
            tensor.data_ptr(): tensor
            for tensor in saved
            if tensor.data_ptr() not in self._persistent and tensor.data_ptr() not in self._kept
        }
        self._kept |= fresh
        gradients = 0 if is_view else _bytes(inputs) + output.nbytes
        convolution = counting.convolution_of(function, args, keywords)
        if convolution and counting.op_name(function) in counting.POOLED:  # the gradient of the map before the pool
            n, k, p, q = convolution.map_size()
            gradients += n * k * p * q * output.element_size()
        forward, backward = self._time(function, args, keywords, [*inputs, *learned], output)
        return Layer(
            name=name,
            kind=kind,
            output=tuple(output.shape),
            parameters=sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in learned}.values()),
            macs=counting.macs(function, args, keywords, output),
            moved=0 if is_view else _bytes([*given, output]),
            moved_backward=0 if returns_view else _bytes([*saved, *learned]) + _bytes(inputs) + output.nbytes,
            saved=_bytes(list(fresh.values())),
            transient=gradients,
            forward_ms=forward,
            backward_ms=backward,
            kernel=_kernel(function, args, given),
            algorithm=counting.algorithm(function, args, keywords),
            needs_input_grad=bool(inputs),
        )

    def _place(self, frame: FrameType | None, learned: Sequence[Tensor]) -> tuple[str, str]:
        """Names and classes of the layers that an op belongs to.

        They are those of the innermost module or fused group that is running. Where that is a block with several
        layers and a forward of its own, the layer is the one whose parameters the op reads.
        """
        while frame is not None:
            at_work = frame.f_locals.get("self")
            if isinstance(at_work, fusion.Group):
                modules = _that_read(at_work.modules, learned)
                names = ", ".join(self._modules.get(id(m), "") for m in modules)
                return names, " + ".join(type(m).__name__ for m in modules)
            if isinstance(at_work, torch.nn.Module) and id(at_work) in self._modules:
                owners = {self._owners[id(tensor)] for tensor in learned}
                if len(owners) == 1 and next(at_work.children(), None) is not None:
                    ((name, owner),) = owners
                    return name, type(owner).__name__
                return self._modules[id(at_work)], type(at_work).__name__
            frame = frame.f_back
        return "", ""

    def _time(
        self, function: Callable[..., Any], args: Sequence[Any], keywords: dict, wanted: list[Tensor], output: Tensor
    ) -> tuple[float, float]:
        """Milliseconds of a call forward and backward; the gradient's memory has the output's layout."""
        if not self._repeats:
            return float("nan"), float("nan")
        device = output.device
        forward = median_ms(lambda: function(*args, **keywords), self._repeats, device)
        if not output.requires_grad:
            return forward, 0.0
        gradient = torch.ones_like(output)
        backward = median_ms(
            lambda: torch.autograd.grad(output, wanted, gradient, retain_graph=True, allow_unused=True),
            self._repeats,
            device,
        )
        return forward, backward


def _that_read(modules: Sequence[torch.nn.Module], learned: Sequence[Tensor]) -> Sequence[torch.nn.Module]:
    """Those of a group's modules that belong to an op: from the first on whose parameters it reads to the next one with
    others; all if it reads none (but weights made from them)."""
    read = {id(tensor) for tensor in learned}
    own = [{id(parameter) for parameter in module.parameters()} for module in modules]
    first = next((place for place, ids in enumerate(own) if ids & read), None)
    if first is None:
        return modules
    last = next((place for place in range(first + 1, len(own)) if own[place] and not own[place] & read), len(own))
    return modules[first:last]


def _kernel(function: Callable[..., Any], args: Sequence[Any], given: Sequence[Tensor]) -> str:
    name = counting.op_name(function)
    if not counting.is_ours(function):
        return f"torch {name}"
    extras = [value for value in args if isinstance(value, str) and value != "none"]
    maps = [tensor for tensor in given if tensor.dim() == 4 and tensor.shape == given[0].shape]
    if name.startswith("batch_norm") and len(maps) > 1:
        extras.insert(0, "add")
    return name + "".join(f" + {extra}" for extra in extras)


def _samples(run: Callable[[], Any], repeats: int, calls: int, device: torch.device) -> Iterator[float]:
    for _ in range(repeats):
        _synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        _synchronize(device)
        yield (time.perf_counter() - start) / calls


def median_ms(run: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """The median time of a call in milliseconds. The first call warms up; short ones are timed several at once."""
    (first,) = _samples(run, 1, 1, device)
    calls = max(1, int(_LOOP_SECONDS / max(first, 1e-7)))
    return 1e3 * statistics.median(_samples(run, repeats, calls, device))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
