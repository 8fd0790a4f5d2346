"""Whole models: one training step (forward, loss, backward, SGD step) and inference, in images per second.

Both back ends run the same model definition with the same state_dict on the same batch. What is verified before timing:
for inference the outputs; for training the outputs, the loss, every gradient and every parameter after the step, all
against a float64 step of the native model; without dropout, whose draws differ, and timed with it. The learning rate is
small, so that thousands of timed steps on one random batch stay finite. To add a model, add a line to MODELS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import EAGER, FLOORS, OURS, Contest, Contestant, Runner, relative_error
from benchmarks.suites import Settings
from benchmarks.suites.variants import LAYOUTS, SEED, as_layout, compiled, frozen, graphed, random_tensors

LEARNING_RATE = 0.01
CLASSES = 10

# Gradients of a deep network cancel, so their error is larger than that of a single operation.
_FLOOR_FACTOR = 10
# In a training step a value next to the kink of a ReLU, or two next to each other under a maximum, may fall to either
# side: gradients of small batches are then off by some percent in norm, native torch's as well (GoogLeNet's by 2 % at
# batch 4). So the float32 step is held to this, and ours in float64, where nothing falls otherwise, to the reference.
_STEP_FLOOR = 0.05
_EXACT_STEP = 1e-8

WHY_SMALL_LAYERS = (
    "3x3 convolutions by Winograd's algorithm, batch normalisation fused with what follows it, no copy for a "
    "concatenation; oneDNN has no Winograd on x86"
)
WHY_LARGE_LAYERS = (
    "3x3 and 5x5 convolutions by Winograd's algorithm; convolution, ReLU and maximum pooling in one operation that "
    "keeps a byte per window for backward; oneDNN has no Winograd on x86 and ATen keeps eight bytes"
)
WHY_LENET = (
    "ATen's NCHW pooling is scalar, oneDNN pads LeNet's 1, 6 and 16 channels to its vector of 16, and at this size a "
    "good part of the time is dispatch"
)


@dataclass(frozen=True)
class Model:
    """A model of d2lkernels.models by name, with a batch of images of one size."""

    name: str
    batch: int
    size: int
    channels: int = 1
    why: str = ""
    chapter_batch: int | None = None  # what a GPU runs
    options: dict[str, Any] = field(default_factory=dict, compare=False)  # of models.build

    @property
    def case(self) -> str:
        return f"{self.name}.b{self.batch}"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"input": (self.batch, self.channels, self.size, self.size)}


MODELS: tuple[Model, ...] = (
    Model("lenet", 256, 28, why=WHY_LENET),
    Model("lenet", 1, 28, why=WHY_LENET),
    Model("bn_lenet", 256, 28, why=WHY_LENET),
    Model("alexnet", 16, 224, why=WHY_LARGE_LAYERS, chapter_batch=128),
    Model("vgg11", 8, 224, why=WHY_LARGE_LAYERS, chapter_batch=128),
    Model("nin", 8, 224, why=WHY_LARGE_LAYERS, chapter_batch=128),
    Model("googlenet", 16, 96, why=WHY_SMALL_LAYERS, chapter_batch=128),
    Model("resnet18", 16, 96, why=WHY_SMALL_LAYERS, chapter_batch=256),
    Model("densenet", 16, 96, why=WHY_SMALL_LAYERS, chapter_batch=256),
)
MODES = ("train_step", "inference")

EXPLANATIONS = {("model", model.case): model.why for model in MODELS}

Build = Callable[..., torch.nn.Module]


@dataclass(frozen=True)
class Backend:
    """Builds a model by name and options over native torch, and over our layers."""

    native: Build
    ours: Build


def _backend() -> Backend:
    models, ours = import_module("d2lkernels.models"), import_module("d2lkernels.nn")
    return Backend(partial(models.build, nn=torch.nn), partial(models.build, nn=ours))


def _autocast(settings: Settings) -> AbstractContextManager:
    if settings.dtype != "bfloat16":
        return nullcontext()
    return torch.autocast(settings.device, torch.bfloat16)


def _inference(
    model: torch.nn.Module, batch: torch.Tensor, autocast: AbstractContextManager, grad_mode: type
) -> Runner:
    def run() -> torch.Tensor:
        with grad_mode(), autocast:
            return model(batch)

    return Runner(run)


def _train_step(
    model: torch.nn.Module,
    forward: Callable,
    batch: torch.Tensor,
    target: torch.Tensor,
    autocast: AbstractContextManager,
) -> Runner:
    """`forward` is the model, or the model compiled."""
    initial = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            output = forward(batch)
            loss = F.cross_entropy(output, target)
        loss.backward()
        optimizer.step()
        return output, loss

    def reset() -> None:
        model.load_state_dict(initial)
        for module, _ in dropouts:
            module.p = 0.0

    def collect(outcome: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
        for module, p in dropouts:
            module.p = p
        return [*outcome, *_comparable(p.grad for p in parameters), *parameters]

    return Runner(step, collect, reset)


def _comparable(gradients: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients of vectors as one tensor: that of a bias before batch normalisation is zero but for rounding, and
    has no scale of its own."""
    gradients = list(gradients)
    vectors = [gradient for gradient in gradients if gradient.dim() == 1]
    return [*(gradient for gradient in gradients if gradient.dim() > 1), torch.cat(vectors)]


