"""Batch normalisation that goes into the weights of a convolution: in each inference call, and for good."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import not_about_kernels

from d2lkernels import FoldingReport, convert, fold_batch_norm, fusion_plan, models, nn

pytestmark = not_about_kernels

TAILS = {
    "alone": lambda: (),
    "relu": lambda: (nn.ReLU(),),
    "sigmoid_avg": lambda: (nn.Sigmoid(), nn.AvgPool2d(2)),
    "relu_max": lambda: (nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "tanh": lambda: (nn.Tanh(),),
    "avg": lambda: (nn.AvgPool2d(2),),
}


def _net(tail="relu", bias=True, stride=1, groups=1, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=stride, padding=1, groups=groups, bias=bias),
        nn.BatchNorm2d(6, **options),
        *TAILS[tail](),
    )
    return _disturbed(net).eval()


def _disturbed(net) -> torch.nn.Module:
    """Statistics and parameters that are no zeros and ones."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(torch.rand_like(tensor))
    return net


def _input(images: int = 9, side: int = 40) -> torch.Tensor:
    return torch.randn(images, 2, side, side, generator=torch.Generator().manual_seed(1))


def _ops_of(model, *arguments) -> set[str]:
    with torch.profiler.profile() as profile:
        model(*arguments)
    return {event.key.removeprefix("d2lkernels::") for event in profile.key_averages() if "d2lkernels" in event.key}


def _folds(model, input) -> bool:
    return not _ops_of(model, input) & {"batch_norm_infer", "batch_norm_train", "batch_norm_train_update"}


def _assert_right(model, input) -> None:
    """Against float64: at most twice the error of the layers one by one, plus rounding of the largest value."""
    native = convert(model, to="torch")
    exact = copy.deepcopy(native).double()(input.double())
    ours, theirs = ((one(input).double() - exact).abs().max() for one in (model, native))
    assert ours <= 2 * theirs + 1e-6 * exact.abs().max()


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.3}], ids=["usual", "not_affine", "eps"])
@pytest.mark.parametrize("geometry", [{}, {"bias": False}, {"stride": 2}, {"groups": 2}], ids=str)
@pytest.mark.parametrize("tail", TAILS)
@torch.no_grad()
def test_one_convolution_and_right(tail, geometry, options):
    model = _net(tail, **geometry, **options)
    for format in (torch.contiguous_format, torch.channels_last):
        _assert_right(model, _input(16, 64).contiguous(memory_format=format))
    assert _folds(model, _input(16, 64))


@torch.no_grad()
def test_means_far_from_zero_and_small_deviations():
    model = _net()
    model[1].running_mean.fill_(100.0)
    model[0].bias.fill_(100.0)
    model[1].running_var.fill_(1e-6)
    _assert_right(model, _input())


@torch.no_grad()
def test_no_change_goes_unseen():
    model, input = _net(), _input()
    model(input)
    state = copy.deepcopy(model.state_dict())
    changes = [
        lambda: model[0].weight.mul_(2.0),
        lambda: setattr(model[0].weight, "data", -model[0].weight.data),
        lambda: model[0].bias.data.add_(1.0),
        lambda: model[1].weight.data.mul_(3.0),
        lambda: model[1].bias.sub_(1.0),
        lambda: model[1].running_mean.add_(1.0),
        lambda: setattr(model[1].running_var, "data", model[1].running_var.data * 4),
        lambda: setattr(model[1], "eps", 0.5),
        lambda: model[1].running_var.numpy().fill(0.25),  # which no version counter sees
        lambda: model.load_state_dict(state),
        lambda: setattr(model[1], "running_mean", torch.ones(6)),
    ]
    for change in changes:
        before = model(input)
        change()
        _assert_right(model, input)
        assert not torch.equal(model(input), before)
        assert _folds(model, input)


