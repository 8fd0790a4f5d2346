"""What a model costs, layer by layer and in all."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch

from .recorder import Layer, Recorder, median_ms
from .roofline import Roofline

OPTIMIZER_STATES = {"sgd": 0, "adam": 2}
"""Numbers that an optimizer keeps for each parameter."""


@dataclass(frozen=True)
class Bound:
    """How close a layer comes to what the device can do: the least time by the roofline over the time measured."""

    forward: float
    backward: float


@dataclass(frozen=True)
class Profile:
    """The layers of a model in the order in which they ran, and what training it needs.

    Attributes:
        layers: see :class:`Layer`.
        batch_size: of the input, its first dimension.
        parameters: the number of different parameters.
        parameter_bytes, buffer_bytes, input_bytes: their memory.
        step_ms: median time of a whole training step (forward, backward, SGD without momentum) in milliseconds, run
            as training runs it; NaN if nothing was timed.
        bounds: one for each layer, or None without a roofline or times.
        peak: of the roofline, in words.
    """

    layers: tuple[Layer, ...]
    batch_size: int
    parameters: int
    parameter_bytes: int
    buffer_bytes: int
    input_bytes: int
    step_ms: float
    bounds: tuple[Bound, ...] | None
    peak: str

    def total(self, attribute: str) -> float:
        """The sum of an attribute over the layers."""
        return sum(getattr(layer, attribute) for layer in self.layers)

    def macs(self, *kinds: str) -> int:
        """Multiply-accumulates of one forward pass for one input of the batch.

        Args:
            kinds: beginnings of the kernels' names that count ("conv2d"); all of them if there is none.
        """
        return (
            sum(
                layer.macs
                for layer in self.layers
                if not kinds or layer.kernel.removeprefix("torch ").startswith(kinds)
            )
            // self.batch_size
        )

    def training_bytes(self, batch_size: int | None = None, optimizer: str = "sgd") -> int:
        """About how much memory a training step takes at its peak, beyond what the process holds without a model.

        Parameters, their gradients, the optimizer's state and the buffers; the input; what the layers save for the
        backward pass, and the gradients on their way through it. Not counted are the workspaces of the kernels and what
        the allocator holds back. Where the backward pass of a layer runs, what later layers had saved is gone, and the
        gradients of their parameters are there: the peak is the largest such sum.

        Args:
            batch_size: of the step; None for that of the profile. What depends on it grows in proportion.
            optimizer: a name in :data:`OPTIMIZER_STATES`.

        Raises:
            ValueError: batch_size below 1, or an unknown optimizer.
        """
        if optimizer not in OPTIMIZER_STATES:
            known = ", ".join(OPTIMIZER_STATES)
            raise ValueError(f"training_bytes(): expected optimizer to be one of {known}, but got {optimizer!r}")
        batch_size = self.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f"training_bytes(): expected batch_size to be at least 1, but got {batch_size}")
        each = self.parameter_bytes // max(self.parameters, 1)
        saved, gradients, peak = self.total("saved"), 0.0, 0.0
        scale = batch_size / self.batch_size
        for layer in reversed(self.layers):
            gradients += layer.parameters * each
            peak = max(peak, (saved + layer.transient) * scale + gradients)
            saved -= layer.saved
        fixed = self.parameter_bytes * (1 + OPTIMIZER_STATES[optimizer]) + self.buffer_bytes
        return int(fixed + self.input_bytes * scale + max(peak, self.parameter_bytes))


def profile(
    model: torch.nn.Module, input: torch.Tensor, *, repeats: int = 5, roofline: Roofline | None = None
) -> Profile:
    """Runs a training step of a model op by op, and times and counts each op.

    Every op is timed where it runs in the forward pass, on its own, forward and backward: the median of some repeats,
    with what it reads still in the cache if that is large enough. What the package runs as one op is one layer.

    Args:
        model: a module without in-place operations on activations. A copy is profiled, in training mode.
        input: a batch for it.
        repeats: how often to time each layer; 0 to time nothing.
        roofline: what to compare the times with.

    Raises:
        ValueError: repeats below 0, or an input without a batch.

    Example:
        >>> from d2lkernels import models
        >>> result = profile(models.build("lenet"), torch.rand(2, 1, 28, 28), repeats=0)
        >>> result.parameters, result.macs()
        (61706, 416520)
    """
    if repeats < 0:
        raise ValueError(f"profile(): expected repeats to be at least 0, but got {repeats}")
    if input.dim() < 2 or not len(input):
        raise ValueError(f"profile(): expected input to be a batch, but got a tensor of size {list(input.shape)}")
    model = copy.deepcopy(model).train()
    recorder = Recorder(model, repeats)
    with torch.enable_grad(), recorder:
        model(recorder.watch(input.detach()))
    layers = tuple(recorder.layers)
    del recorder  # and with it what was saved
    parameters = list(model.parameters())
    bounds = None
    if roofline is not None and repeats:
        bounds = tuple(_bound(layer, roofline) for layer in layers)
    return Profile(
        layers=layers,
        batch_size=len(input),
        parameters=sum(parameter.numel() for parameter in parameters),
        parameter_bytes=sum(parameter.nbytes for parameter in parameters),
        buffer_bytes=sum(buffer.nbytes for buffer in model.buffers()),
        input_bytes=input.nbytes,
        step_ms=_step_ms(model, input, repeats) if repeats else math.nan,
        bounds=bounds,
        peak="" if roofline is None else f"{roofline.gflops('float32'):,.0f} GFLOP/s",
    )


def _bound(layer: Layer, roofline: Roofline) -> Bound:
    flops_per_ms = roofline.gflops("float32") * 1e6

    def share(macs: int, moved: int, ms: float) -> float:
        least = max(2 * macs / flops_per_ms, moved / (roofline.copy_gbps(moved) * 1e6) if moved else 0.0)
        return least / ms if least and ms else math.nan

    return Bound(
        share(layer.macs, layer.moved, layer.forward_ms),
        share(layer.backward_macs, layer.moved_backward, layer.backward_ms),
    )


def _step_ms(model: torch.nn.Module, input: torch.Tensor, repeats: int) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(input).sum().backward()
        optimizer.step()

    step()
    return median_ms(step, repeats, input.device)
