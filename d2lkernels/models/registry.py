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


def xavier_uniform_(model: torch.nn.Module) -> torch.nn.Module:
    """Initialises a model as the book does from section 6.6 on: Xavier-uniform convolution and linear weights.

    Biases keep their values. The weights are drawn from torch's global generator (Glorot and Bengio, 2010, eq. 16).
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
    return model


def normal_(model: torch.nn.Module) -> torch.nn.Module:
    """Initialises a model as the book does up to chapter 4: linear weights from a normal distribution, deviation 0.01.

    Biases keep their values. The weights are drawn from torch's global generator.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.01)
    return model


@dataclass(frozen=True)
class ModelSpec:
    """One model of the book.

    Args:
        name: the name for :func:`build`.
        title: one line about it, with the section of the book.
        builder: makes the model over a namespace of layers: ``builder(nn, **options)``.
        image_size: height and width of the images that it takes; smaller ones are resized. None: it takes vectors.
        parameters: the number of parameters with the default options.
        defaults: the book's settings, for the full data set.
        sample_defaults: settings that learn well from the 700 embedded training images.
        initialize: draws the initial weights as the book does, in place; returns the model.
        task: "classification" of images; or of vectors, "regression", or "separation" into two classes.
    """

    name: str
    title: str
    builder: Callable[..., torch.nn.Module]
    image_size: int | None
    parameters: int
    defaults: Settings
    sample_defaults: Settings
    initialize: Callable[[torch.nn.Module], torch.nn.Module] = xavier_uniform_
    task: str = "classification"

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
    """The choices, those first that look most like `name`, or begin so; of equals those that end soonest."""
    typed = name.lower()

    def likeness(choice: str) -> tuple[float, float]:
        whole, beginning = (
            difflib.SequenceMatcher(None, typed, part).ratio() for part in (choice, choice[: len(typed) + 1])
        )
        return max(whole, beginning), whole

    return sorted(choices, key=likeness, reverse=True)


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
        options: ``num_classes=10`` and ``in_channels=1`` for every model of images, others by model. Of the linear
            models and perceptrons, ``in_channels`` is the number of features (28 x 28 for images).

    Returns:
        The model, with torch's default initialisation (``spec(name).initialize`` draws the book's).

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
    model = description.builder(layers(nn), **options)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def layers(nn: ModuleType | None) -> ModuleType:
    """The namespace of layers that `nn` stands for: None is :mod:`d2lkernels.nn`."""
    if nn is None:
        from .. import nn as our_nn

        return our_nn
    return nn


def choose(model: str, option: str, value: Any, choices: dict[str, Any]) -> Any:
    """Looks up the value of an option of a model. Raises ValueError if it is unknown."""
    if value not in choices:
        raise ValueError(
            f"models.build({model!r}): expected {option} to be one of "
            f"{', '.join(map(repr, nearest_first(str(value), list(choices))))}, but got {value!r}"
        )
    return choices[value]


def is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_positive(model: str, **options: Any) -> None:
    """Raises ValueError unless every option of a model is a positive whole number."""
    for option, value in options.items():
        if not is_positive_int(value):
            raise ValueError(f"models.build({model!r}): expected {option} to be a positive int, but got {value!r}")


def check_probability(model: str, **options: Any) -> None:
    """Raises ValueError unless every option of a model is a number from 0 to 1."""
    for option, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"models.build({model!r}): expected {option} to be from 0 to 1, but got {value!r}")


def check_all_positive(model: str, option: str, values: Any) -> None:
    """Raises ValueError unless an option of a model is a non-empty sequence of positive whole numbers."""
    if not (isinstance(values, list | tuple) and values and all(map(is_positive_int, values))):
        raise ValueError(
            f"models.build({model!r}): expected {option} to be a sequence of positive ints, but got {values!r}"
        )
