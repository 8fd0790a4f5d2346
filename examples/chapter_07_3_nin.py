"""Section 7.3: network in network: 1 x 1 convolutions after each convolution, and a global pool for linear layers."""

import torch

from d2lkernels import d2l, models
from d2lkernels.d2l.example import measurements, run_script, show_shapes


def main(example):
    block = d2l.nin_block(1, 96, kernel_size=11, strides=4, padding=0)
    print("one block:", tuple(block(torch.zeros(1, 1, 224, 224)).shape))
    net = models.build("nin")
    show_shapes(net, torch.zeros(2, 1, 224, 224))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        **measurements(example.train_classifier("nin", net)),
    }


if __name__ == "__main__":
    run_script(main)
