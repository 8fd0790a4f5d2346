"""All models of the book: sizes, shapes, options, and agreement of both back ends."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from d2lkernels import models
from d2lkernels import nn as our_nn

BACKENDS = pytest.mark.parametrize("nn", [our_nn, torch.nn], ids=["ours", "torch"])

# Each model small, without the randomness of dropout: options, and the shape of one input.
SMALL: dict[str, tuple[dict, tuple[int, ...]]] = {
    "linear_regression": ({}, (2,)),
    "perceptron": ({}, (2,)),
    "softmax_regression": ({}, (1, 28, 28)),
    "mlp": ({"num_hiddens": 32}, (1, 28, 28)),
    "mlp_dropout": ({"num_hiddens1": 24, "num_hiddens2": 16, "dropout1": 0.0, "dropout2": 0.0}, (1, 28, 28)),
    "lenet": ({}, (1, 28, 28)),
    "bn_lenet": ({}, (1, 28, 28)),
    "alexnet": ({"image_size": 65, "num_hiddens": 32, "dropout": 0.0}, (1, 65, 65)),
    "vgg11": ({"ratio": 8, "image_size": 32, "num_hiddens": 32, "dropout": 0.0, "in_channels": 3}, (3, 32, 32)),
    "vgg16": ({"ratio": 16, "image_size": 32, "num_hiddens": 32, "dropout": 0.0}, (1, 32, 32)),
    "nin": ({"dropout": 0.0}, (1, 67, 67)),
    "googlenet": ({}, (1, 48, 48)),
    "resnet18": ({"num_blocks": (2, 2, 2)}, (1, 32, 32)),
    "resnet50": ({"num_blocks": (2, 1), "in_channels": 3}, (3, 32, 32)),
    "densenet": ({"growth_rate": 8, "num_convs": (4, 4, 4)}, (1, 32, 32)),
    "densenet121": ({"growth_rate": 8, "num_convs": (2, 2, 2)}, (1, 32, 32)),
}
EVERY = pytest.mark.parametrize("name", SMALL)

# The sizes after each layer of the outermost Sequential, where they change, for an input of the book's size.
STAGES = {
    "softmax_regression": [784, 10],
    "mlp": [784, 256, 10],
    "mlp_dropout": [784, 256, 10],
    "lenet": [(6, 28), (6, 14), (16, 10), (16, 5), 400, 120, 84, 10],
    "bn_lenet": [(6, 24), (6, 12), (16, 8), (16, 4), 256, 120, 84, 10],
    "alexnet": [(96, 54), (96, 26), (256, 26), (256, 12), (384, 12), (256, 12), (256, 5), 6400, 4096, 10],
    "vgg11": [(16, 112), (32, 56), (64, 28), (128, 14), (128, 7), 6272, 4096, 10],
    "vgg13": [(16, 112), (32, 56), (64, 28), (128, 14), (128, 7), 6272, 4096, 10],
    "vgg16": [(16, 112), (32, 56), (64, 28), (128, 14), (128, 7), 6272, 4096, 10],
    "vgg19": [(16, 112), (32, 56), (64, 28), (128, 14), (128, 7), 6272, 4096, 10],
    "nin": [(96, 54), (96, 26), (256, 26), (256, 12), (384, 12), (384, 5), (10, 5), (10, 1), 10],
    "googlenet": [(64, 24), (192, 12), (480, 6), (832, 3), 1024, 10],
    "resnet18": [(64, 24), (128, 12), (256, 6), (512, 3), (512, 1), 512, 10],
    "resnet34": [(64, 24), (128, 12), (256, 6), (512, 3), (512, 1), 512, 10],
    "resnet50": [(64, 24), (256, 24), (512, 12), (1024, 6), (2048, 3), (2048, 1), 2048, 10],
    "resnet101": [(64, 24), (256, 24), (512, 12), (1024, 6), (2048, 3), (2048, 1), 2048, 10],
    "resnet152": [(64, 24), (256, 24), (512, 12), (1024, 6), (2048, 3), (2048, 1), 2048, 10],
    "densenet": [
        *((64, 24), (192, 24), (96, 12), (224, 12), (112, 6), (240, 6), (120, 3), (248, 3)),
        *((248, 1), 248, 10),
    ],
    "densenet121": [
        *((64, 24), (256, 24), (128, 12), (512, 12), (256, 6), (1024, 6), (512, 3), (1024, 3)),
        *((1024, 1), 1024, 10),
    ],
}


def count(parameters: Iterator[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@contextmanager
def without_memory() -> Iterator[None]:
    """Models and tensors made inside have shapes only."""
    with torch.device("meta"):
        yield


def pair(name: str, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The small model over our layers and over torch's, with the same weights."""
    options = SMALL[name][0]
    torch.manual_seed(0)
    ours = models.xavier_uniform_(models.build(name, **options)).to(dtype)
    native = models.build(name, nn=torch.nn, **options).to(dtype)
    native.load_state_dict(ours.state_dict())
    return ours, native


