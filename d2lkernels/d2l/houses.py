"""House prices with k-fold cross-validation (4.10).

Ames housing data: D. De Cock, Journal of Statistics Education 19(3), 2011.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import nn
from ..data import DataError
from .animator import Animator
from .extras import require
from .linear import load_array
from .tables import frame_to_tensor, read_csv

LABEL = "SalePrice"
NUMBERS = [
    "MSSubClass",
    "LotFrontage",
    "LotArea",
    "OverallQual",
    "OverallCond",
    "YearBuilt",
    "YearRemodAdd",
    "MasVnrArea",
    "BsmtFinSF1",
    "BsmtFinSF2",
    "BsmtUnfSF",
    "TotalBsmtSF",
    "1stFlrSF",
    "2ndFlrSF",
    "LowQualFinSF",
    "GrLivArea",
    "BsmtFullBath",
    "BsmtHalfBath",
    "FullBath",
    "HalfBath",
    "BedroomAbvGr",
    "KitchenAbvGr",
    "TotRmsAbvGrd",
    "Fireplaces",
    "GarageYrBlt",
    "GarageCars",
    "GarageArea",
    "WoodDeckSF",
    "OpenPorchSF",
    "EnclosedPorch",
    "3SsnPorch",
    "ScreenPorch",
    "PoolArea",
    "MiscVal",
    "MoSold",
    "YrSold",
]
CATEGORIES = [
    "MSZoning",
    "Street",
    "Alley",
    "LotShape",
    "LandContour",
    "Utilities",
    "LotConfig",
    "LandSlope",
    "Neighborhood",
    "Condition1",
    "Condition2",
    "BldgType",
    "HouseStyle",
    "RoofStyle",
    "RoofMatl",
    "Exterior1st",
    "Exterior2nd",
    "MasVnrType",
    "ExterQual",
    "ExterCond",
    "Foundation",
    "BsmtQual",
    "BsmtCond",
    "BsmtExposure",
    "BsmtFinType1",
    "BsmtFinType2",
    "Heating",
    "HeatingQC",
    "CentralAir",
    "Electrical",
    "KitchenQual",
    "Functional",
    "FireplaceQu",
    "GarageType",
    "GarageFinish",
    "GarageQual",
    "GarageCond",
    "PavedDrive",
    "PoolQC",
    "Fence",
    "MiscFeature",
    "SaleType",
    "SaleCondition",
]
"""The columns of the data set beside Id and the label: 36 numbers and 43 categories."""


@dataclass
class Houses:
    """The data as tensors: features [N, F], labels [N, 1]; and the test table, whose Id a submission needs."""

    train_features: Tensor
    train_labels: Tensor
    test_features: Tensor
    test_data: Any
    columns: list[str]


def load_houses(train_csv: str | os.PathLike[str], test_csv: str | os.PathLike[str]) -> Houses:
    """Reads both files and encodes them together: numbers standardised, categories one-hot with one for "missing".

    On the book's files that makes 331 features, whatever the version of pandas.

    Raises:
        DataError: a file is damaged (see :func:`read_csv`), or has not the columns that it should.
    """
    train, test = read_csv(train_csv, numeric=[LABEL]), read_csv(test_csv)
    expected = [name for name in train.columns if name != LABEL]
    if list(test.columns) != expected:
        differing = sorted(set(expected) ^ set(test.columns)) or ["the order"]
        raise DataError(
            f"load_houses(): expected {test_csv} to have the columns of {train_csv} without {LABEL}, but these differ: "
            f"{', '.join(differing)}"
        )
    if train[LABEL].isna().any():
        row = int(train[LABEL].isna().to_numpy().argmax()) + 1
        raise DataError(
            f"load_houses(): expected {train_csv}, row {row}, column {LABEL!r} to have a value, but got none"
        )
    both = require("pandas", "load_houses()").concat([train[expected], test], ignore_index=True)
    features, columns = frame_to_tensor(both.drop(columns="Id", errors="ignore"), standardize=True)
    labels = torch.tensor(train[LABEL].to_numpy(dtype="float32")).reshape(-1, 1)
    return Houses(features[: len(train)], labels, features[len(train) :], test, columns)


def get_net(in_features: int) -> torch.nn.Module:
    """A linear model of the price."""
    return nn.Sequential(nn.Linear(in_features, 1))


def log_rmse(net: Callable[[Tensor], Tensor], features: Tensor, labels: Tensor) -> float:
    """The root of the mean squared error of the logarithm of the price; predictions below 1 count as 1."""
    with torch.no_grad():
        predictions = net(features).clamp(min=1)
        return float((predictions.log() - labels.log()).square().mean().sqrt())


def train_house(
    net: torch.nn.Module,
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor | None,
    test_labels: Tensor | None,
    num_epochs: int,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
) -> tuple[list[float], list[float]]:
    """Trains with Adam and mean squared error. Returns the log RMSE after each epoch, in training and in testing."""
    batches = load_array((train_features, train_labels), batch_size)
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate, weight_decay=weight_decay)
    loss = nn.MSELoss()
    train_errors, test_errors = [], []
    for _ in range(num_epochs):
        for X, y in batches:
            optimizer.zero_grad()
            loss(net(X), y).backward()
            optimizer.step()
        train_errors.append(log_rmse(net, train_features, train_labels))
        if test_features is not None and test_labels is not None:
            test_errors.append(log_rmse(net, test_features, test_labels))
    return train_errors, test_errors


def get_k_fold_data(k: int, i: int, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fold `i` of `k` for validation, the others for training: X_train, y_train, X_valid, y_valid.

    The folds are equal and in order; what is left over at the end is left out.

    Raises:
        ValueError: `k` is not between 2 and the number of rows, or there is no such fold.
    """
    if not 2 <= k <= len(X):
        raise ValueError(f"get_k_fold_data(): expected k to be between 2 and the {len(X)} rows, but got {k}")
    if not 0 <= i < k:
        raise ValueError(f"get_k_fold_data(): expected i to be between 0 and {k - 1}, but got {i}")
    size = len(X) // k
    start, end = i * size, (i + 1) * size
    rest = [*range(start), *range(end, k * size)]
    return X[rest], y[rest], X[start:end], y[start:end]


