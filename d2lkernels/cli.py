"""The command line: ``python -m d2lkernels info | train | profile | examples``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from . import __version__, config
from .d2l import sections
from .data import DataError
from .profiling import command as profiling
from .training import TrainingError, command

FAILED = 2


def _add_info(subparsers: Any) -> None:
    parser = subparsers.add_parser("info", help="print versions, build options, instruction sets and devices")
    parser.set_defaults(run=_run_info)


def _run_info(arguments: argparse.Namespace) -> int:
    print(config.info_text())
    return 0


COMMANDS: tuple[Callable[[Any], None], ...] = (
    _add_info,
    command.add_parser,
    profiling.add_parser,
    sections.add_parser,
)
"""Each adds a subcommand to a parser and sets its default `run`, a function from the arguments to the exit code."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m d2lkernels", description="Kernels for the models of the book.")
    parser.add_argument("--version", action="version", version=f"d2lkernels {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command. What the user can mend is said in one line on stderr, with exit code 2."""
    arguments = build_parser().parse_args(argv)
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except torch.OutOfMemoryError as error:
        message = f"out of memory on the device; a smaller --batch-size needs less ({str(error).splitlines()[0]})"
    except (DataError, TrainingError, ValueError, TypeError) as error:
        message = str(error)
    except KeyboardInterrupt:
        message = "stopped"
    except BrokenPipeError:  # whoever reads the output, head or a pager, has left; Python's last flush is to go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    print(f"error: {message}", file=sys.stderr)
    return FAILED