def _contest(case: Model, mode: str, settings: Settings, backend: Backend) -> Contest:
    device, training = settings.device, mode == "train_step"

    @cache
    def batch() -> torch.Tensor:
        return random_tensors(case.shapes(), device, torch.float32)["input"]

    @cache
    def target() -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(SEED)
        return torch.randint(CLASSES, (case.batch,), generator=generator, device=device)

    @cache
    def state() -> dict[str, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            return backend.native(case.name, **case.options).state_dict()

    def prepared(build: Build, layout: str) -> torch.nn.Module:
        model = build(case.name, **case.options)
        model.load_state_dict(state())
        memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        return model.to(device, memory_format=memory_format).train(training)

    def make(build: Build, layout: str, compile_it: bool = False, fold_it: bool = False, exact: bool = False) -> Runner:
        model, images = prepared(build, layout), as_layout(batch(), layout)
        if fold_it:
            model = import_module("d2lkernels").fold_batch_norm(model, inplace=True)
        autocast = nullcontext() if exact else _autocast(settings)
        if exact:
            model, images = model.double(), images.double()
        forward = compiled(model, device) if compile_it else model
        if training:
            return _train_step(model, forward, images, target(), autocast)
        # Freezing takes place under no_grad only.
        grad_mode = torch.no_grad if compile_it else torch.inference_mode
        return _inference(forward, images, autocast, grad_mode)

    @cache
    def reference() -> Sequence[torch.Tensor]:
        return [tensor.detach().clone() for tensor in make(backend.native, "nchw", exact=True).result()]

    def ours(layout: str) -> Runner:
        if training:
            error = relative_error(make(backend.ours, layout, exact=True).result(), reference())
            if not error <= _EXACT_STEP:
                raise ValueError(f"error {error:.2g} of the step in float64 is over the limit of {_EXACT_STEP:g}")
        return make(backend.ours, layout)

    contestants = []
    for layout in LAYOUTS:
        native, own = partial(make, backend.native, layout), partial(ours, layout)
        contestants += [Contestant(EAGER, layout, native), Contestant(OURS, layout, own)]
        if settings.compile:
            compile_native = partial(native, compile_it=True)
            contestants.append(Contestant(f"{EAGER}.compile", layout, compile_native))
            if not training:
                tuned = partial(frozen, compile_native)
                contestants.append(Contestant(f"{EAGER}.compile max-autotune freezing", layout, tuned))
        if not training and any(name.endswith("running_mean") for name in state()):
            contestants.append(Contestant(f"{OURS} folded", layout, partial(make, backend.ours, layout, fold_it=True)))
        if device == "cuda":
            contestants.append(Contestant(f"{EAGER} cuda-graph", layout, partial(graphed, native)))
            contestants.append(Contestant(f"{OURS} cuda-graph", layout, partial(graphed, own)))

    return Contest(
        "model",
        case.case,
        mode,
        settings.dtype,
        contestants,
        reference,
        max(_STEP_FLOOR, FLOORS[settings.dtype]) if training else _FLOOR_FACTOR * FLOORS[settings.dtype],
        flops=_flops(make(backend.native, "nchw")),
        images=case.batch,
        error_norm=2.0 if training else math.inf,
    )


def train_step(case: Model, settings: Settings) -> Contest:
    """The training step of one model, in eager mode."""
    return _contest(case, "train_step", replace(settings, compile=False), _backend())


def _flops(runner: Runner) -> int:
    """Of the convolutions and matrix products in one run."""
    with FlopCounterMode(display=False) as counter:
        runner.run()
    return counter.get_total_flops()


def contests(settings: Settings, backend: Backend | None = None, models: Sequence[Model] = MODELS) -> Iterator[Contest]:
    """Every model in every mode; `backend` is d2lkernels.models over torch.nn and over d2lkernels.nn unless given."""
    backend = backend or _backend()
    for case in models:
        if settings.smoke:
            case = replace(case, batch=min(case.batch, 4))
        elif settings.device == "cuda":
            case = replace(case, batch=case.chapter_batch or case.batch)
        for mode in MODES:
            if settings.pattern.search(f"model {case.case} {mode}"):
                yield _contest(case, mode, settings, backend)
