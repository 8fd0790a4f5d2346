"""Fashion-MNIST: from a folder, from the cache, from the network, or the embedded sample of 900 images.

Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from . import download as _download
from .idx import DataError, read_idx

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""The four files of the full data set and their MD5 sums."""

MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
"""Where the files are: the data set's own address, which the book and torchvision use, and two others."""

SAMPLE = "sample"
"""The `root` that asks for the embedded sample."""

_SAMPLE_FOLDER = Path(__file__).parent / "fashion_mnist_900"
_SUBFOLDERS = ("", "FashionMNIST/raw", "raw")
_IMAGE_SIZE = (28, 28)

Notify = Callable[[str], None]


@dataclass(frozen=True)
class FashionMNIST:
    """The data set on one device: images uint8 of size [N, 1, 28, 28], labels int64 of size [N].

    `source` says where it came from, `notice` what the user should know about that (or is empty), `fingerprint` is a
    digest of the contents.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    source: str
    notice: str
    fingerprint: str
    is_sample: bool
    classes: tuple[str, ...] = CLASSES

    def to(self, device: torch.device | str) -> FashionMNIST:
        """The same data on another device."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )

    def subset(self, train: int, test: int) -> FashionMNIST:
        """The first `train` and `test` images of each class, in their order: a sample."""
        chosen = [
            torch.cat([(labels == label).nonzero()[:count, 0] for label in range(len(self.classes))]).sort().values
            for labels, count in ((self.train_labels, train), (self.test_labels, test))
        ]
        return replace(
            self,
            train_images=self.train_images[chosen[0]],
            train_labels=self.train_labels[chosen[0]],
            test_images=self.test_images[chosen[1]],
            test_labels=self.test_labels[chosen[1]],
            source=f"{self.source} ({train} and {test} of each class)",
            fingerprint=f"{self.fingerprint}[{train},{test}]",
            is_sample=True,
        )


