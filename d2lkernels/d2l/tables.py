"""CSV files with missing values, to tensors (2.2, 4.10): the same on pandas 2 and 3, with errors by row and column."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data import DataError
from ..models.registry import nearest_first
from .extras import require

MISSING = ("", "NA")
"""The cells that stand for a missing value. Others that pandas takes for one, such as "None", are values here."""


def read_csv(
    path: str | os.PathLike[str],
    *,
    numeric: Sequence[str] = (),
    text: Sequence[str] = (),
    missing: Sequence[str] = MISSING,
) -> Any:
    """Reads a CSV file with a header into a pandas.DataFrame, strictly.

    A column is numeric if all of its cells are numbers or missing. One in which most are numbers is taken for a numeric
    column with a mistake in it.

    Args:
        path: the file.
        numeric: columns that must be numeric.
        text: columns that are text, whatever is in them.
        missing: the cells that stand for a missing value.

    Raises:
        DataError: the file is missing, unreadable or empty, a row has more or fewer cells than the header, or a cell is
            no number: the message has row, line and column.
        ValueError: `numeric` or `text` names a column that is not there.
        MissingPackageError: pandas is not installed.
    """
    pandas = require("pandas", "read_csv()")
    path = Path(path)
    header, rows = _read_rows(path)
    for argument, names in (("numeric", numeric), ("text", text)):
        for name in names:
            if name not in header:
                raise ValueError(
                    f"read_csv(): expected {argument} to name columns of {path}, which are "
                    f"{', '.join(nearest_first(name, header))}, but got {name!r}"
                )
    columns = {}
    for index, name in enumerate(header):
        cells = [None if row[index].strip() in missing else row[index].strip() for _, row in rows]
        numbers = [None if cell is None else _number(cell) for cell in cells]
        wrong = [i for i, cell in enumerate(cells) if cell is not None and numbers[i] is None]
        found = sum(number is not None for number in numbers)
        if name in text or (wrong and name not in numeric and found <= len(wrong)):
            columns[name] = pandas.Series(cells, dtype=object)
            continue
        if wrong:
            row = wrong[0]
            raise DataError(
                f"read_csv(): expected {path}, row {row + 1} (line {rows[row][0]}), column {name!r} to be a number, "
                f"but got {cells[row]!r}. If the column is text: text=[{name!r}]"
            )
        values = [math.nan if number is None else number for number in numbers]
        whole = all(value.is_integer() and abs(value) < 2**53 for value in values)
        columns[name] = pandas.Series(values, dtype="float64").astype("int64" if whole else "float64")
    return pandas.DataFrame(columns)


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and for each row the number of its last line and its cells."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"read_csv(): expected the file {path} to exist, but it is missing") from None
    except UnicodeDecodeError as error:
        raise DataError(f"read_csv(): expected {path} to be text in UTF-8, but got {error.reason}") from None
    except csv.Error as error:
        raise DataError(f"read_csv(): expected {path} to be a CSV file, but line {reader.line_num}: {error}") from None
    except OSError as error:
        raise DataError(f"read_csv(): expected {path} to be readable, but got: {error.strerror or error}") from None
    if not lines:
        raise DataError(f"read_csv(): expected {path} to have a header, but it is empty")
    header = [name.strip() for name in lines[0][1]]
    for number, name in enumerate(header):
        if not name or name in header[:number]:
            what = f"{name!r} again" if name else "an empty one"
            raise DataError(
                f"read_csv(): expected {path} to have a name of its own for column {number + 1}, but got {what}"
            )
    rows = lines[1:]
    for number, (line, row) in enumerate(rows, start=1):
        if len(row) != len(header):
            what = f"without column {header[len(row)]!r}" if len(row) < len(header) else "more than there are columns"
            raise DataError(
                f"read_csv(): expected {path}, row {number} (line {line}) to have {len(header)} cells as the header, "
                f"but got {len(row)}, {what}"
            )
    if not rows:
        raise DataError(f"read_csv(): expected {path} to have rows below the header, but got none")
    return header, rows


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def frame_to_tensor(
    frame: Any, *, standardize: bool = False, dummy_na: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, list[str]]:
    """Turns a table into numbers: numeric columns first, then a column of 0 and 1 for each value of each other column.

    Args:
        frame: a pandas.DataFrame, such as :func:`read_csv` gives.
        standardize: whether to bring the numeric columns to mean 0 and deviation 1; missing values are then 0, the
            mean. Otherwise they become the mean of their column.
        dummy_na: whether a missing value of a text column has a column too.
        dtype: of the tensor.

    Returns:
        A tensor of size [rows, columns], and the names of its columns.

    Raises:
        DataError: there is no numeric column, or one without any value.
        MissingPackageError: pandas is not installed.
    """
    pandas = require("pandas", "frame_to_tensor()")
    types = pandas.api.types
    numeric = [c for c in frame.columns if types.is_numeric_dtype(frame[c]) and not types.is_bool_dtype(frame[c])]
    others = [c for c in frame.columns if c not in numeric]
    if not numeric:
        raise DataError(
            "frame_to_tensor(): expected the table to have a numeric column, but all are text: "
            f"{', '.join(map(str, others)) or 'there is none'}"
        )
    numbers = frame[numeric].astype("float64")
    if standardize:
        numbers = ((numbers - numbers.mean()) / numbers.std()).fillna(0.0)
    else:
        for name in numeric:
            if numbers[name].isna().all():
                raise DataError(f"frame_to_tensor(): expected column {name!r} to have a value, but all are missing")
        numbers = numbers.fillna(numbers.mean())
    parts = [numbers]
    if others:
        parts.append(pandas.get_dummies(frame[others], columns=others, dummy_na=dummy_na, dtype="float64"))
    table = pandas.concat(parts, axis=1)
    return torch.tensor(table.to_numpy(dtype="float64"), dtype=dtype), [str(name) for name in table.columns]
