"""Section 7.4: GoogLeNet: Inception blocks, four paths side by side, joined by channel."""

import torch

from d2lkernels import d2l, models
from d2lkernels.d2l.example import measurements, run_script, show_shapes


def main(example):
    block = d2l.Inception(192, 64, (96, 128), (16, 32), 32)
    print("one block:", tuple(block(torch.zeros(1, 192, 12, 12)).shape))
    net = models.build("googlenet")
    show_shapes(net, torch.zeros(2, 1, 96, 96))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        **measurements(example.train_classifier("googlenet", net)),
    }


if __name__ == "__main__":
    run_script(main)
