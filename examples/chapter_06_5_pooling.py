"""Section 6.5: maximum and average pooling, padding and stride, several channels, tolerance to small shifts."""

import itertools

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import run_script


def main(example):
    X = torch.arange(9.0).reshape(3, 3)
    maxima, means = d2l.pool2d(X, (2, 2)), d2l.pool2d(X, (2, 2), "avg")
    print("max", maxima.tolist(), "avg", means.tolist())

    X = torch.arange(16.0).reshape(1, 1, 4, 4)
    layers = [
        nn.MaxPool2d(3),
        nn.MaxPool2d(3, padding=1, stride=2),
        nn.MaxPool2d((2, 3), stride=(2, 3), padding=(0, 1)),
    ]
    for layer in layers:
        print(layer, layer(X)[0, 0].tolist())
    both = layers[1](torch.cat((X, X + 1), dim=1))
    print("two channels:", both[0].tolist())

    # An edge that moves by a pixel stays in the same window for three of four places.
    edges = torch.eye(8).reshape(8, 1, 1, 8)
    pooled = nn.MaxPool2d((1, 4))(edges).reshape(8, 2)
    unchanged = sum(torch.equal(a, b) for a, b in itertools.pairwise(pooled))
    return {"max": maxima, "avg": means, "channels_kept": both.shape[1], "shifts_unnoticed": f"{unchanged} of 7"}


if __name__ == "__main__":
    run_script(main)
