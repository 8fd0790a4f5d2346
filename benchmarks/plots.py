"""Draw the benchmark plots of the documents: `python benchmarks/plots.py [--out docs/images]`.

From the CSV files of `models`, `scaling` and `memory`: how many times faster than the best native variant each model
is, and how the time and the memory of a training step grow.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.machine import ROOT

INK, GRID = "#333333", "#dddddd"
SERIES = re.compile(r"(.+)\.(batch|depth)(\d+)")
SCALES = {"batch": "images in a batch", "depth": "convolutions in a dense block"}
COLORS = {"train_step": "#1f77b4", "inference": "#ff7f0e", "d2lkernels": "#1f77b4", "torch": "#999999"}


def _figure(columns: int, width: float, widths: Sequence[float] | None = None):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, columns, figsize=(width, 3.6), squeeze=False, layout="constrained", width_ratios=widths
    )
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=GRID)
        axis.set_axisbelow(True)
    return figure, axes[0]


def draw_models(rows: list[report.Row], path: Path) -> None:
    """Bars of the ratio to the best native variant, by model: a file for each precision mode, which the name of all but
    float32's tells."""
    for (dtype,), part in report.groups(rows, "dtype").items():
        _draw_models(part, path if dtype == "float32" else path.with_stem(f"{path.stem}-{dtype}"))


def _draw_models(rows: list[report.Row], path: Path) -> None:
    """One panel per number of threads."""
    panels = report.groups(rows, "threads")
    figure, axes = _figure(len(panels), 5.5 * len(panels))
    for axis, ((threads,), part) in zip(axes, panels.items(), strict=True):
        by_mode: dict[str, dict[str, float]] = {}
        for (case, mode), contest in report.groups(part, "case", "mode").items():
            ours = report.fastest(contest, ours=True)
            if ours and ours["ratio_to_best_native"]:
                by_mode.setdefault(mode, {})[case] = float(ours["ratio_to_best_native"])
        cases = list(dict.fromkeys(case for ratios in by_mode.values() for case in ratios))
        for i, (mode, ratios) in enumerate(by_mode.items()):
            places = [cases.index(case) + 0.4 * (i - 0.5) for case in ratios]
            bars = axis.bar(places, ratios.values(), 0.38, color=COLORS[mode], label=mode.replace("_", " "))
            axis.bar_label(bars, fmt="%.1f", fontsize=7)
        axis.axhline(1, color=INK, linewidth=1)
        axis.set_xticks(range(len(cases)), cases, rotation=40, ha="right", fontsize=8)
        axis.set_title(f"{part[0]['device']}, {threads} thread{'s' * (threads != '1')}, {part[0]['dtype']}", fontsize=9)
    axes[0].set_ylabel("times the speed of the\nfastest native variant")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_scaling(rows: list[report.Row], path: Path) -> None:
    """Milliseconds of a training step with one thread against what is scaled, a panel per series."""
    series = _series([row for row in rows if row["threads"] == "1" and row["p50"]])
    figure, axes = _figure(len(series), 3.6 * len(series))
    for axis, ((model, what), points) in zip(axes, series.items(), strict=True):
        for provider in ("torch", "d2lkernels"):
            best = [(size, report.fastest(contest, ours=provider == "d2lkernels")) for size, contest in points]
            known = [(size, float(row["p50"]) / 1e3) for size, row in best if row]
            axis.plot(*zip(*known, strict=True), "o-", color=COLORS[provider], label=provider)
        axis.set_title(f"{model}: training step, 1 thread", fontsize=9)
        axis.set_xlabel(SCALES[what])
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
    axes[0].set_ylabel("ms")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_memory(rows: list[report.Row], path: Path) -> None:
    """Peak memory of a training step: our share of native's by model, and how it grows, a panel per series."""
    series = _series(rows)
    chapters = {case: part for (case,), part in report.groups(rows, "case").items() if not SERIES.fullmatch(case)}
    figure, (shares, *growths) = _figure(1 + len(series), 5 + 3.2 * len(series), widths=(2, *(1 for _ in series)))
    _draw_memory_shares(chapters, shares)
    for axis, ((model, what), points) in zip(growths, series.items(), strict=True):
        for provider in ("torch", "d2lkernels"):
            best = [(size, report.lightest(contest, ours=provider == "d2lkernels")) for size, contest in points]
            known = [(size, _beyond_parameters(row)) for size, row in best if row]
            axis.plot(*zip(*known, strict=True), "o-", color=COLORS[provider], label=provider)
        axis.set_title(f"{model}: training step", fontsize=9)
        axis.set_xlabel(SCALES[what])
        axis.set_xticks([size for size, _ in points])
        axis.tick_params(axis="x", labelsize=8)
    growths[0].set_ylabel("MB beyond parameters and gradients")
    growths[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _draw_memory_shares(cases: dict[str, list[report.Row]], axis) -> None:
    pairs = {
        case: (report.lightest(part, ours=False), report.lightest(part, ours=True)) for case, part in cases.items()
    }
    pairs = {case: pair for case, pair in pairs.items() if all(pair)}
    for i, (beyond, label) in enumerate(((0, "in all"), (2, "beyond parameters and gradients"))):
        places = [place + 0.4 * (i - 0.5) for place in range(len(pairs))]
        heights = [100 * report.memory_share(*pair, beyond=beyond) for pair in pairs.values()]
        bars = axis.bar(places, heights, 0.38, color=("#1f77b4", "#ff7f0e")[i], label=label)
        axis.bar_label(bars, fmt="%.0f", fontsize=7)
    axis.axhline(100, color=INK, linewidth=1)
    axis.set_xticks(range(len(pairs)), list(pairs), rotation=40, ha="right", fontsize=8)
    axis.set_ylabel("% of the lightest native variant")
    axis.set_title("peak memory of a training step", fontsize=9)
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the legend
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def _series(rows: list[report.Row]) -> dict[tuple[str, str], list[tuple[int, list[report.Row]]]]:
    """The rows of cases like `resnet18.batch16`: for model and what is scaled, its sizes in order with their rows."""
    series: dict[tuple[str, str], list[tuple[int, list[report.Row]]]] = {}
    for (case,), contest in report.groups(rows, "case").items():
        if match := SERIES.fullmatch(case):
            series.setdefault((match[1], match[2]), []).append((int(match[3]), contest))
    return {key: sorted(points, key=lambda point: point[0]) for key, points in series.items()}


def _beyond_parameters(row: report.Row) -> float:
    return (float(row["peak_bytes"]) - 2 * float(row["parameter_bytes"])) / 1e6


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    tables = report.read(options.results)
    for name, draw in (("models-cpu", draw_models), ("scaling-cpu", draw_scaling), ("memory-cpu", draw_memory)):
        if name in tables:
            draw(tables[name], options.out / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
