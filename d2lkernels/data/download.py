"""Downloads files from a list of mirrors: resumed where they broke off, checked, and named only when complete."""

from __future__ import annotations

import fcntl
import hashlib
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

Progress = Callable[[str, int, "int | None"], None]
"""Called with the name of the file, the bytes there are, and the bytes there will be (None if unknown)."""

PROBE_SECONDS = 6.0
STALL_SECONDS = 15.0
_CHUNK = 1 << 18
_ATTEMPTS = 5


class DownloadError(RuntimeError):
    """No mirror gave the file. What has arrived is kept, and the next download goes on from there."""


def md5(path: Path) -> str:
    """The MD5 sum of a file, in hexadecimal."""
    return _digest(path, hashlib.md5(usedforsecurity=False))


def _kind(checksum: str) -> str:
    """Which sum this is, by its length."""
    return "SHA-1" if len(checksum) == 40 else "MD5"


def matches(path: Path, checksum: str) -> bool:
    """Whether a file has this MD5 or SHA-1 sum."""
    name = _kind(checksum).replace("-", "").lower()
    return _digest(path, hashlib.new(name, usedforsecurity=False)) == checksum


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def reachable(mirrors: Sequence[str], name: str, timeout: float = PROBE_SECONDS) -> list[str]:
    """The mirrors that have the file `name`, in their order. Asks all at once and waits for `timeout` seconds at most.

    A name server that does not answer can hold a thread for longer than any socket timeout: hence the threads.
    """
    answers: queue.Queue[tuple[str, bool]] = queue.Queue()

    def ask(mirror: str) -> None:
        try:
            request = urllib.request.Request(mirror + name, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout):
                answers.put((mirror, True))
        except (OSError, HTTPException, ValueError):
            answers.put((mirror, False))

    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    deadline = time.monotonic() + timeout
    found = set()
    for _ in mirrors:
        try:
            mirror, there = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if there:
            found.add(mirror)
    return [mirror for mirror in mirrors if mirror in found]


def fetch(
    name: str,
    checksum: str,
    folder: Path,
    mirrors: Sequence[str],
    *,
    timeout: float = STALL_SECONDS,
    progress: Progress | None = None,
) -> Path:
    """Downloads a file into a folder, unless it is there already with the right sum.

    The bytes go to ``<name>.part``, which the next call continues; only a complete file with the right sum gets the
    name. A mirror that breaks off is asked again for the rest as long as it sends anything.

    Args:
        name: the file's name, which also ends its address at every mirror.
        checksum: its MD5 or SHA-1 sum, in hexadecimal.
        folder: where it goes; made if need be.
        mirrors: addresses that end in a slash, tried in this order.
        timeout: seconds without a byte after which a mirror is given up.
        progress: called as the bytes arrive.

    Returns:
        The path of the file.

    Raises:
        DownloadError: no mirror gave the file, or the folder cannot be written.
    """
    target = folder / name
    part = folder / f"{name}.part"
    reasons = []
    try:
        if target.exists() and matches(target, checksum):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            _lock(file, part)
            for mirror in mirrors:
                try:
                    _fill(file, name, mirror + name, timeout, progress)
                except (OSError, HTTPException, ValueError) as error:
                    reasons.append(f"{mirror}: {getattr(error, 'reason', None) or error}")
                    continue
                if matches(part, checksum):
                    os.replace(part, target)
                    return target
                reasons.append(f"{mirror}: the file has another {_kind(checksum)} sum than {checksum}")
                file.truncate(0)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written: {error.strerror or error}") from None
    raise DownloadError(f"{name}: {'; '.join(reasons) or 'no mirror to ask'}")


def _lock(file: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DownloadError(f"another process is downloading to {part}") from None


def _fill(file: BinaryIO, name: str, url: str, timeout: float, progress: Progress | None) -> None:
    """Appends what is missing from `file`. Raises OSError or HTTPException if the rest cannot be had."""
    for attempt in range(_ATTEMPTS):
        have = file.seek(0, os.SEEK_END)
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                total = _append(file, have, response, name, progress)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have and attempt == 0:  # nothing follows: the part is whole, or it is rubbish
                if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return
                file.truncate(0)
                continue
            raise
        now = file.seek(0, os.SEEK_END)
        if total is None or now >= total:
            return
        if now <= have:
            break
    raise OSError("the connection broke off; what has arrived is kept")


def _append(file: BinaryIO, have: int, response: HTTPResponse, name: str, progress: Progress | None) -> int | None:
    """Writes a response to the file and returns the size the whole should have."""
    if have and response.status != 206:
        file.truncate(0)
        have = 0
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, HTTPException):
            if total is None:
                raise
            break
        if not chunk:
            break
        file.write(chunk)
        have += len(chunk)
        if progress:
            progress(name, have, total)
    file.flush()
    return total