def batch(name: str, number: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(number, *SMALL[name][1], generator=torch.Generator().manual_seed(1)).to(dtype)


def loss(output: Tensor) -> Tensor:
    """Cross-entropy, or for one output the mean square, against fixed targets."""
    target = torch.arange(len(output)) % 3
    if output.shape[1] == 1:
        return (output[:, 0] - target).square().mean()
    return torch.nn.functional.cross_entropy(output, target)


def three_steps(model: torch.nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The first output and the first gradients; the model has then made three steps of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        output = model(images)
        loss(output).backward()
        if step == 0:
            first = output.detach(), [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    return first


def error(actual: Tensor, exact: Tensor) -> float:
    return float((actual.double() - exact).norm())


# What the models are


def test_the_models_of_the_book_are_all_there():
    assert set(models.names()) == STAGES.keys() | {"linear_regression", "perceptron"}
    assert set(models.names()) >= SMALL.keys()


@pytest.mark.parametrize(
    ("name", "parameters", "image_size", "batch_size", "lr", "epochs"),
    [
        ("linear_regression", 3, None, 10, 0.03, 3),
        ("softmax_regression", 7_850, 28, 256, 0.1, 10),
        ("mlp", 203_530, 28, 256, 0.1, 10),
        ("mlp_dropout", 269_322, 28, 256, 0.5, 10),
        ("lenet", 61_706, 28, 256, 0.9, 10),
        ("bn_lenet", 44_878, 28, 256, 1.0, 10),
        ("alexnet", 46_764_746, 224, 128, 0.01, 10),
        ("vgg11", 43_093_322, 224, 128, 0.05, 10),
        ("nin", 1_992_166, 224, 128, 0.1, 10),
        ("googlenet", 5_977_530, 96, 128, 0.1, 10),
        ("resnet18", 11_178_378, 96, 256, 0.05, 10),
        ("densenet", 758_226, 96, 256, 0.1, 10),
    ],
)
def test_size_and_settings_are_the_books(name, parameters, image_size, batch_size, lr, epochs):
    spec = models.spec(name)
    assert (spec.parameters, spec.image_size) == (parameters, image_size)
    assert spec.defaults == models.Settings(batch_size, lr, epochs, "sgd")
    with without_memory():
        assert count(models.build(name).parameters()) == parameters


def test_the_full_vgg11_has_the_documented_size():
    with without_memory():
        assert count(models.build("vgg11", ratio=1).parameters()) == 128_806_154


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("densenet121", 7_978_856),
    ],
)
def test_for_imagenet_the_sizes_are_the_published_ones(name, parameters):
    """Published residual and dense networks have no convolution biases, and batch normalisation on the shortcuts."""
    options = {"ratio": 1} if name.startswith("vgg") else {}
    with without_memory():
        model = models.build(name, num_classes=1000, in_channels=3, **options)
    size = count(model.parameters())
    if not options:
        size -= sum(module.bias.numel() for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        for block in model.modules():
            if isinstance(block, models.Residual | models.Bottleneck):
                shortcut = block.conv3 if isinstance(block, models.Residual) else block.conv4
                size += 0 if shortcut is None else 2 * shortcut.out_channels
    assert size == parameters


@BACKENDS
@pytest.mark.parametrize("name", STAGES)
def test_shapes_after_each_stage(name, nn):
    size = models.spec(name).image_size
    with without_memory():
        model = models.build(name, nn=nn).eval()
        output, shapes = torch.empty(2, 1, size, size), []
        for stage in model:
            output = stage(output)
            if not shapes or output.shape != shapes[-1]:
                shapes.append(output.shape)
    expected = [(s,) if isinstance(s, int) else (s[0], s[1], s[1]) for s in STAGES[name]]
    assert [tuple(shape) for shape in shapes] == [(2, *shape) for shape in expected]


@pytest.mark.parametrize("nn", [None, torch.nn], ids=["ours", "torch"])
@pytest.mark.parametrize(
    ("make", "input", "output"),
    [
        (lambda nn: models.vgg_block(3, 2, 4, nn=nn), (2, 2, 9, 7), (2, 4, 4, 3)),
        (lambda nn: models.nin_block(1, 5, 11, 4, 0, nn=nn), (1, 1, 27, 31), (1, 5, 5, 6)),
        (lambda nn: models.Inception(4, 1, (2, 3), (4, 5), 6, nn=nn), (2, 4, 5, 6), (2, 15, 5, 6)),
        (lambda nn: models.Residual(3, 3, nn=nn), (4, 3, 6, 6), (4, 3, 6, 6)),
        (lambda nn: models.Residual(3, 6, True, 2, nn=nn), (4, 3, 6, 5), (4, 6, 3, 3)),
        (lambda nn: models.Bottleneck(8, 2, nn=nn), (4, 8, 6, 6), (4, 8, 6, 6)),
        (lambda nn: models.Bottleneck(3, 2, use_1x1conv=True, strides=2, nn=nn), (4, 3, 6, 5), (4, 8, 3, 3)),
        (lambda nn: models.conv_block(3, 10, nn=nn), (4, 3, 8, 8), (4, 10, 8, 8)),
        (lambda nn: models.DenseBlock(2, 3, 10, nn=nn), (4, 3, 8, 8), (4, 23, 8, 8)),
        (lambda nn: models.DenseBlock(2, 3, 10, bottleneck=True, nn=nn), (4, 3, 8, 8), (4, 23, 8, 8)),
        (lambda nn: models.transition_block(23, 10, nn=nn), (4, 23, 8, 8), (4, 10, 4, 4)),
    ],
)
def test_blocks_have_the_books_shapes_and_the_layers_asked_for(make, input, output, nn):
    block = make(nn)
    assert block(torch.rand(input)).shape == output
    convolutions = {type(module) for module in block.modules() if isinstance(module, torch.nn.Conv2d)}
    assert convolutions == {our_nn.Conv2d if nn is None else torch.nn.Conv2d}


def test_a_stage_of_residual_blocks_halves_the_map_unless_it_is_the_first():
    stage = torch.nn.Sequential(*models.resnet_block(8, 8, 3, first_block=True))
    assert len(stage) == 3
    assert [block.conv3 for block in stage] == [None] * 3
    assert stage(torch.rand(2, 8, 6, 6)).shape == (2, 8, 6, 6)
    stage = torch.nn.Sequential(*models.resnet_block(8, 16, 2))
    assert [block.conv3 is None for block in stage] == [False, True]
    assert stage(torch.rand(2, 8, 6, 6)).shape == (2, 16, 3, 3)


def test_a_residual_block_without_weights_passes_its_positive_input_on():
    for block in (models.Residual(4, 4), models.Bottleneck(4, 1)):
        for parameter in block.parameters():
            torch.nn.init.zeros_(parameter)
        images = torch.randn(2, 4, 5, 5)
        assert torch.equal(block(images), images.relu())


def test_a_dense_block_keeps_its_input_as_the_first_channels():
    images = torch.randn(2, 3, 5, 5)
    block = models.DenseBlock(2, 3, 4)
    output = block(images)
    assert torch.equal(output[:, :3], images)
    torch.testing.assert_close(output[:, 3:7], block.net[0](images))


# Both back ends


@EVERY
def test_both_back_ends_compute_the_same(name):
    """In float64, where rounding hides nothing: output, gradients, three steps of SGD, running statistics."""
    ours, native = pair(name, torch.float64)
    images = batch(name, dtype=torch.float64)
    (our_output, our_gradients), (native_output, native_gradients) = (three_steps(m, images) for m in (ours, native))
    torch.testing.assert_close(our_output, native_output, rtol=1e-9, atol=1e-9)
    for gradient, expected in zip(our_gradients, native_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)
    for key, expected in native.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], expected, rtol=1e-7, atol=1e-9, msg=key)


