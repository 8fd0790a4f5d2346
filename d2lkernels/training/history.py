"""What a training run has measured, epoch by epoch: kept, written as CSV, drawn as PNG."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

MATPLOTLIB_ABSENT = "no picture of the curves: matplotlib is not installed (pip install matplotlib)"


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    `loss` and `train_accuracy` are means over the training images as they were seen, `test_accuracy` is measured after
    the epoch. `step_seconds` covers the training steps alone (forward, backward, update), as the book times them;
    `epoch_seconds` is the wall clock of everything, with loading and testing.
    """

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    images: int
    step_seconds: float
    epoch_seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.step_seconds if self.step_seconds else float("nan")

    def line(self) -> str:
        return (
            f"loss {self.loss:.3f}  train acc {self.train_accuracy:.3f}  test acc {self.test_accuracy:.3f}  "
            f"{self.images_per_second:,.0f} images/s  {self.epoch_seconds:.2f} s"
        )


class History(list[Epoch]):
    """The epochs of one run, in order."""

    def images_per_second(self) -> float:
        """The median over the epochs, which a first epoch's warm-up and other programs disturb least."""
        return statistics.median(epoch.images_per_second for epoch in self) if self else float("nan")

    def to_rows(self) -> list[dict[str, float]]:
        return [asdict(epoch) for epoch in self]

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> History:
        return cls(Epoch(**{field.name: row[field.name] for field in fields(Epoch)}) for row in rows)


def write_csv(path: Path, histories: Mapping[str, History]) -> None:
    """Writes all runs to one CSV file, a row per backend and epoch."""
    columns = ["backend", *(field.name for field in fields(Epoch)), "images_per_second"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for backend, history in histories.items():
            for epoch in history:
                writer.writerow([backend, *asdict(epoch).values(), f"{epoch.images_per_second:.1f}"])


def draw_curves(path: Path, histories: Mapping[str, History], title: str) -> bool:
    """Draws loss, accuracies and speed of all runs to a PNG file. Returns False if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy, speed = figure.subplots(1, 3)
    colors = ["tab:blue", "tab:orange", "tab:green", "tab:red"]
    for number, (backend, history) in enumerate(histories.items()):
        epochs = [epoch.epoch for epoch in history]
        # The runs of a comparison often coincide: a thinner line on top lets the one below be seen.
        style = {"color": colors[number % len(colors)], "linewidth": max(1.0, 3.5 - 2 * number)}
        loss.plot(epochs, [epoch.loss for epoch in history], label=backend, **style)
        accuracy.plot(epochs, [epoch.train_accuracy for epoch in history], "--", label=f"{backend}, train", **style)
        accuracy.plot(epochs, [epoch.test_accuracy for epoch in history], label=f"{backend}, test", **style)
        speed.plot(epochs, [epoch.images_per_second for epoch in history], label=backend, **style)
    for axes, label in ((loss, "loss"), (accuracy, "accuracy"), (speed, "images/s in training steps")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    speed.set_ylim(bottom=0)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    return True


def comparison_table(histories: Mapping[str, History], ours: str, native: str) -> str:
    """The last epoch of each run, its median speed, and the ratio of our speed to the native one."""
    header = ("backend", "loss", "train acc", "test acc", "images/s", "ours/native")
    rows = [header]
    for backend, history in histories.items():
        if not history:
            continue
        last, ratio = history[-1], ""
        if backend == ours and histories.get(native):
            ratio = f"{history.images_per_second() / histories[native].images_per_second():.2f}x"
        rows.append(
            (
                backend,
                f"{last.loss:.3f}",
                f"{last.train_accuracy:.3f}",
                f"{last.test_accuracy:.3f}",
                f"{history.images_per_second():,.0f}",
                ratio,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in ([*zip(row, widths, strict=True)] for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
