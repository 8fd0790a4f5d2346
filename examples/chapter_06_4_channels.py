"""Section 6.4: several input and output channels, and 1 x 1 convolutions as a linear layer for each pixel."""

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script


def main(example):
    X = torch.stack([torch.arange(9.0).reshape(3, 3), torch.arange(1.0, 10.0).reshape(3, 3)])
    K = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]]])
    one = d2l.corr2d_multi_in(X, K)
    print("two channels in:", one.tolist())
    three = d2l.corr2d_multi_in_out(X, torch.stack((K, K + 1, K + 2)))
    print("three channels out:", three.tolist())
    summed = d2l.corr2d(X[0], K[0]) + d2l.corr2d(X[1], K[1])

    X, K = torch.normal(0, 1, (3, 3, 3)), torch.normal(0, 1, (2, 3, 1, 1))
    difference = (d2l.corr2d_multi_in_out_1x1(X, K) - d2l.corr2d_multi_in_out(X, K)).abs().sum()
    print("1 x 1 convolution and product of matrices differ by", difference.item())
    return {
        "multi_in": one,
        "channels_add_up": torch.equal(one, summed),
        "multi_in_out": list(three.shape),
        "difference_1x1": difference,
    }


if __name__ == "__main__":
    run_script(main)
