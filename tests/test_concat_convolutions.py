"""Convolutions that end in one map: nothing is copied, and Inception blocks use them where they may."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import not_about_kernels
from torch.utils._python_dispatch import TorchDispatchMode

from d2lkernels import _C, models, nn, ops

pytestmark = not_about_kernels

CHANNELS_LAST = torch.channels_last


class _Calls(TorchDispatchMode):
    """The names of the ops that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._schema.name.split("::")[1])
        return func(*args, **(kwargs or {}))


def _block(space=nn, dtype=torch.float64) -> torch.nn.Module:
    torch.manual_seed(0)
    block = models.Inception(6, 4, (3, 5), (2, 4), 3, nn=space).to(dtype)
    return block.to(memory_format=CHANNELS_LAST)


def _images(dtype=torch.float64) -> torch.Tensor:
    images = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images.to(dtype).contiguous(memory_format=CHANNELS_LAST)


def _names(block: torch.nn.Module, images: torch.Tensor) -> list[str]:
    with torch.no_grad(), _Calls() as calls:
        block(images)
    return calls.names


def _step(block: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    images = images.clone().requires_grad_()
    output = block(images)
    output.sin().sum().backward()
    return [output.detach(), images.grad, *(parameter.grad for parameter in block.parameters())]


def _assert_like_native(block: torch.nn.Module, images: torch.Tensor) -> None:
    native = _block(torch.nn, images.dtype)
    native.load_state_dict({key.removesuffix("_orig"): tensor for key, tensor in block.state_dict().items()})
    for mine, theirs in zip(_step(block, images), _step(native, images), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_inception_stores_into_one_map():
    names = _names(_block(), _images())
    assert names.count("concat_convolutions") == 1 and names.count("conv2d_activation") == 2
    assert not {"cat", "concat", "copy_", "clone"} & set(names)
    assert _block()(_images()).is_contiguous(memory_format=CHANNELS_LAST)
    _assert_like_native(_block(), _images())
    assert list(_block().state_dict()) == list(_block(torch.nn).state_dict())


def test_without_biases_and_with_some():
    for missing in ((0, 1, 2, 3), (1, 3)):
        ours, native = _block(), _block(torch.nn)
        for block in (ours, native):
            for i in missing:
                (block.p1, block.p2, block.p3, block.p4)[i][-2].bias = None
        assert "concat_convolutions" in _names(ours, _images())
        for mine, theirs in zip(_step(ours, _images()), _step(native, _images()), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


DISTURBED = {
    "forward_hook": lambda block: block.p2[-1].register_forward_hook(lambda *_: None),
    "backward_hook": lambda block: block.p1[0].register_full_backward_hook(lambda *_: None),
    "hook_of_a_path": lambda block: block.p3.register_forward_pre_hook(lambda *_: None),
    "own_forward": lambda block: setattr(block.p4, "forward", block.p4.forward),
    "other_activation": lambda block: block.p2.__setitem__(3, nn.Tanh()),
    "no_activation": lambda block: block.p2.__delitem__(3),
    "native_layer": lambda block: block.p1.__setitem__(0, torch.nn.Conv2d(6, 4, 1).double()),
    "reflecting": lambda block: setattr(block.p2[2], "padding_mode", "reflect"),
    "parametrization": lambda block: torch.nn.utils.parametrize.register_parametrization(
        block.p1[0], "weight", torch.nn.Tanh()
    ),
}


@pytest.mark.parametrize("disturb", DISTURBED)
def test_paths_that_do_more_run_by_themselves(disturb):
    block = _block()
    assert "concat_convolutions" in _names(block, _images())
    DISTURBED[disturb](block)
    names = _names(block, _images())
    assert "concat_convolutions" not in names and "cat" in names
    paths = [path(_images()) for path in (block.p1, block.p2, block.p3, block.p4)]
    torch.testing.assert_close(block(_images()), torch.cat(paths, 1))


def test_global_hooks_see_every_layer():
    block, seen = _block(), []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        block(_images())
    finally:
        handle.remove()
    assert seen.count("Conv2d") == 6 and seen.count("ReLU") == 6


def test_gradients_are_read_in_place():
    """The gradient of the map is masked once; the derivatives of the convolutions find their ranges of it."""
    block = _block()
    output = block(_images())
    with _Calls() as calls:
        output.backward(torch.ones_like(output))
    names = calls.names
    assert names.count("activation_bias_grad") == 3  # of the map, and of the two convolutions before
    assert not {"cat", "copy_", "clone", "contiguous"} & set(names)


@pytest.mark.parametrize("format", [torch.contiguous_format, CHANNELS_LAST], ids=["nchw", "nhwc"])
def test_convolutions_of_ranges_of_channels(format):
    """Maps that are ranges of the channels of a wider one give what their copies give, for all three ops."""
    wide = torch.randn(2, 20, 9, 8).contiguous(memory_format=format)
    wide_grad = torch.randn(2, 30, 9, 8).contiguous(memory_format=format)
    for size in (1, 3):
        weight = torch.randn(12, 7, size, size)
        geometry = ((1, 1), (size // 2,) * 4, (1, 1), 1)
        for place in (0, 5, 13):
            input, grad = wide[:, place : place + 7], wide_grad[:, place : place + 12]
            x, dy = (one.clone(memory_format=format) for one in (input, grad))
            pairs = (
                [ops.conv2d(one, weight, padding=size // 2) for one in (input, x)],
                [ops.conv2d_input_grad(one, weight, x.shape, *geometry) for one in (grad, dy)],
                [
                    ops.conv2d_weight_grad(one, other, weight.shape, *geometry)
                    for one, other in ((grad, input), (dy, x))
                ],
            )
            for of_range, of_copy in pairs:
                torch.testing.assert_close(of_range, of_copy, rtol=1e-4, atol=1e-4)


def test_less_is_kept():
    """The map that the block gives is kept once, not once by its paths and once by what comes behind."""

    def kept(block):
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        images = _images(torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = block(images)
            total = sum(storages.values())
        del output
        return total

    block = _block(dtype=torch.float32)
    separate = copy.deepcopy(block)
    separate.p1.register_forward_hook(lambda *_: None)
    assert kept(block) <= kept(separate)


NUMBERS = {
    "one_for_all": {"stride": 2, "padding": 1, "dilation": 1, "groups": 1},
    "of_each": {"stride": [2, (2, 2)], "padding": ((1, 1), 1), "groups": [1, 1]},
    "height_and_width": {"stride": [(1, 2), (1, 2)], "padding": [(2, 0), (2, 0)], "dilation": ((2, 1), (2, 1))},
    "names": {"padding": ["same", 1]},
    "lists": {"stride": [[1, 1], [1, 1]]},
}


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_short_and_general_way(monkeypatch, numbers, biases):
    inputs, weights = (
        [torch.randn(2, 3, 9, 8), torch.randn(2, 5, 9, 8)],
        (torch.randn(4, 3, 3, 3), torch.randn(6, 5, 3, 3)),
    )
    arguments = (inputs, weights, [torch.randn(4), torch.randn(6)] if biases else None)
    output = ops.concat_convolutions(*arguments, **NUMBERS[numbers], activation="tanh")
    monkeypatch.setattr(_C, "concat_convolutions", lambda *_: None)
    assert torch.equal(output, ops.concat_convolutions(*arguments, **NUMBERS[numbers], activation="tanh"))


def test_model_uses_it():
    model = models.build("googlenet").eval()
    names = _names(model, torch.randn(1, 1, 32, 32))
    assert names.count("concat_convolutions") == 9 and "cat" not in names


@pytest.mark.parametrize(
    "arguments, exception, message",
    [
        (([], []), ValueError, "inputs to hold at least one tensor, but got none"),
        ((torch.ones(2, 1, 3, 3), []), TypeError, "inputs to be a sequence of Tensors, but got Tensor"),
        (([torch.ones(2, 1, 3, 3)], []), ValueError, "weights to hold one tensor for each of 1 inputs, but got 0"),
        (
            ([torch.ones(2, 1, 3, 3)], [torch.ones(1, 1, 1, 1)], []),
            ValueError,
            "biases to hold one tensor for each of 1 inputs, but got 0",
        ),
    ],
    ids=["none", "no_sequence", "weights", "biases"],
)
def test_sequences_that_do_not_fit(arguments, exception, message):
    with pytest.raises(exception) as caught:
        ops.concat_convolutions(*arguments)
    assert str(caught.value) == f"concat_convolutions(): expected {message}"
