"""Synthetic points for the models of a few features: linear regression (section 3.2) and the perceptron."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Points:
    """Inputs of size [N, features] and targets of size [N, 1], to train on and to test on, on one device.

    The targets are made with `weight` and `bias`, which a model can find again.
    """

    train_inputs: torch.Tensor
    train_targets: torch.Tensor
    test_inputs: torch.Tensor
    test_targets: torch.Tensor
    weight: tuple[float, ...]
    bias: float
    source: str
    fingerprint: str
    is_sample: bool = False

    def to(self, device: torch.device | str) -> Points:
        """The same points on another device."""
        return replace(
            self,
            train_inputs=self.train_inputs.to(device),
            train_targets=self.train_targets.to(device),
            test_inputs=self.test_inputs.to(device),
            test_targets=self.test_targets.to(device),
        )


def linear_points(
    weight: Sequence[float] = (2.0, -3.4), bias: float = 4.2, noise: float = 0.01, train: int = 1000, test: int = 200
) -> Points:
    """``y = x w + b + noise`` with normally distributed x: the book's data of section 3.2, always the same.

    Example:
        >>> from d2lkernels.data import linear_points
        >>> points = linear_points()
        >>> points.train_inputs.shape, points.test_targets.shape
        (torch.Size([1000, 2]), torch.Size([200, 1]))
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(train + test, len(weight), generator=generator)
    targets = inputs @ torch.tensor(weight)[:, None] + bias
    targets += noise * torch.randn(targets.shape, generator=generator)
    source = f"y = {_formula(weight, bias)} with noise of deviation {noise:g}"
    return _points(inputs, targets, train, weight, bias, source)


def separable_points(
    weight: Sequence[float] = (1.0, -1.0), bias: float = 0.5, margin: float = 0.1, train: int = 200, test: int = 200
) -> Points:
    """Points in a square, labelled 1 or -1 by the side of a line they are on, none within `margin` of it.

    Example:
        >>> from d2lkernels.data import separable_points
        >>> sorted(set(separable_points().train_targets.flatten().tolist()))
        [-1.0, 1.0]
    """
    generator = torch.Generator().manual_seed(0)
    normal = torch.tensor(weight)
    inputs = 4 * torch.rand(4 * (train + test), len(weight), generator=generator) - 2
    distance = (inputs @ normal + bias) / normal.norm()
    inputs = inputs[distance.abs() >= margin][: train + test].contiguous()
    targets = (inputs @ normal[:, None] + bias).sign()
    source = f"the sign of {_formula(weight, bias)}, {margin:g} or more from the line"
    return _points(inputs, targets, train, weight, bias, source)


def _formula(weight: Sequence[float], bias: float) -> str:
    terms = " ".join(f"{w:+g} x{number}" for number, w in enumerate(weight, 1))
    return f"{terms.removeprefix('+')} {bias:+g}"


def _points(
    inputs: torch.Tensor, targets: torch.Tensor, train: int, weight: Sequence[float], bias: float, source: str
) -> Points:
    digest = hashlib.md5(usedforsecurity=False)
    for tensor in (inputs, targets):
        digest.update(repr(tensor.tolist()).encode())
    return Points(
        train_inputs=inputs[:train],
        train_targets=targets[:train],
        test_inputs=inputs[train:],
        test_targets=targets[train:],
        weight=tuple(weight),
        bias=bias,
        source=source,
        fingerprint=digest.hexdigest(),
    )
