"""Training by two processes gives what one gives, stops as one, and goes on as one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import parallel_worker
import pytest
import torch

from d2lkernels import models, nn
from d2lkernels.config import use_conv_algorithm
from d2lkernels.data import BatchLoader
from d2lkernels.training import CheckpointError, Trainer, TrainingError, checkpoint
from d2lkernels.training.parallel import Group, SyncBatchNorm, convert_batch_norm, group_from_environment

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# Direct convolutions: which tiles Winograd's take depends on the batch, and that of a process is smaller.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "D2LKERNELS_CONV_ALGORITHM": "direct"}

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> tuple[Path, dict]:
    """The folder and the results of parallel_worker.py in two processes."""
    folder = tmp_path_factory.mktemp("parallel")
    done = subprocess.run(
        [*TORCHRUN, parallel_worker.__file__, str(folder)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.parametrize("name", parallel_worker.CONFIGS)
def test_two_processes_give_what_one_gives(two_processes, name):
    config = parallel_worker.CONFIGS[name]
    with use_conv_algorithm("direct"):
        alone = parallel_worker.result(parallel_worker.finish(Trainer(config, parallel_worker.data_of(config))))
    together = two_processes[1][name]
    for one, other in zip(alone["history"], together["history"], strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], rel=1e-3)
        assert one[4] == other[4]
        if one[3] == one[3]:
            assert abs(one[2] - other[2]) <= 0.04
            assert abs(one[3] - other[3]) <= 0.07
    assert list(alone["state"]) == list(together["state"])
    for key, tensor in alone["state"].items():
        torch.testing.assert_close(together["state"][key], tensor, rtol=1e-2, atol=2e-3, msg=f"{name} {key}")


def test_all_processes_have_the_same_weights_and_statistics(two_processes):
    assert two_processes[1]["same everywhere"]


def test_a_run_stopped_by_any_process_goes_on_exactly(two_processes):
    whole, resumed = two_processes[1]["whole"], two_processes[1]["resumed"]
    assert resumed["history"] == whole["history"]
    for key, tensor in whole["state"].items():
        assert torch.equal(resumed["state"][key], tensor), key


def test_a_checkpoint_of_two_processes_is_not_one_processes(two_processes):
    saved = checkpoint.load(two_processes[0] / "stopped.safetensors")
    with pytest.raises(CheckpointError, match="the number of processes is 2 there and 1 here"):
        Trainer(parallel_worker.DROPOUT, parallel_worker.small_data()).restore(saved)


def test_the_command_divides_batches_and_ctrl_c_saves(tmp_path):
    out = tmp_path / "out"
    arguments = ["train", "lenet", "--data", "sample", "--epochs", "500", "--batch-size", "100", "--out", str(out)]
    process = subprocess.Popen(
        [*TORCHRUN, "-m", "d2lkernels", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = []
    for line in iter(process.stdout.readline, ""):
        seen.append(line)
        if line.startswith("epoch   2/500"):
            break
    assert "in each of 2 processes" in "".join(seen)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    rest, errors = process.communicate(timeout=120)
    assert "--resume" in rest, errors[-2000:]
    saved = checkpoint.load(out / "d2lkernels.safetensors")
    assert saved.state["processes"] == 2
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(saved.state["history"]) == len(rows) >= 2


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_shares_make_up_the_batches(ranks):
    inputs = torch.arange(10.0)[:, None]
    whole = [batch.flatten().tolist() for batch, _ in BatchLoader(inputs, inputs, 4, shuffle=True, seed=3)]
    shares = [
        [
            batch.flatten().tolist()
            for batch, _ in BatchLoader(inputs, inputs, 4, shuffle=True, seed=3, share=(r, ranks))
        ]
        for r in range(ranks)
    ]
    assert [[value for share in shares for value in share[batch]] for batch in range(3)] == whole
    sizes = [[len(share[batch]) for share in shares] for batch in range(3)]
    assert all(max(row) - min(row) <= 1 for row in sizes)


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0)])
def test_a_share_is_one_of_those_there_are(share):
    with pytest.raises(ValueError, match="share to be a rank and a larger number of ranks"):
        BatchLoader(torch.zeros(4, 2), torch.zeros(4), 2, share=share)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "to be what torchrun sets, but got: invalid literal"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "expected RANK to be from 0 to 1"),
    ],
)
def test_what_torchrun_says_is_checked(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=message):
        group_from_environment()


def test_one_process_has_nothing_to_settle():
    group = Group()
    assert (group.is_first, group.any(True), group.any(False)) == (True, True, False)
    tensor = torch.ones(2)
    assert group.sum_(tensor) is tensor
    assert torch.equal(group.gather(tensor)[0], tensor)


@pytest.mark.parametrize("name", ["bn_lenet", "resnet18", "densenet"])
def test_batch_normalisations_are_converted_in_place_with_their_tensors(name):
    options = {} if name == "bn_lenet" else {"num_blocks": (1, 1)} if name == "resnet18" else {"num_convs": (1, 1)}
    model = models.build(name, **options)
    state = model.state_dict()
    images = torch.rand(2, 1, 32, 32) if options else torch.rand(2, 1, 28, 28)
    expected = model.eval()(images)
    assert convert_batch_norm(model, torch.device("cpu")) is model
    assert any(isinstance(module, SyncBatchNorm) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())
    assert list(model.state_dict()) == list(state)
    for key, tensor in state.items():
        assert model.state_dict()[key].data_ptr() == tensor.data_ptr()
    torch.testing.assert_close(model(images), expected)


def test_torchs_own_conversion_takes_our_layers():
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(models.build("resnet18", num_blocks=(1, 1)))
    kinds = {type(module) for module in model.modules() if "BatchNorm" in type(module).__name__}
    assert kinds == {torch.nn.SyncBatchNorm}
    assert list(model.state_dict()) == list(models.build("resnet18", num_blocks=(1, 1)).state_dict())
