"""``python -m d2lkernels examples``: lists the examples of the chapters and runs them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data import DataError, DownloadError
from ..models.registry import nearest_first
from .example import Entry, Example, add_options, example_of, run_example
from .extras import MissingPackageError

FAILED = 2


def folder() -> Path:
    """Where the scripts are: inside the installed package, or in the repository beside it.

    Raises:
        DataError: in neither place.
    """
    package = Path(__file__).parent
    for place in (package / "examples", package.parents[1] / "examples"):
        if any(place.glob("chapter_*.py")):
            return place
    raise DataError(
        f"examples: expected the scripts in {package / 'examples'} or in {package.parents[1] / 'examples'}, but got "
        "none. Get the folder examples/ of the repository and run its files with python"
    )


def entries() -> list[Entry]:
    """All examples, by section."""
    found = [Entry.of(path) for path in folder().glob("chapter_*.py")]
    return sorted(found, key=lambda entry: (*map(int, entry.section.split(".")), entry.name))


def select(what: str) -> list[Entry]:
    """The examples of a section ("6.2"), of a chapter ("6"), of a name ("lenet"), or "all".

    Raises:
        ValueError: there is none; the message has the sections and names, nearest first.
    """
    found = entries()
    if what == "all":
        return found
    chosen = [
        entry
        for entry in found
        if what in (entry.section, entry.section.partition(".")[0], entry.name, entry.path.stem, entry.path.name)
    ]
    if chosen:
        return chosen
    known = nearest_first(what, list(dict.fromkeys(name for e in found for name in (e.section, e.name))))
    raise ValueError(f"examples run: expected a section or a name, one of {', '.join(known)}, but got {what!r}")


def load(entry: Entry) -> Callable[[Example], dict[str, Any]]:
    """The function `main` of a script."""
    spec = importlib.util.spec_from_file_location(entry.path.stem, entry.path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def add_parser(subparsers: Any) -> None:
    """Adds the command to a parser."""
    parser = subparsers.add_parser(
        "examples", help="list or run the examples of the book's chapters 2-7", description="Examples of chapters 2-7."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lister = commands.add_parser("list", help="all examples with their sections")
    lister.set_defaults(run=_list)
    runner = commands.add_parser("run", help="run one, with the book's settings")
    runner.add_argument("what", metavar="SECTION", help='such as 6.2; a chapter, a name such as lenet, or "all"')
    add_options(runner)
    runner.set_defaults(run=_run)
    tabler = commands.add_parser("table", help="what runs with --out FOLDER measured, in Markdown")
    tabler.add_argument("folder", type=Path, metavar="FOLDER")
    tabler.set_defaults(run=_table)


def table(results: Path) -> str:
    """What the runs in a folder measured, as a table in Markdown.

    Raises:
        DataError: there is no result in the folder.
    """
    found = []
    for entry in entries():
        path = results / f"{entry.section}-{entry.name}.json"
        if path.is_file():
            found.append((entry, json.loads(path.read_text())))
    if not found:
        raise DataError(f"examples table: expected {results} to hold results of examples run --out, but found none")
    lines = ["| section | example | data | seconds | measured |", "|---|---|---|---:|---|"]
    for entry, measured in found:
        values = [
            f"{key.replace('_', ' ')} {_short(value)}"
            for key, value in measured.items()
            if key not in ("section", "example", "data", "quick", "seconds")
        ]
        data = f"{measured['data']}, quick" if measured["quick"] else measured["data"]
        lines.append(
            f"| {entry.section} | [{entry.name}](../examples/{entry.path.name}): {entry.title.rstrip('.')} | {data} | "
            f"{measured['seconds']:.3g} | {', '.join(values)} |"
        )
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 and abs(value) < 1e7 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(arguments: argparse.Namespace) -> int:
    print(table(arguments.folder))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = entries()
    width = max(len(entry.name) for entry in found)
    for entry in found:
        print(f"{entry.section:5} {entry.name:{width}}  {entry.title}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    failures = []
    chosen = select(arguments.what)
    for entry in chosen:
        print(f"== {entry.section} {entry.name}: {entry.title}", flush=True)
        try:
            run_example(example_of(entry, arguments), load(entry))
        except (DataError, DownloadError, MissingPackageError) as error:
            print(f"error: {error}", file=sys.stderr)
            failures.append(f"{entry.section} {entry.name}")
    if failures and len(chosen) > 1:
        print(f"error: {len(failures)} of {len(chosen)} examples failed: {', '.join(failures)}", file=sys.stderr)
    return FAILED if failures else 0
