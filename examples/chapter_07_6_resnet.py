"""Section 7.6: ResNet-18: residual blocks, whose layers learn what to add to their input."""

import torch

from d2lkernels import d2l, models
from d2lkernels.d2l.example import measurements, run_script, show_shapes


def main(example):
    X = torch.rand(4, 3, 6, 6)
    print("a block:", tuple(d2l.Residual(3, 3)(X).shape))
    print("with half the size:", tuple(d2l.Residual(3, 6, use_1x1conv=True, strides=2)(X).shape))
    net = models.build("resnet18")
    show_shapes(net, torch.zeros(2, 1, 96, 96))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        **measurements(example.train_classifier("resnet18", net)),
    }


if __name__ == "__main__":
    run_script(main)
