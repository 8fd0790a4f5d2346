"""The layer over one map against torch.cat of native layers: values, gradients, statistics, memory, fallbacks."""

import copy

import pytest
import torch
from cases import not_about_kernels

from d2lkernels import models, nn, ops
from d2lkernels.models import densenet

pytestmark = not_about_kernels


def _pair(dtype=torch.float64, layers=3):
    torch.manual_seed(0)
    native = densenet.DenseBlock(layers, 5, 4, nn=torch.nn).to(dtype, memory_format=torch.channels_last)
    ours = densenet.DenseBlock(layers, 5, 4, nn=nn).to(dtype, memory_format=torch.channels_last)
    ours.load_state_dict(native.state_dict())
    return ours, native


def _input(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    input = torch.randn(3, 5, 6, 7, generator=generator, dtype=torch.float64).to(dtype)
    return input.contiguous(memory_format=torch.channels_last)


def _step(module, input):
    input = input.clone(memory_format=torch.preserve_format).requires_grad_()
    output = module(input)
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return [output, input.grad, *(p.grad for p in module.parameters()), *module.buffers()]


def _names(function):
    with torch.profiler.profile() as profile:
        function()
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_same_as_concatenation(training, dtype, tolerance):
    ours, native = (module.train(training) for module in _pair(dtype))
    for module in (ours, native):
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.linspace(0.5, 1.5, buffer.numel()))
    for _ in range(2):
        for mine, theirs in zip(_step(ours, _input(dtype)), _step(native, _input(dtype)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    assert list(ours.state_dict()) == list(native.state_dict())


def test_layer():
    layer = nn.DenseBlock(3, 5, 4).double()
    _, native = _pair()
    layer.load_state_dict(native.state_dict())
    torch.testing.assert_close(layer(_input()), native(_input()))


def test_nothing_is_concatenated():
    ours, _ = _pair()
    names = _names(lambda: _step(ours, _input()))
    assert "d2lkernels::dense_block" in names and "aten::cat" not in names


def _with_hook(module):
    module.net[1][2].register_forward_hook(lambda *_: None)


def _with_parametrization(module):
    torch.nn.utils.parametrizations.weight_norm(module.net[0][2])


def _with_frozen_statistics(module):
    module.net[1][0].eval()


@pytest.mark.parametrize("change", [_with_hook, _with_parametrization, _with_frozen_statistics])
def test_layers_that_do_more_run_by_themselves(change):
    ours, native = _pair()
    for module in (ours, native):
        change(module)
    assert "d2lkernels::dense_block" not in _names(lambda: copy.deepcopy(ours)(_input()))
    for mine, theirs in zip(_step(ours, _input()), _step(native, _input()), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_autocast_in_one_map():
    """A map of bfloat16 takes the op, whose normalisations keep their float32 parameters; one of float32 the layers."""
    ours, native = _pair(torch.float32)
    input = _input().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert "d2lkernels::dense_block" in _names(lambda: copy.deepcopy(ours)(input))
        assert "d2lkernels::dense_block" not in _names(lambda: copy.deepcopy(ours)(input.float()))
        mine, theirs = _step(ours, input), _step(native, input)
    exact = _step(copy.deepcopy(native).double(), input.double())
    for one, other, reference in zip(mine, theirs, exact, strict=True):
        assert one.dtype == other.dtype
        distance, native_distance = ((x.double() - reference).norm() for x in (one, other))
        assert distance <= 1.3 * native_distance + 1e-3 * reference.double().norm()


def test_parameters_of_normalisations_may_be_wider():
    torch.manual_seed(0)
    input = torch.randn(4, 3, 6, 5).bfloat16().requires_grad_()
    norm = [torch.rand(3).requires_grad_(), torch.randn(3).requires_grad_()]
    convolution = [torch.randn(4, 3, 3, 3).bfloat16().requires_grad_(), torch.randn(4).bfloat16().requires_grad_()]
    output = ops.dense_block(input, [*norm, *convolution])[0]
    gradients = torch.autograd.grad(output.float().sum(), [input, *norm, *convolution])
    assert [one.dtype for one in gradients] == [torch.bfloat16, *[torch.float32] * 2, *[torch.bfloat16] * 2]
    rounded = [one.detach().bfloat16().float() for one in norm]  # where they have no more bits, nothing changes
    same = ops.dense_block(input, [one.bfloat16() for one in norm] + convolution)[0]
    torch.testing.assert_close(ops.dense_block(input, rounded + convolution)[0], same, rtol=0, atol=0)
    with pytest.raises(TypeError, match="parameters\\[2\\] to have the dtype of input"):
        ops.dense_block(input, [*norm, convolution[0].float(), convolution[1]])


def test_compile():
    ours, _ = _pair()
    compiled = torch.compile(copy.deepcopy(ours), backend="aot_eager", fullgraph=True)
    for mine, eager in zip(_step(compiled, _input()), _step(ours, _input()), strict=True):
        torch.testing.assert_close(mine, eager)


def test_double_backward():
    ours, native = _pair(layers=2)

    def penalty(module):
        input = _input().requires_grad_()
        output = module(input)
        leaves = [input, *module.parameters()]
        first = torch.autograd.grad(output.pow(3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in first), leaves)

    for mine, theirs in zip(penalty(ours), penalty(native), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_memory_is_linear_in_depth(memory_format):
    """What a forward pass keeps for the backward pass, in maps of one channel."""

    def kept(layers):
        module, input = densenet.DenseBlock(layers, 8, 8, nn=nn), torch.randn(2, 8, 8, 8)
        input, sizes = input.contiguous(memory_format=memory_format), {}
        module = module.to(memory_format=memory_format)

        def pack(tensor):
            if tensor.dim() == 4 and tensor.shape[2:] == (8, 8):
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(input)
        return sum(sizes.values()) / (2 * 8 * 8 * 4)

    assert [kept(layers) for layers in (1, 4, 16)] == [16, 40, 136]


def test_model_uses_it():
    model = models.build("densenet", nn=nn)
    images = torch.randn(2, 1, 96, 96).contiguous(memory_format=torch.channels_last)
    assert "d2lkernels::dense_block" in _names(lambda: model(images))
