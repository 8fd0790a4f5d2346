"""Section 5.3: deferred initialisation: lazy layers of ours find their input size with the first batch."""

import torch

from d2lkernels import nn
from d2lkernels.d2l.example import run_script


def main(example):
    net = nn.Sequential(
        nn.LazyConv2d(6, kernel_size=5, padding=2),
        nn.LazyBatchNorm2d(),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    before = sum(isinstance(p, nn.parameter.UninitializedParameter) for p in net.parameters())
    print("before:", net[0], "uninitialised parameters:", before)
    output = net(torch.rand(2, 3, 28, 28))
    print("after: ", net[0], [tuple(parameter.shape) for parameter in net.parameters()])
    try:
        net(torch.rand(2, 1, 28, 28))
        refused = False
    except (RuntimeError, ValueError) as error:
        refused = True
        print("another number of channels:", str(error).splitlines()[0])
    return {
        "uninitialised": before,
        "types": [type(layer).__name__ for layer in net],
        "our_convolution": type(net[0]) is nn.Conv2d,
        "output": list(output.shape),
        "other_channels_refused": refused,
    }


if __name__ == "__main__":
    run_script(main)
