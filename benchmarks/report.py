"""Write the benchmark tables into the documents that have them: `python benchmarks/report.py [--check] [DOCUMENT ...]`.

The tables come from the CSV files under benchmarks/results and go between the markers `<!-- benchmark:ops-cpu -->` and
`<!-- /benchmark:ops-cpu -->` (suite and device as in the file names). Every case that ran has its row, the slower ones
too; nothing is typed by hand. Between `<!-- benchmark-summary:ops-cpu -->` and its end goes the short form: ratios by
model, or by operation with the number of slower cases. `--check` writes nothing and fails if a table differs from what
the CSV files say.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import suites
from benchmarks.machine import ROOT

MARKERS = re.compile(r"(<!-- (benchmark(?:-summary)?):([a-z0-9-]+) -->\n)(.*?)(<!-- /\2:\3 -->)", re.DOTALL)
DOCUMENTS = ("README.md", "README.zh.md", "docs/benchmarks.md")
OURS = "d2lkernels"
UNEXPLAINED = "**no explanation yet: suspect until there is one**"

LEGEND = """\
Ratio: median time of the fastest native variant over that of the fastest of ours; over 1 is faster, below 1 slower.
Our other layout or variant has its own ratio beside it. A tie: the ranges from the 20th to the 80th percentile overlap.
Percent of the roofline measured in the same run, with least traffic and direct-equivalent FLOPs; far over 100 it says
that the machine was busy when its peak was measured."""

Row = dict[str, str]


def read(results: Path) -> dict[str, list[Row]]:
    """All rows by table (`ops-cpu`, that of `ops-cpu-bfloat16` too), machines in the order of their folders."""
    tables: dict[str, list[Row]] = defaultdict(list)
    paths = [*results.glob("*.csv"), *results.glob("*/*.csv")]
    for path in sorted(paths, key=lambda path: (path.parent, path.stem.count("-"), path.name)):  # usual modes first
        match = re.fullmatch(r"([a-z]+-[a-z]+)(-[\w-]+)?-t\d+", path.stem)
        if match:
            with path.open(newline="") as file:
                tables[match[1]] += csv.DictReader(file)
    return tables


def groups(rows: list[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of some columns, in the order in which they appear."""
    result: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        result.setdefault(tuple(row[column] for column in columns), []).append(row)
    return result


def microseconds(text: str) -> str:
    value = float(text)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def variant(row: Row) -> str:
    return f"{row['provider']} {row['layout']}"


def fastest(rows: list[Row], ours: bool) -> Row | None:
    timed = [row for row in rows if row["p50"] and row["provider"].startswith(OURS) == ours]
    return min(timed, key=lambda row: float(row["p50"]), default=None)


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


class Notes:
    """Numbered explanations; one number per text."""

    def __init__(self, explanations: dict[tuple[str, str], str]) -> None:
        self._explanations = explanations
        self.texts: list[str] = []

    def of(self, row: Row) -> str:
        text = self._explanations.get((row["op"], row["case"])) or UNEXPLAINED
        if text not in self.texts:
            self.texts.append(text)
        return f" [{self.texts.index(text) + 1}]"


def ratio_cell(row: Row | None, notes: Notes) -> str:
    if row is None or not row["ratio_to_best_native"]:
        return ""
    ratio = float(row["ratio_to_best_native"])
    return f"{ratio:.2f}{' (tie)' if row['tie'] == '1' else ''}{notes.of(row) if ratio > 2 else ''}"


def megabytes(text: str) -> str:
    return f"{float(text) / 1e6:.1f}"


def lightest(rows: list[Row], ours: bool) -> Row | None:
    measured = [row for row in rows if row.get("peak_bytes") and row["provider"].startswith(OURS) == ours]
    return min(measured, key=lambda row: float(row["peak_bytes"]), default=None)


def memory_line(rows: list[Row]) -> str:
    """One case of the suite `memory`: peaks in all, and in percent of native's also without what both sides need."""
    first, native, ours = rows[0], lightest(rows, ours=False), lightest(rows, ours=True)
    failures = [f"{variant(row)}: {row['note']}".replace("|", "\\|") for row in rows if row["note"]]
    cells = [first["case"], megabytes(native["parameter_bytes"]) if native else ""]
    cells += [f"{megabytes(row['peak_bytes'])} ({row['layout']})" if row else "not run" for row in (native, ours)]
    cells += [
        f"{100 * memory_share(native, ours, beyond=beyond):.0f} %" if native and ours else "" for beyond in (0, 2)
    ]
    others = [row for row in rows if row["provider"].startswith(OURS) and row["peak_bytes"] and row is not ours]
    cells += ["; ".join([f"{row['layout']} {megabytes(row['peak_bytes'])}" for row in others] + failures)]
    return "| " + " | ".join(cells) + " |"


