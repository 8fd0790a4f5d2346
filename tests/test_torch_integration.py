"""Layers and models together with the rest of torch: mixed precision, checkpoints, torch.func, export, hooks, pruning,
parametrizations, several processes. What single ops do under these is tested from their specs."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import distributed_worker
import pytest
import torch
import torch.nn.utils.parametrize as parametrize
import torch.nn.utils.prune as prune
from cases import ONE_PER_TYPE, not_about_kernels
from test_chapter_models import EVERY, SMALL, batch, loss, pair
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import d2lkernels
from d2lkernels import models, nn

pytestmark = not_about_kernels

on_devices = pytest.mark.parametrize("device", ONE_PER_TYPE, ids=lambda device: device.name)
WITH_STATISTICS = pytest.mark.parametrize("name", ["lenet", "googlenet", "resnet18", "densenet"])


def _fused_net(nn=nn) -> torch.nn.Module:
    """All kinds of neighbours that a Sequential may fuse."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU()),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 2 * 2, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    )


def _images(number: int = 4, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.randn(number, 1, 12, 12, generator=torch.Generator().manual_seed(1)).to(device, dtype)


def _gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]


def _both(dtype: torch.dtype = torch.float64) -> tuple[torch.nn.Module, torch.nn.Module]:
    ours, native = _fused_net(nn).to(dtype), _fused_net(torch.nn).to(dtype)
    native.load_state_dict(ours.state_dict())
    return ours, native


def _assert_same_step(ours: torch.nn.Module, native: torch.nn.Module, images: torch.Tensor) -> None:
    outputs = [model(images) for model in (ours, native)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-10)
    for model, output in zip((ours, native), outputs, strict=True):
        model.zero_grad()
        loss(output).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), native.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=name)
    for (name, mine), theirs in zip(ours.named_buffers(), native.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10, msg=name)


# ---- mixed precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@on_devices
def test_autocast_and_gradient_scaler(device, dtype):
    """Losses as native torch has them, up to the rounding of 16-bit types; a step with an overflow is left out."""
    results = []
    for space in (nn, torch.nn):
        model = _fused_net(space).to(device.type)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler(device.type, init_scale=2.0**8)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype):
                output = model(_images(6, device=device.type))
                assert output.dtype == dtype
                value = loss(output.float().cpu())
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(value.item())
        assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in model.parameters())
        before = copy.deepcopy(model.state_dict())
        with torch.autocast(device.type, dtype):
            value = loss(model(_images(6, device=device.type)).float().cpu()) * float("inf")
        scaler.scale(value).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() < scale
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name])
        results.append(losses)
    assert results[0][-1] < results[0][0]
    assert results[0] == pytest.approx(results[1], rel=0.02)


# ---- checkpointing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["not_reentrant", "reentrant"])
@pytest.mark.parametrize("name", ["bn_lenet", "densenet"])
def test_checkpointed_models(name, use_reentrant):
    """As native torch checkpointed: the statistics move twice in both."""
    ours, native = pair(name, torch.float64)
    images = batch(name, 3, torch.float64).requires_grad_()
    results = []
    for model in (ours, native):
        output = checkpoint_sequential(model, 2, images, use_reentrant=use_reentrant)
        loss(output).backward()
        results.append([output.detach(), *_gradients(model), *(buffer.double() for buffer in model.buffers())])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_dropout_is_drawn_again_alike_in_a_checkpoint():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(400, 3))
    gradients = []
    for run in (model, lambda images: checkpoint(model, images, use_reentrant=False)):
        torch.manual_seed(5)
        model.zero_grad()
        loss(run(_images())).backward()
        gradients.append(_gradients(model))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


# ---- copies, determinism ---------------------------------------------------------------------------------------------


@EVERY
def test_pickled_models_go_on_as_before(name):
    model = models.build(name, **SMALL[name][0])
    images = batch(name, 2)
    loss(model(images)).backward()  # whatever a model remembers of its calls is no part of the pickle
    twin = pickle.loads(pickle.dumps(model))
    assert [type(module) for module in twin.modules()] == [type(module) for module in model.modules()]
    outputs = [one(images) for one in (model, twin)]
    assert torch.equal(*outputs)
    for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@on_devices
