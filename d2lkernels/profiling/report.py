"""A profile as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..training.history import table
from .profile import OPTIMIZER_STATES, Profile
from .recorder import Layer

HEADER = ("layer", "kind", "output", "parameters", "MMAC", "moved MB", "saved MB", "fwd ms", "bwd ms")
ROOFLINE, KERNEL = "% roofline", "kernel: algorithm"
_TEXT_COLUMNS = ("layer", "kind", KERNEL)
_MARGIN = 3
# What a narrow terminal goes without: the first of these that suffices.
_SPARE = (
    (),
    ("kind",),
    ("kind", "moved MB"),
    (KERNEL,),
    (KERNEL, "kind"),
    (KERNEL, "kind", "moved MB"),
    (KERNEL, "kind", "moved MB", "saved MB"),
    (KERNEL, "kind", "moved MB", "saved MB", ROOFLINE),
)


@dataclass(frozen=True)
class Run:
    """A profile and what it is of. `batch_sizes` are those that memory is estimated for, with a word about each."""

    model: str
    backend: str
    device: str
    threads: int
    input_size: tuple[int, ...]
    profile: Profile
    batch_sizes: dict[int, str]


def _mega(value: float) -> str:
    if not value:
        return "0"
    return f"{value / 1e6:,.0f}" if value >= 1e8 else f"{value / 1e6:.3g}"


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if value < 10 else f"{value:,.1f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f}"


def memory_text(size: float) -> str:
    """Bytes in words."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.3g} {name}"
    return f"{size / 1e3:,.3g} kB"


def _row(layer: Layer) -> tuple[str, ...]:
    return (
        layer.name,
        layer.kind,
        "x".join(map(str, layer.output)),
        f"{layer.parameters:,}",
        _mega(layer.macs),
        _mega(layer.moved + layer.moved_backward),
        _mega(layer.saved),
        _ms(layer.forward_ms),
        _ms(layer.backward_ms),
    )


def rows(profile: Profile) -> list[tuple[str, ...]]:
    """The table's cells: a header, a row for each layer, and the totals. Everything is of the whole batch."""
    found: list[tuple[str, ...]] = [(*HEADER, ROOFLINE, KERNEL) if profile.bounds else (*HEADER, KERNEL)]
    for number, layer in enumerate(profile.layers):
        kernel = f"{layer.kernel}: {layer.algorithm}" if layer.algorithm else layer.kernel
        bound = ""
        if profile.bounds:
            bound = f"{_percent(profile.bounds[number].forward)} / {_percent(profile.bounds[number].backward)}"
        found.append((*_row(layer), *([bound] if profile.bounds else []), kernel))
    total = profile.total
    found.append(
        (
            *("total", "", "", f"{profile.parameters:,}"),
            *(_mega(total("macs")), _mega(total("moved") + total("moved_backward")), _mega(total("saved"))),
            *(_ms(total("forward_ms")), _ms(total("backward_ms"))),
            *([""] if profile.bounds else []),
            "",
        )
    )
    return found


def header(run: Run) -> str:
    """What was profiled, in a line or two."""
    threads = f", {run.threads} thread{'s' * (run.threads > 1)}" if run.device == "cpu" else ""
    peak = f"; roofline: {run.profile.peak} and what copying reaches" if run.profile.peak else ""
    size = "x".join(map(str, run.input_size))
    return f"{run.model} with {run.backend} on {run.device}{threads}, input {size}, float32{peak}"


def footer(run: Run) -> str:
    """Whole steps, and memory."""
    profile = run.profile
    lines = [f"multiply-accumulates of one input: {profile.macs() / 1e6:,.4g} million forward"]
    if not math.isnan(profile.step_ms):
        speed = profile.batch_size / profile.step_ms * 1e3
        words = "a whole training step (forward, backward, SGD), measured"
        lines.append(f"{words}: {_ms(profile.step_ms)} ms, {speed:,.0f} inputs/s")
    for size, word in run.batch_sizes.items():
        amounts = ", ".join(
            f"{memory_text(profile.training_bytes(size, optimizer))} with {optimizer}" for optimizer in OPTIMIZER_STATES
        )
        lines.append(f"memory of a training step of {size:,} inputs{word}, estimated: {amounts}")
    return "\n".join(lines)


def to_text(runs: Sequence[Run]) -> str:
    """Tables, one below the other; then how two runs compare."""
    parts = [f"{header(run)}\n\n{_plain_table(rows(run.profile))}\n\n{footer(run)}" for run in runs]
    return "\n\n".join([*parts, *comparison(runs)])