def test_training_and_inference_take_turns():
    model, input = _net(), _input()
    native = convert(model, to="torch")
    for training in (True, False, True, False):
        model.train(training), native.train(training)
        with torch.no_grad():
            torch.testing.assert_close(model(input), native(input), rtol=1e-4, atol=1e-5)
    for mine, other in zip(model.buffers(), native.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


def test_gradients_keep_the_layers_apart():
    model, input = _net(), _input()
    assert not _folds(model, input)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert _folds(model, input) and not _folds(model, input.requires_grad_())


@torch.no_grad()
def test_what_is_not_folded():
    big, small = _input(), _input(1, 8)
    assert not _folds(_net(), small)  # normalising the map is less work
    assert not _folds(_net(track_running_stats=False), big)
    assert not _folds(_net().bfloat16(), big.bfloat16())
    hooked = _net()
    hooked[1].register_forward_hook(lambda *_: None)
    assert not _folds(hooked, big)
    padded = _net()
    padded[0].padding_mode = "reflect"
    padded[0]._reversed_padding_repeated_twice = [1, 1, 1, 1]
    assert not _folds(padded, big)
    _assert_right(padded, big)
    with torch.autocast("cpu", torch.bfloat16):
        assert not _folds(_net(), big)
    with pytest.raises(ValueError, match="expected 4D input"):
        _net()(big[0])
    other = _net()
    other[1] = nn.BatchNorm2d(1).eval()
    with pytest.raises(ValueError, match="one value per channel of input"):
        other(big)


@torch.no_grad()
def test_transforms_compile_and_export():
    model, input = _net(), _input()
    expected = model(input)
    batched = torch.func.vmap(model)(input.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(batched, expected, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input), expected)
    model[1].running_mean.add_(1.0)
    torch.testing.assert_close(compiled(input), model(input))
    exported = torch.export.export(model, (input,), dynamic_shapes=({0: torch.export.Dim("images")},))
    torch.testing.assert_close(exported.module()(input[:2]), model(input[:2]))


@pytest.mark.parametrize("name", ["bn_lenet", "resnet18"])
@torch.no_grad()
def test_models(name):
    torch.manual_seed(0)
    options = {"num_blocks": (1, 1)} if name == "resnet18" else {}
    model = _disturbed(models.build(name, **options)).eval()
    size = models.spec(name).image_size
    input = torch.rand(24, 1, size, size, generator=torch.Generator().manual_seed(2))
    convolutions = sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    with torch.profiler.profile() as profile:
        model(input)
    calls = {event.key: event.count for event in profile.key_averages()}
    norms = sum(type(layer) is nn.BatchNorm1d for layer in model.modules())
    tails = sum(isinstance(layer, models.resnet.Residual) for layer in model.modules())
    assert convolutions > 0 and calls.get("d2lkernels::batch_norm_infer", 0) <= norms + tails + 1
    _assert_right(model, input)


# ---- for good --------------------------------------------------------------------------------------------------------


def _foreign(nn) -> torch.nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, affine=False), nn.MaxPool2d(2)),
        nn.BatchNorm2d(4),
        nn.Flatten(),
    )
    return _disturbed(net).eval()


@pytest.mark.parametrize("layers", [nn, torch.nn], ids=["ours", "torch"])
@torch.no_grad()
def test_for_good_it_is_a_model_without_the_norms(layers):
    model, report = _foreign(layers), FoldingReport()
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model, report=report)
    assert report.folded == {"0": "1", "3.0": "3.1"} and report.left == {}
    assert str(report).splitlines()[1] == "3.0: 3.1 is folded into it"
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert [type(folded[1]), type(folded[3][1]), type(folded[4])] == [torch.nn.Identity] * 2 + [layers.BatchNorm2d]
    assert {key.split(".")[0] for key in folded.state_dict()} == {"0", "3", "4"}
    torch.testing.assert_close(folded(_input()), model(_input()), rtol=1e-4, atol=1e-5)
    exact = copy.deepcopy(model).double()
    torch.testing.assert_close(fold_batch_norm(exact)(_input().double()), exact(_input().double()))
    assert fold_batch_norm(model, inplace=True) is model and type(model[1]) is torch.nn.Identity