@EVERY
def test_in_float32_our_error_is_that_of_native_torch(name):
    """Errors as norms over a tensor: a ReLU or a maximum near a tie may go either way and changes single values."""
    ours, native = pair(name)
    exact = copy.deepcopy(native).double()
    images = batch(name)
    (our_output, our_gradients), (native_output, native_gradients), (output, gradients) = (
        three_steps(model, x) for model, x in ((ours, images), (native, images), (exact, images.double()))
    )
    assert error(our_output, output) <= 2 * error(native_output, output) + 1e-5 * float(output.norm())
    # The bias in front of a batch normalisation has a gradient of zero: it is rounding, measured by the largest.
    scale = max(float(gradient.norm()) for gradient in gradients)
    for actual, other, gradient in zip(our_gradients, native_gradients, gradients, strict=True):
        assert error(actual, gradient) <= 2 * error(other, gradient) + 1e-4 * scale
    for key, expected in exact.state_dict().items():
        floor = 1e-4 * max(1.0, float(expected.double().norm()))
        assert error(ours.state_dict()[key], expected) <= 2 * error(native.state_dict()[key], expected) + floor, key


@EVERY
def test_the_same_seed_gives_the_same_weights(name):
    states = []
    for nn in (None, torch.nn):
        torch.manual_seed(2)
        states.append(models.spec(name).initialize(models.build(name, nn=nn, **SMALL[name][0])).state_dict())
    assert list(states[0]) == list(states[1])
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key


