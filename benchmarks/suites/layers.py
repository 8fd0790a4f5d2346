"""Layers as data: what a benchmark of single operations runs, on which shapes, and what it costs at the least.

A layer has `op` (its name in d2lkernels.ops) and `name`; `shapes()` of the arguments by name and `out_shape()`;
`gradients`, the arguments to differentiate for, by mode; `call(ops, tensors)` over d2lkernels.ops or torch's functions;
`cost(mode, bytes of an element)`, the bytes that have to move at the least and the FLOPs; `prepare(tensors)` where
drawn tensors do not serve as they are; `tiny()`, a small relative for tests; `floors` of the gate, and where it is not
the maximum, `error_norm`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from benchmarks.harness import FLOORS


@dataclass(frozen=True)
class Conv:
    """A square convolution layer. `gpu_batch` is the chapter's batch where the CPU runs a smaller one."""

    name: str
    batch: int
    c: int
    size: int
    k: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    gpu_batch: int | None = None
    why: str = ""

    op: ClassVar[str] = "conv2d"
    gradients: ClassVar[dict[str, str]] = {"input_grad": "input", "weight_grad": "weight"}
    floors: ClassVar[dict[str, float]] = FLOORS

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def tiny(self) -> Conv:
        return replace(self, batch=2, gpu_batch=2, c=min(self.c, 8), k=min(self.k, 8), size=min(self.size, 24))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        weight = (self.k, self.c // self.groups, self.kernel, self.kernel)
        return {"input": (self.batch, self.c, self.size, self.size), "weight": weight, "bias": (self.k,)}

    def out_shape(self) -> tuple[int, ...]:
        return self.batch, self.k, self.out_size, self.out_size

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return ops.conv2d(**tensors, stride=self.stride, padding=self.padding, groups=self.groups)

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        """Bytes that have to move at the least, and FLOPs; taps on the padding count."""
        x = self.batch * self.c * self.size**2
        y = self.batch * self.k * self.out_size**2
        w = self.k * self.c // self.groups * self.kernel**2
        bias = self.k if mode == "forward" else 0
        return (x + y + w + bias) * item, 2 * y * w // self.k


@dataclass(frozen=True)
class GroupedConv(Conv):
    """The same with groups of few channels, of which the chapters have none."""

    op: ClassVar[str] = "grouped_conv2d"

    def tiny(self) -> GroupedConv:
        return replace(super().tiny(), groups=min(self.groups, 8))


@dataclass(frozen=True)
class Pool:
    """A square pooling layer; an adaptive one has its output size in `kernel`."""

    name: str
    op: str
    batch: int
    c: int
    size: int
    kernel: int
    stride: int | None = None
    padding: int = 0
    gpu_batch: int | None = None
    why: str = ""

    gradients: ClassVar[dict[str, str]] = {"backward": "input"}
    floors: ClassVar[dict[str, float]] = {"float32": 1e-6, "tf32": 1e-6, "bfloat16": 1e-2}

    @property
    def adaptive(self) -> bool:
        return self.op.startswith("adaptive")

    @property
    def out_size(self) -> int:
        if self.adaptive:
            return self.kernel
        return (self.size + 2 * self.padding - self.kernel) // (self.stride or self.kernel) + 1

    def tiny(self) -> Pool:
        return replace(self, batch=2, gpu_batch=2, c=min(self.c, 8), size=min(self.size, 16))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"input": (self.batch, self.c, self.size, self.size)}

    def out_shape(self) -> tuple[int, ...]:
        return self.batch, self.c, self.out_size, self.out_size

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.adaptive:
            return getattr(ops, self.op)(**tensors, output_size=self.kernel)
        return getattr(ops, self.op)(
            **tensors, kernel_size=self.kernel, stride=self.stride or self.kernel, padding=self.padding
        )

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        """Bytes at the least (backward of a maximum: one byte per output says where it was), and additions or
        comparisons."""
        x = self.batch * self.c * self.size**2
        y = self.batch * self.c * self.out_size**2
        offsets = y if mode == "backward" and "max" in self.op else 0
        window = (-(-self.size // self.kernel) if self.adaptive else self.kernel) ** 2
        return (x + y) * item + offsets, y if offsets else y * window


@dataclass(frozen=True)
class Norm:
    """Batch normalisation in training, alone or with what is fused to it, or add_relu; backward for all arguments."""

    name: str
    op: str
    batch: int
    c: int
    size: int
    gpu_batch: int | None = None
    why: str = ""

    floors: ClassVar[dict[str, float]] = {"float32": 1e-3, "tf32": 1e-3, "bfloat16": 2e-2}

    @property
    def gradients(self) -> dict[str, tuple[str, ...]]:
        return {"backward": tuple(self.shapes())}

    @property
    def error_norm(self) -> float:
        """A rounding may move an element across the kink of a ReLU, which changes its gradient altogether."""
        return 2.0

    @property
    def residual(self) -> bool:
        return "add" in self.op

    def tiny(self) -> Norm:
        return replace(self, batch=2, gpu_batch=2, c=min(self.c, 8), size=min(self.size, 16))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        maps = {"input": self.out_shape()} | ({"residual": self.out_shape()} if self.residual else {})
        return maps if self.op == "add_relu" else maps | {"weight": (self.c,), "bias": (self.c,)}

    def out_shape(self) -> tuple[int, ...]:
        return self.batch, self.c, self.size, self.size

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        maps = [tensors["input"], *([tensors["residual"]] if self.residual else [])]
        if self.op == "add_relu":
            return ops.add_relu(*maps) if hasattr(ops, self.op) else F.relu(maps[0] + maps[1])
        parameters = (None, None, tensors["weight"], tensors["bias"], True)
        if hasattr(ops, self.op):
            return getattr(ops, self.op)(*maps, *parameters)
        output = ops.batch_norm(maps[0], *parameters)
        return F.relu(output + maps[1] if self.residual else output)

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        """Every tensor once, though the statistics, or the sums of the gradients, come before anything is written."""
        elements = self.batch * self.c * self.size**2
        maps = 2 + self.residual if mode == "forward" else 3 + 2 * self.residual
        return maps * elements * item, 8 * elements


@dataclass(frozen=True)
class Dense:
    """A fully connected layer. `gpu_batch` is the chapter's batch where the CPU runs a smaller one."""

    name: str
    batch: int
    inputs: int
    outputs: int
    gpu_batch: int | None = None
    why: str = ""

    op: ClassVar[str] = "linear"
    gradients: ClassVar[dict[str, str]] = {"input_grad": "input", "weight_grad": "weight"}
    floors: ClassVar[dict[str, float]] = FLOORS

    def tiny(self) -> Dense:
        return replace(self, batch=2, gpu_batch=2, inputs=min(self.inputs, 16), outputs=min(self.outputs, 8))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"input": (self.batch, self.inputs), "weight": (self.outputs, self.inputs), "bias": (self.outputs,)}

    def out_shape(self) -> tuple[int, ...]:
        return self.batch, self.outputs

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return ops.linear(**tensors)

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        matrices = self.batch * (self.inputs + self.outputs) + self.inputs * self.outputs
        bias = self.outputs if mode == "forward" else 0
        return (matrices + bias) * item, 2 * self.batch * self.inputs * self.outputs


@dataclass(frozen=True)
class FusedConv(Conv):
    """A convolution with bias, the activation behind it and a square pool without padding; backward for all arguments
    of a layer inside a network, for the parameters alone of a first one."""

    activation: str = "relu"
    pool: str = "max"
    window: tuple[int, int] = (2, 2)  # size and stride
    first: bool = False

    # One value may pass another under a maximum, or the kink of a ReLU, by a rounding: a few elements then differ.
    error_norm: ClassVar[float] = 2.0
    floors: ClassVar[dict[str, float]] = {"float32": 1e-3, "tf32": 3e-2, "bfloat16": 5e-2}

    @property
    def op(self) -> str:
        return f"conv2d_{self.pool}_pool2d"

    @property
    def gradients(self) -> dict[str, tuple[str, ...]]:
        return {"backward": ("weight", "bias") if self.first else ("input", "weight", "bias")}

    def out_shape(self) -> tuple[int, ...]:
        size = (self.out_size - self.window[0]) // self.window[1] + 1
        return self.batch, self.k, size, size

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        tensors = dict(tensors)
        arguments = [tensors.pop("input"), tensors.pop("weight"), tensors.pop("bias")]
        geometry = {"stride": self.stride, "padding": self.padding, "groups": self.groups}
        if hasattr(ops, self.op):
            window = {"pool_size": self.window[0], "pool_stride": self.window[1]}
            return getattr(ops, self.op)(*arguments, **geometry, activation=self.activation, **window)
        output = getattr(torch, self.activation)(ops.conv2d(*arguments, **geometry))
        return getattr(ops, f"{self.pool}_pool2d")(output, *self.window)

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        moved, flops = super().cost("forward", item)
        full, pooled = self.k * self.out_size**2, self.k * self.out_shape()[2] ** 2
        moved -= self.batch * (full - pooled) * item
        # Backward reads what forward read and the gradient, and writes as much; each gradient costs a convolution.
        return (moved, flops) if mode == "forward" else (2 * moved, flops * (1 if self.first else 2))


@dataclass(frozen=True)
class Block:
    """A dense block in training: layers of batch normalisation, ReLU and 3 x 3 convolution."""

    name: str
    batch: int
    c: int
    size: int
    layers: int
    growth: int = 32
    gpu_batch: int | None = None
    why: str = ""

    op: ClassVar[str] = "dense_block"
    error_norm: ClassVar[float] = 2.0
    floors: ClassVar[dict[str, float]] = {"float32": 1e-4, "tf32": 3e-2, "bfloat16": 1e-1}

    @property
    def gradients(self) -> dict[str, tuple[str, ...]]:
        return {"backward": tuple(self.shapes())}

    def tiny(self) -> Block:
        return replace(self, batch=2, gpu_batch=2, c=min(self.c, 8), size=min(self.size, 8), layers=2, growth=4)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"input": (self.batch, self.c, self.size, self.size)}
        for layer in range(self.layers):
            width = self.c + layer * self.growth
            shapes |= {f"gamma{layer}": (width,), f"beta{layer}": (width,)}
            shapes |= {f"weight{layer}": (self.growth, width, 3, 3), f"bias{layer}": (self.growth,)}
        return shapes

    def prepare(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every beta four standard deviations from the kink of the ReLU, where roundings would decide on gradients."""
        betas = {f"beta{layer}": tensors[f"gamma{layer}"] for layer in range(self.layers)}
        return tensors | {name: (4 * gamma.abs()).copysign(tensors[name]) for name, gamma in betas.items()}

    def out_shape(self) -> tuple[int, ...]:
        return self.batch, self.c + self.layers * self.growth, self.size, self.size

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        input, *parameters = tensors.values()
        if hasattr(ops, self.op):
            return ops.dense_block(input, parameters)[0]
        for layer in range(self.layers):
            gamma, beta, weight, bias = parameters[4 * layer : 4 * layer + 4]
            normalized = F.relu(F.batch_norm(input, None, None, gamma, beta, True))
            input = torch.cat([input, F.conv2d(normalized, weight, bias, padding=1)], 1)
        return input

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        """Each layer reads the channels before it and writes its own; backward does so three times."""
        pixels = self.batch * self.size**2
        widths = [self.c + layer * self.growth for layer in range(self.layers)]
        moved = pixels * sum(width + self.growth for width in widths) * item
        flops = 2 * pixels * self.growth * 9 * sum(widths)
        return (moved, flops) if mode == "forward" else (3 * moved, 2 * flops)


@dataclass(frozen=True)
class Concat:
    """Maps joined by channel."""

    name: str
    batch: int
    channels: tuple[int, ...]
    size: int
    gpu_batch: int | None = None
    why: str = ""

    op: ClassVar[str] = "concat"
    floors: ClassVar[dict[str, float]] = {"float32": 0.0, "tf32": 0.0, "bfloat16": 0.0}

    @property
    def gradients(self) -> dict[str, tuple[str, ...]]:
        return {"backward": tuple(self.shapes())}

    def tiny(self) -> Concat:
        return replace(self, batch=2, gpu_batch=2, channels=self.channels[:2], size=min(self.size, 4))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"input{i}": (self.batch, c, self.size, self.size) for i, c in enumerate(self.channels)}

    def out_shape(self) -> tuple[int, ...]:
        return self.batch, sum(self.channels), self.size, self.size

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return getattr(ops, self.op, torch.cat)(list(tensors.values()), 1)

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        return 2 * self.batch * sum(self.channels) * self.size**2 * item, 0


@dataclass(frozen=True)
class Rows:
    """An activation, softmax or loss over a matrix; `target` is the kind of target of a loss."""

    name: str
    op: str
    batch: int
    columns: int
    target: str = ""  # classes, values
    gpu_batch: int | None = None
    why: str = ""

    gradients: ClassVar[dict[str, str]] = {"backward": "input"}
    floors: ClassVar[dict[str, float]] = FLOORS

    def tiny(self) -> Rows:
        return replace(self, batch=3, gpu_batch=3, columns=min(self.columns, 10))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        matrix = (self.batch, self.columns)
        return {"input": matrix, "target": matrix} if self.target else {"input": matrix}

    def out_shape(self) -> tuple[int, ...]:
        return () if self.target else (self.batch, self.columns)

    def prepare(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Random values to class indices, before anything is timed."""
        return tensors | {"target": tensors["target"].argmax(1)} if self.target == "classes" else tensors

    def call(self, ops: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        options = {"dim": 1} if "softmax" in self.op else {}
        return getattr(ops, self.op)(**tensors, **options)

    def cost(self, mode: str, item: int) -> tuple[int, int]:
        elements = self.batch * self.columns
        read = 2 if self.target == "values" else 1
        written = 1 if mode == "backward" or not self.target else 0
        # An activation's gradient is made of its output's gradient and its output.
        extra = 1 if mode == "backward" and not self.target else 0
        return (read + written + extra) * elements * item, elements


Layer = Conv | Pool | Norm | Dense | FusedConv | Block | Concat | Rows
