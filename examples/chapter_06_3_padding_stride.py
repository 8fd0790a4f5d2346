"""Section 6.3: padding and stride, square and rectangular: the sizes that come out."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import run_script

LAYERS = {
    "kernel 3, padding 1": {"kernel_size": 3, "padding": 1},
    "kernel (5, 3), padding (2, 1)": {"kernel_size": (5, 3), "padding": (2, 1)},
    "kernel 3, padding 1, stride 2": {"kernel_size": 3, "padding": 1, "stride": 2},
    "kernel (3, 5), padding (0, 1), stride (3, 4)": {"kernel_size": (3, 5), "padding": (0, 1), "stride": (3, 4)},
}


def main(example):
    X = torch.rand(8, 8)
    sizes = {}
    for name, options in LAYERS.items():
        layer = nn.Conv2d(1, 1, **options)
        size = tuple(d2l.comp_conv2d(layer, X).shape)
        formula = tuple(
            (extent + 2 * pad - kernel) // step + 1
            for extent, pad, kernel, step in zip((8, 8), layer.padding, layer.kernel_size, layer.stride, strict=True)
        )
        print(f"{name:45} {size}  by the formula {formula}")
        if size != formula:
            raise AssertionError(f"{name}: {size} is not {formula}")
        sizes[name] = list(size)
    return {"sizes": list(sizes.values())}


if __name__ == "__main__":
    run_script(main)