@EVERY
def test_a_copy_is_independent_and_equal(name):
    model = models.build(name, **SMALL[name][0]).eval()
    twin = copy.deepcopy(model)
    images = batch(name, 2)
    assert torch.equal(model(images), twin(images))
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.equal(next(model.parameters()), next(twin.parameters()))


@EVERY
def test_in_evaluation_images_do_not_influence_each_other(name):
    model = pair(name, torch.float64)[0]
    images = batch(name, 4, torch.float64)
    trained = model(images)
    model.eval()
    together = model(images)
    assert torch.equal(together, model(images))
    torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), together)
    has_statistics = any("running_mean" in key for key in model.state_dict())
    assert has_statistics != torch.allclose(trained, together)


@pytest.mark.parametrize("name", ["mlp_dropout", "alexnet", "vgg11", "nin"])
def test_dropout_is_on_in_training_only(name):
    options = {key: value for key, value in SMALL[name][0].items() if not key.startswith("dropout")}
    torch.manual_seed(3)
    model = models.build(name, **options)
    images = batch(name)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: models.build("mlp", num_hiddens=32), (6, 1, 28, 28)),
        (lambda: models.build("bn_lenet"), (6, 1, 28, 28)),
        (
            lambda: models.build("vgg11", conv_arch=((1, 16), (2, 16)), image_size=8, num_hiddens=16, dropout=0.0),
            (6, 1, 8, 8),
        ),
        (lambda: models.nin_block(2, 4, 3, 1, 1), (2, 2, 6, 6)),
        (lambda: models.Inception(4, 2, (2, 3), (2, 3), 2), (2, 4, 6, 6)),
        (lambda: models.build("resnet18", num_blocks=(1, 1)), (6, 1, 32, 32)),
        (lambda: models.Bottleneck(4, 2, use_1x1conv=True, strides=2), (3, 4, 6, 6)),
        (lambda: models.build("densenet", num_convs=(2, 1), growth_rate=4), (6, 1, 32, 32)),
    ],
    ids=["mlp", "bn_lenet", "vgg11", "nin_block", "Inception", "resnet18", "Bottleneck", "densenet"],
)
def test_models_and_blocks_compile_to_one_graph(make, shape):
    torch.manual_seed(6)
    model = make()
    twin = copy.deepcopy(model)
    images = torch.rand(shape)
    outputs = [torch.compile(model, fullgraph=True, backend="aot_eager")(images), twin(images)]
    for output in outputs:
        output.square().mean().backward()
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for (key, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-3, atol=1e-4, msg=key)


# Options


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"linear_regression", "perceptron", "mlp_dropout", "mlp"}))
def test_classes_and_channels_are_options(name):
    options = SMALL[name][0] | {"num_classes": 7, "in_channels": 2}
    if name == "softmax_regression":
        options["in_channels"] = 2 * 28 * 28
    with without_memory():
        images = torch.empty(3, 2, *SMALL[name][1][1:])
        assert models.build(name, **options)(images).shape == (3, 7)


def test_linear_models_count_features():
    assert models.build("linear_regression", in_channels=5, num_classes=3)(torch.rand(2, 5)).shape == (2, 3)
    assert models.build("mlp", in_channels=2, num_classes=1, activation="tanh")(torch.rand(2, 2)).shape == (2, 1)
    assert models.build("mlp_dropout", in_channels=12)(torch.rand(2, 3, 2, 2)).shape == (2, 10)


