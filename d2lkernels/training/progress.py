"""A progress bar: rich's if it is installed, else a plain line; none where stderr is not a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts batches and prints lines above the bar.

    Lines go to stdout; the bar goes to stderr, so that a redirected output holds the lines alone.
    """

    def __init__(self, total: int, enabled: bool | None = None) -> None:
        self._total = max(1, total)
        self._done = 0
        self._text = ""
        self._shown = -1
        self._enabled = sys.stderr.isatty() if enabled is None else enabled
        self._rich: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._enabled:
            try:
                from rich.console import Console
                from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
                from rich.progress import Progress as RichProgress
            except ImportError:
                return self
            self._rich = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
            )
            self._task = self._rich.add_task("", total=self._total)
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._rich:
            self._rich.stop()
            self._rich = None
        elif self._enabled:
            self._clear()

    def describe(self, text: str) -> None:
        """Sets the text before the bar."""
        self._text = text
        self._shown = -1
        if self._rich:
            self._rich.update(self._task, description=text)

    def advance(self, batches: int = 1) -> None:
        """Counts batches as done."""
        self._done += batches
        if self._rich:
            self._rich.advance(self._task, batches)
        elif self._enabled:
            percent = 100 * self._done // self._total
            if percent != self._shown:
                self._shown = percent
                print(f"\r{self._text} {percent:3}%", end="", file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._rich and sys.stdout.isatty():
            self._rich.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        if self._enabled and not self._rich:
            self._clear()
        print(text, flush=True)

    def _clear(self) -> None:
        print("\r" + " " * (len(self._text) + 6) + "\r", end="", file=sys.stderr, flush=True)
        self._shown = -1
