"""Every op once, forward and backward, on small samples: what compute-sanitizer watches in benchmarks/gpu_run.sh.

`python benchmarks/sanitizer_smoke.py [DEVICE]`; the ops and samples are those of tests/specs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
from specs import SPECS

from d2lkernels.testing import OpSpec, Sample, call

DTYPES = (torch.float32, torch.bfloat16)


def run(spec: OpSpec, sample: Sample, dtype: torch.dtype, device: str, memory_format: torch.memory_format) -> None:
    """One call and its backward pass. Classes and masks, which are no floating-point tensors, stay as they are."""
    tensors = []
    for tensor in sample.make(dtype, device):
        if tensor is not None and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=memory_format)
        differentiable = tensor is not None and tensor.is_floating_point()
        tensors.append(tensor.detach().requires_grad_() if differentiable else tensor)
    for output in call(spec.function, tensors, sample.arguments):
        if output.requires_grad:
            output.backward(torch.randn_like(output), retain_graph=True)


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    torch.manual_seed(0)
    runs = 0
    for precision in ("ieee", "tf32"):
        torch.backends.cudnn.conv.fp32_precision = precision
        for spec in SPECS:
            if precision == "tf32" and not spec.uses_float32_precision:
                continue
            for dtype in DTYPES:
                if dtype not in spec.dtypes:
                    continue
                for memory_format in (torch.contiguous_format, torch.channels_last):
                    for sample in spec.tiny:
                        run(spec, sample, dtype, device, memory_format)
                        runs += 1
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{runs} calls of {len(SPECS)} ops ran, forward and backward")


if __name__ == "__main__":
    main()