@pytest.mark.parametrize(
    ("error", "message", "name", "options"),
    [
        (ValueError, "name to be one of resnet18, .*, but got 'resnet-18'", "resnet-18", {}),
        (ValueError, "name to be one of densenet, .*, but got 'denset'", "denset", {}),
        (TypeError, "options of 'vgg16' to be among ratio, .*, but got 'ration'", "vgg16", {"ration": 2}),
        (TypeError, "options of 'resnet50' to be among num_blocks, .* but got 'blocks'", "resnet50", {"blocks": (2,)}),
        (ValueError, "activation to be one of 'relu', .* but got 'reluu'", "mlp", {"activation": "reluu"}),
        (ValueError, "pool to be one of 'max', 'avg', but got 'maximum'", "bn_lenet", {"pool": "maximum"}),
        (ValueError, "num_classes to be a positive int, but got 0", "googlenet", {"num_classes": 0}),
        (ValueError, "in_channels to be a positive int, but got 1.5", "lenet", {"in_channels": 1.5}),
        (ValueError, "num_hiddens to be a positive int, but got True", "mlp", {"num_hiddens": True}),
        (ValueError, "image_size to be at least 65, but got 64", "alexnet", {"image_size": 64}),
        (ValueError, "image_size to be at least 32, but got 31", "vgg11", {"image_size": 31}),
        (ValueError, "ratio to be a positive int, but got -4", "vgg11", {"ratio": -4}),
        (ValueError, "channels of at least ratio=128, but got ", "vgg11", {"ratio": 128}),
        (ValueError, r"conv_arch to be a sequence of pairs .*, but got \(\)", "vgg11", {"conv_arch": ()}),
        (ValueError, "conv_arch to be a sequence of pairs .*, but got 11", "vgg11", {"conv_arch": 11}),
        (ValueError, r"conv_arch .*, but got \[\(0, 64\)\]", "vgg11", {"conv_arch": [(0, 64)]}),
        (ValueError, "num_blocks to be a sequence of positive ints, but got 18", "resnet18", {"num_blocks": 18}),
        (ValueError, r"num_blocks to be .* but got \(2, 0\)", "resnet18", {"num_blocks": (2, 0)}),
        (ValueError, r"num_convs to be a sequence .* but got \[\]", "densenet", {"num_convs": []}),
        (ValueError, "growth_rate to be a positive int, but got 0", "densenet", {"growth_rate": 0}),
        (ValueError, "dropout to be from 0 to 1, but got 1.5", "alexnet", {"dropout": 1.5}),
        (ValueError, "dropout to be from 0 to 1, but got 'half'", "vgg11", {"dropout": "half"}),
        (ValueError, "dropout to be from 0 to 1, but got True", "nin", {"dropout": True}),
        (ValueError, "dropout2 to be from 0 to 1, but got -1", "mlp_dropout", {"dropout2": -1}),
    ],
)
def test_unknown_names_and_bad_options_are_refused(error, message, name, options):
    with pytest.raises(error, match=message):
        models.build(name, **options)


def test_the_initialisation_of_chapters_3_and_4_is_normal():
    torch.manual_seed(4)
    model = models.build("mlp")
    biases = [model[1].bias.clone(), model[3].bias.clone()]
    assert models.spec("mlp").initialize(model) is model
    weight = model[1].weight.detach()
    assert float(weight.std()) == pytest.approx(0.01, rel=0.02)
    assert abs(float(weight.mean())) < 1e-4
    assert torch.equal(model[1].bias, biases[0])
    assert torch.equal(model[3].bias, biases[1])


def test_the_perceptron_learns_or_and_never_xor():
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def mistakes(labels: list[float]) -> int:
        torch.manual_seed(5)
        model = models.spec("perceptron").initialize(models.build("perceptron"))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        target = torch.tensor(labels)
        for _ in range(20):
            for x, y in zip(inputs, target, strict=True):
                optimizer.zero_grad()
                (-model(x) * y).relu().sum().backward()
                optimizer.step()
        return int((model(inputs)[:, 0] * target <= 0).sum())

    assert mistakes([-1.0, 1.0, 1.0, 1.0]) == 0
    assert mistakes([-1.0, 1.0, 1.0, -1.0]) > 0
