"""Multilayer perceptrons: section 4.3, and with dropout section 4.6 (Srivastava et al., Dropout, 2014)."""

from __future__ import annotations

from types import ModuleType

import torch

from .linear import PIXELS
from .registry import ModelSpec, Settings, check_positive, check_probability, choose, normal_, register


def mlp(
    nn: ModuleType,
    num_classes: int = 10,
    in_channels: int = PIXELS,
    num_hiddens: int = 256,
    activation: str = "relu",
) -> torch.nn.Module:
    """One hidden layer: (N, 1, 28, 28) to (N, num_hiddens) to (N, num_classes).

    Example:
        >>> from d2lkernels import models
        >>> xor = models.build("mlp", in_channels=2, num_hiddens=4, num_classes=1, activation="tanh")
        >>> xor(torch.zeros(4, 2)).shape
        torch.Size([4, 1])
    """
    check_positive("mlp", num_classes=num_classes, in_channels=in_channels, num_hiddens=num_hiddens)
    act = choose("mlp", "activation", activation, {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh})
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels, num_hiddens), act(), nn.Linear(num_hiddens, num_classes))


def mlp_dropout(
    nn: ModuleType,
    num_classes: int = 10,
    in_channels: int = PIXELS,
    num_hiddens1: int = 256,
    num_hiddens2: int = 256,
    dropout1: float = 0.2,
    dropout2: float = 0.5,
) -> torch.nn.Module:
    """Two hidden layers with dropout after each: (N, 1, 28, 28) to (N, num_classes).

    Example:
        >>> from d2lkernels import models
        >>> models.build("mlp_dropout", dropout2=0.3)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    check_positive(
        "mlp_dropout",
        num_classes=num_classes,
        in_channels=in_channels,
        num_hiddens1=num_hiddens1,
        num_hiddens2=num_hiddens2,
    )
    check_probability("mlp_dropout", dropout1=dropout1, dropout2=dropout2)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels, num_hiddens1),
        nn.ReLU(),
        nn.Dropout(dropout1),
        nn.Linear(num_hiddens1, num_hiddens2),
        nn.ReLU(),
        nn.Dropout(dropout2),
        nn.Linear(num_hiddens2, num_classes),
    )


MLP = register(
    ModelSpec(
        name="mlp",
        title="Multilayer perceptron (section 4.3): 2 linear layers",
        builder=mlp,
        image_size=28,
        parameters=203_530,
        defaults=Settings(batch_size=256, lr=0.1, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.1, epochs=30),
        initialize=normal_,
    )
)

MLP_DROPOUT = register(
    ModelSpec(
        name="mlp_dropout",
        title="Multilayer perceptron with dropout (section 4.6): 3 linear layers",
        builder=mlp_dropout,
        image_size=28,
        parameters=269_322,
        defaults=Settings(batch_size=256, lr=0.5, epochs=10),
        sample_defaults=Settings(batch_size=20, lr=0.001, epochs=30, optimizer="adam"),
        initialize=normal_,
    )
)
