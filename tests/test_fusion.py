"""Sequential fuses its neighbours, convert swaps layers: results as of the layers one by one, and less is kept."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.utils.prune
from cases import not_about_kernels

import d2lkernels
from d2lkernels import nn

pytestmark = not_about_kernels


def _net(nn=nn) -> torch.nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(8, 4, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 3),
    )


def _input() -> torch.Tensor:
    return torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def _groups(model) -> list[tuple[str, ...]]:
    return [names for groups in d2lkernels.fusion_plan(model).fused.values() for names, _ in groups]


ALL = [("0", "1", "2"), ("3.0", "3.1", "4"), ("5", "6")]


def _assert_like_torch(model, input=None):
    native = d2lkernels.convert(model, to="torch")
    input = _input() if input is None else input
    ours, theirs = model(input), native(input)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for mine, other in zip(model.parameters(), native.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_neighbours_are_fused_across_nested_sequentials():
    model = _net()
    assert _groups(model) == ALL
    _assert_like_torch(model)


@pytest.mark.parametrize(
    "disturb, groups",
    [
        (lambda net: net[1].register_forward_hook(lambda *_: None), ALL[1:]),
        (lambda net: net[2].register_full_backward_hook(lambda *_: None), [("0", "1"), *ALL[1:]]),
        (lambda net: net[3].register_forward_pre_hook(lambda *_: None), [ALL[0], ("0", "1"), ALL[2]]),
        (lambda net: setattr(net[5], "forward", net[5].forward), ALL[:2]),
        (lambda net: torch.nn.utils.parametrize.register_parametrization(net[0], "weight", torch.nn.Tanh()), ALL[1:]),
        (lambda net: torch.nn.utils.prune.l1_unstructured(net[0], "weight", 0.5), ALL[1:]),
    ],
    ids=["forward_hook", "backward_hook", "pre_hook_of_the_inner", "own_forward", "parametrization", "pruning"],
)
def test_what_must_stay_alone(disturb, groups):
    model = _net()
    model(_input())  # the plan is made, and has to be seen to be out of date
    disturb(model)
    assert sorted(_groups(model), key=lambda names: names[0]) == groups
    calls = []
    if groups == ALL[1:]:
        model[1].register_forward_hook(lambda *_: calls.append(1))
        model(_input())
        assert calls == [1]


def _even_net() -> torch.nn.Module:
    """Whose layers may stand in any order."""
    torch.manual_seed(0)
    conv = lambda: nn.Conv2d(4, 4, 3, padding=1)  # noqa: E731
    inner = nn.Sequential(conv(), nn.Sigmoid(), torch.nn.Identity())
    return nn.Sequential(conv(), nn.Tanh(), nn.Sequential(conv(), nn.ReLU(), inner), conv(), nn.ReLU())


def _double(module, given, output):
    return 2 * output


CHANGES = {
    "replaced": lambda net: net[2][2].__setitem__(1, nn.Tanh()),
    "replaced_container": lambda net: net[2].__setitem__(2, nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())),
    "inserted": lambda net: net[2].insert(1, nn.BatchNorm2d(4)),
    "appended": lambda net: net[2][2].append(nn.MaxPool2d(2)),
    "removed": lambda net: net[2].__delitem__(1),
    "none_instead": lambda net: net[2]._modules.__setitem__("1", None),
    "reordered": lambda net: net[2]._modules.update({"0": net[2][1], "1": net[2][0]}),
    "other_class": lambda net: setattr(net[2][1], "__class__", torch.nn.Tanh),
    "own_forward": lambda net: setattr(net[2][1], "forward", torch.zeros_like),
    "own_forward_of_container": lambda net: setattr(net[2][2], "forward", torch.zeros_like),
    "hook": lambda net: net[2][0].register_forward_hook(_double),
    "hook_of_container": lambda net: net[2].register_forward_hook(_double),
    "hook_of_identity": lambda net: net[2][2][2].register_forward_hook(_double),
    "weight_no_parameter": lambda net: _make_plain(net[2][0], "weight"),
    "bias_no_parameter": lambda net: _make_plain(net[3], "bias"),
}


def _make_plain(layer, name):
    value = getattr(layer, name).detach()
    delattr(layer, name)
    setattr(layer, name, 2 * value)


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_a_call_is_noticed(change):
    model, input = _even_net().eval(), torch.randn(2, 4, 6, 6)
    before = model(input)
    CHANGES[change](model)
    after = model(input)
    assert before.shape != after.shape or not torch.equal(before, after)
    torch.testing.assert_close(after, torch.nn.Sequential.forward(copy.deepcopy(model), input))


def test_layers_are_fused_again_when_their_hooks_are_gone():
    model, input = _even_net(), torch.randn(2, 4, 6, 6)
    for layer in (model[0], model[2], model[2][2]):
        handle = layer.register_forward_hook(_double)
        model(input)
        handle.remove()
        with torch.profiler.profile() as profile:
            model(input)
        names = [event.name for event in profile.events()]
        assert names.count("d2lkernels::conv2d_activation") == 4 and "d2lkernels::conv2d" not in names


def _with_plain_tensors(model):
    """In place of parameters and buffers; those that are None stay."""
    for module in model.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            delattr(module, name)
            setattr(module, name, tensor.detach().clone())
    return model


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("name", ["googlenet", "resnet18", "densenet"])
def test_tensors_in_place_of_parameters_and_buffers(name, training):
    model, images = d2lkernels.models.build(name).train(training), torch.randn(2, 1, 32, 32)
    twin = _with_plain_tensors(copy.deepcopy(model))
    assert not list(twin.parameters()) and not list(twin.buffers())
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(twin(images), model(images))


def test_global_hooks_see_every_layer():
    model, seen = _net(), []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        model(_input())
    finally:
        handle.remove()
    assert {"Conv2d", "Sigmoid", "AvgPool2d", "MaxPool2d", "Tanh"} <= set(seen)


def test_a_layer_that_changes_is_obeyed():
    model = _net()
    model(_input())
    model[0].padding_mode = "reflect"
    model[2].divisor_override = 3
    _assert_like_torch(model)


@pytest.mark.parametrize("activation", ["ReLU", "Sigmoid", "Tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_and_activations(activation, bias):
    torch.manual_seed(0)
    act = getattr(nn, activation)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 9, bias=bias), act(), nn.Sequential(nn.Linear(9, 4), act()))
    assert _groups(model) == [("1", "2"), ("3.0", "3.1")]
    assert str(d2lkernels.fusion_plan(model)).splitlines()[1] == f"  1, 2: fused: Linear + {activation}"
    _assert_like_torch(model)
    with torch.profiler.profile() as profile:
        model(_input())
    names = {event.key for event in profile.key_averages()}
    assert "d2lkernels::linear_activation" in names and "d2lkernels::linear" not in names
    model.zero_grad()
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    torch.nn.utils.parametrize.register_parametrization(model[3][0], "weight", torch.nn.Tanh())
    assert _groups(model) == []
    _assert_like_torch(model)
    assert calls


def _saved_bytes(model, input) -> int:
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(input)
        kept = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        total = sum(size for place, size in storages.items() if place not in kept)
    del output
    return total


def test_less_is_saved():
    layers = lambda nn: nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))  # noqa: E731
    input = torch.randn(2, 1, 32, 32)
    # Not the map (4 bytes an element), but the pooled one (a quarter of them) and its offsets.
    assert _saved_bytes(layers(nn), input) <= 0.4 * _saved_bytes(layers(torch.nn), input)


def test_copies_and_state():
    model = _net()
    expected = model(_input())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(_input()), expected)
        assert "_plan" not in other.state_dict() and list(other.state_dict()) == list(_net(torch.nn).state_dict())


def test_compile_and_export():
    model, input = _net(), _input()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for _ in range(2):
            torch.testing.assert_close(compiled(input), model(input))
    exported = torch.export.export(model, (input,))
    torch.testing.assert_close(exported.module()(input), model(input))


def test_torch_func_sees_the_separate_ops():
    model, input = _net(), _input()
    native = d2lkernels.convert(model, to="torch")
    tangent = torch.randn_like(input)
    ours, theirs = (torch.func.jvp(one, (input,), (tangent,))[1] for one in (model, native))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    batched = torch.func.vmap(model)(input.unsqueeze(1))
    torch.testing.assert_close(batched.squeeze(1), model(input))
    assert torch.func.functional_call(model, dict(native.named_parameters()), (input,)).shape == (3, 3)


# ---- convert ---------------------------------------------------------------------------------------------------------


class _Residual(torch.nn.Module):
    """Written against plain torch.nn, with a tied layer."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(channels),
            torch.nn.ReLU(),
        )
        self.again = self.body[0]

    def forward(self, input):
        return torch.relu(input + self.again(self.body(input)))


