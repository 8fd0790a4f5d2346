"""A strict reader of IDX files, the format of MNIST and Fashion-MNIST.

An IDX file holds one array: two zero bytes, a byte for the type of the elements, a byte for the number of dimensions,
each dimension as a big-endian 32-bit integer, then the elements in row-major order.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import torch

_UINT8 = 0x08


class DataError(ValueError):
    """A data file is missing, damaged or not what it should be. The message names it and says what to do."""


def read_idx(path: str | Path, ndim: int) -> torch.Tensor:
    """Reads an IDX file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Args:
        path: the file.
        ndim: the number of dimensions that it must have.

    Returns:
        A uint8 tensor on the CPU.

    Raises:
        DataError: the file is missing, unreadable, truncated, too long, or no such IDX file.
    """
    path = Path(path)
    content = _read(path)
    header_size = 4 + 4 * ndim
    if len(content) < header_size:
        raise _error(path, f"to have a header of {header_size} bytes", f"{len(content)} bytes in all")
    zero, kind, dimensions = struct.unpack(">HBB", content[:4])
    if (zero, kind, dimensions) != (0, _UINT8, ndim):
        expected = struct.pack(">HBB", 0, _UINT8, ndim).hex()
        raise _error(path, f"to be an IDX file that starts with {expected}", f"{content[:4].hex()}")
    shape = struct.unpack(f">{ndim}I", content[4:header_size])
    size = 1
    for extent in shape:
        size *= extent
    if size == 0:
        raise _error(path, "to hold at least one element", f"the size {list(shape)}")
    found = len(content) - header_size
    if found != size:
        state = "is truncated" if found < size else "has bytes after its end"
        raise _error(path, f"to hold {size} bytes after the header, for size {list(shape)}", f"{found}: it {state}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=header_size).reshape(shape)


def _read(path: Path) -> bytearray:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                return bytearray(file.read())
        return bytearray(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"expected the file {path} to exist, but it is missing") from None
    except EOFError:
        raise _error(path, "to be a whole gzip file", "a truncated one") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _error(path, "to be an intact gzip file", f"a damaged one ({error})") from None
    except OSError as error:
        raise DataError(f"expected the file {path} to be readable, but got: {error.strerror or error}") from None


def _error(path: Path, requirement: str, value: str) -> DataError:
    return DataError(f"expected the file {path} {requirement}, but got {value}. Delete it and get it again")