@WITH_STATISTICS
def test_deterministic_algorithms(name, device):
    """Nothing refuses to run, and steps are equal to the bit."""
    images, results = batch(name, 4).to(device.type), []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            model = pair(name)[0].to(device.type)
            output = model(images)
            loss(output.cpu()).backward()
            results.append([output.detach(), *_gradients(model), *model.buffers()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


# ---- hooks, parametrizations, pruning --------------------------------------------------------------------------------


@WITH_STATISTICS
def test_hooks_on_every_layer_see_what_native_layers_show(name):
    """Features and their gradients, as tools that look into models gather them."""
    seen: list[dict[str, list]] = []
    for model in pair(name, torch.float64):
        found: dict[str, list] = {}
        for key, module in model.named_modules():
            if not list(module.children()):
                values = found.setdefault(key, [])
                module.register_forward_hook(lambda *given, values=values: values.append(given[2].detach()))
                module.register_full_backward_hook(lambda *given, values=values: values.append(given[2][0].detach()))
        loss(model(batch(name, 3, torch.float64))).backward()
        seen.append(found)
    assert list(seen[0]) == list(seen[1])
    for key, values in seen[0].items():
        assert len(values) == len(seen[1][key]) >= 2
        for mine, theirs in zip(values, seen[1][key], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9, msg=f"{name}: {key}")


def test_a_hook_may_replace_what_goes_in_and_out():
    ours, native = _both()
    for model in (ours, native):
        model[4].register_forward_hook(lambda module, inputs, output: output * 2)
        model[6][0].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
        model[2].register_full_backward_hook(lambda module, grads, _: (grads[0] * 3,))
        model[9].weight.register_hook(lambda grad: grad * 0.5)
    _assert_same_step(ours, native, _images(dtype=torch.float64))


class _Symmetric(torch.nn.Module):
    def forward(self, weight):
        return weight + weight.flip(-1)


def _old_weight_norm(layer: torch.nn.Module) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer)


REWRITTEN = {
    "parametrize": lambda layer: parametrize.register_parametrization(layer, "weight", _Symmetric()),
    "prune_l1": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.4),
    "prune_structured": lambda layer: prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=0),
    "weight_norm": torch.nn.utils.parametrizations.weight_norm,
    "weight_norm_by_hooks": _old_weight_norm,
    "spectral_norm": torch.nn.utils.parametrizations.spectral_norm,
    "spectral_norm_by_hooks": torch.nn.utils.spectral_norm,
}


@pytest.mark.parametrize("rewrite", REWRITTEN)
def test_weights_that_are_computed(rewrite):
    """In each layer of a Sequential that fuses, for two steps: what was kept of the first is old in the second."""
    ours, native = _both()
    for model in (ours, native):
        model(_images(dtype=torch.float64))
        for layer in (model[0], model[3], model[6][0], model[9]):
            torch.manual_seed(2)
            REWRITTEN[rewrite](layer)
    assert list(ours.state_dict()) == list(native.state_dict())
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (ours, native)]
    for _ in range(2):
        _assert_same_step(ours, native, _images(dtype=torch.float64))
        for optimizer in optimizers:
            optimizer.step()


def test_pruning_made_permanent_and_parametrizations_removed():
    ours, native = _both()
    for model in (ours, native):
        prune.l1_unstructured(model[0], "weight", amount=0.5)
        parametrize.register_parametrization(model[3], "weight", _Symmetric())
        model(_images(dtype=torch.float64))
        prune.remove(model[0], "weight")
        parametrize.remove_parametrizations(model[3], "weight")
    assert type(ours[3]) is nn.Conv2d and float((ours[0].weight == 0).double().mean()) == 0.5
    assert ("3", "4", "5") in [names for names, _ in d2lkernels.fusion_plan(ours).fused[""]]
    _assert_same_step(ours, native, _images(dtype=torch.float64))


def test_shared_layers_and_weights_changed_from_outside():
    """A layer used twice, frozen weights, and weights that are replaced between calls."""
    ours, native = _both()
    for model in (ours, native):
        model[6][0].weight.requires_grad_(False)
        model.append(model[9]).append(torch.nn.Linear(5, 2).double())
        torch.manual_seed(3)
        model[9], model[12] = torch.nn.Linear(16, 16).double(), torch.nn.Identity()
        model[10] = model[9]
        model[11], model[13] = torch.nn.Linear(16, 3).double(), torch.nn.Identity()
        model(_images(dtype=torch.float64))
        model[0].weight.data.mul_(2)
        model[3].weight = torch.nn.Parameter(model[3].weight.detach() + 0.1)
    outputs = [model(_images(dtype=torch.float64)) for model in (ours, native)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-10)
    for output in outputs:
        loss(output).backward()
    assert ours[6][0].weight.grad is None
    torch.testing.assert_close(ours[9].weight.grad, native[9].weight.grad, rtol=1e-8, atol=1e-10)


# ---- torch.func ------------------------------------------------------------------------------------------------------


def _lenets() -> tuple[torch.nn.Module, torch.nn.Module]:
    return pair("lenet", torch.float64)


def _lenet_images(number: int = 3) -> torch.Tensor:
    return batch("lenet", number, torch.float64)


def test_functional_call_and_grad_of_lenet():
    ours, native = _lenets()
    parameters, images = dict(native.named_parameters()), _lenet_images()
    gradients = [
        torch.func.grad(lambda given, model=model: loss(torch.func.functional_call(model, given, (images,))))(
            parameters
        )
        for model in (ours, native)
    ]
    for name in parameters:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-8, atol=1e-12)


