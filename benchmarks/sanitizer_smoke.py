"""Every CUDA kernel once, on small odd sizes: what compute-sanitizer watches in benchmarks/gpu_run.sh."""

from __future__ import annotations

import itertools

import torch

from d2lkernels import ops

CONVOLUTIONS = (
    {"size": (2, 3, 13, 11), "weight": (5, 3, 3, 3), "padding": 1},
    {"size": (2, 8, 12, 9), "weight": (16, 4, 5, 3), "stride": 2, "padding": (2, 1), "groups": 2},
    {"size": (1, 32, 17, 17), "weight": (40, 32, 3, 3), "padding": 2, "dilation": 2},
)
POOLINGS = (
    lambda x: ops.max_pool2d(x, 3, stride=2, padding=1),
    lambda x: ops.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
    lambda x: ops.adaptive_avg_pool2d(x, (4, 3)),
    lambda x: ops.adaptive_max_pool2d(x, (4, 3)),
)


def main() -> None:
    torch.manual_seed(0)
    formats = (torch.contiguous_format, torch.channels_last)
    for dtype, memory_format in itertools.product((torch.float32, torch.float64, torch.bfloat16), formats):
        for case in CONVOLUTIONS:
            options = {key: value for key, value in case.items() if key not in ("size", "weight")}
            x = torch.randn(case["size"]).to("cuda", dtype, memory_format=memory_format).requires_grad_()
            weight = torch.randn(case["weight"]).to("cuda", dtype, memory_format=memory_format).requires_grad_()
            bias = torch.randn(case["weight"][0]).to("cuda", dtype).requires_grad_()
            output = ops.conv2d(x, weight, bias, **options)
            output.backward(torch.randn_like(output))
        for pool in POOLINGS:
            x = torch.randn(2, 9, 13, 11).to("cuda", dtype, memory_format=memory_format).requires_grad_()
            output = pool(x)
            output.backward(torch.randn_like(output))
    for precision in ("ieee", "tf32"):
        torch.backends.cudnn.conv.fp32_precision = precision
        x = torch.randn(2, 16, 9, 9, device="cuda", requires_grad=True)
        weight = torch.randn(8, 16, 3, 3, device="cuda", requires_grad=True)
        ops.conv2d(x, weight).sum().backward()
    torch.cuda.synchronize()
    print("all kernels ran")


if __name__ == "__main__":
    main()
