"""Every model of images learns part of the embedded sample, small and short, with both back ends alike.

docs/chapters.md has what whole runs on the sample reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from d2lkernels import models
from d2lkernels import nn as our_nn
from d2lkernels.data import load_fashion_mnist

PER_CLASS = 24
BATCH = 16


@dataclass(frozen=True)
class Quick:
    """How a model is trained here: options, size of images, classes, steps of Adam and their rate."""

    options: dict[str, Any] = field(default_factory=dict)
    size: int = 28
    classes: int = 10
    steps: int = 60
    lr: float = 0.003


MODELS = {
    "softmax_regression": Quick(lr=0.01),
    "mlp": Quick({"num_hiddens": 64}),
    "mlp_dropout": Quick({"num_hiddens1": 64, "num_hiddens2": 64}),
    "lenet": Quick({"activation": "tanh"}),
    "bn_lenet": Quick(),
    # Deep and without batch normalisation: on all the classes these would stay at the start for hundreds of steps.
    "alexnet": Quick({"image_size": 65, "num_hiddens": 64, "dropout": 0.0}, 65, classes=2, steps=24, lr=0.0005),
    "vgg11": Quick({"ratio": 8, "image_size": 32, "num_hiddens": 64, "dropout": 0.0}, 32, classes=3, lr=0.001),
    "nin": Quick({"dropout": 0.0, "num_classes": 2}, 67, classes=2, lr=0.0001),
    "googlenet": Quick({"num_classes": 2}, 32, classes=2, steps=30, lr=0.0002),
    "resnet18": Quick({"num_blocks": (1, 1, 1)}, 32, steps=40, lr=0.001),
    "densenet": Quick({"num_convs": (2, 2, 2), "growth_rate": 16}, 32, steps=40, lr=0.001),
}


@pytest.fixture(scope="module")
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_fashion_mnist("sample", notify=lambda text: None).subset(PER_CLASS, 1)
    return data.train_images.reshape(-1, 1, 28, 28).float().sub(73).div(90), data.train_labels.long()


def train(name: str, nn: ModuleType, sample: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float, float]:
    """The loss of the first step, and then the mean loss and the accuracy of the last epoch."""
    quick = MODELS[name]
    images, labels = sample
    images, labels = images[labels < quick.classes], labels[labels < quick.classes]
    images = F.interpolate(images, size=quick.size, mode="bilinear").contiguous(memory_format=torch.channels_last)
    torch.manual_seed(3)
    model = models.spec(name).initialize(models.build(name, nn=nn, **quick.options))
    optimizer = torch.optim.Adam(model.parameters(), lr=quick.lr)
    generator = torch.Generator().manual_seed(4)
    batches = len(images) // BATCH
    losses, right = [], 0
    for step in range(quick.steps):
        if step % batches == 0:
            order, right = torch.randperm(len(images), generator=generator), 0
        chosen = order[step % batches * BATCH :][:BATCH]
        output = model(images[chosen])
        loss = F.cross_entropy(output, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        right += int((output.argmax(1) == labels[chosen]).sum())
    last = (quick.steps - 1) % batches + 1
    return losses[0], sum(losses[-batches:]) / batches, right / (last * BATCH)


@pytest.mark.parametrize("name", MODELS)
def test_both_back_ends_learn_the_sample_alike(name, sample):
    (first, ours, our_accuracy), (_, native, native_accuracy) = (train(name, nn, sample) for nn in (our_nn, torch.nn))
    assert ours < 0.7 * first
    assert our_accuracy >= (0.6 if name != "mlp_dropout" else 0.3)
    # Rounding grows from step to step: deep models end up to a tenth apart on the same machine.
    assert abs(ours - native) <= 0.25 * native + 0.05
    assert abs(our_accuracy - native_accuracy) <= 0.12
