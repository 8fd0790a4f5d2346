"""The book's downloads (4.10): checked by SHA-1, looked for on this machine first."""

from __future__ import annotations

import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path

from ..data import DataError, DownloadError, cache_folder
from ..data.download import fetch, matches
from ..models.registry import nearest_first
from .datasets import BOOK_FOLDER

DATA_URL = "http://d2l-data.s3-accelerate.amazonaws.com/"

DATA_HUB: dict[str, tuple[str, str]] = {
    "kaggle_house_train": (DATA_URL + "kaggle_house_pred_train.csv", "585e9cc93e70b39160e7921475f9bcd7d31219ce"),
    "kaggle_house_test": (DATA_URL + "kaggle_house_pred_test.csv", "fa19780a7b011d9b009e8bff8e99922a8ee2eb90"),
}
"""Address and SHA-1 sum by name. Add your own files."""

ATTEMPTS = 3


def download(name: str, cache_dir: str | os.PathLike[str] | None = None) -> str:
    """The path of a file of :data:`DATA_HUB`, downloaded if it is not on this machine (4.10).

    Args:
        name: a key of :data:`DATA_HUB`.
        cache_dir: where the file is looked for, and goes. None: it is looked for in ``../data``, where the book's code
            keeps it, and in ``data``, and goes to the cache (``$D2LKERNELS_CACHE``).

    Raises:
        ValueError: the name is unknown; the message has the nearest ones.
        DownloadError: the file is not here and cannot be had, and why.
    """
    if name not in DATA_HUB:
        raise ValueError(
            f"download(): expected name to be one of {', '.join(nearest_first(name, list(DATA_HUB)))}, but got {name!r}"
        )
    url, checksum = DATA_HUB[name]
    address, _, file_name = url.rpartition("/")
    own = cache_folder().parent / "book"
    folders = [Path(cache_dir)] if cache_dir is not None else [BOOK_FOLDER, Path("data"), own]
    for folder in folders:
        if (folder / file_name).is_file() and matches(folder / file_name, checksum):
            return str(folder / file_name)
    target = folders[-1]
    by_hand = f"Get it from {url}, put it into {target.resolve()}, and run this again"
    if os.environ.get("D2LKERNELS_DOWNLOAD") == "0":
        raise DownloadError(
            f"download(): {file_name} is not on this machine (looked in {', '.join(map(str, folders))}) and downloads "
            f"are switched off (D2LKERNELS_DOWNLOAD=0). {by_hand}"
        )
    print(f"downloading {url} to {target}", file=sys.stderr)
    for attempt in range(ATTEMPTS):
        try:
            return str(fetch(file_name, checksum, target, [address + "/"]))
        except DownloadError as error:
            reason = error
        if attempt < ATTEMPTS - 1:
            time.sleep(2**attempt)
    raise DownloadError(f"download(): {reason} (asked {ATTEMPTS} times). {by_hand}") from None


def download_extract(name: str, folder: str | None = None) -> str:
    """Downloads a zip or tar file and unpacks it beside itself (4.10).

    Returns:
        The path of `folder` beside the file; without it, the file's path less its suffix.

    Raises:
        DataError: it is no zip or tar file, it is damaged, or a member would land outside the folder.
    """
    path = Path(download(name))
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as zip_file:
                zip_file.extractall(path.parent)  # which drops ".." and absolute names
        elif path.suffix in (".tar", ".gz", ".tgz"):
            with tarfile.open(path) as tar_file:
                tar_file.extractall(path.parent, filter="data")
        else:
            raise DataError(f"download_extract(): expected {path} to be a zip or tar file, but got {path.suffix!r}")
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise DataError(f"download_extract(): {path} cannot be unpacked: {error}") from None
    return str(path.parent / folder if folder else path.with_suffix(""))


def download_all() -> None:
    """Downloads every file of :data:`DATA_HUB`."""
    for name in DATA_HUB:
        download(name)
