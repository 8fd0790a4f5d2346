"""Draw the benchmark plots of the documents: `python benchmarks/plots.py [--out docs/images]`.

From the CSV files of `models` and `scaling`: how many times faster than the best native variant each model is, and how
the time of a training step grows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.machine import ROOT

INK, GRID = "#333333", "#dddddd"
COLORS = {"train_step": "#1f77b4", "inference": "#ff7f0e", "d2lkernels": "#1f77b4", "torch": "#999999"}


def _figure(columns: int, width: float):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, 3.6), squeeze=False, layout="constrained")
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=GRID)
        axis.set_axisbelow(True)
    return figure, axes[0]


def draw_models(rows: list[report.Row], path: Path) -> None:
    """Bars of the ratio to the best native variant, by model, one panel per number of threads."""
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
    """Milliseconds of a training step against what is scaled, a panel per series (`resnet18.batch`)."""
    one_thread = [row for row in rows if row["threads"] == "1" and row["p50"]]
    series: dict[str, list[tuple[int, list[report.Row]]]] = {}
    for (case,), contest in report.groups(one_thread, "case").items():
        name = case.rstrip("0123456789")
        series.setdefault(name, []).append((int(case.removeprefix(name)), contest))
    figure, axes = _figure(len(series), 3.6 * len(series))
    for axis, (name, points) in zip(axes, series.items(), strict=True):
        for provider in ("torch", "d2lkernels"):
            best = [(size, report.fastest(contest, ours=provider == "d2lkernels")) for size, contest in points]
            known = [(size, float(row["p50"]) / 1e3) for size, row in best if row]
            axis.plot(*zip(*known, strict=True), "o-", color=COLORS[provider], label=provider)
        model, _, what = name.partition(".")
        axis.set_title(f"{model}: training step, 1 thread", fontsize=9)
        axis.set_xlabel({"batch": "images in a batch", "depth": "convolutions in a dense block"}[what])
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
    axes[0].set_ylabel("ms")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    tables = report.read(options.results)
    for name, draw in (("models-cpu", draw_models), ("scaling-cpu", draw_scaling)):
        if name in tables:
            draw(tables[name], options.out / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
