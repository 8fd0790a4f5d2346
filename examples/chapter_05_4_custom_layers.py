"""Section 5.4: custom layers, without and with parameters, and a kernel of ours as one."""

import torch

from d2lkernels import d2l, nn, ops
from d2lkernels.d2l.example import run_script


class Blur(nn.Module):
    """A fixed blur of each channel by itself, as a grouped convolution."""

    def __init__(self, channels):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (torch.outer(row, row) / 16).expand(channels, 1, 3, 3).clone())

    def forward(self, X):
        return ops.conv2d(X, self.kernel, padding=1, groups=X.shape[1])


def main(example):
    print(d2l.CenteredLayer()(torch.tensor([1.0, 2, 3, 4, 5])).tolist())
    net = nn.Sequential(nn.Linear(8, 128), d2l.CenteredLayer())
    mean = net(torch.rand(4, 8)).mean()
    linear = d2l.MyLinear(5, 3)
    linear(torch.rand(2, 5)).sum().backward()
    deep = nn.Sequential(d2l.MyLinear(64, 8), d2l.MyLinear(8, 1))
    print(deep(torch.rand(2, 64)).tolist())
    image = torch.zeros(1, 2, 5, 5)
    image[:, :, 2, 2] = 16
    blurred = Blur(2)(image)
    print(blurred[0, 0].tolist())
    return {
        "centred_mean": mean,
        "my_linear_learns": linear.weight.grad is not None,
        "blur_keeps_the_sum": blurred.sum() - image.sum(),
    }


if __name__ == "__main__":
    run_script(main)
