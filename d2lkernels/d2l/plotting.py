"""Plots that work in a notebook, in a script, and without a screen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from .extras import in_notebook, require

FMTS = ("-", "m--", "g-.", "r:")

_folder: Path | None = None
_number = 0


def _plt() -> Any:
    return require("matplotlib.pyplot", "a plot")


def save_figures(folder: str | os.PathLike[str] | None) -> None:
    """Has every plot and every :class:`Animator` written to a folder, as PNG and CSV; None ends that.

    The environment variable ``D2LKERNELS_FIGURES=FOLDER`` does the same for a script that is left as it is. The files
    are numbered in the order of the plots.
    """
    global _folder, _number
    _folder = None if folder is None else Path(folder)
    _number = 0


def figure_path(kind: str) -> Path | None:
    """The path, without a suffix, of the next picture to write; None if none are asked for."""
    global _number
    asked = os.environ.get("D2LKERNELS_FIGURES")
    folder = _folder or (Path(asked) if asked else None)
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    _number += 1
    return folder / f"{_number:02}-{re.sub('[^a-z0-9]+', '-', kind.lower()).strip('-')}"


def use_svg_display() -> None:
    """Has a notebook show plots as SVG. Does nothing elsewhere."""
    if in_notebook():
        require("matplotlib_inline.backend_inline", "SVG in a notebook").set_matplotlib_formats("svg")


def set_figsize(figsize: tuple[float, float] = (3.5, 2.5)) -> None:
    """Sets width and height, in inches, of the figures to come."""
    use_svg_display()
    _plt().rcParams["figure.figsize"] = figsize


def set_axes(
    axes: Any,
    xlabel: str | None,
    ylabel: str | None,
    xlim: Sequence[float] | None,
    ylim: Sequence[float] | None,
    xscale: str,
    yscale: str,
    legend: Sequence[str] | None,
) -> None:
    """Sets labels, scales, limits and legend of a plot, and draws its grid."""
    for name, value in (("label", (xlabel, ylabel)), ("scale", (xscale, yscale)), ("lim", (xlim, ylim))):
        for axis, setting in zip("xy", value, strict=True):
            if name == "lim" and setting is not None and setting[0] == setting[1]:
                setting = None  # of a single epoch
            getattr(axes, f"set_{axis}{name}")(setting)
    if legend:
        axes.legend(legend)
    axes.grid()


def to_plain(values: Any) -> Any:
    """Numbers as matplotlib takes them: tensors leave their graph and their device."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().tolist()
    if isinstance(values, list | tuple):
        return [to_plain(value) for value in values]
    return values.tolist() if hasattr(values, "tolist") else values


def _curves(values: Any) -> list[list[float]]:
    """One curve, or a sequence of curves, as a list of curves."""
    values = to_plain(values)
    if not isinstance(values, Iterable):
        raise TypeError(f"plot(): expected X and Y to be sequences of numbers, but got {type(values).__name__}")
    rows = list(values)
    if rows and not any(isinstance(row, list) for row in rows):
        return [rows]
    return [list(row) if isinstance(row, Iterable) else [row] for row in rows]


def plot(
    X: Any,
    Y: Any = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    legend: Sequence[str] | None = None,
    xlim: Sequence[float] | None = None,
    ylim: Sequence[float] | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    fmts: Sequence[str] = FMTS,
    figsize: tuple[float, float] = (3.5, 2.5),
    axes: Any = None,
) -> None:
    """Plots one curve or several.

    Args:
        X: where the points are: one sequence for all curves, or one for each. Without `Y`, the values themselves,
            over 0, 1, 2, ...
        Y: the values: one sequence, or one for each curve. Tensors may be on any device and in a graph.
        xlabel, ylabel, xlim, ylim, xscale, yscale, legend: of the plot; see :func:`set_axes`.
        fmts: a format of matplotlib for each curve; they are used in turn.
        figsize: width and height in inches.
        axes: where to plot; None for the current axes.

    In a script, ``d2l.plt.show()`` opens the window, and :func:`save_figures` writes files.

    Raises:
        MissingPackageError: matplotlib is not installed.
        ValueError: a curve has more or fewer points than places.
    """
    set_figsize(figsize)
    axes = axes or _plt().gca()
    if Y is None:
        ys = _curves(X)
        xs = [[float(place) for place in range(len(y))] for y in ys]
    else:
        xs, ys = _curves(X), _curves(Y)
        xs = xs * len(ys) if len(xs) == 1 else xs
        ys = ys * len(xs) if len(ys) == 1 else ys
    if [len(x) for x in xs] != [len(y) for y in ys]:
        raise ValueError(
            "plot(): expected X and Y to have as many points as each other, but got "
            f"{[len(x) for x in xs]} and {[len(y) for y in ys]}"
        )
    axes.cla()
    for number, (x, y) in enumerate(zip(xs, ys, strict=True)):
        axes.plot(x, y, fmts[number % len(fmts)])
    set_axes(axes, xlabel, ylabel, xlim, ylim, xscale, yscale, legend)
    if path := figure_path(ylabel or "plot"):
        axes.figure.savefig(path.with_suffix(".png"), dpi=110, bbox_inches="tight")


def show_images(
    imgs: Any, num_rows: int, num_cols: int, titles: Sequence[str] | None = None, scale: float = 1.5
) -> Any:
    """Shows images in rows and columns.

    Args:
        imgs: tensors on any device, of size (H, W), (1, H, W) or (H, W, 3); or whatever matplotlib shows.
        num_rows, num_cols: of the grid.
        titles: one for each image.
        scale: inches for each image.

    Returns:
        The axes, num_rows * num_cols of them in a row.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure, grid = _plt().subplots(num_rows, num_cols, figsize=(num_cols * scale, num_rows * scale), squeeze=False)
    cells = grid.flatten()
    for cell in cells:
        cell.set_axis_off()
    for number, (cell, image) in enumerate(zip(cells, imgs, strict=False)):
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            image = (image[0] if image.dim() == 3 and len(image) == 1 else image).numpy()
        cell.imshow(image)
        if titles:
            cell.set_title(titles[number])
    if path := figure_path("images"):
        figure.savefig(path.with_suffix(".png"), dpi=110, bbox_inches="tight")
    return cells
