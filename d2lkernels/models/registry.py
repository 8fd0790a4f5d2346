"""The list of models: what each is called, how it is built, and how the book trains it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch


@dataclass(frozen=True)
class Settings:
    """How to train. `optimizer` is "sgd" (without momentum, as in the book) or "adam"."""

    batch_size: int
    lr: float
    epochs: int
    optimizer: str = "sgd"

    def __str__(self) -> str:
        return f"{self.optimizer}, batch {self.batch_size}, lr {self.lr:g}, {self.epochs} epochs"


@dataclass(frozen=True)
class ModelSpec:
    """One model of the book.

    Args:
        name: the name for :func:`build`.
        title: one line about it, with the section of the book.
        builder: makes the model over a namespace of layers: ``builder(nn, **options)``.
        image_size: height and width of the images that it takes; smaller ones are resized.
        parameters: the number of parameters with the default options.
        defaults: the book's settings, for the full data set.
        sample_defaults: settings that learn well from the 700 embedded training images.
    """

    name: str
    title: str
    builder: Callable[..., torch.nn.Module]
    image_size: int
    parameters: int
    defaults: Settings
    sample_defaults: Settings

    def options(self) -> list[str]:
        """The names of the options that :func:`build` takes for this model."""
        return list(inspect.signature(self.builder).parameters)[1:]


_SPECS: dict[str, ModelSpec] = {}


def register(spec: ModelSpec) -> ModelSpec:
    """Adds a model. Raises ValueError if the name is taken."""
    if spec.name in _SPECS:
        raise ValueError(f"register(): expected a new name, but got {spec.name!r}, which is taken")
    _SPECS[spec.name] = spec
    return spec


def names() -> list[str]:
    """The names of all models, in alphabetical order."""
    return sorted(_SPECS)


def nearest_first(name: str, choices: list[str]) -> list[str]:
    """The choices, those that look most like `name` first."""
    return sorted(choices, key=lambda choice: -difflib.SequenceMatcher(None, name.lower(), choice).ratio())


def spec(name: str) -> ModelSpec:
    """The description of a model. Raises ValueError for an unknown name."""
    if name not in _SPECS:
        known = ", ".join(nearest_first(str(name), names()))
        raise ValueError(f"models.build(): expected name to be one of {known}, but got {name!r}")
    return _SPECS[name]


def build(name: str, nn: ModuleType | None = None, **options: Any) -> torch.nn.Module:
    """Builds a model of the book by name.

    The weights are in channels_last, so that the model runs NHWC from end to end.

    Args:
        name: one of :func:`names`.
        nn: the namespace of the layers: None for :mod:`d2lkernels.nn`, or ``torch.nn`` for the same model on native
            layers. Both have the same state_dict.
        options: ``num_classes=10`` and ``in_channels=1`` for every model, others by model.

    Returns:
        The model, with torch's default initialisation (see :func:`xavier_uniform_` for the book's).

    Raises:
        ValueError: the name, or the value of an option, is unknown.
        TypeError: the model has no such option.

    Example:
        >>> from d2lkernels import models
        >>> model = models.build("lenet", activation="relu")
        >>> sum(parameter.numel() for parameter in model.parameters())
        61706
    """
    description = spec(name)
    allowed = description.options()
    for option in options:
        if option not in allowed:
            raise TypeError(
                f"models.build(): expected the options of {name!r} to be among "
                f"{', '.join(nearest_first(option, allowed))}, but got {option!r}"
            )
    if nn is None:
        from .. import nn as our_nn

        nn = our_nn
    return description.builder(nn, **options).to(memory_format=torch.channels_last)


def choose(model: str, option: str, value: Any, choices: dict[str, Any]) -> Any:
    """Looks up the value of an option of a model. Raises ValueError if it is unknown."""
    if value not in choices:
        raise ValueError(
            f"models.build({model!r}): expected {option} to be one of "
            f"{', '.join(map(repr, nearest_first(str(value), list(choices))))}, but got {value!r}"
        )
    return choices[value]


def xavier_uniform_(model: torch.nn.Module) -> torch.nn.Module:
    """Initialises a model as the book does: Xavier-uniform weights in all convolutions and linear layers.

    Biases keep their values. The weights are drawn from torch's global generator (Glorot and Bengio, 2010, eq. 16).
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
    return model
