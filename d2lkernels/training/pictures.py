"""Pictures of what models make of test data they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data import BatchLoader, DeviceLoader, FashionMNIST, Points
from .tasks import Separation
from .trainer import Trainer

_COLUMNS, _ROWS = 8, 3


def draw_predictions(path: Path, trainers: Sequence[Trainer]) -> None:
    """Draws to a PNG file, for one or more runs on the same data, what they predict.

    Of Fashion-MNIST 24 test images, with the true class above each and the predicted ones below it, green or red; of
    points the predicted against the true values, or the points with the line that divides them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trainer = trainers[0]
    if isinstance(trainer.data, FashionMNIST):
        figure = Figure(figsize=(1.6 * _COLUMNS, (1.9 + 0.2 * len(trainers)) * _ROWS), layout="constrained")
        _images(figure, trainers, trainer.data)
    else:
        figure = Figure(figsize=(5 * len(trainers), 4.5), layout="constrained")
        for number, one in enumerate(trainers, 1):
            axes = figure.add_subplot(1, len(trainers), number)
            axes.set_title(f"{one.config.model}, {one.config.backend}, test data")
            (_separation if isinstance(one.task, Separation) else _regression)(axes, one, trainer.data)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=100)


def _outputs(trainer: Trainer, chosen: torch.Tensor) -> torch.Tensor:
    source = trainer.test_loader
    inputs, targets = source.inputs[chosen], source.targets[chosen]
    loader = (
        DeviceLoader(inputs, targets, len(inputs), resize=source.resize)
        if isinstance(source, DeviceLoader)
        else BatchLoader(inputs, targets, len(inputs))
    )
    return trainer.predict(next(iter(loader))[0]).cpu()


def _images(figure: Any, trainers: Sequence[Trainer], data: FashionMNIST) -> None:
    count = min(_COLUMNS * _ROWS, len(data.test_images))
    chosen = torch.linspace(0, len(data.test_images) - 1, count, device=data.test_images.device).round().long()
    images, labels = data.test_images[chosen].cpu(), data.test_labels[chosen].tolist()
    predicted = [_outputs(trainer, chosen).argmax(dim=1).tolist() for trainer in trainers]
    for number, axes in enumerate(figure.subplots(_ROWS, _COLUMNS).flat):
        axes.axis("off")
        if number >= count:
            continue
        axes.imshow(images[number, 0].tolist(), cmap="gray")
        axes.set_title(data.classes[labels[number]], fontsize=10)
        for line, (trainer, classes) in enumerate(zip(trainers, predicted, strict=True)):
            prefix = f"{trainer.config.backend}: " if len(trainers) > 1 else ""
            axes.text(
                0.5,
                -0.02 - 0.13 * line,
                prefix + data.classes[classes[number]],
                color="tab:green" if classes[number] == labels[number] else "tab:red",
                fontsize=8,
                ha="center",
                va="top",
                transform=axes.transAxes,
            )
    right = ", ".join(
        f"{trainer.config.backend} {sum(map(int.__eq__, classes, labels))} of {count} right"
        for trainer, classes in zip(trainers, predicted, strict=True)
    )
    figure.suptitle(f"{trainers[0].config.model}: {right} (class above, prediction below)")


def _regression(axes: Any, trainer: Trainer, data: Points) -> None:
    targets = data.test_targets.flatten().cpu()
    outputs = _outputs(trainer, torch.arange(len(targets), device=data.test_inputs.device)).flatten()
    axes.plot(targets.tolist(), outputs.tolist(), ".")
    ends = [float(targets.min()), float(targets.max())]
    axes.plot(ends, ends, "--", color="gray")
    axes.set_xlabel("true value")
    axes.set_ylabel("predicted value")


def _separation(axes: Any, trainer: Trainer, data: Points) -> None:
    inputs = data.test_inputs.cpu()
    outputs = _outputs(trainer, torch.arange(len(inputs), device=data.test_inputs.device)).flatten()
    for sign, marker in ((1, "+"), (-1, "_")):
        chosen = inputs[data.test_targets.flatten().cpu() == sign]
        axes.plot(chosen[:, 0].tolist(), chosen[:, 1].tolist(), marker, color="tab:blue", label=f"true label {sign:+d}")
    wrong = inputs[(outputs * data.test_targets.flatten().cpu()) <= 0]
    axes.plot(wrong[:, 0].tolist(), wrong[:, 1].tolist(), "o", mfc="none", color="tab:red", label=f"{len(wrong)} wrong")
    grid = torch.linspace(float(inputs.min()), float(inputs.max()), 100)
    first, second = torch.meshgrid(grid, grid, indexing="xy")
    points = torch.stack([first.flatten(), second.flatten()], dim=1).to(data.test_inputs.device)
    values = trainer.predict(points).reshape(100, 100).cpu()
    if float(values.min()) < 0 < float(values.max()):
        axes.contour(first.tolist(), second.tolist(), values.tolist(), levels=[0], colors="gray")
    axes.set_xlabel("x1")
    axes.set_ylabel("x2")
    axes.legend(loc="upper left", fontsize=8)
