"""The book's training loops. Losses and counts add up on the device; each epoch reads them once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import nn
from ..models import xavier_uniform_
from ..training.timer import SpanTimer
from .animator import Animator
from .datasets import get_fashion_mnist_labels, on_device
from .extras import available, in_notebook
from .measuring import Accumulator
from .plotting import show_images

LEGEND = ["train loss", "train acc", "test acc"]


@dataclass
class Training:
    """What a training measured: the last epoch's values, and the curves.

    `examples_per_second` counts the training steps alone (in :func:`train_ch3` also the loading); `epoch_seconds` is
    the wall clock of a mean epoch, with loading and testing.
    """

    loss: float
    train_acc: float
    test_acc: float
    examples_per_second: float
    epoch_seconds: float
    animator: Animator = field(repr=False)


def try_gpu(i: int = 0) -> torch.device:
    """GPU number `i` if there is one, else the CPU (5.6)."""
    return torch.device("cuda", i) if torch.cuda.device_count() > i else torch.device("cpu")


def try_all_gpus() -> list[torch.device]:
    """All GPUs, or the CPU if there is none (5.6)."""
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count())] or [torch.device("cpu")]


def _correct(y_hat: Tensor, y: Tensor) -> Tensor:
    """The number of right answers, on the device."""
    guesses = y_hat.argmax(dim=1) if y_hat.dim() > 1 and y_hat.shape[1] > 1 else y_hat.to(y.dtype).reshape(y.shape)
    return (guesses == y).sum()


def accuracy(y_hat: Tensor, y: Tensor) -> float:
    """The number of right answers (3.6).

    Args:
        y_hat: scores of size (N, C), or classes of size (N).
        y: true classes, of size (N).
    """
    return float(_correct(y_hat, y))


def _evaluate(net: Callable[[Any], Tensor], data_iter: Iterable[Any], device: torch.device | str | None) -> float:
    mode = net.training if isinstance(net, torch.nn.Module) else None
    if isinstance(net, torch.nn.Module):
        net.eval()
    metric = Accumulator(2)
    with torch.no_grad():
        for X, y in data_iter if device is None else on_device(data_iter, device):
            if device is not None:
                X = [x.to(device) for x in X] if isinstance(X, list) else X.to(device)
                y = y.to(device)
            metric.add(_correct(net(X), y), y.numel())
    if isinstance(net, torch.nn.Module) and mode:
        net.train()
    if metric[1] == 0:
        raise ValueError("evaluate_accuracy(): expected data_iter to have at least one batch, but got none")
    return metric[0] / metric[1]


def evaluate_accuracy(net: Callable[[Tensor], Tensor], data_iter: Iterable[Any]) -> float:
    """The share of right answers (3.6). Modules are in evaluation mode meanwhile."""
    return _evaluate(net, data_iter, None)


def evaluate_accuracy_gpu(
    net: Callable[[Any], Tensor], data_iter: Iterable[Any], device: torch.device | str | None = None
) -> float:
    """The share of right answers (6.6), with the data moved to a device: by default that of the parameters."""
    if device is None and isinstance(net, torch.nn.Module):
        device = next(net.parameters()).device
    return _evaluate(net, data_iter, device)


def evaluate_loss(
    net: Callable[[Tensor], Tensor], data_iter: Iterable[Any], loss: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """The mean of the elements of the loss (4.4)."""
    metric = Accumulator(2)
    with torch.no_grad():
        for X, y in data_iter:
            out = net(X)
            values = loss(out, y.reshape(out.shape))
            metric.add(values.sum(), values.numel())
    return metric[0] / metric[1]


def train_epoch_ch3(
    net: Callable[[Tensor], Tensor],
    train_iter: Iterable[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    updater: torch.optim.Optimizer | Callable[[int], None],
) -> tuple[float, float]:
    """Trains one epoch (3.6).

    Args:
        net: a module or a function.
        train_iter: gives batches of inputs and classes.
        loss: gives a loss for each example.
        updater: an optimizer of torch, which steps by the mean loss; or a function of the batch size, which steps by
            the summed loss.

    Returns:
        The mean loss and the share of right answers, over the batches as they were seen.
    """
    if isinstance(net, torch.nn.Module):
        net.train()
    metric = Accumulator(3)
    for X, y in train_iter:
        y_hat = net(X)
        values = loss(y_hat, y)
        if isinstance(updater, torch.optim.Optimizer):
            updater.zero_grad()
            values.mean().backward()
            updater.step()
        else:
            values.sum().backward()
            updater(len(X))
        # A loss that is a mean already counts once for each of its examples.
        total = values.detach() * y.numel() if values.dim() == 0 else values.detach().sum()
        metric.add(total, _correct(y_hat.detach(), y), y.numel())
    return metric[0] / metric[2], metric[1] / metric[2]


def train_ch3(
    net: Callable[[Tensor], Tensor],
    train_iter: Iterable[Any],
    test_iter: Iterable[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    num_epochs: int,
    updater: torch.optim.Optimizer | Callable[[int], None],
) -> Training:
    """Trains a classifier and shows loss and accuracies (3.6). See :func:`train_epoch_ch3`.

    A result that the book's code would refuse (loss of 0.5 or more, an accuracy of 0.7 or less) is a warning here: what
    was learned is not lost.
    """
    animator = Animator(xlabel="epoch", xlim=[1, num_epochs], ylim=[0.3, 0.9], legend=LEGEND)
    begin, step_seconds, count = time.perf_counter(), 0.0, 0
    train_loss = train_acc = test_acc = float("nan")
    for epoch in range(num_epochs):
        start = time.perf_counter()
        counted = _Counted(train_iter)
        train_loss, train_acc = train_epoch_ch3(net, counted, loss, updater)
        step_seconds += time.perf_counter() - start
        count += counted.examples
        test_acc = evaluate_accuracy(net, test_iter)
        animator.add(epoch + 1, (train_loss, train_acc, test_acc))
    animator.finish()
    if not (train_loss < 0.5 and train_acc > 0.7 and test_acc > 0.7):
        warnings.warn(
            "train_ch3(): expected a loss below 0.5 and accuracies above 0.7 in the end, but got loss "
            f"{train_loss:.3f}, train acc {train_acc:.3f}, test acc {test_acc:.3f}: train longer, or on more data",
            RuntimeWarning,
            stacklevel=2,
        )
    speed = count / step_seconds if step_seconds else float("nan")
    seconds = (time.perf_counter() - begin) / max(1, num_epochs)
    return Training(train_loss, train_acc, test_acc, speed, seconds, animator)


class _Counted:
    """Counts the examples that pass."""

    def __init__(self, data_iter: Iterable[Any]) -> None:
        self._data_iter = data_iter
        self.examples = 0

    def __iter__(self) -> Any:
        for X, y in self._data_iter:
            self.examples += y.numel()
            yield X, y


def predict_ch3(
    net: Callable[[Tensor], Tensor], test_iter: Iterable[Any], n: int = 6, *, show: bool = True
) -> list[tuple[str, str]]:
    """Shows the first `n` test images with their true and their predicted class (3.6).

    In a terminal the classes are printed; there the picture is drawn if matplotlib is installed, and not if `show` is
    false.

    Returns:
        The true and the predicted class of each image.
    """
    X, y = next(iter(test_iter))
    X, y = X[:n], y[:n]
    mode = net.training if isinstance(net, torch.nn.Module) else False
    if isinstance(net, torch.nn.Module):
        net.eval()
    with torch.no_grad():
        guesses = net(X).argmax(dim=1)
    if isinstance(net, torch.nn.Module):
        net.train(mode)
    answers = list(zip(get_fashion_mnist_labels(y), get_fashion_mnist_labels(guesses), strict=True))
    if show and (in_notebook() or available("matplotlib")):
        show_images(X, 1, len(X), titles=[f"{true}\n{guess}" for true, guess in answers])
    if not in_notebook():
        for true, guess in answers:
            print(f"true {true:11}  predicted {guess:11}  {'right' if true == guess else 'wrong'}")
    return answers


def train_ch6(
    net: torch.nn.Module,
    train_iter: Iterable[Any],
    test_iter: Iterable[Any],
    num_epochs: int,
    lr: float,
    device: torch.device | str,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
) -> Training:
    """Trains a classifier of images on a device (6.6): Xavier-uniform weights, SGD without momentum, cross-entropy.

    The images of :func:`load_data_fashion_mnist` are moved to the device once, as bytes. The metrics stay there and are
    read five times an epoch. Only the training steps are timed, as in the book. `optimizer` makes another optimizer
    than SGD. The weights of convolutions go to the memory format channels_last, so that the maps between the layers are
    NHWC, which no kernel has to reorder.

    Raises:
        ValueError: `train_iter` has no batch.
    """
    device = torch.device(device)
    train_batches, test_batches = on_device(train_iter, device), on_device(test_iter, device)
    num_batches = len(train_batches)  # type: ignore[arg-type]
    if num_batches == 0:
        raise ValueError("train_ch6(): expected train_iter to have at least one batch, but got none")
    xavier_uniform_(net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    print("training on", device)
    updater = optimizer(net.parameters(), lr=lr)
    loss = nn.CrossEntropyLoss()
    animator = Animator(xlabel="epoch", xlim=[1, num_epochs], legend=LEGEND)
    timer, step_seconds, begin = SpanTimer(device), 0.0, time.perf_counter()
    examples, metric, test_acc = 0, Accumulator(3), float("nan")
    for epoch in range(num_epochs):
        metric.reset()
        net.train()
        for i, (X, y) in enumerate(train_batches):
            with timer:
                X, y = X.to(device), y.to(device)
                updater.zero_grad()
                y_hat = net(X)
                value = loss(y_hat, y)
                value.backward()
                updater.step()
                metric.add(value.detach() * len(X), _correct(y_hat.detach(), y), len(X))
            if (i + 1) % max(1, num_batches // 5) == 0 or i == num_batches - 1:
                animator.add(epoch + (i + 1) / num_batches, (metric[0] / metric[2], metric[1] / metric[2], None))
        step_seconds += timer.take()
        examples += int(metric[2])
        test_acc = evaluate_accuracy_gpu(net, test_batches, device)
        animator.add(epoch + 1, (None, None, test_acc))
    animator.finish()
    result = Training(
        loss=metric[0] / metric[2] if num_epochs else float("nan"),
        train_acc=metric[1] / metric[2] if num_epochs else float("nan"),
        test_acc=test_acc,
        examples_per_second=examples / step_seconds if step_seconds else float("nan"),
        epoch_seconds=(time.perf_counter() - begin) / max(1, num_epochs),
        animator=animator,
    )
    print(f"loss {result.loss:.3f}, train acc {result.train_acc:.3f}, test acc {result.test_acc:.3f}")
    print(f"{result.examples_per_second:.1f} examples/sec on {device}")
    return result
