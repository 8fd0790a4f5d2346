"""Fashion-MNIST and its loader. The data set lives on the device, as bytes."""

from .download import DownloadError
from .fashion_mnist import CLASSES, FashionMNIST, cache_folder, load_fashion_mnist
from .idx import DataError, read_idx
from .loader import DeviceLoader

__all__ = [
    "CLASSES",
    "DataError",
    "DeviceLoader",
    "DownloadError",
    "FashionMNIST",
    "cache_folder",
    "load_fashion_mnist",
    "read_idx",
]
