"""Single operations on the chapters' layers: forward, and each gradient by itself.

Gradients go through torch.autograd.grad for every contestant: the graph is recorded once outside the timed region, with
only the wanted argument requiring a gradient. The input, the weight and the output's gradient are given in the layout
of the row, and whatever a contestant converts or packs after that is timed.

To add a layer, add a line to LAYERS (the convolutions are in chapter_convolutions.py). `why` is what the report prints
next to a ratio over 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from benchmarks.harness import EAGER, FLOORS, OURS, Contest, Contestant, Runner
from benchmarks.suites import Settings
from benchmarks.suites.chapter_convolutions import CONVOLUTIONS
from benchmarks.suites.variants import LAYOUTS, as_layout, compiled, graphed, random_tensors

WHY_FEW_CHANNELS = (
    "few channels: oneDNN pads them to its vector of 16 and computes on the padding, the kernel here vectorises along "
    "an axis that is long enough"
)
WHY_WINOGRAD = (
    "Winograd's algorithm: up to 4x fewer multiplications than the direct one (so GFLOP/s count the direct one's), at "
    "an error of up to 2.5e-6 relative; oneDNN has none on x86"
)
WHY_AVERAGE = "ATen's NCHW average pooling is scalar; its channels_last one loads and stores its sums at every tap"
WHY_MAXIMUM = (
    "ATen's NCHW maximum pooling is scalar, its channels_last one loads and stores its maxima at every tap, and both "
    "keep an int64 index per output, eight bytes where one suffices"
)
WHY_NORM = (
    "ATen's statistics are scalar in NCHW and, in channels_last, take more passes over the input; with few channels "
    "its loops over them are short"
)
WHY_FUSED = "one pass where native makes two or three: what the activation is applied to is neither written nor read"
WHY_OVERHEAD = (
    "next to no arithmetic: the time is argument checks, dispatch, allocation, and for ATen the call of oneDNN"
)


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


def _norm(op: str, *shape: Any, **options: Any) -> Norm:
    return Norm(shape[0], op, *shape[1:], why=WHY_NORM if op == "batch_norm" else WHY_FUSED, **options)


def _max_pool(name: str, *shape: int, **options: Any) -> Pool:
    return Pool(name, "max_pool2d", *shape, why=WHY_MAXIMUM, **options)


def _avg_pool(name: str, *shape: int, **options: Any) -> Pool:
    return Pool(name, "avg_pool2d", *shape, why=WHY_AVERAGE, **options)


def _chapter_convolution(name: str, batch: int, chapter_batch: int, *geometry: int) -> Conv:
    conv = Conv(name, batch, *geometry, gpu_batch=chapter_batch)
    if min(conv.c, conv.k) <= 16:
        return replace(conv, why=WHY_FEW_CHANNELS)
    return replace(conv, why=WHY_WINOGRAD if conv.stride == 1 and conv.kernel in (3, 5) else "")


LAYERS: tuple[Conv | Pool | Norm | Dense, ...] = (
    *(_chapter_convolution(*shape) for shape in CONVOLUTIONS),
    _avg_pool("lenet.pool1", 256, 6, 28, 2),
    _avg_pool("lenet.pool2", 256, 16, 10, 2),
    _max_pool("lenet.pool1", 256, 6, 28, 2),
    _max_pool("lenet.pool2", 256, 16, 10, 2),
    Pool("lenet.global", "adaptive_avg_pool2d", 256, 16, 10, 1),
    Pool("lenet.global", "adaptive_max_pool2d", 256, 16, 10, 1, why=WHY_MAXIMUM),
    _max_pool("alexnet.pool1", 16, 96, 54, 3, stride=2, gpu_batch=128),
    Pool("nin.global", "adaptive_avg_pool2d", 64, 10, 5, 1, gpu_batch=128),
    _max_pool("googlenet.pool", 16, 256, 12, 3, stride=1, padding=1, gpu_batch=128),
    _max_pool("resnet.pool1", 16, 64, 48, 3, stride=2, padding=1, gpu_batch=256),
    _norm("batch_norm", "bn_lenet.bn1", 256, 6, 28),
    _norm("batch_norm", "bn_lenet.bn2", 256, 16, 10),
    _norm("batch_norm", "resnet.bn1", 16, 64, 24, gpu_batch=256),
    _norm("batch_norm", "resnet.bn4", 16, 512, 3, gpu_batch=256),
    _norm("batch_norm_relu", "resnet.bn1", 16, 64, 24, gpu_batch=256),
    _norm("batch_norm_relu", "resnet.bn2", 16, 128, 12, gpu_batch=256),
    _norm("batch_norm_relu", "densenet.bn", 16, 96, 24, gpu_batch=256),
    _norm("batch_norm_add_relu", "resnet.bn1", 16, 64, 24, gpu_batch=256),
    _norm("batch_norm_add_relu", "resnet.bn3", 16, 256, 6, gpu_batch=256),
    _norm("batch_norm_add_relu", "resnet.bn4", 16, 512, 3, gpu_batch=256),
    _norm("add_relu", "resnet.block1", 16, 64, 24, gpu_batch=256),
    Dense("mlp.hidden", 256, 784, 256),
    Dense("lenet.fc1", 256, 400, 120),
    Dense("lenet.fc2", 256, 120, 84),
    Dense("lenet.fc3", 256, 84, 10),
    Dense("alexnet.fc1", 16, 6400, 4096, gpu_batch=128),
    Dense("alexnet.fc2", 16, 4096, 4096, gpu_batch=128),
    Dense("alexnet.fc1.b1", 1, 6400, 4096),
    Dense("vgg.fc1", 16, 6272, 4096, gpu_batch=128),
    Dense("resnet.head", 256, 512, 10),
    Conv("overhead", 1, 1, 3, 1, 3, why=WHY_OVERHEAD),
    Pool("overhead", "max_pool2d", 1, 1, 2, 2, why=WHY_OVERHEAD),
    Norm("overhead", "batch_norm", 2, 1, 2, why=WHY_OVERHEAD),
)

EXPLANATIONS = {(layer.op, layer.name): layer.why for layer in LAYERS}


def _builder(
    layer: Conv | Pool | Norm | Dense,
    ops: Any,
    drawn: Callable[[], dict],
    layout: str,
    wanted: str | tuple[str, ...] | None,
    compile_on: str | None = None,
) -> Callable[[], Runner]:
    """Makes the forward call, or autograd of it for the arguments `wanted`; compiled for the device `compile_on`."""

    def build() -> Runner:
        tensors = {name: as_layout(tensor, layout) for name, tensor in drawn().items()}
        grad_output = tensors.pop("grad_output")

        def forward() -> torch.Tensor:
            return layer.call(ops, tensors)

        call = forward if compile_on is None else compiled(forward, compile_on)
        if wanted is None:
            return Runner(call)
        names = (wanted,) if isinstance(wanted, str) else wanted
        arguments = [tensors[name].requires_grad_() for name in names]
        output = call()
        return Runner(lambda: torch.autograd.grad(output, arguments, grad_output, retain_graph=True), list)

    return build


def _contest(layer: Conv | Pool | Norm | Dense, mode: str, settings: Settings, ours: Any) -> Contest:
    device, wanted = settings.device, layer.gradients.get(mode)

    @cache
    def drawn() -> dict[str, torch.Tensor]:
        shapes = layer.shapes() | {"grad_output": layer.out_shape()}
        return random_tensors(shapes, device, settings.torch_dtype)

    def reference() -> list[torch.Tensor]:
        exact = {name: tensor.double() for name, tensor in drawn().items()}
        return list(_builder(layer, F, lambda: exact, "nchw", wanted)().result())

    contestants = []
    for layout in LAYOUTS:
        native = _builder(layer, F, drawn, layout, wanted)
        own = _builder(layer, ours, drawn, layout, wanted)
        contestants += [Contestant(EAGER, layout, native), Contestant(OURS, layout, own)]
        if settings.compile:
            build = _builder(layer, F, drawn, layout, wanted, compile_on=device)
            contestants.append(Contestant(f"{EAGER}.compile", layout, build))
        if device == "cuda":
            contestants.append(Contestant(f"{EAGER} cuda-graph", layout, partial(graphed, native)))
            contestants.append(Contestant(f"{OURS} cuda-graph", layout, partial(graphed, own)))
    moved, flops = layer.cost(mode, settings.torch_dtype.itemsize)
    return Contest(
        layer.op,
        layer.name,
        mode,
        settings.dtype,
        contestants,
        reference,
        layer.floors[settings.dtype],
        flops=flops,
        bytes=moved,
        images=layer.batch,
        error_norm=getattr(layer, "error_norm", math.inf),
    )


def contests(
    settings: Settings, ours: Any = None, layers: Sequence[Conv | Pool | Norm | Dense] = LAYERS
) -> Iterator[Contest]:
    """Every layer in every mode. `ours` is the namespace of our functions, d2lkernels.ops unless given."""
    if ours is None:
        ours = import_module("d2lkernels.ops")
    seen = set()
    for layer in layers:
        if settings.smoke:
            layer = layer.tiny()
            nameless = replace(layer, name="", why="")
            if nameless in seen:
                continue
            seen.add(nameless)
        elif settings.device == "cuda":
            layer = replace(layer, batch=layer.gpu_batch or layer.batch)
        for mode in ("forward", *layer.gradients):
            contest = _contest(layer, mode, settings, ours)
            if settings.pattern.search(contest.name):
                yield contest
