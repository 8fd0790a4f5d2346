"""What a training run has measured, epoch by epoch: kept, written as CSV, drawn as PNG."""

from __future__ import annotations

import csv
import math
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
    the epoch; both accuracies are NaN where a task knows no right and wrong. `step_seconds` covers the training steps
    alone (forward, backward, update), as the book times them; `epoch_seconds` is the wall clock of everything, with
    loading and testing.
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
        accuracies = ""
        if not math.isnan(self.test_accuracy):
            accuracies = f"train acc {self.train_accuracy:.3f}  test acc {self.test_accuracy:.3f}  "
        speed = f"{self.images_per_second:,.0f} images/s"
        return f"loss {loss_text(self.loss)}  {accuracies}{speed}  {self.epoch_seconds:.2f} s"


def loss_text(loss: float) -> str:
    return f"{loss:.3f}" if loss >= 0.01 else f"{loss:.2e}"


def accuracy_text(accuracy: float) -> str:
    return "-" if math.isnan(accuracy) else f"{accuracy:.3f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned lines, the first of them a header; the first column is text, the others are figures."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in ([*zip(row, widths, strict=True)] for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


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


def comparison_rows(histories: Mapping[str, History], ours: str, native: str) -> list[tuple[str, ...]]:
    """The last epoch of each run, its median speed, and the ratio of our speed to the native one; without a header."""
    rows: list[tuple[str, ...]] = []
    for backend, history in histories.items():
        if not history:
            continue
        last, ratio = history[-1], ""
        if backend == ours and histories.get(native):
            ratio = f"{history.images_per_second() / histories[native].images_per_second():.2f}x"
        rows.append(
            (
                backend,
                loss_text(last.loss),
                accuracy_text(last.train_accuracy),
                accuracy_text(last.test_accuracy),
                f"{history.images_per_second():,.0f}",
                ratio,
            )
        )
    return rows


COMPARISON_HEADER = ("backend", "loss", "train acc", "test acc", "images/s", "ours/native")


def comparison_table(histories: Mapping[str, History], ours: str, native: str) -> str:
    """:func:`comparison_rows` as a table."""
    return table([COMPARISON_HEADER, *comparison_rows(histories, ours, native)])
