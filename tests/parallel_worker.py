"""What each process of tests/test_parallel.py runs: trains small models, and saves the results of the first process.

torchrun --nproc-per-node=2 tests/parallel_worker.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from d2lkernels import models
from d2lkernels.data import FashionMNIST, load_fashion_mnist
from d2lkernels.training import TrainConfig, Trainer, checkpoint
from d2lkernels.training.parallel import Group, group_from_environment
from d2lkernels.training.tasks import TASKS, Data

CONFIGS = {
    # 60 images: the last batch of 7 has 4 of them, that of 59 has 1, which leaves nothing for the first process.
    "bn_lenet": TrainConfig("bn_lenet", batch_size=7, lr=0.3, epochs=2),
    "bn_lenet-torch": TrainConfig("bn_lenet", batch_size=7, lr=0.3, epochs=2, backend="torch"),
    "lenet": TrainConfig("lenet", batch_size=59, lr=0.3, epochs=2, options={"activation": "tanh"}),
    "resnet": TrainConfig("resnet18", batch_size=20, lr=0.05, epochs=1, options={"num_blocks": (1, 1)}),
    "densenet": TrainConfig(
        "densenet", batch_size=20, lr=0.05, epochs=1, options={"num_convs": (2, 2), "growth_rate": 8}
    ),
    "linear_regression": TrainConfig("linear_regression", batch_size=301, lr=0.03, epochs=2),
}
DROPOUT = TrainConfig("mlp_dropout", batch_size=8, lr=0.1, epochs=2)


def small_data() -> FashionMNIST:
    return load_fashion_mnist("sample", notify=lambda text: None).subset(6, 3)


def finish(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        assert trainer.run_epoch()
    return trainer


def result(trainer: Trainer) -> dict:
    """What is compared: weights, buffers and history."""
    return {
        "state": {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()},
        "history": [(e.epoch, e.loss, e.train_accuracy, e.test_accuracy, e.images) for e in trainer.history],
    }


def interrupted_run(group: Group, data: FashionMNIST, folder: Path) -> dict[str, dict]:
    """Stops after the third batch because the last process says so; another trainer goes on from the checkpoint."""
    whole = finish(Trainer(DROPOUT, data, group=group))
    stopped, calls = Trainer(DROPOUT, data, group=group), 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return group.rank == group.size - 1 and calls == 3

    assert not stopped.run_epoch(interrupted=stop)
    assert stopped.loader.next_batch == 3
    path = folder / "stopped.safetensors"
    stopped.save(path)
    group.any(False)  # the file is complete
    resumed = Trainer(DROPOUT, data, group=group)
    resumed.restore(checkpoint.load(path))
    return {"whole": result(whole), "resumed": result(finish(resumed))}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    group = group_from_environment()
    with group.joined(torch.device("cpu")):
        results = {}
        for name, config in CONFIGS.items():
            results[name] = result(finish(Trainer(config, data_of(config), group=group)))
        results |= interrupted_run(group, small_data(), folder)
        states = [torch.cat([t.flatten().double() for t in results[n]["state"].values()]) for n in results]
        everyone = group.gather(torch.cat(states))
        if group.is_first:
            results["same everywhere"] = all(torch.equal(everyone[0], other) for other in everyone[1:])
            torch.save(results, folder / "results.pt")


def data_of(config: TrainConfig) -> Data:
    return TASKS[models.spec(config.model).task].points() or small_data()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
