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
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.harness import EAGER, OURS, Contest, Contestant, Runner
from benchmarks.suites import Settings
from benchmarks.suites.chapter_convolutions import CONVOLUTIONS
from benchmarks.suites.layers import Block, Concat, Conv, Dense, FusedConv, GroupedConv, Layer, Norm, Pool, Rows
from benchmarks.suites.variants import LAYOUTS, as_layout, compiled, graphed, random_tensors

WHY_FEW_CHANNELS = (
    "few channels: oneDNN pads them to its vector of 16 and computes on the padding, the kernel here vectorises along "
    "an axis that is long enough"
)
WHY_WINOGRAD = (
    "Winograd's algorithm: up to 6.25x fewer multiplications than the direct one (so GFLOP/s count the direct one's), "
    "at a relative L2 error of up to 3.5e-6; oneDNN has none on x86"
)
WHY_STRIDED_WINOGRAD = (
    "Winograd's algorithm for the taps that meet even pixels: 1.65x fewer multiplications than the direct one; "
    "oneDNN's gradients with this stride take 1.0 to 1.8 times as long as its forward pass"
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
WHY_FUSED_CONV = (
    "what the convolution and the pool gain by themselves (see there), and the map between them is read while it is in "
    "the cache"
)
WHY_BLOCK = "3x3 convolutions by Winograd's algorithm; no copy for a concatenation, statistics of a channel taken once"
WHY_PRODUCT = (
    "matrix products that torch has MKL compute, whose report (MKL_VERBOSE=1) names no AVX-512 code on this machine; "
    "the kernel here uses AVX-512 wherever it is"
)
WHY_STRIDED = (
    "oneDNN's code for a strided input gradient (brgconv_strided, says ONEDNN_VERBOSE=1) does 65 GFLOP/s where the "
    "kernel here does 140, and in NCHW both maps are reordered for it"
)
WHY_GROUPS = "with some kernels and layouts ATen's depthwise and grouped gradients are not vectorised"
WHY_TANH = (
    "ATen leaves tanh to MKL, which runs its high-accuracy code for the oldest processors on this one "
    "(mkl_vml_kernel_sTanh_EXHAynn, says perf); sigmoid, which ATen vectorises itself, is no such case"
)
WHY_ADAPTIVE = "ATen's backward adds to one element at a time"
WHY_MEAN = "ATen calls its general mean over two axes, which takes half of this time for a single element"
WHY_SHORT_ROWS = "a vector holds 16 rows here, while ATen's go along a row, which is shorter than one"
WHY_LOSS = "one pass over the logits where native makes a log_softmax and reads it again"
WHY_OVERHEAD = (
    "next to no arithmetic: the time is argument checks, dispatch, allocation, and for ATen the call of oneDNN"
)


def _norm(op: str, *shape: Any, **options: Any) -> Norm:
    return Norm(shape[0], op, *shape[1:], why=WHY_NORM if op == "batch_norm" else WHY_FUSED, **options)


def _grouped(name: str, c: int, size: int, kernel: int, **options: Any) -> GroupedConv:
    return GroupedConv(name, 16, c, size, c, kernel, padding=kernel // 2, why=WHY_GROUPS, **options)


def _fused(name: str, batch: int, c: int, size: int, k: int, kernel: int, **options: Any) -> FusedConv:
    return FusedConv(name, batch, c, size, k, kernel, why=WHY_FUSED_CONV, **options)


def _max_pool(name: str, *shape: int, **options: Any) -> Pool:
    return Pool(name, "max_pool2d", *shape, why=WHY_MAXIMUM, **options)


def _avg_pool(name: str, *shape: int, **options: Any) -> Pool:
    return Pool(name, "avg_pool2d", *shape, why=WHY_AVERAGE, **options)


def _dense(name: str, *shape: int, **options: Any) -> Dense:
    return Dense(name, *shape, why=WHY_PRODUCT, **options)


def _chapter_convolution(name: str, batch: int, chapter_batch: int, *geometry: int) -> Conv:
    conv = Conv(name, batch, *geometry, gpu_batch=chapter_batch)
    if min(conv.c, conv.k) <= 16:
        return replace(conv, why=WHY_FEW_CHANNELS)
    if conv.stride == 1 and conv.kernel == 1:
        return replace(conv, why=WHY_PRODUCT)
    if conv.kernel == 1:
        return replace(conv, why=WHY_STRIDED)
    if conv.stride == 2 and conv.kernel == 3:
        return replace(conv, why=WHY_STRIDED_WINOGRAD)
    return replace(conv, why=WHY_WINOGRAD if conv.stride == 1 and conv.kernel in (3, 5) else "")


LAYERS: tuple[Layer, ...] = (
    *(_chapter_convolution(*shape) for shape in CONVOLUTIONS),
    _grouped("depthwise.3x3", 144, 28, 3, groups=144),
    _grouped("depthwise.3x3.stride2", 144, 28, 3, groups=144, stride=2),
    _grouped("depthwise.5x5", 240, 14, 5, groups=240),
    _grouped("depthwise.3x3.small", 960, 7, 3, groups=960),
    _grouped("resnext.3x3", 128, 28, 3, groups=32),
    _avg_pool("lenet.pool1", 256, 6, 28, 2),
    _avg_pool("lenet.pool2", 256, 16, 10, 2),
    _max_pool("lenet.pool1", 256, 6, 28, 2),
    _max_pool("lenet.pool2", 256, 16, 10, 2),
    Pool("lenet.global", "adaptive_avg_pool2d", 256, 16, 10, 1, why=WHY_ADAPTIVE),
    Pool("lenet.global", "adaptive_max_pool2d", 256, 16, 10, 1, why=WHY_MAXIMUM),
    _max_pool("alexnet.pool1", 16, 96, 54, 3, stride=2, gpu_batch=128),
    Pool("nin.global", "adaptive_avg_pool2d", 64, 10, 5, 1, gpu_batch=128, why=WHY_MEAN),
    _max_pool("googlenet.pool", 16, 256, 12, 3, stride=1, padding=1, gpu_batch=128),
    _max_pool("resnet.pool1", 16, 64, 48, 3, stride=2, padding=1, gpu_batch=256),
    _avg_pool("googlenet.pool", 16, 256, 12, 3, stride=1, padding=1, gpu_batch=128),
    _avg_pool("resnet.pool1", 16, 64, 48, 3, stride=2, padding=1, gpu_batch=256),
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
    _dense("mlp.hidden", 256, 784, 256),
    _dense("lenet.fc1", 256, 400, 120),
    _dense("lenet.fc2", 256, 120, 84),
    _dense("lenet.fc3", 256, 84, 10),
    _dense("alexnet.fc1", 16, 6400, 4096, gpu_batch=128),
    _dense("alexnet.fc2", 16, 4096, 4096, gpu_batch=128),
    _dense("alexnet.fc1.b1", 1, 6400, 4096),
    _dense("vgg.fc1", 16, 6272, 4096, gpu_batch=128),
    _dense("resnet.head", 256, 512, 10),
    _fused("lenet.conv1", 256, 1, 28, 6, 5, padding=2, activation="sigmoid", pool="avg", first=True),
    _fused("lenet.conv2", 256, 6, 14, 16, 5, activation="sigmoid", pool="avg"),
    _fused("alexnet.conv1", 16, 1, 224, 96, 11, stride=4, padding=1, window=(3, 2), first=True, gpu_batch=128),
    _fused("alexnet.conv2", 16, 96, 26, 256, 5, padding=2, window=(3, 2), gpu_batch=128),
    _fused("vgg11.conv2", 4, 64, 112, 128, 3, padding=1, gpu_batch=128),
    _fused("vgg11.conv8", 8, 512, 14, 512, 3, padding=1, gpu_batch=128),
    Block("densenet.block1", 16, 64, 24, 4, gpu_batch=256, why=WHY_BLOCK),
    Block("densenet.block3", 16, 128, 6, 4, gpu_batch=256, why=WHY_BLOCK),
    Block("densenet.deep", 4, 64, 24, 16, gpu_batch=64, why=WHY_BLOCK),
    Concat("googlenet.inception1", 16, (64, 128, 32, 32), 12, gpu_batch=128),
    Rows("mlp.hidden", "relu", 256, 256, why=WHY_OVERHEAD),
    Rows("map", "relu", 256, 48_400),
    Rows("lenet.map1", "sigmoid", 256, 4_704),
    Rows("lenet.map1", "tanh", 256, 4_704, why=WHY_TANH),
    Rows("classes10", "softmax", 256, 10, why=WHY_SHORT_ROWS),
    Rows("classes1000", "log_softmax", 256, 1_000),
    Rows("classes10", "cross_entropy", 256, 10, target="classes", why=WHY_OVERHEAD),
    Rows("classes1000", "cross_entropy", 256, 1_000, target="classes", why=WHY_LOSS),
    Rows("values", "mse_loss", 256, 100, target="values", why=WHY_OVERHEAD),
    Conv("overhead", 1, 1, 3, 1, 3, why=WHY_OVERHEAD),
    Pool("overhead", "max_pool2d", 1, 1, 2, 2, why=WHY_OVERHEAD),
    Norm("overhead", "batch_norm", 2, 1, 2, why=WHY_OVERHEAD),
)

EXPLANATIONS = {(layer.op, layer.name): layer.why for layer in LAYERS}


def _builder(
    layer: Layer,
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
        if hasattr(layer, "prepare"):
            tensors = layer.prepare(tensors)

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


def _contest(layer: Layer, mode: str, settings: Settings, ours: Any) -> Contest:
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


def contests(settings: Settings, ours: Any = None, layers: Sequence[Layer] = LAYERS) -> Iterator[Contest]:
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
