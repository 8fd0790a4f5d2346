"""Section 7.1: AlexNet: five convolutions, three linear layers and dropout, on images of 224 pixels."""

import torch

from d2lkernels import models
from d2lkernels.d2l.example import measurements, run_script, show_shapes


def main(example):
    net = models.build("alexnet")
    show_shapes(net, torch.zeros(2, 1, 224, 224))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        **measurements(example.train_classifier("alexnet", net)),
    }


if __name__ == "__main__":
    run_script(main)
