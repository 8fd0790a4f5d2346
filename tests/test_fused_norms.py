"""Batch normalisation in groups: results, gradients and running statistics as of the layers one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import not_about_kernels

import d2lkernels
from d2lkernels import nn

pytestmark = not_about_kernels

ACTIVATIONS = ("ReLU", "Sigmoid", "Tanh")


def _net(activation: str = "ReLU", **options) -> torch.nn.Module:
    torch.manual_seed(0)
    act = getattr(nn, activation)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6, **options)),
        act(),
        nn.AvgPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Identity()),
        nn.Linear(6 * 4 * 4, 5),
        nn.BatchNorm1d(5, **options),
        act(),
        nn.Linear(5, 3),
    )
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(0.5 * torch.rand_like(tensor))
    return net


def _input(seed: int = 1) -> torch.Tensor:
    return torch.randn(7, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def _groups(model) -> list[tuple[str, ...]]:
    return [names for groups in d2lkernels.fusion_plan(model).fused.values() for names, _ in groups]


def _with_gradients(model, input):
    input = input.clone().requires_grad_()
    output = model(input)
    output.square().sum().backward()
    return [output, input.grad, *(parameter.grad for parameter in model.parameters()), *model.buffers()]


def _assert_like_torch(model, steps: int = 3) -> None:
    native = d2lkernels.convert(model, to="torch")
    for step in range(steps):
        for mine, other in zip(*(_with_gradients(one, _input(step)) for one in (model, native)), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"momentum": 0.3, "eps": 0.1}, {"track_running_stats": False}, {"affine": False}],
    ids=["usual", "cumulative", "momentum", "untracked", "not_affine"],
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_norm_and_activation_are_one_group(activation, options, training):
    model = _net(activation, **options).train(training)
    assert _groups(model) == [("0.0", "0.1", "1", "2"), ("5", "6")]
    _assert_like_torch(model)


def _share_the_norm(net) -> None:
    net.append(net[5])
    net[7] = nn.Linear(5, 5)


@pytest.mark.parametrize(
    "disturb, fused",
    [
        (lambda net: net[5].register_forward_hook(lambda *_: None), False),
        (lambda net: net[6].register_full_backward_hook(lambda *_: None), False),
        (lambda net: net[6].register_forward_pre_hook(lambda *_: None), False),
        (lambda net: setattr(net[5], "forward", net[5].forward), False),
        (lambda net: torch.nn.utils.parametrize.register_parametrization(net[5], "weight", torch.nn.Tanh()), False),
        (lambda net: setattr(net[5], "__class__", type("Own", (nn.BatchNorm1d,), {})), False),
        (_share_the_norm, True),
    ],
    ids=["hook_of_the_norm", "backward_hook", "pre_hook", "own_forward", "parametrization", "subclass", "twice"],
)
def test_what_stands_alone_and_what_does_not(disturb, fused):
    model = _net()
    model(_input())
    disturb(model)
    assert (("5", "6") in _groups(model)) is fused
    expected, actual = copy.deepcopy(model), model
    for layer in expected.modules():
        if type(layer) is nn.Sequential:
            layer.__class__ = torch.nn.Sequential  # one by one
    torch.testing.assert_close(actual(_input(2)), expected(_input(2)))
    for mine, other in zip(actual.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


def test_hooks_see_what_goes_in_and_comes_out():
    model, seen = _net(), []
    model[5].register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    model[6].register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    model(_input())
    assert torch.equal(seen[0][1], seen[1][0]) and bool((seen[0][1] < 0).any()) and bool((seen[1][1] >= 0).all())


def test_lazy_layers_are_fused_once_they_are_known():
    model = nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d(), nn.ReLU())
    model(_input())
    assert _groups(model) == [("0", "1", "2")]
    assert int(model[1].num_batches_tracked) == 1
    model(_input())
    assert int(model[1].num_batches_tracked) == 2


def test_errors_name_what_was_wrong():
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="more than one value per channel in training"):
        nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())(torch.zeros(1, 3))


def test_less_is_kept():
    from test_fusion import _saved_bytes

    layers = lambda nn: nn.Sequential(nn.BatchNorm2d(4), nn.Sigmoid())  # noqa: E731
    input = torch.randn(4, 4, 32, 32)
    # What the sigmoid gave is computed again.
    assert _saved_bytes(layers(nn), input) < _saved_bytes(layers(torch.nn), input) - 0.9 * input.nbytes


def test_compile_and_torch_func():
    model, input = _net(), _input()
    torch._dynamo.reset()
    expected = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input), expected(input))
    for mine, other in zip(model.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(mine, other)
    model.eval()
    native, tangent = d2lkernels.convert(model, to="torch"), torch.randn_like(input)
    ours, theirs = (torch.func.jvp(one, (input,), (tangent,))[1] for one in (model, native))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_autocast():
    model = _net()
    native = d2lkernels.convert(model, to="torch")
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = model(_input()), native(_input())
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.1)
