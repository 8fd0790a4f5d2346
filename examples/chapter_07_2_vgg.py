"""Section 7.2: VGG-11: blocks of 3 x 3 convolutions, with a quarter of the paper's channels."""

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import measurements, run_script, show_shapes

CONV_ARCH = ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512))
RATIO = 4


def main(example):
    net = d2l.vgg([(convolutions, channels // RATIO) for convolutions, channels in CONV_ARCH])
    show_shapes(net, torch.zeros(2, 1, 224, 224))
    with torch.device("meta"):  # the paper's size without its memory
        full = sum(p.numel() for p in d2l.vgg(CONV_ARCH).parameters())
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "parameters_of_all_channels": full,
        **measurements(example.train_classifier("vgg11", net)),
    }


if __name__ == "__main__":
    run_script(main)
