"""The data sets and their loaders. Each data set lives on the device, Fashion-MNIST as bytes."""

from .download import DownloadError
from .fashion_mnist import CLASSES, SAMPLE, FashionMNIST, cache_folder, load_fashion_mnist
from .idx import DataError, read_idx
from .loader import BatchLoader, DeviceLoader
from .points import Points, linear_points, separable_points

__all__ = [
    "CLASSES",
    "SAMPLE",
    "BatchLoader",
    "DataError",
    "DeviceLoader",
    "DownloadError",
    "FashionMNIST",
    "Points",
    "cache_folder",
    "linear_points",
    "load_fashion_mnist",
    "read_idx",
    "separable_points",
]
