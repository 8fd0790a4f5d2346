"""convert on models from outside of the package: outputs, gradients, statistics and all else stay what they were."""

from __future__ import annotations

import copy
import pickle
from collections import Counter

import foreign_models
import pytest
import torch
from cases import not_about_kernels

import d2lkernels
from d2lkernels import nn

pytestmark = not_about_kernels

MODELS = {
    "resnet": foreign_models.ResNet,
    "densenet": foreign_models.DenseNet,
    "inception": foreign_models.InceptionNet,
}
every_model = pytest.mark.parametrize("name", MODELS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def _model(name: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after some training, so that inference differs from training
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def _images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, 3, 33, 29, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def _step(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything that a training step leaves behind."""
    images = images.clone().requires_grad_()
    outputs = model(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(output.square().sum() for output in outputs).backward()
    return {
        **{f"output {i}": output.detach() for i, output in enumerate(outputs)},
        **{f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters() if model.training},
        **{f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()},
        "gradient of the images": images.grad,
    }


def _assert_same(ours: dict, native: dict, exact: dict) -> None:
    """Our error against float64 is at most twice native torch's, plus rounding of the largest value."""
    assert list(ours) == list(native)
    for what, exactly in exact.items():
        if not exactly.is_floating_point():
            assert torch.equal(ours[what], native[what]), what
            continue
        assert (ours[what].dtype, ours[what].shape) == (native[what].dtype, native[what].shape)
        errors = [float((one[what].double() - exactly).abs().max()) for one in (ours, native)]
        relative = 1e-12 if ours[what].dtype == torch.float64 else 1e-5
        floor = relative * max(1e-3, float(exactly.abs().max()))
        assert errors[0] <= 2 * errors[1] + floor, f"{what}: {errors}"


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@every_dtype
@every_model
def test_results(name, dtype, training, format):
    native = _model(name, dtype).train(training)
    exact = copy.deepcopy(native).double()
    ours = d2lkernels.convert(native)
    images = _images(dtype).contiguous(memory_format=format)
    results = [_step(model, images.to(next(model.parameters()).dtype)) for model in (ours, native, exact)]
    _assert_same(*results)


@every_model
def test_steps_of_training_with_the_optimizer_of_before(name):
    """Converted in place, the parameters are the objects that an optimizer holds."""
    native = _model(name, torch.float64)
    ours = copy.deepcopy(native)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for model in (ours, native)]
    given = list(ours.parameters())
    assert d2lkernels.convert(ours, inplace=True) is ours
    assert all(one is other for one, other in zip(given, ours.parameters(), strict=True))
    for _ in range(3):
        for model, optimizer in zip((ours, native), optimizers, strict=True):
            optimizer.zero_grad()
            _step(model, _images(torch.float64))
            optimizer.step()
    assert list(ours.state_dict()) == list(native.state_dict())
    for key, tensor in native.state_dict().items():
        torch.testing.assert_close(
            ours.state_dict()[key], tensor, rtol=1e-6, atol=1e-8, msg=lambda m, k=key: f"{k}: {m}"
        )


@every_model
def test_there_and_back(name):
    native = _model(name)
    before = {key: tensor.clone() for key, tensor in native.state_dict().items()}
    report = d2lkernels.ConversionReport()
    ours = d2lkernels.convert(native, report=report)
    assert list(ours.state_dict()) == list(before)
    for key, tensor in before.items():
        assert torch.equal(ours.state_dict()[key], tensor) and torch.equal(native.state_dict()[key], tensor)
        assert ours.state_dict()[key].data_ptr() != native.state_dict()[key].data_ptr()
    assert all(type(module).__module__.split(".")[0] != "d2lkernels" for module in native.modules())
    kinds = Counter(type(module) for module in ours.modules())
    assert not any(kinds[one] for one in (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear, torch.nn.Sequential))
    assert kinds[nn.Conv2d] == sum(isinstance(module, torch.nn.Conv2d) for module in native.modules())
    # The report names every layer whose class changed, and no other.
    changed = {key for key, module in ours.named_modules() if type(module).__module__.startswith("d2lkernels")}
    assert set(report.changed) == changed
    assert set(report.left) == {key for key, module in ours.named_modules() if type(module).__name__ == "Transition"}
    ours.load_state_dict(before)
    back = d2lkernels.convert(ours, to="torch")
    assert [type(module) for module in back.modules()] == [type(module) for module in native.modules()]
    assert str(back) == str(native)
    with torch.no_grad():  # not to the bit: the weights are in channels_last now, where native torch sums otherwise
        torch.testing.assert_close(back.eval()(_images()), native.eval()(_images()))


@every_model
def test_converting_again_changes_nothing(name):
    ours, report = d2lkernels.convert(_model(name)), d2lkernels.ConversionReport()
    again = d2lkernels.convert(ours, report=report)
    assert not report.changed and [type(one) for one in again.modules()] == [type(one) for one in ours.modules()]


@every_model
def test_copies_of_a_converted_model(name):
    ours = d2lkernels.convert(_model(name)).eval()
    with torch.no_grad():
        expected = ours(_images())
        for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(copied(_images()), expected)


@every_model
def test_hooks_modes_and_frozen_parameters_stay(name):
    native, seen = _model(name), []
    convolutions = [module for module in native.modules() if isinstance(module, torch.nn.Conv2d)]
    norms = [module for module in native.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    norms[0].eval()
    convolutions[0].weight.requires_grad_(False)
    convolutions[1].register_forward_pre_hook(lambda module, inputs: seen.append("before"))
    convolutions[1].register_forward_hook(lambda module, inputs, output: seen.append("after"))
    last = [module for module in native.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.register_full_backward_hook(lambda module, *grads: seen.append("backward"))
    handle = native.register_state_dict_post_hook(lambda module, state, *rest: state.update(extra=torch.ones(1)))
    ours = d2lkernels.convert(native)
    modes = [module.training for module in native.modules()]
    assert [module.training for module in ours.modules()] == modes
    assert [one.requires_grad for one in ours.parameters()] == [one.requires_grad for one in native.parameters()]
    assert "extra" in ours.state_dict()
    handle.remove()
    output = ours(_images())
    sum(one.sum() for one in (output if isinstance(output, tuple) else (output,))).backward()
    assert seen == ["before", "after", "backward"]


def test_dropout_stays_reproducible():
    torch.manual_seed(0)
    native = foreign_models.InceptionNet(dropout=0.5)
    ours = d2lkernels.convert(native)
    outputs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outputs.append(ours(_images())[0])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    # Half of the features are dropped, and the rest doubled: the expectation is that of inference.
    mask = ours.dropout(torch.ones(20000))
    assert set(mask.unique().tolist()) == {0.0, 2.0} and abs(float(mask.mean()) - 1) < 0.03


class _Tied(torch.nn.Module):
    """One layer under two names, and one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.again = self.first
        self.encode, self.decode = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
        self.decode.weight = self.encode.weight
        self.head = torch.nn.Conv2d(3, 3, 1)
        self.head.weight = torch.nn.Parameter(self.head.weight.data)
        self.tail = torch.nn.Conv2d(3, 3, 1)
        self.tail.weight = self.head.weight

    def forward(self, x):
        return self.tail(self.head(self.decode(self.encode(self.again(torch.relu(self.first(x)))))))


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "in_place"])
def test_tied_weights_stay_tied(inplace):
    torch.manual_seed(0)
    native = _Tied().double()
    ours = d2lkernels.convert(copy.deepcopy(native), inplace=inplace)
    for model in (ours, native):
        assert model.again is model.first and model.decode.weight is model.encode.weight
        assert model.tail.weight is model.head.weight
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    results = [_step(model, images) for model in (ours, native)]
    _assert_same(*results, results[1])
    assert len(list(ours.parameters())) == len(list(native.parameters()))


def test_lazy_layers():
    native = torch.nn.Sequential(
        torch.nn.LazyConv2d(4, 3),
        torch.nn.LazyBatchNorm2d(),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(2),
    )
    with pytest.raises(ValueError) as caught:
        d2lkernels.convert(native)
    assert str(caught.value) == (
        "convert(): expected inplace=True for a model with lazy layers that have seen no input, which cannot be "
        "copied, but got inplace=False and an uninitialized 0.weight"
    )
    ours = d2lkernels.convert(native, inplace=True)
    assert [type(layer) for layer in ours][:2] == [nn.LazyConv2d, nn.LazyBatchNorm2d]
    ours(torch.randn(2, 3, 5, 5))
    assert [type(layer) for layer in ours] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, torch.nn.Flatten, nn.Linear]
    back = d2lkernels.convert(ours, to="torch")
    assert [type(layer) for layer in back][:2] == [torch.nn.Conv2d, torch.nn.BatchNorm2d]


def test_losses_and_layers_without_kernels():
    model = torch.nn.ModuleDict(
        {
            "loss": torch.nn.CrossEntropyLoss(weight=torch.ones(3)),
            "gelu": torch.nn.GELU(),
            "norm": torch.nn.GroupNorm(1, 2),
        }
    )
    report = d2lkernels.ConversionReport()
    ours = d2lkernels.convert(model, report=report)
    assert type(ours["loss"]) is nn.CrossEntropyLoss and torch.equal(ours["loss"].weight, torch.ones(3))
    assert str(report) == "loss: torch.nn.CrossEntropyLoss -> d2lkernels.nn.CrossEntropyLoss"
    assert type(ours["gelu"]) is torch.nn.GELU and type(ours["norm"]) is torch.nn.GroupNorm


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_parametrized_and_normed_layers():
    """A parametrized layer is a class of its own and stays; weight_norm by hooks does not change the class."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(3, 4, 3)),
        torch.nn.utils.weight_norm(torch.nn.Conv2d(4, 4, 3)),
        torch.nn.ReLU(),
        torch.nn.utils.spectral_norm(torch.nn.Conv2d(4, 2, 1)),
    ).eval()
    images, keys = torch.randn(2, 3, 8, 8), list(model.state_dict())
    expected, report = model(images), d2lkernels.ConversionReport()
    ours = d2lkernels.convert(model, inplace=True, report=report)  # torch itself cannot copy weight_norm by hooks
    assert report.left == {"0": "a parametrized Conv2d"}
    assert [type(ours[i]) for i in (1, 3)] == [nn.Conv2d, nn.Conv2d]
    torch.testing.assert_close(ours(images), expected)
    assert list(ours.state_dict()) == keys


@pytest.mark.parametrize(
    "arguments, exception, message",
    [
        (
            {"model": torch.zeros(2)},
            TypeError,
            "convert(): expected model to be a torch.nn.Module, but got Tensor",
        ),
        (
            {"model": torch.nn.ReLU(), "to": "cuda"},
            ValueError,
            "convert(): expected to to be 'ours' or 'torch', but got 'cuda'",
        ),
        (
            {"model": torch.nn.ReLU, "inplace": True},
            TypeError,
            "convert(): expected model to be a torch.nn.Module, but got the class ReLU",
        ),
    ],
    ids=["no_module", "to", "class"],
)
def test_what_cannot_be_converted(arguments, exception, message):
    with pytest.raises(exception) as caught:
        d2lkernels.convert(**arguments)
    assert str(caught.value) == message
