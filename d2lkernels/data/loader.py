"""Batches from a data set that lives on the device: no workers, no copies from the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F


class DeviceLoader:
    """Yields batches of images and labels, shuffled anew each epoch on the device of the data.

    Images come as floats in [0, 1], resized bilinearly if asked (as the book's ``transforms.Resize``, in floats).
    The order is drawn from `seed` alone, so loaders with the same seed give the same batches.

    Args:
        images: uint8, of size [N, C, H, W].
        labels: integers, of size [N], on the same device.
        batch_size: the number of images in a batch.
        shuffle: whether to draw a new order for each epoch.
        seed: of the generator that draws it.
        resize: height and width of the images that come out; None leaves them as they are.
        dtype: of the images that come out.
        memory_format: of the images that come out.
        drop_last: whether to leave out a last batch that is not full.

    Raises:
        ValueError, TypeError: an argument does not fit.

    Example:
        >>> from d2lkernels.data import DeviceLoader
        >>> loader = DeviceLoader(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.zeros(10).long(), 4, resize=32)
        >>> [tuple(images.shape) for images, labels in loader]
        [(4, 1, 32, 32), (4, 1, 32, 32), (2, 1, 32, 32)]
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        resize: int | None = None,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.channels_last,
        drop_last: bool = False,
    ) -> None:
        if images.dim() != 4 or images.dtype != torch.uint8:
            raise TypeError(
                "DeviceLoader(): expected images to be uint8 of size [N, C, H, W], but got "
                f"{images.dtype} of size {list(images.shape)}"
            )
        if tuple(labels.shape) != (len(images),) or labels.device != images.device:
            raise ValueError(
                f"DeviceLoader(): expected labels to have size [{len(images)}] on {images.device}, but got "
                f"{list(labels.shape)} on {labels.device}"
            )
        for name, value in (("batch_size", batch_size), ("resize", 1 if resize is None else resize)):
            if value < 1:
                raise ValueError(f"DeviceLoader(): expected {name} to be at least 1, but got {value}")
        self.images = images
        self.labels = labels.long()
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.resize = resize
        self.dtype = dtype
        self.memory_format = memory_format
        self.drop_last = drop_last
        self._generator = torch.Generator(images.device).manual_seed(seed)
        self._epoch_start = self._generator.get_state()
        self._next_batch = 0
        if len(self) == 0:
            raise ValueError(
                f"DeviceLoader(): expected at least one batch, but got {len(images)} images and batch_size={batch_size}"
                f"{' with drop_last' if drop_last else ''}"
            )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def next_batch(self) -> int:
        """The batch that comes next in the present epoch: 0 between epochs."""
        return self._next_batch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch; or the rest of one, after :meth:`load_state_dict` with a state from within an epoch."""
        count, device = len(self.images), self.images.device
        self._epoch_start = self._generator.get_state()
        order = torch.randperm(count, generator=self._generator, device=device) if self.shuffle else None
        for batch in range(self._next_batch, len(self)):
            start, end = batch * self.batch_size, min((batch + 1) * self.batch_size, count)
            chosen = slice(start, end) if order is None else order[start:end]
            self._next_batch = (batch + 1) % len(self)
            yield self._prepare(self.images[chosen]), self.labels[chosen]
        self._next_batch = 0

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        values = images.to(torch.float32, memory_format=self.memory_format).div_(255)
        if self.resize is not None and tuple(images.shape[2:]) != (self.resize, self.resize):
            shrinks = self.resize < max(images.shape[2:])
            values = F.interpolate(values, (self.resize, self.resize), mode="bilinear", antialias=shrinks)
        return values.to(self.dtype, memory_format=self.memory_format)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, so that another one can go on from there."""
        within = self._next_batch > 0
        return {
            "generator": self._epoch_start if within else self._generator.get_state(),
            "next_batch": self._next_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where the loader stood that gave `state`."""
        self._generator.set_state(state["generator"])
        self._next_batch = int(state["next_batch"])
