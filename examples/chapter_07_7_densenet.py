"""Section 7.7: DenseNet: each layer sees the results of all layers before it; transitions keep that small."""

import torch

from d2lkernels import d2l, models
from d2lkernels.d2l.example import measurements, run_script, show_shapes


def main(example):
    Y = d2l.DenseBlock(2, 3, 10)(torch.rand(4, 3, 8, 8))
    print("a dense block:", tuple(Y.shape), "after a transition:", tuple(d2l.transition_block(23, 10)(Y).shape))
    net = models.build("densenet")
    show_shapes(net, torch.zeros(2, 1, 96, 96))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        **measurements(example.train_classifier("densenet", net)),
    }


if __name__ == "__main__":
    run_script(main)
