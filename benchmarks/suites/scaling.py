"""How the time of a training step grows with the batch and, for DenseNet, with the depth of its blocks.

The contests are those of the models suite, on more sizes and without torch.compile: what grows does so for all.
`memory` beside it says how the memory of a step grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness import Contest
from benchmarks.suites import Settings, models
from benchmarks.suites.models import WHY_LENET, WHY_SMALL_LAYERS, Model

BATCHES = (1, 4, 16, 64)
DEPTHS = (2, 4, 8, 16)

CASES: tuple[tuple[str, Model], ...] = (
    *((f"lenet.batch{batch}", Model("lenet", batch, 28, why=WHY_LENET)) for batch in (*BATCHES, 256)),
    *((f"resnet18.batch{batch}", Model("resnet18", batch, 96, why=WHY_SMALL_LAYERS)) for batch in BATCHES[:3]),
    *(
        (f"densenet.depth{depth}", Model("densenet", 4, 96, why=WHY_SMALL_LAYERS, options={"num_convs": (depth,) * 4}))
        for depth in DEPTHS
    ),
)

EXPLANATIONS = {("scaling", case): model.why for case, model in CASES}


def contests(settings: Settings) -> Iterator[Contest]:
    for case, model in CASES[:: 4 if settings.smoke else 1]:
        if settings.pattern.search(f"scaling {case} train_step"):
            yield replace(models.train_step(model, settings), op="scaling", case=case)
