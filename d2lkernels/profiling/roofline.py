"""What the device can do at most, measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F


class Roofline:
    """Measured limits of the device under the present thread count; each is measured when first asked for, once.

    Arithmetic: the faster of a large matrix product and a large channels_last convolution in the precision asked for
    (MKL does not reach an AMD processor's peak, oneDNN's convolution nearly does). Bandwidth: copying between two
    buffers that together are about as large as what the operation moves, so that work that stays in a cache is held
    against that cache. Traffic counts read plus write.

    Args:
        device: "cpu" or "cuda".
        quick: whether tiny problems and 20 ms a figure will do; the limits are then rough.
        seconds: how long to look for the best time of each figure.
    """

    _SIZES = tuple(1 << power for power in (16, 18, 20, 22, 24, 26, 28, 30))

    def __init__(self, device: str, quick: bool = False, seconds: float = 0.5) -> None:
        self._device = device
        self._seconds = 0.02 if quick else seconds
        self._quick = quick
        self._gflops: dict[str, float] = {}
        self._copy: dict[int, float] = {}

    def gflops(self, dtype: str) -> float:
        """Billions of additions and multiplications a second, in "float32" or "bfloat16"."""
        if dtype not in self._gflops:
            kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
            self._gflops[dtype] = max(self._matmul(kind), self._convolution(kind))
        return self._gflops[dtype]

    def copy_gbps(self, traffic: int) -> float:
        """Billions of bytes a second of an operation that moves `traffic` bytes."""
        size = min(self._SIZES, key=lambda candidate: max(candidate / max(traffic, 1), traffic / candidate))
        if self._quick:
            size = min(size, 1 << 24)
        if size not in self._copy:
            source = torch.rand(size // 8, device=self._device)
            target = torch.empty_like(source)
            self._copy[size] = size / self._best(lambda: target.copy_(source)) / 1e9
        return self._copy[size]

    def _matmul(self, dtype: torch.dtype) -> float:
        n = 256 if self._quick else 8192 if self._device == "cuda" else 1024
        a, b = (torch.randn(n, n, device=self._device).to(dtype) for _ in range(2))
        return 2 * n**3 / self._best(lambda: a @ b) / 1e9

    def _convolution(self, dtype: torch.dtype) -> float:
        n, size = (1, 16) if self._quick else (256, 56) if self._device == "cuda" else (4, 56)
        x, w = torch.randn(n, 256, size, size, device=self._device), torch.randn(256, 256, 3, 3, device=self._device)
        x, w = (t.to(dtype, memory_format=torch.channels_last) for t in (x, w))
        with torch.no_grad():
            return 2 * n * 256 * size**2 * 256 * 9 / self._best(lambda: F.conv2d(x, w, padding=1)) / 1e9

    def _best(self, run: Callable[[], object]) -> float:
        """Shortest time of one call in seconds."""
        synchronize = torch.cuda.synchronize if self._device == "cuda" else lambda: None
        run()
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        calls = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-7)))
        best, deadline = float("inf"), time.perf_counter() + self._seconds
        while time.perf_counter() < deadline or best == float("inf"):
            start = time.perf_counter()
            for _ in range(calls):
                run()
            synchronize()
            best = min(best, (time.perf_counter() - start) / calls)
        return best
