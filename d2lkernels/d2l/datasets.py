"""Fashion-MNIST under the book's names. The images stay bytes in memory, on the device if asked; no workers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import CLASSES, DeviceLoader, FashionMNIST, load_fashion_mnist
from ..data.fashion_mnist import FILES

BOOK_FOLDER = Path("..") / "data"
"""Where the book's code keeps its data, relative to the script or notebook."""


class ImageLoader:
    """Batches of images, as floats in [0, 1], and labels. Each epoch begins at the first batch, however the last ended.

    The order is drawn from torch's global generator, so ``torch.manual_seed`` settles it.

    Args:
        images: uint8, of size [N, C, H, W].
        labels: of size [N], on the same device.
        batch_size: the number of images in a batch; the last may be smaller.
        shuffle: whether to draw a new order for each epoch.
        resize: height and width of the images that come out; None leaves them as they are.
        is_sample: whether these are the embedded 900 images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle: bool,
        resize: int | None = None,
        is_sample: bool = False,
    ) -> None:
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.resize = resize
        self.is_sample = is_sample
        self._loader(seed=0)  # which checks the arguments

    def _loader(self, seed: int) -> DeviceLoader:
        return DeviceLoader(
            self.images, self.labels, self.batch_size, shuffle=self.shuffle, seed=seed, resize=self.resize
        )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = int(torch.randint(2**31, ())) if self.shuffle else 0
        return iter(self._loader(seed))

    def to(self, device: torch.device | str) -> ImageLoader:
        """The same loader with its images on another device."""
        if self.images.device == torch.empty(0, device=device).device:
            return self
        images, labels = self.images.to(device), self.labels.to(device)
        return ImageLoader(images, labels, self.batch_size, self.shuffle, self.resize, self.is_sample)


def on_device(data_iter: Iterable[Any], device: torch.device | str) -> Iterable[Any]:
    """An :class:`ImageLoader` whose data live on the device; any other iterable as it is."""
    return data_iter.to(device) if isinstance(data_iter, ImageLoader) else data_iter


@lru_cache(maxsize=4)
def fashion_mnist(root: str | None = None) -> FashionMNIST:
    """The data set: read once, and from then on kept in memory.

    Args:
        root: its folder, or ``"sample"``. None: ``../data`` if it is there, where the book's code keeps it, else as in
            :func:`d2lkernels.data.load_fashion_mnist`.
    """
    if root is None:
        raw = BOOK_FOLDER / "FashionMNIST" / "raw"
        if all((raw / name).is_file() or (raw / name).with_suffix("").is_file() for name in FILES):
            root = str(raw)
    return load_fashion_mnist(root, notify=lambda text: print(f"notice: {text}", file=sys.stderr))


def load_data_fashion_mnist(
    batch_size: int, resize: int | None = None, *, root: str | None = None, device: torch.device | str = "cpu"
) -> tuple[ImageLoader, ImageLoader]:
    """Loaders of the training and of the test images (3.5).

    Args:
        batch_size: the number of images in a batch.
        resize: height and width that the images are brought to.
        root: the data set's folder, or ``"sample"``. None: ``../data``, else the cache, else a download, else, with a
            notice, the sample of 900 images that comes with the package.
        device: where the batches come out. :func:`train_ch6` moves the data to its own device by itself.

    Raises:
        DataError: a file in the given folder is missing or damaged.
    """
    data = fashion_mnist(root)
    train = ImageLoader(data.train_images, data.train_labels, batch_size, True, resize, data.is_sample)
    test = ImageLoader(data.test_images, data.test_labels, batch_size, False, resize, data.is_sample)
    return train.to(device), test.to(device)


def get_fashion_mnist_labels(labels: Iterable[Any]) -> list[str]:
    """The names of classes given by number (3.5)."""
    return [CLASSES[int(label)] for label in labels]


def get_dataloader_workers() -> int:
    """How many processes read data (3.5): none. The data set is in memory, and workers would only copy it about.

    Without workers a script needs no ``if __name__ == "__main__"`` where processes are spawned, as on Windows.
    """
    return 0
