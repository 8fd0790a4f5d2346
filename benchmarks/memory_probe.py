"""Measure the peak memory of one model's training step, in this process: `python -m benchmarks.memory_probe JSON`.

The suite `memory` starts it once per figure. Prints bytes as JSON.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.harness import OURS
from benchmarks.suites.variants import set_precision

LEARNING_RATE = 0.01
CLASSES = 10
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _status(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{STATUS} has no {field}")
    return int(match[1]) * 1024


def in_use(device: str) -> int:
    """Bytes that the process holds (resident), or on a GPU those that tensors hold."""
    gc.collect()
    return torch.cuda.memory_allocated() if device == "cuda" else _status("VmRSS")


def peak_during(run: Callable[[], None], device: str) -> int:
    """The most bytes that the process held while `run` ran."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    CLEAR_REFS.write_text("5")  # VmHWM starts again at the present resident size: proc(5)
    run()
    return _status("VmHWM")


def training(
    nn: ModuleType, name: str, batch: int, size: int, options: dict[str, Any], layout: str, device: str, dtype: str
) -> tuple[Callable[[], None], int]:
    """A training step, and the bytes of the model's parameters."""
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = import_module("d2lkernels.models").build(name, nn=nn, **options)
    model.to(device, memory_format=memory_format)
    images = torch.randn(batch, 1, size, size, device=device).contiguous(memory_format=memory_format)
    target = torch.randint(CLASSES, (batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = F.cross_entropy(model(images), target)
        loss.backward()
        optimizer.step()

    return step, sum(parameter.nbytes for parameter in model.parameters())


def main(text: str) -> int:
    request = json.loads(text)
    torch.set_num_threads(request["threads"])
    device, layout, dtype = request["device"], request["layout"], request["dtype"]
    set_precision(dtype)
    nn = import_module("d2lkernels.nn") if request["provider"] == OURS else torch.nn
    for name, size in (("lenet", 28), ("bn_lenet", 28), ("resnet18", 32), ("densenet", 32)):
        step, _ = training(nn, name, 2, size, {}, layout, device, dtype)
        step()
    del step
    before = in_use(device)
    step, parameter_bytes = training(
        nn, request["name"], request["batch"], request["size"], request["options"], layout, device, dtype
    )
    step()
    step()
    peak = peak_during(step, device)
    print(json.dumps({"peak_bytes": peak - before, "parameter_bytes": parameter_bytes}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