def memory_share(native: Row, ours: Row, beyond: int = 0) -> float:
    """Our peak over native's; `beyond` times the size of the parameters is taken off both (2: with their gradients)."""
    common = beyond * float(native["parameter_bytes"])
    return (float(ours["peak_bytes"]) - common) / (float(native["peak_bytes"]) - common)


def memory_table(rows: list[Row]) -> str:
    """The Markdown of the markers of the suite `memory`."""
    lines = []
    for (_, threads, dtype), part in groups(rows, "device", "threads", "dtype").items():
        title = f"{threads} thread{'s' * (threads != '1')}, {dtype}"
        lines += ["", f"**{part[0]['device']}, {title}**", "", machine_line(part), ""]
        lines += [
            "| case | parameters, MB | best native, MB | d2lkernels, MB | of native | of native, beyond parameters "
        ]
        lines[-1] += "and gradients | our other layout, MB |"
        lines += ["|---|---:|---:|---:|---:|---:|---|", *map(memory_line, groups(part, "op", "case").values())]
    return "\n".join(lines[1:]) + "\n"


def case_line(rows: list[Row], notes: Notes) -> str:
    """One case: the best native variant, the best of ours, their ratio, and ours in the other layouts."""
    first, native, ours = rows[0], fastest(rows, ours=False), fastest(rows, ours=True)
    others = [row for row in rows if row["provider"].startswith(OURS) and row["p50"] and row is not ours]
    failures = [
        f"{variant(row)}: {row['note']}".replace("|", "\\|") for row in rows if row["note"].startswith("failed")
    ]
    cells = [first["op"], first["case"], first["mode"]]
    cells += [f"{microseconds(native['p50'])} ({variant(native)})" if native else ""]
    cells += [f"{microseconds(ours['p50'])} ({ours['layout']})" if ours else "; ".join(failures) or "not run"]
    cells += [ratio_cell(ours, notes)]
    cells += ["; ".join([f"{row['layout']} {row['ratio_to_best_native']}" for row in others] + failures * bool(ours))]
    if first["images"] and first["op"] == "model":
        speeds = [f"{float(first['images']) / float(row['p50']) * 1e6:,.0f}" if row else "" for row in (native, ours)]
        cells += [" / ".join(speeds)]
    else:
        cells += [f"{ours['roofline_pct']} %" if ours and ours["roofline_pct"] else ""]
    return "| " + " | ".join(cells) + " |"


def summary(cases: list[list[Row]]) -> list[str]:
    """Geometric mean and worst ratio by operation and mode, call overhead apart."""
    ratios: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for rows in cases:
        ours = fastest(rows, ours=True)
        if ours and ours["ratio_to_best_native"] and ours["case"] != "overhead":
            value = float(ours["ratio_to_best_native"])
            ratios[ours["op"], ours["mode"]].append((value, ours["case"]))
    lines = ["| op | mode | cases | geometric mean | lowest |", "|---|---|---:|---:|---|"]
    for (op, mode), found in ratios.items():
        lowest, case = min(found)
        mean = geometric_mean([value for value, _ in found])
        lines.append(f"| {op} | {mode} | {len(found)} | {mean:.2f} | {lowest:.2f} ({case}) |")
    return lines


def machine_line(rows: list[Row]) -> str:
    """What the figures were taken with; differing values, as after a filtered run, are all named."""

    def values(column: str) -> str:
        return ", ".join(dict.fromkeys(row[column] for row in rows if row[column]))

    dirty = " with local changes" if any(row["dirty"] == "1" for row in rows) else ""
    parts = [f"{values('device')} ({values('cores')} CPU cores, {values('isa')})", f"torch {values('torch')}"]
    parts += [f"Python {values('python')}", f"d2lkernels {values('d2lkernels')} at {values('commit') or '?'}{dirty}"]
    parts += [values("toolchain"), f"load before {values('load')}", f"malloc {values('malloc')}", values("date")]
    return "; ".join(part for part in parts if part) + "."


def table(rows: list[Row], explanations: dict[tuple[str, str], str]) -> str:
    """The Markdown of one pair of markers."""
    if rows[0]["op"] == "memory":
        return memory_table(rows)
    notes, lines = Notes(explanations), []
    last_column = "images/s, native / ours" if rows[0]["op"] == "model" else "of the roofline"
    for (_, threads, dtype, cache), part in groups(rows, "device", "threads", "dtype", "cache").items():
        cases = list(groups(part, "op", "case", "mode").values())
        title = f"{threads} thread{'s' * (threads != '1')}, {dtype}, cache {cache}"
        lines += ["", f"**{part[0]['device']}, {title}**", "", machine_line(part), "", *summary(cases), ""]
        lines += [f"<details><summary>Every case ({title})</summary>", ""]
        lines += [
            f"| op | case | mode | best native, µs | d2lkernels, µs | ratio | our other variants | {last_column} |"
        ]
        lines += ["|---|---|---|---:|---:|---:|---|---:|", *(case_line(case, notes) for case in cases)]
        lines += ["", "</details>"]
    lines += ["", LEGEND]
    lines += [""] * bool(notes.texts) + [f"[{i}] {text}.  " for i, text in enumerate(notes.texts, 1)]
    return "\n".join(lines[1:]) + "\n"


