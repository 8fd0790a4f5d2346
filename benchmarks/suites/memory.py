"""Peak memory of a training step: of the chapter models, as the batch grows, and as DenseNet's blocks grow deeper.

Every figure comes from a process of its own (memory_probe.py). It trains small models first, so that what libraries
allocate once is not counted, then builds the model and takes two steps; the third is watched. The figure is the highest
resident size during that step (Linux; on a GPU the most that tensors held), less what was there before the model was
built: parameters, gradients, what is saved for backward, and workspaces. Freed memory goes back to the system at once.

torch.compile is left out: the process's memory is then mostly the compiler's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness import EAGER, OURS, RESULT_COLUMNS
from benchmarks.machine import ROOT
from benchmarks.suites import Settings
from benchmarks.suites.models import MODELS, Model
from benchmarks.suites.variants import LAYOUTS

BATCHES = (("lenet", 28, (16, 64, 256, 1024)), ("resnet18", 96, (1, 4, 16, 64)), ("vgg11", 224, (2, 8, 32)))
DEPTHS = (4, 8, 16, 32)

CHAPTER_CASES = tuple((model.case, model) for model in MODELS if model.batch > 1)
GROWTH_CASES = (
    *((f"{name}.batch{batch}", Model(name, batch, size)) for name, size, batches in BATCHES for batch in batches),
    *((f"densenet.depth{depth}", Model("densenet", 4, 96, options={"num_convs": (depth,) * 4})) for depth in DEPTHS),
)
CASES: tuple[tuple[str, Model], ...] = CHAPTER_CASES + GROWTH_CASES
EXPLANATIONS: dict[tuple[str, str], str] = {}

# Tensors come from mmap, which gives them back when they are freed; small pieces are trimmed.
MALLOC = "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536:glibc.malloc.arena_max=1"


def measure(settings: Settings, threads: int) -> Iterator[list[dict]]:
    """The rows of one case after the other, a row per contestant."""
    cases = CASES[:: len(CHAPTER_CASES)] if settings.smoke else CHAPTER_CASES if settings.quick else CASES
    for case, model in cases:
        if settings.smoke:
            model = replace(model, batch=2)
        elif settings.device == "cuda":
            model = replace(model, batch=model.chapter_batch or model.batch)
        if settings.pattern.search(f"memory {case} train_step"):
            yield _rows(case, model, settings, threads)


def _rows(case: str, model: Model, settings: Settings, threads: int) -> list[dict]:
    rows = []
    for layout in LAYOUTS:
        for provider in (EAGER, OURS):
            row = dict.fromkeys(RESULT_COLUMNS, "")
            row |= {"op": "memory", "case": case, "mode": "train_step", "provider": provider, "layout": layout}
            row |= {"dtype": settings.dtype, "threads": threads, "cache": "warm", "images": model.batch}
            rows.append(row | _probe(model, provider, layout, settings, threads))
    native = [row["peak_bytes"] for row in rows if row["provider"] == EAGER and row["peak_bytes"]]
    for row in rows:
        if native and row["peak_bytes"]:
            row["ratio_to_best_native"] = f"{min(native) / row['peak_bytes']:.3f}"
    return rows


def _probe(model: Model, provider: str, layout: str, settings: Settings, threads: int) -> dict:
    request = {"name": model.name, "batch": model.batch, "size": model.size, "options": model.options}
    request |= {"provider": provider, "layout": layout, "device": settings.device, "dtype": settings.dtype}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory_probe", json.dumps(request | {"threads": threads})],
        cwd=ROOT,
        env={**os.environ, "GLIBC_TUNABLES": MALLOC},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return {"peak_bytes": "", "parameter_bytes": "", "note": f"failed: {last[:200]}"}
    return json.loads(done.stdout.splitlines()[-1])
