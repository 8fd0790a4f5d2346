"""What every suite has in common: verify each contestant first, then time all of them in turn.

A suite describes its work as `Contest`s: one piece of work, several contestants that do it, and a float64 reference.
`run_contest` compares every contestant with the reference, times those that passed, and returns one CSV row each.

The gate: the error of a result is max|result - reference| / max|reference|, the worst over its tensors (where a
contest says so, with another norm than the maximum). A contestant
passes with an error of at most 2x that of eager native torch in the same layout, plus the contest's floor. NaN,
infinity and a wrong shape fail. Eager native torch itself has to stay below 100 floors.
"""

from __future__ import annotations

import gc
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch

from d2lkernels.profiling.roofline import Roofline

EAGER = "torch"
OURS = "d2lkernels"

# Floors of the gate, by precision mode. tf32 keeps 10 bits of mantissa, bfloat16 keeps 7; Winograd's float32 error
# (2e-5 where results reach 3) is what sets the first.
FLOORS = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 2e-2}

_NAMES = (
    "op case mode provider layout dtype threads cache p20 p50 p80 repeats images bytes flops gflops gbps "
    "roofline_pct peak_bytes parameter_bytes error native_error ratio_to_best_native tie note"
)
RESULT_COLUMNS = tuple(_NAMES.split())


class Skip(Exception):
    """Raised by a contestant's `build` when it cannot take part here; the text says why."""


@dataclass(frozen=True)
class Runner:
    """A contestant ready to go. `run` is what is timed.

    To verify it, `reset` restores what `run` changes, and `collect` makes of its return value the tensors to compare.
    """

    run: Callable[[], Any]
    collect: Callable[[Any], Sequence[torch.Tensor]] = lambda output: [output]
    reset: Callable[[], None] = lambda: None

    def result(self) -> Sequence[torch.Tensor]:
        self.reset()
        return self.collect(self.run())


@dataclass(frozen=True)
class Contestant:
    """One way of doing the work. `build` allocates and warms up; nothing happens before it is called."""

    provider: str
    layout: str
    build: Callable[[], Runner]

    @property
    def native(self) -> bool:
        return not self.provider.startswith(OURS)


@dataclass(frozen=True)
class Contest:
    """One piece of work. `bytes` is its least traffic, `flops` counts a multiply-add as two (direct-equivalent)."""

    op: str
    case: str
    mode: str
    dtype: str
    contestants: Sequence[Contestant]
    reference: Callable[[], Sequence[torch.Tensor]]
    floor: float
    flops: int | None = None
    bytes: int | None = None
    images: int | None = None
    error_norm: float = math.inf

    @property
    def name(self) -> str:
        return f"{self.op} {self.case} {self.mode}"


@dataclass(frozen=True)
class Timing:
    """When to stop: after `repeats` rounds and `min_time` seconds per contestant, or after 10x `min_time` anyway."""

    repeats: int = 30
    min_time: float = 1.0
    sample_us: float = 200.0
    flush_l2: bool = True


@dataclass
class Entry:
    """What is known about one contestant so far."""

    contestant: Contestant
    runner: Runner | None = None
    error: float | None = None
    native_error: float | None = None
    note: str = ""
    failed: bool = False
    samples: list[float] = field(default_factory=list)

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """20th, 50th and 80th percentile in microseconds."""
        tenths = statistics.quantiles(self.samples, n=10, method="inclusive")
        return tenths[1], tenths[4], tenths[7]


def reason(exception: BaseException) -> str:
    """One short line about an exception, without paths of this machine."""
    lines = str(exception).strip().splitlines() or [""]
    text = re.sub(r"(?<![\w.])/[^\s:'\"]*/", "", lines[0])
    return f"{type(exception).__name__}: {text}"[:200]


def relative_error(result: Sequence[torch.Tensor], reference: Sequence[torch.Tensor], norm: float = math.inf) -> float:
    """Worst of ||a - b|| / ||b|| over pairs of tensors; infinite for NaN, infinity or another shape."""
    if [tuple(a.shape) for a in result] != [tuple(b.shape) for b in reference]:
        return math.inf
    worst = 0.0
    for actual, expected in zip(result, reference, strict=True):
        if expected.numel() == 0:
            continue
        scale = torch.linalg.vector_norm(expected, norm).item() or 1.0
        difference = actual.detach().to(expected.device, torch.float64) - expected
        error = torch.linalg.vector_norm(difference, norm).item() / scale
        worst = max(worst, error) if math.isfinite(error) else math.inf
    return worst


def verify(contest: Contest) -> list[Entry]:
    """Build every contestant and hold it against the reference. Only entries that keep a runner may be timed."""
    entries = [Entry(contestant) for contestant in contest.contestants]
    reference = [tensor.detach() for tensor in contest.reference()]
    for entry in entries:
        try:
            runner = entry.contestant.build()
            entry.error = relative_error(runner.result(), reference, contest.error_norm)
            entry.runner = runner
        except Skip as skipped:
            entry.note = f"skipped: {skipped}"
        except Exception as exception:
            # A native variant that this torch cannot run is no fault of the comparison; ours always is.
            entry.failed = not entry.contestant.native
            entry.note = f"{'failed' if entry.failed else 'skipped'}: {reason(exception)}"
    eager = {e.contestant.layout: e.error for e in entries if e.contestant.provider == EAGER and e.error is not None}
    for entry in entries:
        if entry.error is None:
            continue
        entry.native_error = eager.get(entry.contestant.layout, min(eager.values(), default=0.0))
        limit = 2 * entry.native_error + contest.floor
        if entry.contestant.provider == EAGER:
            limit = 100 * contest.floor
        if not entry.error <= limit:
            entry.failed, entry.runner = True, None
            entry.note = f"failed: error {entry.error:.2g} is over the limit of {limit:.2g}"
    return entries