def _plain_table(cells: Sequence[Sequence[str]]) -> str:
    """As :func:`table`, with the columns of words to the left, the last of them without blanks at its end."""
    words = [number for number, name in enumerate(cells[0]) if name in _TEXT_COLUMNS and number]
    widths = {number: max(len(row[number]) for row in cells) for number in words}
    padded = [[cell.ljust(widths.get(number, 0)) for number, cell in enumerate(row)] for row in cells]
    return "\n".join(line.rstrip() for line in table(padded).splitlines())


def comparison(runs: Sequence[Run]) -> list[str]:
    """One line about two runs, the first over the second; nothing about one."""
    if len(runs) != 2:
        return []
    ours, native = (run.profile for run in runs)
    memory = ours.training_bytes() / native.training_bytes()
    return [
        f"{runs[0].backend} against {runs[1].backend}: {native.step_ms / ours.step_ms:.2f} times as fast in a training "
        f"step, {100 * memory:.0f} % of the memory"
    ]


def print_text(runs: Sequence[Run]) -> None:
    """:func:`to_text`; in a terminal with rich tables where rich is installed, and with as many columns as fit."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(to_text(runs))
        return
    if not sys.stdout.isatty():
        print(to_text(runs))
        return
    console = Console(highlight=False, markup=False)
    for run in runs:
        cells, dropped = fitted(rows(run.profile), console.width)
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(cells[0]):
            if name in _TEXT_COLUMNS:
                drawn.add_column(name, no_wrap=True)
            else:
                needed = max(len(row[number]) for row in cells)
                drawn.add_column(name, justify="right", no_wrap=True, min_width=needed)
        for number, row in enumerate(cells[1:], 2):
            last = number == len(cells)
            drawn.add_row(*row, end_section=number == len(cells) - 1, style="bold" if last else None)
        console.print(header(run))
        console.print(drawn)
        if dropped:
            console.print(f"not shown for want of width: {', '.join(dropped)} (--format csv has all columns)")
        console.print(footer(run) + "\n")
    for line in comparison(runs):
        console.print(line)


def fitted(cells: Sequence[Sequence[str]], width: int) -> tuple[list[list[str]], tuple[str, ...]]:
    """The columns for a terminal of a width, and the names of those that are left out."""
    widths = {name: max(len(row[number]) for row in cells) + _MARGIN for number, name in enumerate(cells[0])}
    spare = next((s for s in _SPARE if sum(w for name, w in widths.items() if name not in s) <= width), _SPARE[-1])
    kept = [number for number, name in enumerate(cells[0]) if name not in spare]
    return [[row[number] for number in kept] for row in cells], tuple(name for name in spare if name in widths)


def to_csv(runs: Sequence[Run]) -> str:
    """A row for each layer, in plain numbers: bytes, milliseconds, shares of the roofline between 0 and 1."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = [name for name in Layer.__dataclass_fields__ if name != "needs_input_grad"]
    writer.writerow(["model", "backend", "batch_size", *names, "roofline_forward", "roofline_backward"])
    for run in runs:
        for number, layer in enumerate(run.profile.layers):
            values = asdict(layer) | {"output": "x".join(map(str, layer.output))}
            bound = run.profile.bounds[number] if run.profile.bounds else None
            writer.writerow(
                [run.model, run.backend, run.profile.batch_size]
                + [_plain(values[name]) for name in names]
                + ([_plain(bound.forward), _plain(bound.backward)] if bound else ["", ""])
            )
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Numbers to six digits; None in place of NaN."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.6g}")
    return value


def to_json(runs: Sequence[Run]) -> str:
    """All there is, a list of profiles; bytes, milliseconds, shares of the roofline between 0 and 1."""
    return json.dumps({"profiles": [_as_dict(run) for run in runs]}, indent=1) + "\n"


def _as_dict(run: Run) -> dict[str, Any]:
    profile = run.profile
    layers = []
    for number, layer in enumerate(profile.layers):
        entry = {name: _plain(value) for name, value in asdict(layer).items()}
        if profile.bounds:
            entry["roofline_forward"] = _plain(profile.bounds[number].forward)
            entry["roofline_backward"] = _plain(profile.bounds[number].backward)
        layers.append(entry)
    return {
        "model": run.model,
        "backend": run.backend,
        "device": run.device,
        "threads": run.threads,
        "input": run.input_size,
        "batch_size": profile.batch_size,
        "parameters": profile.parameters,
        "macs_per_input": profile.macs(),
        "totals": {
            name: _plain(profile.total(name))
            for name in ("macs", "moved", "moved_backward", "saved", "forward_ms", "backward_ms")
        },
        "step_ms": _plain(profile.step_ms),
        "training_bytes": {
            optimizer: {str(size): profile.training_bytes(size, optimizer) for size in run.batch_sizes}
            for optimizer in OPTIMIZER_STATES
        },
        "layers": layers,
    }
