"""Section 6.1: from linear layers to convolutions: what locality and translation invariance save."""

import torch

from d2lkernels import models, nn
from d2lkernels.d2l.example import run_script


def main(example):
    layer = nn.Conv2d(1, 4, kernel_size=3, padding=1, padding_mode="circular")
    image = torch.rand(1, 1, 16, 16)
    moved = image.roll((3, 5), dims=(2, 3))
    difference = (layer(moved) - layer(image).roll((3, 5), dims=(2, 3))).abs().max()
    print("moving the image and then convolving, or the other way round:", difference.item())

    # A linear layer whose weights are all a convolution's: it has them many times over.
    conv = nn.Conv2d(1, 1, kernel_size=3, padding=1, bias=False)
    pixels = torch.eye(64).reshape(64, 1, 8, 8)
    matrix = conv(pixels).reshape(64, 64).T
    X = torch.rand(5, 1, 8, 8)
    same = (conv(X).flatten(1) - X.flatten(1) @ matrix.T).abs().max()
    print(
        "as a matrix:",
        tuple(matrix.shape),
        "non-zero",
        int((matrix != 0).sum()),
        "different values:",
        conv.weight.numel(),
    )

    sizes = {name: sum(p.numel() for p in models.build(name).parameters()) for name in ("mlp", "lenet")}
    return {
        "equivariance_error": difference,
        "matrix_error": same,
        "mlp_parameters": sizes["mlp"],
        "lenet_parameters": sizes["lenet"],
    }


if __name__ == "__main__":
    run_script(main)