class CpuClock:
    """Wall clock; `calls` calls make one sample, so that a sample is long against the clock's resolution."""

    cache = "warm"

    def sample(self, run: Callable[[], object], calls: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(calls):
            run()
        return (time.perf_counter_ns() - start) / calls / 1e3


class CudaClock:
    """CUDA events around the calls. With `flush`, L2 is overwritten before every call and one call makes a sample."""

    def __init__(self, flush: bool) -> None:
        self.cache = "flushed" if flush else "warm"
        self._buffer = torch.empty(256 << 20, dtype=torch.uint8, device="cuda") if flush else None

    def sample(self, run: Callable[[], object], calls: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self._buffer is not None:
            self._buffer.zero_()
            calls = 1
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / calls


def measure(entries: Sequence[Entry], timing: Timing, clock: CpuClock | CudaClock) -> None:
    """Fill `samples`: contestants take turns in one process, and the order rotates from round to round."""
    entries = [entry for entry in entries if entry.runner]
    if not entries:
        return
    calls = []
    for entry in entries:
        entry.samples = []
        for _ in range(3):
            once = clock.sample(entry.runner.run, 1)
        calls.append(max(1, min(10_000, math.ceil(timing.sample_us / max(once, 0.1)))))
    gc_was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for rounds in count(1):
            for i in range(len(entries)):
                turn = (i + rounds) % len(entries)
                entries[turn].samples.append(clock.sample(entries[turn].runner.run, calls[turn]))
            each = (time.perf_counter() - start) / len(entries)
            if (rounds >= timing.repeats and each >= timing.min_time) or (rounds >= 5 and each >= 10 * timing.min_time):
                break
    finally:
        if gc_was_enabled:
            gc.enable()


def rows_of(contest: Contest, entries: Sequence[Entry], cache: str, threads: int, roofline: Roofline) -> list[dict]:
    """One CSV row per contestant, failed and skipped ones included."""
    timed_native = [entry for entry in entries if entry.contestant.native and entry.samples]
    best = min(timed_native, key=lambda entry: entry.quantiles[1], default=None)
    rows = []
    for entry in entries:
        row = dict.fromkeys(RESULT_COLUMNS, "")
        row |= {"op": contest.op, "case": contest.case, "mode": contest.mode, "dtype": contest.dtype}
        row |= {"provider": entry.contestant.provider, "layout": entry.contestant.layout}
        row |= {"threads": threads, "cache": cache, "note": entry.note}
        row |= {"images": _or_blank(contest.images), "bytes": _or_blank(contest.bytes)}
        row |= {"flops": _or_blank(contest.flops)}
        if entry.error is not None:
            row |= {"error": f"{entry.error:.3g}", "native_error": f"{entry.native_error:.3g}"}
        if entry.samples:
            row |= _timed_columns(contest, entry, best, roofline)
        rows.append(row)
    return rows


def _or_blank(value: int | None) -> int | str:
    return "" if value is None else value


def _timed_columns(contest: Contest, entry: Entry, best: Entry | None, roofline: Roofline) -> dict:
    p20, p50, p80 = entry.quantiles
    columns: dict = {"p20": f"{p20:.4g}", "p50": f"{p50:.4g}", "p80": f"{p80:.4g}", "repeats": len(entry.samples)}
    least_us = []
    if contest.flops is not None:
        columns["gflops"] = f"{contest.flops / p50 / 1e3:.4g}"
        least_us.append(contest.flops / roofline.gflops(contest.dtype) / 1e3)
    if contest.bytes is not None:
        columns["gbps"] = f"{contest.bytes / p50 / 1e3:.4g}"
        least_us.append(contest.bytes / roofline.copy_gbps(contest.bytes) / 1e3)
        columns["roofline_pct"] = f"{100 * max(least_us) / p50:.3g}"
    if best is not None:
        columns["ratio_to_best_native"] = f"{best.quantiles[1] / p50:.3f}"
        if not entry.contestant.native:
            columns["tie"] = int(p20 <= best.quantiles[2] and best.quantiles[0] <= p80)
    return columns


def run_contest(contest: Contest, timing: Timing, threads: int, roofline: Roofline, device: str) -> list[dict]:
    """Verify, time and describe one contest. A row whose note begins with "failed" is a failure of the run."""
    entries = verify(contest)
    if device == "cuda":
        clocks = [CudaClock(flush) for flush in ((False, True) if timing.flush_l2 else (False,))]
    else:
        clocks = [CpuClock()]
    rows = []
    for clock in clocks:
        measure(entries, timing, clock)
        rows += rows_of(contest, entries, clock.cache, threads, roofline)
    return rows