@torch.no_grad()
def test_identities_do_not_stand_between_neighbours():
    folded = fold_batch_norm(_net("relu_max"))
    assert str(fusion_plan(folded)).endswith("0, 2, 3: fused: Conv2d + ReLU + MaxPool2d")
    folded[1].register_forward_hook(lambda *_: None)
    assert "fused" not in str(fusion_plan(folded)).replace("2, 3: fused", "")


@pytest.mark.parametrize("layers", [nn, torch.nn], ids=["ours", "torch"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "bn_lenet", "densenet121"])
@torch.no_grad()
def test_models_for_good(name, layers):
    torch.manual_seed(0)
    options = {"num_blocks": (1, 2)} if "resnet" in name else {"num_convs": (2, 1)} if "dense" in name else {}
    model = _disturbed(models.build(name, nn=layers, **options)).eval()
    report = FoldingReport()
    folded = fold_batch_norm(model, report=report)
    blocks = {"resnet18": 1 + 2 * 3, "resnet50": 1 + 3 * 3, "bn_lenet": 2, "densenet121": 1 + 3}
    assert len(report.folded) == blocks[name] and not report.left
    size = models.spec(name).image_size
    input = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(2))
    exact = copy.deepcopy(model).double()(input.double())
    errors = [(one(input).double() - exact).abs().max() for one in (folded, model)]
    assert errors[0] <= 3 * errors[1] + 1e-6 * exact.abs().max()
    if "resnet" in name and layers is nn:
        assert not _ops_of(folded, input) & {"batch_norm_infer", "relu"}


def test_what_is_left_and_what_is_refused():
    hooked, untracked, shared, own, parametrized = (_net() for _ in range(5))
    hooked[1].register_forward_hook(lambda *_: None)
    untracked[1] = nn.BatchNorm2d(6, track_running_stats=False).eval()
    shared.append(nn.Conv2d(6, 2, 1)).append(shared[0])
    own[1].__class__ = type("Own", (nn.BatchNorm2d,), {})
    torch.nn.utils.parametrize.register_parametrization(parametrized[0], "weight", torch.nn.Tanh())
    for model, why in (
        (hooked, "it or its convolution has hooks or a forward of its own"),
        (untracked, "it has no running statistics"),
        (shared, "its convolution is used more than once"),
        (own, "a subclass with code of its own"),
        (parametrized, "a subclass with code of its own"),
    ):
        report = FoldingReport()
        folded = fold_batch_norm(model, report=report)
        assert report.left == {"1": why} and not report.folded
        assert isinstance(folded[1], torch.nn.BatchNorm2d)
    model = _net().train()
    with pytest.raises(ValueError, match="expected model to be in eval mode, but got one in training mode"):
        fold_batch_norm(model)
    model.eval()[1].train()
    with pytest.raises(ValueError, match="expected 1 to be in eval mode, but got it in training mode"):
        fold_batch_norm(model, inplace=True)
    assert isinstance(model[1], nn.BatchNorm2d)


def test_a_block_with_a_forward_of_its_own_is_left():
    own = type("Own", (models.resnet.Residual,), {"forward": lambda self, input: self.bn1(input)})
    report = FoldingReport()
    fold_batch_norm(torch.nn.Sequential(own(4, 4)).eval(), report=report)
    assert not report.folded and str(report) == "no batch normalisation behind a convolution"


def test_tied_weights_and_requires_grad():
    model = _net().append(nn.Conv2d(2, 6, 3))
    model[3].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    folded = fold_batch_norm(model)
    assert torch.equal(folded[3].weight, model[0].weight) and not torch.equal(folded[0].weight, model[0].weight)
    assert not folded[0].weight.requires_grad and not folded[0].bias.requires_grad
