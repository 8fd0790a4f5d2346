"""Curves that grow while a model trains: live in a notebook, lines in a terminal, PNG and CSV on request."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .extras import in_notebook, require
from .plotting import FMTS, figure_path, set_axes, to_plain, use_svg_display


class Animator:
    """Collects points of curves and shows them as they come.

    The points are always kept: in :attr:`X` and :attr:`Y`, a list for each curve, and in :attr:`history` in the order
    in which they came. In a notebook the figure is drawn anew with each :meth:`add`; elsewhere one line is printed for
    each whole x (an epoch), and :meth:`save` writes a picture or a table.

    Args:
        xlabel, ylabel, xlim, ylim, xscale, yscale: of the plot.
        legend: the names of the curves.
        fmts: a format of matplotlib for each curve; they are used in turn.
        nrows, ncols: the grid of axes; the curves go to the first.
        figsize: width and height in inches.
        live: whether to draw as the points come, or to print lines: None to draw in a notebook only.

    Example:
        >>> animator = Animator(xlabel="epoch", legend=["loss", "accuracy"])
        >>> animator.add(0.5, (2.0, None))
        >>> animator.add(1, (1.0, 0.75))
        epoch 1: loss 1.000, accuracy 0.750
        >>> animator.Y
        [[2.0, 1.0], [0.75]]
    """

    def __init__(
        self,
        xlabel: str | None = None,
        ylabel: str | None = None,
        legend: Sequence[str] | None = None,
        xlim: Sequence[float] | None = None,
        ylim: Sequence[float] | None = None,
        xscale: str = "linear",
        yscale: str = "linear",
        fmts: Sequence[str] = FMTS,
        nrows: int = 1,
        ncols: int = 1,
        figsize: tuple[float, float] = (3.5, 2.5),
        live: bool | None = None,
    ) -> None:
        self.X: list[list[float]] = []
        self.Y: list[list[float]] = []
        self.history: list[tuple[float, int, float]] = []
        """The points in order: x, number of the curve, y."""
        self.legend = list(legend or [])
        self.fmts = fmts
        self._settings = (xlabel, ylabel, xlim, ylim, xscale, yscale, self.legend)
        self._xlabel = xlabel or "x"
        self._grid: dict[str, Any] = {"nrows": nrows, "ncols": ncols, "figsize": figsize}
        self._live = in_notebook() if live is None else live
        self._file = figure_path(ylabel or "training")
        self._pending: tuple[float, dict[int, float]] | None = None
        self.fig: Any = None
        self.axes: list[Any] = []
        if self._live:
            use_svg_display()
            self._make_figure(require("matplotlib.pyplot", "an Animator in a notebook").figure)

    def add(self, x: Any, y: Any) -> None:
        """Adds a point to each curve; None leaves a curve as it is.

        Args:
            x: where: a number, or one for each curve.
            y: the value of each curve, in the order of `legend`: a number, or a sequence. Tensors may be on any device.
        """
        y = to_plain(y)
        ys = list(y) if isinstance(y, Iterable) else [y]
        x = to_plain(x)
        xs = list(x) if isinstance(x, Iterable) else [x] * len(ys)
        while len(self.X) < len(ys):
            self.X.append([])
            self.Y.append([])
        for number, (a, b) in enumerate(zip(xs, ys, strict=True)):
            if a is not None and b is not None:
                self.X[number].append(a)
                self.Y[number].append(b)
                self.history.append((a, number, b))
                if not self._live:
                    self._tell(a, number, b)
        if self._live:
            self._show()
        elif self._pending and len(self._pending[1]) >= max(len(self.legend), len(self.X)):
            self._print_pending()

    def finish(self) -> None:
        """Prints what is left of the last line, and writes the files that :func:`save_figures` asked for."""
        self._print_pending()
        if self._file:
            self.save(self._file.with_suffix(".csv"))
            self.save(self._file.with_suffix(".png"))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the curves: a table if the name ends in ``.csv``, else a picture in the format of the suffix.

        Raises:
            MissingPackageError: a picture is asked for, and matplotlib is not installed.
        """
        path = Path(path)
        if path.suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([self._xlabel, "curve", "value"])
                writer.writerows((x, self._name(number), y) for x, number, y in self.history)
            return path
        figure = self.fig
        if figure is None:
            # Not pyplot's: no window, no backend to choose, nothing to close.
            make = require("matplotlib.figure", "a picture of the curves").Figure
            figure = self._make_figure(make)
            self._draw()
            self.fig, self.axes = None, []
        figure.savefig(path, dpi=110, bbox_inches="tight")
        return path

    def _name(self, number: int) -> str:
        return self.legend[number] if number < len(self.legend) else f"y{number}"

    def _make_figure(self, make: Any) -> Any:
        self.fig = make(figsize=self._grid["figsize"])
        self.axes = list(self.fig.subplots(self._grid["nrows"], self._grid["ncols"], squeeze=False).flatten())
        return self.fig

    def _draw(self) -> None:
        self.axes[0].cla()
        for number, (x, y) in enumerate(zip(self.X, self.Y, strict=True)):
            self.axes[0].plot(x, y, self.fmts[number % len(self.fmts)])
        set_axes(self.axes[0], *self._settings)

    def _show(self) -> None:
        display = require("IPython.display", "an Animator in a notebook")
        self._draw()
        display.display(self.fig)
        display.clear_output(wait=True)

    def _tell(self, x: float, number: int, y: float) -> None:
        """Keeps a value for the line of its x; that of another x is complete."""
        if abs(x - round(x)) > 1e-9:
            return
        if self._pending and self._pending[0] != round(x):
            self._print_pending()
        if not self._pending:
            self._pending = (round(x), {})
        self._pending[1][number] = y

    def _print_pending(self) -> None:
        if self._pending:
            x, values = self._pending
            text = ", ".join(f"{self._name(number)} {_digits(y)}" for number, y in sorted(values.items()))
            print(f"{self._xlabel} {x}: {text}", flush=True)
            self._pending = None


def _digits(value: float) -> str:
    """Three decimals, or three significant digits of what is small or large."""
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1e5 else f"{value:.2e}"
