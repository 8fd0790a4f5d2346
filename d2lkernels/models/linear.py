"""Models of one linear layer: linear regression (3.3), softmax regression (3.7), and the perceptron of the lectures.

The perceptron is from Rosenblatt, The perceptron: a probabilistic model for information storage and organization in the
brain, 1958. It cannot learn XOR, an MLP can (Minsky and Papert, Perceptrons, 1969).
"""

from __future__ import annotations

from types import ModuleType

import torch

from .registry import ModelSpec, Settings, check_positive, normal_, register

PIXELS = 28 * 28


def linear_regression(nn: ModuleType, num_classes: int = 1, in_channels: int = 2) -> torch.nn.Module:
    """``y = x w + b``: (N, in_channels) to (N, num_classes).

    Example:
        >>> from d2lkernels import models
        >>> models.build("linear_regression")(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """
    check_positive("linear_regression", num_classes=num_classes, in_channels=in_channels)
    return nn.Sequential(nn.Linear(in_channels, num_classes))


def softmax_regression(nn: ModuleType, num_classes: int = 10, in_channels: int = PIXELS) -> torch.nn.Module:
    """One linear layer over all pixels: (N, 1, 28, 28) to (N, num_classes) logits; the softmax is in the loss.

    Example:
        >>> from d2lkernels import models
        >>> models.build("softmax_regression")(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    check_positive("softmax_regression", num_classes=num_classes, in_channels=in_channels)
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels, num_classes))


def perceptron(nn: ModuleType, num_classes: int = 1, in_channels: int = 2) -> torch.nn.Module:
    """``s = x w + b``, whose sign is the decision: (N, in_channels) to (N, num_classes).

    Its learning rule is SGD with batches of one image on the loss ``max(0, -s y)``, where y is -1 or 1.

    Example:
        >>> from d2lkernels import models
        >>> models.build("perceptron")(torch.zeros(4, 2)).shape
        torch.Size([4, 1])
    """
    check_positive("perceptron", num_classes=num_classes, in_channels=in_channels)
    return nn.Sequential(nn.Linear(in_channels, num_classes))


LINEAR_REGRESSION = register(
    ModelSpec(
        name="linear_regression",
        title="Linear regression (section 3.3): 1 linear layer over 2 features",
        builder=linear_regression,
        image_size=None,
        parameters=3,
        defaults=Settings(batch_size=10, lr=0.03, epochs=3),
        sample_defaults=Settings(batch_size=10, lr=0.03, epochs=3),
        initialize=normal_,
        task="regression",
    )
)

SOFTMAX_REGRESSION = register(
    ModelSpec(
        name="softmax_regression",
        title="Softmax regression (section 3.7): 1 linear layer",
        builder=softmax_regression,
        image_size=28,
        parameters=7_850,
        defaults=Settings(batch_size=256, lr=0.1, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.1, epochs=30),
        initialize=normal_,
    )
)

PERCEPTRON = register(
    ModelSpec(
        name="perceptron",
        title="Perceptron (lectures on chapter 4): 1 linear layer over 2 features, the sign decides",
        builder=perceptron,
        image_size=None,
        parameters=3,
        defaults=Settings(batch_size=1, lr=1.0, epochs=100),
        sample_defaults=Settings(batch_size=1, lr=1.0, epochs=100),
        initialize=normal_,
        task="separation",
    )
)