class _Branches(torch.nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.one = torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 1), torch.nn.ReLU())
        self.two = torch.nn.Sequential(torch.nn.MaxPool2d(3, 1, 1), torch.nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, input):
        return torch.cat((input, self.one(input), self.two(input)), 1)


class _OwnConv(torch.nn.Conv2d):
    pass


def _foreign() -> torch.nn.Module:
    torch.manual_seed(2)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), _Residual(4), _Branches(4), _OwnConv(12, 2, 1), torch.nn.Flatten()
    )


def test_convert_there_and_back():
    model = _foreign()
    report = d2lkernels.ConversionReport()
    ours = d2lkernels.convert(model, report=report)
    assert type(ours) is nn.Sequential and type(ours[2].body[0]) is nn.Conv2d and type(model[0]) is torch.nn.Conv2d
    assert type(ours[4]) is _OwnConv and report.left == {"4": "_OwnConv, a subclass of Conv2d"}
    assert ours[2].again is ours[2].body[0]
    assert ours[2].body[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert list(ours.state_dict()) == list(model.state_dict())
    input = torch.randn(2, 1, 12, 12)
    actual, expected = ours(input), model(input)
    torch.testing.assert_close(actual, expected)
    actual.square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(ours.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    back = d2lkernels.convert(ours, to="torch", inplace=True)
    assert back is ours and [type(one) for one in back.modules()] == [type(one) for one in model.modules()]


def test_convert_keeps_hooks_and_mode():
    model = _foreign().eval()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    d2lkernels.convert(model, inplace=True)(torch.randn(1, 1, 12, 12))
    assert calls == [1] and not model.training
    with pytest.raises(ValueError, match="expected to to be 'ours' or 'torch', but got 'cuda'"):
        d2lkernels.convert(model, to="cuda")
