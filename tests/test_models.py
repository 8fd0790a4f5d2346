"""The models: one definition over both back ends, with the same weights, results and gradients."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from d2lkernels import models
from d2lkernels import nn as our_nn


def pair(name: str, **options) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same model over our layers and over torch's, with the same weights."""
    torch.manual_seed(0)
    ours = models.xavier_uniform_(models.build(name, **options))
    native = models.build(name, nn=torch.nn, **options)
    native.load_state_dict(ours.state_dict())
    return ours, native


def batch(name: str, count: int, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = models.spec(name).image_size
    images = torch.rand(count, channels, size, size, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


def assert_close(ours: torch.Tensor, native: torch.Tensor, exact: torch.Tensor, what: str) -> None:
    """Our error against float64 is at most twice native torch's, plus rounding of the largest value."""
    exact = exact.detach()
    floor = 1e-5 * max(1e-3, float(exact.abs().max()))
    our_error, native_error = (float((x.detach().double() - exact).abs().max()) for x in (ours, native))
    assert our_error <= 2 * native_error + floor, f"{what}: {our_error} against {native_error}"


@pytest.mark.parametrize("name", models.names())
def test_every_model_is_the_documented_one_over_both_back_ends(name):
    spec = models.spec(name)
    assert spec.name == name
    with torch.device("meta"):  # names, sizes and strides without the memory
        ours, native = models.build(name), models.build(name, nn=torch.nn)
    for model in (ours, native):
        assert sum(parameter.numel() for parameter in model.parameters()) == spec.parameters
    sizes = [{key: tensor.shape for key, tensor in model.state_dict().items()} for model in (ours, native)]
    assert list(sizes[0].items()) == list(sizes[1].items())
    for module in ours.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert type(module) is our_nn.Conv2d
            like = torch.empty(module.weight.shape, memory_format=torch.channels_last, device="meta")
            assert module.weight.stride() == like.stride()


def test_lenet_has_the_books_size_and_settings():
    spec = models.spec("lenet")
    assert (spec.parameters, spec.image_size) == (61_706, 28)
    assert spec.defaults == models.Settings(batch_size=256, lr=0.9, epochs=10, optimizer="sgd")


def test_weights_move_both_ways():
    ours, native = models.build("lenet"), models.build("lenet", nn=torch.nn)
    ours.load_state_dict(native.state_dict())
    assert torch.equal(ours[0].weight, native[0].weight)
    native.load_state_dict(models.build("lenet").state_dict())
    assert not torch.equal(ours[0].weight, native[0].weight)


@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu", "pool": "max"}, {"activation": "tanh", "num_classes": 10, "in_channels": 3}],
    ids=["book", "relu-max", "tanh-3-channels"],
)
def test_lenet_agrees_with_native_torch(options):
    ours, native = pair("lenet", **options)
    exact = models.build("lenet", nn=torch.nn, **options).double()
    exact.load_state_dict(native.state_dict())
    images, labels = batch("lenet", 9, options.get("in_channels", 1))
    outputs = [ours(images), native(images), exact(images.double())]
    assert_close(*outputs, "output")
    for output in outputs:
        torch.nn.functional.cross_entropy(output, labels).backward()
    for (name, p), q, r in zip(ours.named_parameters(), native.parameters(), exact.parameters(), strict=True):
        assert_close(p.grad, q.grad, r.grad, f"gradient of {name}")


# With its usual eps Adam turns the rounding of a gradient of zero into a step of full length.
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, partial(torch.optim.Adam, eps=1e-2)], ids=["sgd", "adam"])
def test_three_steps_agree_with_native_torch(optimizer):
    ours, native = pair("lenet")
    images, labels = batch("lenet", 16)
    for model in (ours, native):
        steps = optimizer(model.parameters(), lr=0.01)
        for _ in range(3):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            steps.step()
    for (name, p), q in zip(ours.named_parameters(), native.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize(
    ("error", "message", "name", "options"),
    [
        (ValueError, r"name to be one of lenet, .*, but got 'lenett'", "lenett", {}),
        (ValueError, "name to be one of resnet18, resnet34, .*, but got 'resnet'", "resnet", {}),
        (ValueError, "name to be one of densenet, densenet121, .*, but got 'dense'", "dense", {}),
        (ValueError, "but got ''", "", {}),
        (TypeError, "options of 'lenet' to be among activation, .*, but got 'activatoin'", "lenet", {"activatoin": 1}),
        (ValueError, "activation to be one of 'sigmoid', .*, but got 'sigmoids'", "lenet", {"activation": "sigmoids"}),
        (ValueError, "pool to be one of 'max', 'avg', but got 'maximum'", "lenet", {"pool": "maximum"}),
    ],
)
def test_unknown_names_and_options_are_refused_with_the_nearest_first(error, message, name, options):
    with pytest.raises(error, match=message):
        models.build(name, **options)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'lenet', which is taken"):
        models.register(models.spec("lenet"))


def test_xavier_uniform_fills_the_weights_and_leaves_the_biases():
    model = models.build("lenet")
    biases = [parameter.clone() for name, parameter in model.named_parameters() if name.endswith("bias")]
    torch.manual_seed(3)
    assert models.xavier_uniform_(model) is model
    linear = model[7]
    bound = math.sqrt(6 / (linear.in_features + linear.out_features))
    assert linear.weight.abs().max() <= bound
    assert linear.weight.abs().max() > 0.98 * bound
    assert abs(float(linear.weight.detach().mean())) < 0.02 * bound
    after = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    assert all(torch.equal(before, now) for before, now in zip(biases, after, strict=True))
