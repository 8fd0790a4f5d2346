"""Chapters 3 and 4 from scratch: data, models, losses and updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from .. import ops


def synthetic_data(w: Tensor, b: float, num_examples: int) -> tuple[Tensor, Tensor]:
    """Draws ``y = X w + b + noise`` (3.2): X of size (num_examples, len(w)) and y of size (num_examples, 1).

    X is standard normal, the noise has deviation 0.01. Both are made on the device of `w`.
    """
    X = torch.randn(num_examples, len(w), dtype=w.dtype, device=w.device)
    y = X @ w.reshape(-1) + b
    return X, (y + 0.01 * torch.randn_like(y)).reshape(-1, 1)


def data_iter(batch_size: int, features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of batches in a random order (3.2). The last batch may be smaller."""
    order = torch.randperm(len(features), device=features.device)
    for chosen in order.split(batch_size):
        yield features[chosen], labels[chosen]


def load_array(data_arrays: Sequence[Tensor], batch_size: int, is_train: bool = True) -> DataLoader:
    """A loader over tensors of equal length (3.3), in a new random order each epoch if `is_train`."""
    return DataLoader(TensorDataset(*data_arrays), batch_size, shuffle=is_train)


def linreg(X: Tensor, w: Tensor, b: Tensor | float) -> Tensor:
    """Linear regression (3.2): ``X w + b``."""
    return X @ w + b


def squared_loss(y_hat: Tensor, y: Tensor) -> Tensor:
    """Half the squared error of each element (3.2), in the shape of `y_hat`."""
    return (y_hat - y.reshape(y_hat.shape)).square() / 2


def sgd(params: Iterable[Tensor], lr: float, batch_size: int) -> None:
    """A step of gradient descent (3.2), in place, after which the gradients are zero.

    The gradients are those of a sum over the batch: hence the division by `batch_size`.
    """
    with torch.no_grad():
        for param in params:
            if param.grad is not None:
                param.sub_(param.grad, alpha=lr / batch_size)
                param.grad.zero_()


def softmax(X: Tensor) -> Tensor:
    """Each row's exponentials over their sum (3.6): (N, C) to (N, C). Large inputs do not overflow."""
    return ops.softmax(X, dim=1)


def cross_entropy(y_hat: Tensor, y: Tensor) -> Tensor:
    """Minus the logarithm of the probability of the true class (3.6).

    Args:
        y_hat: probabilities, of size (N, C).
        y: true classes, of size (N).

    Returns:
        A loss for each row, of size (N). For logits, ``nn.CrossEntropyLoss`` is more exact.
    """
    return -torch.log(y_hat.gather(1, y.reshape(-1, 1)).squeeze(1))


def relu(X: Tensor) -> Tensor:
    """``max(X, 0)`` (4.2)."""
    return ops.relu(X)


def l2_penalty(w: Tensor) -> Tensor:
    """Half the sum of squares (4.5)."""
    return w.square().sum() / 2


def dropout_layer(X: Tensor, dropout: float) -> Tensor:
    """Sets each element to zero with probability `dropout` and scales the others by 1 / (1 - dropout) (4.6).

    The mask is drawn on the device of `X`.

    Raises:
        ValueError: `dropout` is no probability.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout_layer(): expected dropout to be between 0 and 1, but got {dropout}")
    return ops.dropout(X, dropout, training=True)


def init_weights(m: torch.nn.Module) -> None:
    """For ``net.apply(init_weights)``: linear weights from a normal distribution with deviation 0.01 (3.7, 4.3)."""
    if isinstance(m, torch.nn.Linear):
        torch.nn.init.normal_(m.weight, std=0.01)
