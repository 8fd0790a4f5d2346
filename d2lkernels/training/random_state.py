"""A random state of its own for each run, so that runs side by side draw the same numbers as alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RandomState:
    """torch's global generators as one run sees them: ``with state.active(): ...``."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        with self._kept():
            torch.manual_seed(seed)
            self._states = self._get()

    def _get(self) -> dict[str, torch.Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def _set(self, states: dict[str, torch.Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        outer = self._get()
        try:
            yield
        finally:
            self._set(outer)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, torch draws from this state; after, from what it drew from before."""
        with self._kept():
            self._set(self._states)
            try:
                yield
            finally:
                self._states = self._get()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self._states)

    def load_state_dict(self, states: dict[str, torch.Tensor]) -> None:
        self._states = dict(states)