def cache_folder() -> Path:
    """Where downloads are kept: $D2LKERNELS_CACHE, or d2lkernels in the user's cache folder."""
    own = os.environ.get("D2LKERNELS_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "d2lkernels"
    return base / "fashion-mnist"


def load_fashion_mnist(
    root: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    download: bool | None = None,
    mirrors: Sequence[str] | None = None,
    notify: Notify | None = None,
) -> FashionMNIST:
    """Loads Fashion-MNIST to a device.

    Without a folder: from the cache, else downloaded to the cache, else the sample of 900 images that comes with the
    package. The notice then says so, and why.

    Args:
        root: a folder that holds the four IDX files, gzipped or not, in it or in its ``FashionMNIST/raw``; or
            ``"sample"`` for the embedded sample.
        device: where the tensors go.
        download: whether to download; None for yes unless the environment has ``D2LKERNELS_DOWNLOAD=0``.
        mirrors: addresses to download from, in place of :data:`MIRRORS`.
        notify: called with each notice; None to print them to stderr.

    Raises:
        DataError: a file in the given folder is missing or damaged. There is no falling back from a given folder.

    Example:
        >>> from d2lkernels.data import load_fashion_mnist
        >>> data = load_fashion_mnist("sample", notify=lambda text: None)
        >>> data.train_images.shape, data.test_images.shape
        (torch.Size([700, 1, 28, 28]), torch.Size([200, 1, 28, 28]))
    """
    notify = notify or (lambda text: print(text, file=sys.stderr))
    if root is not None and str(root) != SAMPLE:
        return _read_folder(_find_folder(Path(root)), f"the folder {root}").to(device)
    reason = "it was asked for"
    if root is None:
        folder = cache_folder()
        reason = _fill_cache(folder, download, mirrors or MIRRORS, notify)
        if not reason:
            return _read_folder(folder, f"the cache {folder}").to(device)
    notice = (
        f"using the embedded sample of 900 Fashion-MNIST images (700 to train on, 200 to test on): {reason}. "
        "For the full data set, give the folder that holds it (--data)."
    )
    notify(notice)
    sample = _read_folder(_SAMPLE_FOLDER, "the embedded sample of 900 images")
    return replace(sample, notice=notice, is_sample=True).to(device)


def _find_folder(root: Path) -> Path:
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing there"
        raise DataError(f"load_fashion_mnist(): expected {root} to be a folder with the data set, but got {what}")
    for subfolder in _SUBFOLDERS:
        if any(_find_file(root / subfolder, name) for name in FILES):
            return root / subfolder
    return root


def _find_file(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / name.removesuffix(".gz")):
        if path.is_file():
            return path
    return None


def _read_folder(folder: Path, source: str) -> FashionMNIST:
    missing = [name for name in FILES if _find_file(folder, name) is None]
    if missing:
        raise DataError(
            f"load_fashion_mnist(): expected {folder} to hold the four files of Fashion-MNIST (gzipped or not), but "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. Get the files from {MIRRORS[0]}, "
            "or give no folder to have them downloaded"
        )
    train_images, train_labels, test_images, test_labels = (
        _read(folder, name, ndim) for name, ndim in zip(FILES, (3, 1, 3, 1), strict=True)
    )
    _check_pair(folder, "train", train_images, train_labels)
    _check_pair(folder, "t10k", test_images, test_labels)
    digest = hashlib.md5(usedforsecurity=False)
    for tensor in (train_images, train_labels, test_images, test_labels):
        digest.update((ctypes.c_char * tensor.numel()).from_address(tensor.data_ptr()))
    return FashionMNIST(
        train_images=train_images.unsqueeze(1),
        train_labels=train_labels.long(),
        test_images=test_images.unsqueeze(1),
        test_labels=test_labels.long(),
        source=source,
        notice="",
        fingerprint=digest.hexdigest(),
        is_sample=False,
    )


def _read(folder: Path, name: str, ndim: int) -> torch.Tensor:
    path = _find_file(folder, name)
    assert path is not None
    try:
        return read_idx(path, ndim)
    except DataError as error:
        raise DataError(f"load_fashion_mnist(): {error} from {MIRRORS[0]}{name}") from None


def _check_pair(folder: Path, split: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    where = f"load_fashion_mnist(): expected the {split} files in {folder} to"
    if tuple(images.shape[1:]) != _IMAGE_SIZE:
        raise DataError(f"{where} hold images of 28 x 28, but got {images.shape[1]} x {images.shape[2]}")
    if len(images) != len(labels):
        raise DataError(
            f"{where} hold as many labels as images, but got {len(labels)} labels and {len(images)} images: "
            "one of the two belongs to another data set"
        )
    if int(labels.max()) >= len(CLASSES):
        raise DataError(f"{where} hold labels from 0 to {len(CLASSES) - 1}, but got {int(labels.max())}")


def _fill_cache(folder: Path, download: bool | None, mirrors: Sequence[str], notify: Notify) -> str:
    """Sees to it that the cache is whole. Returns why it is not, or an empty string."""
    wanting = {}
    for name, checksum in FILES.items():
        path = folder / name
        if not path.is_file():
            wanting[name] = checksum
        elif _download.md5(path) != checksum:
            notify(f"{path} is damaged (its MD5 sum is not {checksum}): it is not used")
            wanting[name] = checksum
    if not wanting:
        return ""
    absent = f"{folder} does not hold the data set"
    if download is False:
        return f"{absent} and the download is switched off"
    if download is None and os.environ.get("D2LKERNELS_DOWNLOAD") == "0":
        return f"{absent} and the download is switched off (D2LKERNELS_DOWNLOAD=0)"
    answering = _download.reachable(mirrors, next(iter(wanting)))
    if not answering:
        return f"{absent} and none of the {len(mirrors)} download addresses can be reached"
    try:
        for name, checksum in wanting.items():
            _download.fetch(name, checksum, folder, answering, progress=_show_progress)
    except _download.DownloadError as error:
        return f"the download failed ({error})"
    return ""


def _show_progress(name: str, done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        size = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        print(f"\rdownloading {name}: {size}  ", end="\n" if done == total else "", file=sys.stderr, flush=True)
