"""Batches from a data set that lives on the device: no workers, no copies from the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F


class BatchLoader:
    """Yields batches of inputs and targets, shuffled anew each epoch on the device of the data.

    The order is drawn from `seed` alone, so loaders with the same seed give the same batches.

    Args:
        inputs: of size [N, ...].
        targets: of size [N, ...], on the same device.
        batch_size: the number of inputs in a batch.
        shuffle: whether to draw a new order for each epoch.
        seed: of the generator that draws it.
        drop_last: whether to leave out a last batch that is not full.
        share: ``(rank, ranks)`` for one of several processes that divide every batch among them: each yields its part,
            which is empty if a batch has fewer inputs than there are ranks.

    Raises:
        ValueError: an argument does not fit.

    Example:
        >>> from d2lkernels.data import BatchLoader
        >>> loader = BatchLoader(torch.zeros(10, 2), torch.zeros(10, 1), 4)
        >>> [tuple(inputs.shape) for inputs, targets in loader]
        [(4, 2), (4, 2), (2, 2)]
    """

    _WHAT = ("inputs", "targets")

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        name, inputs_name, targets_name = type(self).__name__, *self._WHAT
        if len(targets) != len(inputs) or targets.device != inputs.device:
            raise ValueError(
                f"{name}(): expected {targets_name} to have size [{len(inputs)}] on {inputs.device}, but got "
                f"{list(targets.shape)} on {targets.device}"
            )
        if batch_size < 1:
            raise ValueError(f"{name}(): expected batch_size to be at least 1, but got {batch_size}")
        if not 0 <= share[0] < share[1]:
            raise ValueError(f"{name}(): expected share to be a rank and a larger number of ranks, but got {share}")
        self.inputs = inputs
        self.targets = targets
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.share = share
        self._generator = torch.Generator(inputs.device).manual_seed(seed)
        self._epoch_start = self._generator.get_state()
        self._next_batch = 0
        if len(self) == 0:
            raise ValueError(
                f"{name}(): expected at least one batch, but got {len(inputs)} {inputs_name} and "
                f"batch_size={batch_size}{' with drop_last' if drop_last else ''}"
            )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        full, rest = divmod(len(self.inputs), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def next_batch(self) -> int:
        """The batch that comes next in the present epoch: 0 between epochs."""
        return self._next_batch

    def bounds(self, batch: int) -> tuple[int, int]:
        """Where a batch, all shares together, starts and ends in the order of the epoch."""
        return batch * self.batch_size, min((batch + 1) * self.batch_size, len(self.inputs))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch; or the rest of one, after :meth:`load_state_dict` with a state from within an epoch."""
        count, device = len(self.inputs), self.inputs.device
        self._epoch_start = self._generator.get_state()
        order = torch.randperm(count, generator=self._generator, device=device) if self.shuffle else None
        rank, ranks = self.share
        for batch in range(self._next_batch, len(self)):
            start, end = self.bounds(batch)
            size = end - start
            start, end = start + size * rank // ranks, start + size * (rank + 1) // ranks
            chosen = slice(start, end) if order is None else order[start:end]
            self._next_batch = (batch + 1) % len(self)
            yield self._prepare(self.inputs[chosen]), self.targets[chosen]
        self._next_batch = 0

    def _prepare(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

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


class DeviceLoader(BatchLoader):
    """A :class:`BatchLoader` of images and labels.

    Images come as floats in [0, 1], resized bilinearly if asked (as the book's ``transforms.Resize``, in floats).

    Args:
        images: uint8, of size [N, C, H, W].
        labels: integers, of size [N], on the same device.
        batch_size, shuffle, seed, drop_last, share: as in :class:`BatchLoader`.
        resize: height and width of the images that come out; None leaves them as they are.
        dtype: of the images that come out.
        memory_format: of the images that come out.

    Raises:
        ValueError, TypeError: an argument does not fit.

    Example:
        >>> from d2lkernels.data import DeviceLoader
        >>> loader = DeviceLoader(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.zeros(10).long(), 4, resize=32)
        >>> [tuple(images.shape) for images, labels in loader]
        [(4, 1, 32, 32), (4, 1, 32, 32), (2, 1, 32, 32)]
    """

    _WHAT = ("images", "labels")

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
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if images.dim() != 4 or images.dtype != torch.uint8:
            raise TypeError(
                "DeviceLoader(): expected images to be uint8 of size [N, C, H, W], but got "
                f"{images.dtype} of size {list(images.shape)}"
            )
        if labels.dim() != 1:
            raise ValueError(
                f"DeviceLoader(): expected labels to have size [{len(images)}], but got {list(labels.shape)}"
            )
        if resize is not None and resize < 1:
            raise ValueError(f"DeviceLoader(): expected resize to be at least 1, but got {resize}")
        super().__init__(
            images, labels.long(), batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, share=share
        )
        self.resize = resize
        self.dtype = dtype
        self.memory_format = memory_format

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        values = images.to(torch.float32, memory_format=self.memory_format).div_(255)
        if self.resize is not None and tuple(images.shape[2:]) != (self.resize, self.resize):
            size, shrinks = (self.resize, self.resize), self.resize < max(images.shape[2:])
            if len(images):
                values = F.interpolate(values, size, mode="bilinear", antialias=shrinks)
            else:  # which interpolate refuses
                values = values.new_empty(0, images.shape[1], *size)
        return values.to(self.dtype, memory_format=self.memory_format)
