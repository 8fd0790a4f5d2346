"""Section 7.5: batch normalisation: LeNet with layers from scratch, and with the framework's, from the same weights."""

import torch

from d2lkernels import d2l, models, nn
from d2lkernels.d2l.example import measurements, run_script


def from_scratch():
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5),
        d2l.BatchNorm(6, num_dims=4),
        nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5),
        d2l.BatchNorm(16, num_dims=4),
        nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 120),
        d2l.BatchNorm(120, num_dims=2),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        d2l.BatchNorm(84, num_dims=2),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    )


def main(example):
    measured = {}
    for name, make in (("scratch", from_scratch), ("concise", lambda: models.build("bn_lenet"))):
        torch.manual_seed(example.seed)
        net = make()
        result = example.train_classifier("bn_lenet", net, name)
        measured.update({f"{name}_{key}": value for key, value in measurements(result).items()})
        if name == "scratch":
            print("gamma", net[1].gamma.flatten().tolist(), "beta", net[1].beta.flatten().tolist())
    return measured


if __name__ == "__main__":
    run_script(main)
