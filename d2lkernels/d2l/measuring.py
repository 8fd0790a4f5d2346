"""Timer and Accumulator."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch


class Timer:
    """Times several runs. It starts when it is made.

    Example:
        >>> timer = Timer()
        >>> elapsed = timer.stop()
        >>> elapsed == timer.sum() == timer.avg() == timer.cumsum()[-1]
        True
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.start()

    def start(self) -> None:
        """Starts the next run."""
        self.tik = time.perf_counter()

    def stop(self) -> float:
        """Ends the run and returns its seconds. It does not wait for a GPU: call ``torch.cuda.synchronize()`` first."""
        self.times.append(time.perf_counter() - self.tik)
        return self.times[-1]

    def avg(self) -> float:
        """The mean of all runs; NaN if there is none."""
        return sum(self.times) / len(self.times) if self.times else float("nan")

    def sum(self) -> float:
        """The total of all runs."""
        return sum(self.times)

    def cumsum(self) -> list[float]:
        """The total up to each run."""
        return list(itertools.accumulate(self.times))


class Accumulator:
    """Adds up n quantities. Tensors stay on their device until a sum is read, so that adding waits for nothing.

    Example:
        >>> metric = Accumulator(2)
        >>> metric.add(torch.tensor(1.5), 10)
        >>> metric.add(torch.tensor(0.5), 10)
        >>> metric[0] / metric[1]
        0.1
    """

    def __init__(self, n: int) -> None:
        self._sums: list[Any] = [0.0] * n

    @property
    def data(self) -> list[float]:
        """All sums."""
        return [float(value) for value in self._sums]

    def add(self, *args: Any) -> None:
        """Adds one number or tensor of one element to each sum.

        Raises:
            ValueError: there are more or fewer than n.
        """
        if len(args) != len(self._sums):
            raise ValueError(f"Accumulator.add(): expected {len(self._sums)} values, but got {len(args)}")
        self._sums = [total + _summand(value) for total, value in zip(self._sums, args, strict=True)]

    def reset(self) -> None:
        """Sets all sums to zero."""
        self._sums = [0.0] * len(self._sums)

    def __getitem__(self, idx: int) -> float:
        return float(self._sums[idx])

    def __len__(self) -> int:
        return len(self._sums)


def _summand(value: Any) -> Any:
    """In double precision, in which thousands of batches add up without loss; MPS has none."""
    if not isinstance(value, torch.Tensor):
        return float(value)
    if value.numel() != 1:
        raise ValueError(f"Accumulator.add(): expected tensors of one element, but got one of size {list(value.shape)}")
    dtype = torch.float32 if value.device.type == "mps" else torch.float64
    return value.detach().reshape(()).to(dtype)