def test_jvp_of_lenet():
    images = _lenet_images()
    tangent = torch.randn(images.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for model in _lenets():
        parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        directions = {name: torch.ones_like(parameter) for name, parameter in parameters.items()}
        results.append(
            torch.func.jvp(
                lambda given, x, model=model: torch.func.functional_call(model, given, (x,)),
                (parameters, images),
                (directions, tangent),
            )
        )
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def test_vmap_of_lenet():
    ours, native = _lenets()
    images = _lenet_images()
    with torch.no_grad():
        torch.testing.assert_close(torch.vmap(lambda image: ours(image[None])[0])(images), native(images))


def test_an_ensemble_of_lenets():
    """Models stacked, and called at once: each with the same images, and each with its own."""
    members = [models.xavier_uniform_(models.build("lenet")).double() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(members)
    skeleton, images = copy.deepcopy(members[0]).to("meta"), _lenet_images()

    def call(parameters, buffers, images):
        return torch.func.functional_call(skeleton, (parameters, buffers), (images,))

    with torch.no_grad():
        together = torch.vmap(call, (0, 0, None))(parameters, buffers, images)
        torch.testing.assert_close(together, torch.stack([member(images) for member in members]))
        each = torch.vmap(call)(parameters, buffers, images[:, None])
        expected = [member(image[None]) for member, image in zip(members, images, strict=True)]
        torch.testing.assert_close(each, torch.stack(expected))


@pytest.mark.parametrize("name", ["lenet", "bn_lenet"])
def test_per_sample_gradients(name):
    """By vmap of grad; with batch normalisation in inference, where samples have gradients of their own."""
    ours, native = pair(name, torch.float64)
    ours.eval(), native.eval()
    images, targets = batch(name, 3, torch.float64), torch.tensor([2, 0, 1])
    parameters = {key: parameter.detach() for key, parameter in ours.named_parameters()}

    def sample_loss(parameters, image, target):
        output = torch.func.functional_call(ours, parameters, (image[None],))
        return torch.nn.functional.cross_entropy(output, target[None])

    ours_by_sample = torch.vmap(torch.func.grad(sample_loss), (None, 0, 0))(parameters, images, targets)
    for i in range(3):
        native.zero_grad()
        torch.nn.functional.cross_entropy(native(images[i : i + 1]), targets[i : i + 1]).backward()
        for key, parameter in native.named_parameters():
            torch.testing.assert_close(ours_by_sample[key][i], parameter.grad, rtol=1e-7, atol=1e-10, msg=key)


# ---- export, compile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("vgg16", "resnet50", "densenet121")])
def test_export(name):
    model = pair(name)[0].eval()
    size = torch.export.Dim("size", min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(model, (batch(name, 3),), dynamic_shapes=({0: size},), strict=False)
        torch.testing.assert_close(program.module()(batch(name, 5)), model(batch(name, 5)))


@pytest.mark.parametrize(
    "name, backend", [("lenet", "aot_eager"), ("alexnet", "aot_eager"), ("nin", "aot_eager"), ("googlenet", "eager")]
)
def test_models_compile_to_one_graph_for_all_batch_sizes(name, backend):
    """The models that tests/test_chapter_models.py does not compile; Inception's backward is compiled there."""
    torch._dynamo.reset()
    model = pair(name)[0]
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    images = batch(name, 5)
    torch._dynamo.mark_dynamic(images, 0)
    outputs = [one(images) for one in (compiled, twin)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for output in outputs:
        loss(output).backward()
    for (key, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-3, atol=1e-4, msg=key)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for number in (3, 6):
            compiled(batch(name, number))
    torch._dynamo.reset()


# ---- several processes -----------------------------------------------------------------------------------------------


class _Called(Exception):
    pass


def test_torchs_sync_batch_norm_is_not_taken_for_ours(monkeypatch):
    """It runs on CUDA devices only; a Sequential has to call it all the same, and not what it would fuse."""
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(_fused_net())
    assert type(model) is nn.Sequential and type(model[1]) is torch.nn.SyncBatchNorm
    assert d2lkernels.convert(model)[1].__class__ is torch.nn.SyncBatchNorm
    assert all("1" not in names for names, _ in d2lkernels.fusion_plan(model).fused[""])
    expected = _fused_net().eval()(_images())
    torch.testing.assert_close(model.eval()(_images()), expected)

    def forward(self, input):
        raise _Called

    monkeypatch.setattr(torch.nn.SyncBatchNorm, "forward", forward)
    for training in (False, True):
        with pytest.raises(_Called):
            model.train(training)(_images())


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_distributed_data_parallel_gives_what_one_process_gives(tmp_path):
    """Weights, statistics and gradients of three steps, for each net of distributed_worker.py."""
    path = tmp_path / "results.pt"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, distributed_worker.__file__, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(d2lkernels.__file__).parents[1])},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    together = torch.load(path, weights_only=True)
    assert together["same everywhere"]
    for name, make in distributed_worker.NETS.items():
        model = make()
        alone = distributed_worker.train(model, model, *distributed_worker.data())
        assert list(alone) == list(together[name])
        for key, tensor in alone.items():
            torch.testing.assert_close(together[name][key], tensor, rtol=1e-7, atol=1e-9, msg=f"{name}: {key}")