def short_table(rows: list[Row]) -> str:
    """The Markdown of one pair of summary markers: a line per model, or per operation and mode."""
    columns: dict[tuple[str, ...], dict[str, str]] = {}
    for key, part in groups(rows, "device", "threads", "dtype", "cache").items():
        cases = list(groups(part, "op", "case", "mode").values())
        columns[key] = _ratios_by_model(cases) if rows[0]["op"] == "model" else _ratios_by_op(cases)
    lines = []
    for device in dict.fromkeys(key[0] for key in columns):
        own = {key: cells for key, cells in columns.items() if key[0] == device}
        titles = [f"{threads} thread{'s' * (threads != '1')}, {dtype}" for _, threads, dtype, _ in own]
        lines += ["", f"**{device}**", "", f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(own)}"]
        names = list(dict.fromkeys(name for cells in own.values() for name in cells))
        lines += [f"| {name} | {' | '.join(cells.get(name, '') for cells in own.values())} |" for name in names]
    return "\n".join(lines[1:]) + "\n"


def _best_ratios(cases: list[list[Row]]) -> Iterator[tuple[Row, float]]:
    """The fastest of ours of each case, and how many times faster than the fastest native variant it is."""
    for rows in cases:
        ours = fastest(rows, ours=True)
        if ours and ours["ratio_to_best_native"]:
            yield ours, float(ours["ratio_to_best_native"])


def _ratios_by_model(cases: list[list[Row]]) -> dict[str, str]:
    """Both modes of each model in one cell, and their geometric means over the models of a large batch."""
    by_model: dict[str, dict[str, float]] = defaultdict(dict)
    for ours, ratio in _best_ratios(cases):
        by_model[ours["case"]][ours["mode"]] = ratio

    def cell(ratios: dict[str, float]) -> str:
        return " / ".join(f"{ratios[mode]:.2f}" for mode in ("train_step", "inference") if mode in ratios)

    means = {
        mode: geometric_mean(found)
        for mode in ("train_step", "inference")
        if (found := [ratios[mode] for case, ratios in by_model.items() if mode in ratios and not case.endswith(".b1")])
    }
    cells = {f"`{case}` training step / inference": cell(ratios) for case, ratios in by_model.items()}
    return cells | {"geometric mean without batch 1": cell(means)}


def _ratios_by_op(cases: list[list[Row]]) -> dict[str, str]:
    by_op: dict[str, list[float]] = defaultdict(list)
    for ours, ratio in _best_ratios(cases):
        name = "call overhead" if ours["case"] == "overhead" else f"`{ours['op']}` {ours['mode']}"
        by_op[name].append(ratio)

    def cell(ratios: list[float]) -> str:
        slower = sum(ratio < 1 for ratio in ratios)
        return f"{geometric_mean(ratios):.2f} (lowest {min(ratios):.2f}; {slower} of {len(ratios)} slower)"

    return {name: cell(ratios) for name, ratios in by_op.items()}


def render(text: str, tables: dict[str, list[Row]], explanations: dict[tuple[str, str], str]) -> str:
    """`text` with everything between markers replaced."""

    def replacement(match: re.Match[str]) -> str:
        rows = tables.get(match[3])
        suite, _, device = match[3].rpartition("-")
        missing = f"No results yet: `python benchmarks/run.py {suite} --device {device}` makes them.\n"
        found = (
            (short_table(rows) if match[2] == "benchmark-summary" else table(rows, explanations)) if rows else missing
        )
        return match[1] + found + match[5]

    return MARKERS.sub(replacement, text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    existing = [ROOT / name for name in DOCUMENTS if (ROOT / name).exists()]
    parser.add_argument("documents", type=Path, nargs="*", default=existing)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--print", action="store_true", help="print the short form of every table, and write nothing")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the tables are stale")
    options = parser.parse_args(arguments)
    tables, explanations = read(options.results), suites.explanations()
    if options.print:
        for name, rows in tables.items():
            print(f"\n{name}\n\n{short_table(rows)}")
        return 0
    texts = {path: path.read_text(encoding="utf-8") for path in options.documents}
    placed = {match[3] for text in texts.values() for match in MARKERS.finditer(text) if match[2] == "benchmark"}
    unplaced = set(tables) - placed
    if unplaced:
        print(f"no markers for: {', '.join(sorted(unplaced))}", file=sys.stderr)
    stale = False
    for path, text in texts.items():
        new = render(text, tables, explanations)
        if new == text:
            continue
        if options.check:
            print(f"{path.name} is stale: run `python benchmarks/report.py`", file=sys.stderr)
            stale = True
        else:
            path.write_text(new, encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
