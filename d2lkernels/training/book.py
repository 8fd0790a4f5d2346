"""What the book's own runs gave, and whether a run is within their range."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .history import Epoch

_FILE = Path(__file__).with_name("book_results.csv")
_METRICS = (("loss", "loss"), ("train_accuracy", "train acc"), ("test_accuracy", "test acc"))


@dataclass(frozen=True)
class Band:
    """Nine tenths of the book's runs end between `low` and `high`."""

    label: str
    low: float
    median: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value, rounded to three digits as the book prints it, is inside."""
        return self.low <= round(value, 3) <= self.high


@dataclass(frozen=True)
class BookResult:
    """What the book recorded for a model: the number of runs, the bands by field of :class:`Epoch`, and its speed."""

    runs: int
    bands: dict[str, Band]
    images_per_second: float

    def verdict(self, epoch: Epoch) -> tuple[bool, str]:
        """Whether the last epoch of a run is inside all bands, and that in words."""
        words, inside = [], True
        for metric, band in self.bands.items():
            value = getattr(epoch, metric)
            holds = band.holds(value)
            inside = inside and holds
            words.append(f"{band.label} {value:.3f} {'inside' if holds else 'OUTSIDE'} {band.low:.3f}-{band.high:.3f}")
        return inside, "; ".join(words)


@cache
def book_results() -> dict[str, BookResult]:
    """The book's recorded results by name of the model; the file says where they are from."""
    with _FILE.open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {
        row["model"]: BookResult(
            runs=int(row["runs"]),
            bands={
                metric: Band(label, *(float(row[f"{metric}_{part}"]) for part in ("low", "median", "high")))
                for metric, label in _METRICS
            },
            images_per_second=float(row["images_per_second"]),
        )
        for row in rows
    }