def k_fold(
    k: int,
    X_train: Tensor,
    y_train: Tensor,
    num_epochs: int,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
    net: Callable[[], torch.nn.Module] | None = None,
) -> tuple[float, float]:
    """k-fold cross-validation: prints each fold, draws the first, returns the mean log RMSE in training and validation.

    Args:
        k: the number of folds.
        X_train, y_train: the data.
        num_epochs, learning_rate, weight_decay, batch_size: as for :func:`train_house`.
        net: makes a fresh model for each fold; None for :func:`get_net`.
    """
    train_total = valid_total = 0.0
    for i in range(k):
        fold = get_k_fold_data(k, i, X_train, y_train)
        model = (net() if net else get_net(X_train.shape[1])).to(X_train.device)
        train_errors, valid_errors = train_house(model, *fold, num_epochs, learning_rate, weight_decay, batch_size)
        train_total += train_errors[-1]
        valid_total += valid_errors[-1]
        if i == 0:
            _draw(["train", "valid"], train_errors, valid_errors)
        print(f"fold {i + 1}: train log rmse {train_errors[-1]:.6f}, valid log rmse {valid_errors[-1]:.6f}")
    return train_total / k, valid_total / k


def train_and_pred(
    train_features: Tensor,
    test_features: Tensor,
    train_labels: Tensor,
    test_data: Any,
    num_epochs: int,
    lr: float,
    weight_decay: float,
    batch_size: int,
    path: str | os.PathLike[str] = "submission.csv",
) -> Tensor:
    """Trains on everything, writes the prices of the test houses to a CSV file, and returns them.

    Args:
        train_features, test_features, train_labels: the data.
        test_data: the test table, for its column Id.
        num_epochs, lr, weight_decay, batch_size: as for :func:`train_house`.
        path: the file, in the form that Kaggle takes.
    """
    net = get_net(train_features.shape[1]).to(train_features.device)
    errors, _ = train_house(net, train_features, train_labels, None, None, num_epochs, lr, weight_decay, batch_size)
    _draw(["train"], errors)
    print(f"train log rmse {errors[-1]:.6f}")
    with torch.no_grad():
        prices = net(test_features).reshape(-1).cpu()
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Id", LABEL])
        writer.writerows(zip(test_data["Id"].tolist(), prices.tolist(), strict=True))
    return prices


def _draw(legend: list[str], *curves: list[float]) -> None:
    epochs = len(curves[0])
    animator = Animator(xlabel="epoch", ylabel="log rmse", legend=legend, xlim=[1, epochs], yscale="log")
    for epoch in sorted({*range(0, epochs, max(1, epochs // 10)), epochs - 1}):
        animator.add(epoch + 1, [curve[epoch] for curve in curves])
    animator.finish()


def generate_houses(
    folder: str | os.PathLike[str], train_rows: int = 200, test_rows: int = 100, seed: int = 0
) -> tuple[str, str]:
    """Writes two CSV files with the columns of the real ones and invented houses. Returns their paths.

    For trying things out where the real files cannot be had, whose licence does not let them come with the package. The
    price depends on area and quality, so that there is something to learn; one cell in 20 is missing.
    """
    draw = random.Random(seed)
    paths = []
    for name, rows in (("train", train_rows), ("test", test_rows)):
        path = Path(folder) / f"generated_houses_{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Id", *NUMBERS, *CATEGORIES, *([LABEL] if name == "train" else [])])
            for row in range(rows):
                numbers = {column: draw.randint(0, 10) for column in NUMBERS}
                numbers["GrLivArea"] = draw.randint(600, 3000)
                price = round((60 * numbers["GrLivArea"] + 9000 * numbers["OverallQual"]) * draw.uniform(0.9, 1.1))
                cells = [*numbers.values(), *(draw.choice(("A", "B", "None")) for _ in CATEGORIES)]
                cells = ["NA" if draw.random() < 0.05 else cell for cell in cells]
                writer.writerow([row + 1, *cells, *([price] if name == "train" else [])])
        paths.append(str(path))
    return paths[0], paths[1]
