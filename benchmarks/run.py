"""Run a suite of benchmarks: `python benchmarks/run.py SUITE`. What is measured, and how: README.md here."""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import harness, machine, suites
from benchmarks.machine import ROOT
from benchmarks.suites import variants
from d2lkernels.profiling.roofline import Roofline

COLUMNS = (*harness.RESULT_COLUMNS, *machine.MACHINE_COLUMNS)
CONTEST_COLUMNS = ("op", "case", "mode", "dtype")
BUSY = 0.3


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=suites.NAMES)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", default="1,all", help="thread counts, one pass each (CPU; default: 1,all)")
    parser.add_argument(
        "--dtype", help="precision modes: float32, tf32, bfloat16 (default: float32; GPU: tf32,bfloat16)"
    )
    parser.add_argument("--out", type=Path, help="folder of the CSV files (default: benchmarks/results/<machine>)")
    parser.add_argument("--filter", type=re.compile, default=re.compile(""), help="only 'op case mode' matching this")
    parser.add_argument("--repeats", type=int, help="rounds at the least (default: 30)")
    parser.add_argument("--min-time", type=float, help="seconds per contestant at the least (default: 1)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile variants (default: models only)"
    )
    parser.add_argument("--keep-malloc", action="store_true", help="leave the allocator's settings as they are")
    parser.add_argument("--quick", action="store_true", help="7 rounds, 0.05 s, no torch.compile, no growth of memory")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and few rounds; results only kept with --out")
    options = parser.parse_args(arguments)
    options.compile = (
        options.compile
        if options.compile is not None
        else options.suite == "models" and not options.smoke and not options.quick
    )
    repeats, min_time = (3, 0.0) if options.smoke else (7, 0.05) if options.quick else (30, 1.0)
    options.repeats = options.repeats or repeats
    options.min_time = options.min_time if options.min_time is not None else min_time
    if options.repeats < 2 or options.min_time < 0:
        parser.error("--repeats has to be at least 2, and --min-time at least 0")
    usual = "tf32,bfloat16" if options.device == "cuda" else "float32"
    options.dtype = (options.dtype or usual).split(",")
    # Other modes than the usual ones have a file of their own: no run replaces rows that it did not measure.
    options.label = "" if options.dtype == usual.split(",") else "-" + "-".join(options.dtype)
    unknown = set(options.dtype) - set(harness.FLOORS)
    if unknown or (options.device == "cpu" and "tf32" in options.dtype):
        parser.error(f"--dtype: {', '.join(unknown) or 'tf32'} is not offered on {options.device}")
    options.threads = thread_counts(parser, options)
    return options


def thread_counts(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[int]:
    everything = torch.get_num_threads()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            parser.error("--device cuda: torch sees no GPU here")
        return [everything]
    try:
        counts = [everything if part == "all" else int(part) for part in options.threads.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        parser.error(f"--threads: expected numbers or 'all', separated by commas, but got {options.threads!r}")
    return list(dict.fromkeys(counts))


def read(path: Path) -> list[dict]:
    """The rows of an earlier run, if there was one."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, earlier: list[dict], rows: list[dict]) -> None:
    """Replace the file. Earlier rows of contests that did not run again keep their own commit and date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ran = {tuple(row[column] for column in CONTEST_COLUMNS) for row in rows}
    kept = [row for row in earlier if tuple(row[column] for column in CONTEST_COLUMNS) not in ran]
    partial = path.with_suffix(".csv.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(kept + rows)
    partial.replace(path)


def show(rows: list[dict]) -> None:
    first = rows[0]
    print(f"{first['op']} {first['case']} {first['mode']} {first['dtype']} {first['cache']}", flush=True)
    for row in rows:
        figure = row["note"]
        if row["p50"]:
            figure = f"{row['p50']:>9} us  [{row['p20']} {row['p80']}]"
        elif row["peak_bytes"]:
            figure = f"{row['peak_bytes'] / 1e6:>9.1f} MB"
        ratio = (
            f"{row['ratio_to_best_native']:>7}x{' tie' if row['tie'] else ''}" if row["ratio_to_best_native"] else ""
        )
        print(f"    {row['provider']:<36} {row['layout']:<14} {figure} {ratio}", flush=True)


def one_pass(
    options: argparse.Namespace, threads: int, load: float | None, save: Callable[[list[dict]], None]
) -> list[dict]:
    """Every contest of the suite with one number of threads. Rows are saved as they come: a run may be cut short."""
    torch.set_num_threads(threads)
    timing = harness.Timing(options.repeats, options.min_time, 20.0 if options.smoke else 200.0, not options.smoke)
    suite = suites.load(options.suite)
    rows = []
    for dtype in options.dtype:
        variants.set_precision(dtype)
        settings = suites.Settings(options.device, dtype, options.compile, options.smoke, options.quick, options.filter)
        description = machine.describe(options.device, load)
        if hasattr(suite, "measure"):
            for new in suite.measure(settings, threads):
                rows += [description | row for row in new]
                show(new)
                save(rows)
            continue
        roofline = Roofline(options.device, quick=options.smoke)
        peak = f"{roofline.gflops(dtype):.4g}"
        for contest in suite.contests(settings):
            torch.compiler.reset()
            new = harness.run_contest(contest, timing, threads, roofline, options.device)
            copy = "" if contest.bytes is None else f"{roofline.copy_gbps(contest.bytes):.4g}"
            rows += [description | {"peak_gflops": peak, "copy_gbps": copy} | row for row in new]
            show(new)
            save(rows)
    return rows


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    load = machine.load_average()
    if load is not None and load > BUSY:
        print(f"warning: load average {load}; figures will be noisy, threads stall most", file=sys.stderr)
    folder = options.out or ROOT / "benchmarks" / "results" / machine.slug(options.device)
    failed = []
    for threads in options.threads:
        print(f"== {options.suite}, {machine.device_name(options.device)}, {threads} thread{'s' * (threads > 1)}")
        path = folder / f"{options.suite}-{options.device}{options.label}-t{threads}.csv"
        keeps = options.out is not None or not options.smoke
        earlier = read(path) if keeps and options.filter.pattern else []
        rows = one_pass(options, threads, load, partial(write, path, earlier) if keeps else lambda rows: None)
        if not rows:
            print(f"nothing matches --filter {options.filter.pattern!r}", file=sys.stderr)
            return 2
        failed += [row for row in rows if row["note"].startswith("failed")]
        if keeps:
            print(f"wrote {len(rows)} rows to {path}")
    for row in failed:
        place = " ".join(str(row[column]) for column in (*CONTEST_COLUMNS, "provider", "layout", "cache"))
        print(f"FAILED {place}, {row['threads']} threads: {row['note']}", file=sys.stderr)
    return 1 if failed else 0


def start_again_with_malloc_settings() -> None:
    """The allocator reads its settings at the start of a process, so the process starts itself once more with them."""
    environment = machine.malloc_environment(dict(os.environ))
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


if __name__ == "__main__":
    if "--keep-malloc" not in sys.argv:
        start_again_with_malloc_settings()
    sys.exit(main())
