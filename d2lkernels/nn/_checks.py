"""Numbers that layers are made with, checked before anything is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Layer = TypeVar("_Layer", bound=type[torch.nn.Module])


def at_least(**minimum: int) -> Callable[[_Layer], _Layer]:
    """Lets a layer refuse smaller values of these arguments of its constructor, whose signature stays torch's.

    An argument may be one int or several. Names ("same") and None are left to torch.
    """

    def decorate(layer: _Layer) -> _Layer:
        target: Any = layer
        original = target.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def __init__(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
            given = signature.bind(self, *args, **kwargs).arguments
            for name, least in minimum.items():
                _check(layer.__name__, name, given.get(name), least)
            original(self, *args, **kwargs)

        target.__init__ = __init__
        return layer

    return decorate


def _check(layer: str, name: str, value: Any, least: int) -> None:
    if value is None or isinstance(value, str):
        return
    for one in value if isinstance(value, (tuple, list)) else (value,):
        if one is None:
            continue
        if not hasattr(one, "__index__"):
            raise TypeError(f"{layer}(): expected {name} to be an int, but got {value!r}")
        if one < least:
            raise ValueError(f"{layer}(): expected {name} to be at least {least}, but got {value!r}")
