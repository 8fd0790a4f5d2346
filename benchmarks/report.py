"""Write the benchmark tables into a README: `python benchmarks/report.py [--readme README.md] [--check]`.

The tables come from the CSV files under benchmarks/results and go between the markers `<!-- benchmark:ops-cpu -->` and
`<!-- /benchmark:ops-cpu -->` (suite and device as in the file names). Every case that ran has its row, the slower ones
too; nothing is typed by hand. `--check` writes nothing and fails if a table differs from what the CSV files say.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import suites
from benchmarks.machine import ROOT

MARKERS = re.compile(r"(<!-- benchmark:([a-z0-9-]+) -->\n)(.*?)(<!-- /benchmark:\2 -->)", re.DOTALL)
OURS = "d2lkernels"
UNEXPLAINED = "**no explanation yet: suspect until there is one**"

LEGEND = """\
Ratio: median time of the fastest native variant over that of the fastest of ours; over 1 is faster, below 1 slower.
Our other layout or variant has its own ratio beside it. A tie: the ranges from the 20th to the 80th percentile overlap.
Percent of the roofline measured in the same run, with least traffic and direct-equivalent FLOPs; far over 100 it says
that the machine was busy when its peak was measured."""

Row = dict[str, str]


def read(results: Path) -> dict[str, list[Row]]:
    """All rows by table (`ops-cpu`), machines in the order of their folders."""
    tables: dict[str, list[Row]] = defaultdict(list)
    for path in sorted(results.glob("*/*.csv")):
        match = re.fullmatch(r"(.+)-t\d+", path.stem)
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


def render(text: str, tables: dict[str, list[Row]], explanations: dict[tuple[str, str], str]) -> str:
    """`text` with everything between markers replaced."""

    def replacement(match: re.Match[str]) -> str:
        rows = tables.get(match[2])
        suite, _, device = match[2].rpartition("-")
        missing = f"No results yet: `python benchmarks/run.py {suite} --device {device}` makes them.\n"
        return match[1] + (table(rows, explanations) if rows else missing) + match[4]

    return MARKERS.sub(replacement, text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the tables are stale")
    options = parser.parse_args(arguments)
    text = options.readme.read_text(encoding="utf-8")
    tables = read(options.results)
    unplaced = set(tables) - {match[2] for match in MARKERS.finditer(text)}
    if unplaced:
        print(f"{options.readme.name} has no markers for: {', '.join(sorted(unplaced))}", file=sys.stderr)
    new = render(text, tables, suites.explanations())
    if new == text:
        return 0
    if options.check:
        print(f"{options.readme.name} is stale: run `python benchmarks/report.py`", file=sys.stderr)
        return 1
    options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
