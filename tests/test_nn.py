"""d2lkernels.nn is torch.nn with other kernels: the same names, classes, states and results."""

import copy
import io
import pickle

import pytest
import torch
from cases import not_about_kernels

from d2lkernels import nn
from d2lkernels.nn import functional as F

pytestmark = not_about_kernels

LAYERS = {
    "conv": lambda nn: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=2),
    "conv_same": lambda nn: nn.Conv2d(4, 6, (4, 3), padding="same", bias=False),
    "conv_reflect": lambda nn: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="reflect"),
    "conv_replicate": lambda nn: nn.Conv2d(4, 6, 3, padding=2, padding_mode="replicate", stride=2),
    "conv_circular": lambda nn: nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"),
    "max_pool": lambda nn: nn.MaxPool2d(3, stride=2, padding=1, dilation=1, ceil_mode=True),
    "avg_pool": lambda nn: nn.AvgPool2d((3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    "avg_pool_divisor": lambda nn: nn.AvgPool2d(2, divisor_override=3),
    "adaptive_max_pool": lambda nn: nn.AdaptiveMaxPool2d((3, None)),
    "adaptive_avg_pool": lambda nn: nn.AdaptiveAvgPool2d(2),
    "relu": lambda nn: nn.ReLU(),
    "sigmoid": lambda nn: nn.Sigmoid(),
    "tanh": lambda nn: nn.Tanh(),
    "softmax": lambda nn: nn.Softmax(dim=-2),
    "log_softmax": lambda nn: nn.LogSoftmax(dim=0),
    "dropout": lambda nn: nn.Dropout(0.0),
    "dropout_in_inference": lambda nn: nn.Dropout(0.5).eval(),
}
every_layer = pytest.mark.parametrize("layer", LAYERS)


OURS = (
    *(nn.Conv1d, nn.LazyConv1d, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
    *(nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.LogSoftmax, nn.CrossEntropyLoss),
    *(nn.MSELoss, nn.Dropout),
)


def _both(layer):
    """The layer of both back ends, with the same weights."""
    torch.manual_seed(0)
    ours, native = LAYERS[layer](nn), LAYERS[layer](torch.nn)
    native.load_state_dict(ours.state_dict())
    return ours, native


def _net(nn):
    return nn.Sequential(
        nn.LazyConv2d(6, kernel_size=5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.LazyConv2d(16, kernel_size=5),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )


def test_every_name_of_torch_nn_is_offered():
    missing = [name for name in dir(torch.nn) if not hasattr(nn, name)]
    assert not missing
    assert set(dir(torch.nn)) <= set(dir(nn))


def test_only_ours_differ():
    differing = {
        name
        for name in dir(torch.nn)
        if not name.startswith("__") and name != "functional" and getattr(nn, name) is not getattr(torch.nn, name)
    }
    assert differing >= {layer.__name__ for layer in (*OURS, nn.LazyConv2d)}
    for name in differing:
        assert issubclass(getattr(nn, name), getattr(torch.nn, name))
        assert getattr(nn, name).__module__.startswith("d2lkernels")


def test_submodules_of_torch_nn():
    assert nn.init is torch.nn.init
    assert nn.modules.conv._ConvNd is torch.nn.modules.conv._ConvNd
    assert nn.utils.clip_grad_norm_ is torch.nn.utils.clip_grad_norm_
    assert nn.Parameter is torch.nn.Parameter
    with pytest.raises(AttributeError, match="no_such_layer"):
        _ = nn.no_such_layer


def test_functional():
    assert nn.functional is F and F is not torch.nn.functional
    assert set(dir(torch.nn.functional)) <= set(dir(F))
    assert F.gelu is torch.nn.functional.gelu
    for name in F.__all__:
        assert getattr(F, name) is not getattr(torch.nn.functional, name)
        assert getattr(F, name).__module__.startswith("d2lkernels")
    with pytest.raises(AttributeError, match="no_such_function"):
        _ = F.no_such_function


@every_layer
def test_class(layer):
    ours, native = _both(layer)
    assert isinstance(ours, type(native))
    assert type(ours) is getattr(nn, type(native).__name__)
    assert type(ours).__module__.startswith("d2lkernels")
    assert repr(ours) == repr(native)
    assert ours.extra_repr() == native.extra_repr()
    assert list(ours.state_dict()) == list(native.state_dict())


@every_layer
@pytest.mark.parametrize("size", [(2, 4, 9, 8), (4, 9, 8)], ids=["batch", "unbatched"])
def test_layer(layer, size):
    ours, native = _both(layer)
    input = torch.randn(size, generator=torch.Generator().manual_seed(1))
    results = []
    for module in (ours, native):
        x = input.clone().requires_grad_()
        output = module(x)
        output.square().sum().backward()
        results.append([output.detach(), x.grad, *(parameter.grad for parameter in module.parameters())])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(2, 4, 19), (4, 19)], ids=["batch", "unbatched"])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_conv1d(mode, size):
    torch.manual_seed(0)
    results = []
    for space in (nn, torch.nn):
        torch.manual_seed(0)
        layer = space.Conv1d(4, 6, 4, stride=2, padding=3, dilation=2, groups=2, padding_mode=mode)
        x = torch.randn(size, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = layer(x)
        output.square().sum().backward()
        results.append([output.detach(), x.grad, layer.weight.grad, layer.bias.grad])
        assert repr(layer) == repr(torch.nn.Conv1d(4, 6, 4, 2, 3, 2, 2, padding_mode=mode))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_lazy_conv1d():
    layer = nn.LazyConv1d(3, kernel_size=3, padding="same")
    assert layer(torch.randn(2, 5, 7)).shape == (2, 3, 7)
    assert type(layer) is nn.Conv1d and layer.in_channels == 5


@every_layer
def test_state_dict_moves_both_ways(layer):
    ours, native = _both(layer)
    torch.manual_seed(2)
    for source, target in ((LAYERS[layer](nn), native), (LAYERS[layer](torch.nn), ours)):
        assert not any(target.load_state_dict(source.state_dict()))
        for name, tensor in target.state_dict().items():
            assert torch.equal(tensor, source.state_dict()[name])


@pytest.mark.parametrize("name", ["MaxPool2d", "AdaptiveMaxPool2d"])
def test_return_indices(name):
    input = torch.randn(2, 3, 6, 6)
    ours, native = (getattr(space, name)(2, return_indices=True)(input) for space in (nn, torch.nn))
    for mine, theirs in zip(ours, native, strict=True):
        assert torch.equal(mine, theirs)


def test_unpooling_with_our_indices():
    input = torch.randn(2, 3, 6, 6)
    output, indices = nn.MaxPool2d(2, return_indices=True)(input)
    expected = torch.nn.MaxUnpool2d(2)(*torch.nn.MaxPool2d(2, return_indices=True)(input))
    assert torch.equal(nn.MaxUnpool2d(2)(output, indices), expected)


def test_lazy_layer_becomes_ours():
    net = _net(nn)
    assert isinstance(net[0], torch.nn.LazyConv2d)
    net(torch.randn(1, 1, 28, 28))
    assert type(net[0]) is nn.Conv2d
    assert type(net[3]) is nn.Conv2d and net[3].in_channels == 6
    assert repr(net[0]) == repr(torch.nn.Conv2d(1, 6, 5, padding=2))


def test_book_initialisation():
    """`type(module) == nn.Conv2d` is how the book's init functions find the layers."""
    net = _net(nn)
    net(torch.randn(1, 1, 28, 28))
    found = []

    def init(module):
        if type(module) == nn.Linear or type(module) == nn.Conv2d:  # noqa: E721
            nn.init.xavier_uniform_(module.weight)
            found.append(type(module).__name__)

    net.apply(init)
    assert found == ["Conv2d", "Conv2d", "Linear"]


def test_nets_agree():
    torch.manual_seed(0)
    ours, native = _net(nn), _net(torch.nn)
    images = torch.randn(8, 1, 28, 28)
    ours(images), native(images)
    native.load_state_dict(ours.state_dict())
    labels = torch.arange(8)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9) for net in (ours, native)]
    for _ in range(3):
        losses = []
        for net, optimizer in zip((ours, native), optimizers, strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
        torch.testing.assert_close(*losses)
    for mine, theirs in zip(ours.parameters(), native.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def _pickled(net):
    return pickle.loads(pickle.dumps(net))


def _saved(net):
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled, _saved], ids=["deepcopy", "pickle", "torch_save"])
def test_duplicates(duplicate):
    torch.manual_seed(0)
    net, images = _net(nn), torch.randn(2, 1, 28, 28)
    expected = net(images)
    again = duplicate(net)
    assert type(again[0]) is nn.Conv2d and type(again[5]) is nn.MaxPool2d
    assert torch.equal(again(images), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_nets_of_other_dtypes(dtype):
    net = _net(nn)
    net(torch.randn(1, 1, 28, 28))
    assert net.to(dtype)(torch.randn(2, 1, 28, 28, dtype=dtype)).dtype == dtype


def test_memory_format_runs_through_a_net():
    net = torch.nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.AvgPool2d(2))
    net.to(memory_format=torch.channels_last)
    assert net(torch.randn(2, 3, 16, 16)).is_contiguous(memory_format=torch.channels_last)


def test_parametrization_and_hooks():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    layer(torch.randn(1, 2, 5, 5)).sum().backward()
    assert seen == [(1, 3, 3, 3)]
    assert all(parameter.grad is not None for parameter in layer.parameters())
