"""Section 4.9: covariate shift: weights from a classifier of training against test inputs repair a wrong fit."""

import torch

from d2lkernels import nn
from d2lkernels.d2l.example import run_script


def f(x):
    return torch.sin(2 * x) + 0.3 * x


def fit(x, y, weight):
    """The best line under these weights: slope and intercept."""
    A = torch.cat((x, torch.ones_like(x)), dim=1)
    root = weight.sqrt()
    return torch.linalg.lstsq(A * root, y * root).solution


def error(line, x):
    return (line[0] * x + line[1] - f(x)).square().mean()


def main(example):
    count = example.choose(4000, 400)
    x_train, x_test = torch.randn(count, 1) * 0.7 - 0.3, torch.randn(count, 1) * 0.4 + 0.8
    y_train = f(x_train) + 0.05 * torch.randn(count, 1)

    # The odds that an input is one of the test inputs are the weight that its training example should have.
    net = nn.Sequential(nn.Linear(2, 1))
    optimizer, loss = torch.optim.Adam(net.parameters(), lr=0.05), nn.BCEWithLogitsLoss()
    inputs = torch.cat((x_train, x_test))
    inputs = torch.cat((inputs, inputs**2), dim=1)
    target = torch.cat((torch.zeros(count, 1), torch.ones(count, 1)))
    for _ in range(example.choose(600, 100)):
        optimizer.zero_grad()
        loss(net(inputs), target).backward()
        optimizer.step()
    with torch.no_grad():
        weight = net(inputs[:count]).exp()
    plain, weighted = fit(x_train, y_train, torch.ones_like(weight)), fit(x_train, y_train, weight)
    grid = torch.linspace(-2, 2, 100).reshape(-1, 1)
    lines = [(line[0] * grid + line[1]).flatten() for line in (plain, weighted)]
    example.plot("shift", grid.flatten(), [f(grid).flatten(), *lines], "x", legend=["truth", "plain", "weighted"])
    return {"test_error_plain": error(plain, x_test), "test_error_weighted": error(weighted, x_test)}


if __name__ == "__main__":
    run_script(main)
