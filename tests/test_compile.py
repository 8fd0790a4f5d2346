"""torch.compile: whole graphs, values and gradients as eager has them, and one graph for all batch sizes."""

import shutil
import sys

import pytest
import torch
from cases import ONE_PER_TYPE, not_about_kernels, over
from specs import FUNCTIONAL

from d2lkernels import nn
from d2lkernels.testing import call, converted

pytestmark = not_about_kernels


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _first_output(spec, sample):
    return lambda *tensors: call(spec.function, tensors, sample.arguments)[0]


def _values_and_gradients(function, tensors):
    leaves = converted(tensors, lambda tensor: tensor.detach().requires_grad_())
    output = function(*leaves)
    output.square().sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


def _assert_same(actual, expected):
    for mine, eager in zip(actual, expected, strict=True):
        assert mine.stride() == eager.stride()
        assert torch.equal(mine, eager)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@over(devices=ONE_PER_TYPE, samples=lambda spec: spec.tiny)
def test_compile(spec, device, sample, dynamic):
    function, tensors = _first_output(spec, sample), sample.make(torch.float32, device.type)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    _assert_same(_values_and_gradients(compiled, tensors), _values_and_gradients(function, tensors))


@over(specs=FUNCTIONAL, devices=ONE_PER_TYPE)
def test_no_recompilation_for_another_batch_size(spec, device):
    sample = spec.tiny[0]
    if any(isinstance(value, torch.Tensor) for value in sample.arguments.values()):
        pytest.skip("its targets would have to grow with the batch: see test_losses.py")
    function = _first_output(spec, sample)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=True)
    first, *rest = sample.make(torch.float32, device.type)

    def with_images(count):  # a count that is no other size of the sample: torch.compile takes equal sizes for one
        return [
            torch.cat([one] * count)[:count] if one is not None and one.shape == first.shape else one
            for one in (first, *rest)
        ]

    _values_and_gradients(compiled, with_images(11))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for images in (7, 13, 16):
            tensors = with_images(images)
            _assert_same(_values_and_gradients(compiled, tensors), _values_and_gradients(function, tensors))


@over(specs=[spec for spec in FUNCTIONAL if not spec.is_linear], devices=ONE_PER_TYPE)
def test_compile_with_indices(spec, device):
    sample = spec.tiny[0]
    arguments = {**sample.arguments, "return_indices": True}
    tensors = sample.make(torch.float32, device.type)
    compiled = torch.compile(lambda input: spec.function(input, **arguments), backend="aot_eager", fullgraph=True)
    _assert_same(compiled(*tensors), spec.function(*tensors, **arguments))


def _small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, bias=False),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AdaptiveMaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@pytest.mark.parametrize("inference", [False, True], ids=["training", "inference"])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_inductor(format, inference):
    if shutil.which("g++") is None or not sys.platform.startswith("linux"):
        pytest.skip("inductor needs a C++ compiler")
    net = _small_net().to(memory_format=format)
    input = torch.randn(2, 1, 12, 12)
    compiled = torch.compile(net, fullgraph=True)
    if inference:
        with torch.no_grad():
            torch.testing.assert_close(compiled(input), net(input))
        return
    gradients = []
    for model in (compiled, net):
        net.zero_grad()
        output = model(input)
        output.square().sum().backward()
        gradients.append([output.detach(), *(parameter.grad.clone() for parameter in net.parameters())])
    torch.testing.assert_close(*gradients)


def test_export():
    net = _small_net().eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(net, (torch.randn(3, 1, 12, 12),), dynamic_shapes=({0: batch},), strict=False)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "d2lkernels.conv2d_max_pool2d.default" in called  # Sequential fuses what stands side by side
    input = torch.randn(7, 1, 12, 12)
    assert torch.equal(program.module()(input), net(input))
