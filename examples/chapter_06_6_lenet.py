"""Section 6.6: LeNet: two convolutions, two average pools and three linear layers on Fashion-MNIST."""

import torch

from d2lkernels import models
from d2lkernels.d2l.example import measurements, run_script, show_shapes


def main(example):
    net = models.build("lenet")
    show_shapes(net, torch.zeros(2, 1, 28, 28))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        **measurements(example.train_classifier("lenet", net)),
    }


if __name__ == "__main__":
    run_script(main)
