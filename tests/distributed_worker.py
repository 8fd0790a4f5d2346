"""What each process of tests/test_torch_integration.py runs: DistributedDataParallel as any user writes it.

torchrun --nproc-per-node=2 tests/distributed_worker.py FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from d2lkernels import models, nn
from d2lkernels.training.parallel import convert_batch_norm, group_from_environment


def _convolutions() -> torch.nn.Module:
    """Fused groups, nested, and a layer that gets no gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.Sigmoid(), nn.AvgPool2d(2)),
        nn.Flatten(),
        nn.Linear(6 * 6 * 6, 5),
    ).double()
    net[0].bias.requires_grad_(False)
    return net


def _normed() -> torch.nn.Module:
    """Batch normalisation within a Sequential that fuses."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).double()


def _dense() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.build("densenet", num_convs=(2, 1), growth_rate=4, num_classes=5).double()


NETS = {"convolutions": _convolutions, "normed": _normed, "dense": _dense}


def data() -> tuple[Tensor, Tensor]:
    images = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.nn.functional.interpolate(images, 32), torch.arange(8) % 5


def train(model: torch.nn.Module, wrapped: torch.nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Three steps; the state of the model after them, and its last gradients."""
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(wrapped(images), labels).backward()
        optimizer.step()
    gradients = {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {**model.state_dict(), **gradients}


def main(path: Path) -> None:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    with group_from_environment().joined(cpu) as group:
        results: dict[str, object] = {}
        images, labels = data()
        share = slice(4 * group.rank, 4 * group.rank + 4)
        same = True
        for name, make in NETS.items():
            model = convert_batch_norm(make(), cpu)
            results[name] = train(model, DistributedDataParallel(model), images[share], labels[share])
            everything = torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])
            same &= torch.equal(*group.gather(everything))
        if group.is_first:
            torch.save({**results, "same everywhere": same}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
