"""Times spans of work on a device without making it wait between them."""

from __future__ import annotations

import time

import torch


class SpanTimer:
    """Adds up the time of spans: ``with timer: step()``.

    On the CPU by the clock. On CUDA by pairs of events, so that the host need not wait for the device after each span.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream_device = device if device.type == "cuda" else None
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0
        self._start = 0.0

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._stream_device))
        return event

    def __enter__(self) -> SpanTimer:
        if self._stream_device:
            self._events.append((self._event(), torch.cuda.Event(enable_timing=True)))
        else:
            self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._stream_device:
            self._events[-1][1].record(torch.cuda.current_stream(self._stream_device))
        else:
            self._seconds += time.perf_counter() - self._start

    def take(self) -> float:
        """Waits for the device, returns the seconds since the last call, and starts again from zero."""
        if self._events:
            torch.cuda.synchronize(self._stream_device)
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events.clear()
        seconds, self._seconds = self._seconds, 0.0
        return seconds
