"""The residual blocks of the models: fused over our layers, with the results of the layers one by one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cases import not_about_kernels

from d2lkernels import convert, nn
from d2lkernels.models import resnet
from d2lkernels.nn.fusion import residual_tail

pytestmark = not_about_kernels

BLOCKS = {
    "residual": partial(resnet.Residual, 8, 8),
    "residual.1x1": partial(resnet.Residual, 4, 8, use_1x1conv=True, strides=2),
    "bottleneck": partial(resnet.Bottleneck, 16, 4),
    "bottleneck.1x1": partial(resnet.Bottleneck, 8, 4, use_1x1conv=True, strides=2),
}


@pytest.fixture(params=BLOCKS)
def blocks(request) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same block over our layers and over torch's."""
    torch.manual_seed(0)
    ours, native = BLOCKS[request.param](nn=nn), BLOCKS[request.param](nn=torch.nn)
    with torch.no_grad():
        for tensor in ours.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(0.5 * torch.rand_like(tensor))
    native.load_state_dict(ours.state_dict())
    return ours, native


def _input(block, dtype=torch.float32) -> torch.Tensor:
    size = (5, block.conv1.in_channels, 9, 6)
    return torch.randn(size, generator=torch.Generator().manual_seed(1)).to(dtype)


def _results(block, input) -> list[torch.Tensor]:
    input = input.clone().requires_grad_()
    output = block(input)
    output.square().sum().backward()
    results = [output, input.grad, *(parameter.grad for parameter in block.parameters()), *block.buffers()]
    block.zero_grad()
    return results


def _assert_same(blocks, dtype=torch.float32) -> None:
    for mine, other in zip(*(_results(block, _input(block, dtype)) for block in blocks), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_results_gradients_and_statistics(blocks, training):
    for block in blocks:
        block.train(training)
    for _ in range(2):
        _assert_same(blocks)
    assert list(blocks[0].state_dict()) == list(blocks[1].state_dict())


def _sublayers(block) -> list[torch.nn.Module]:
    return [layer for layer in block.modules() if layer is not block]


def test_hooks_of_sublayers_fire(blocks):
    block = blocks[0]
    reference = convert(block, to="torch")
    for place, layer in enumerate(_sublayers(block)):
        seen: list[torch.Tensor] = []
        expected: list[torch.Tensor] = []
        handles = [
            one.register_forward_hook(lambda _, __, output, into=into: into.append(output))
            for one, into in ((layer, seen), (_sublayers(reference)[place], expected))
        ]
        torch.testing.assert_close(block(_input(block)), reference(_input(block)), rtol=1e-4, atol=1e-4)
        for handle in handles:
            handle.remove()
        assert len(seen) == len(expected) > 0
        for mine, other in zip(seen, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_global_hooks_and_subclasses_are_obeyed(blocks):
    block, seen = blocks[0], []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(layer))
    try:
        block(_input(block))
    finally:
        handle.remove()
    assert {id(one) for one in _sublayers(block)} <= {id(one) for one in seen}
    last = "bn3" if isinstance(block, resnet.Bottleneck) else "bn2"
    getattr(block, last).__class__ = type("Own", (nn.BatchNorm2d,), {"forward": lambda self, input: -input})
    blocks[1].load_state_dict(block.state_dict())
    setattr(blocks[1], last, getattr(block, last))
    _assert_same(blocks)


def test_norm_addition_and_relu_are_one_op(blocks):
    block = blocks[0]
    with torch.profiler.profile() as profile:
        block(_input(block))
    names = {event.key for event in profile.key_averages()}
    assert "d2lkernels::batch_norm_train_update" in names
    assert not names & {"aten::add", "aten::relu", "d2lkernels::relu", "d2lkernels::add_relu"}


def test_maps_of_two_dtypes_or_sizes_are_added_as_torch_does():
    norm, one = nn.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 4)
    for other in (torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(3, 4, 4)):
        actual = residual_tail(torch.nn.Identity(), norm, nn.ReLU(), one, other)
        expected = torch.relu(norm(one) + other)
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected)


def test_autocast_and_compile(blocks):
    ours, native = blocks
    with torch.autocast("cpu", torch.bfloat16):
        mine, other = ours(_input(ours)), native(_input(ours))
    assert mine.dtype == other.dtype
    torch.testing.assert_close(mine, other, rtol=0.1, atol=0.2)
    torch._dynamo.reset()
    ours.eval()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(_input(ours)), ours(_input(ours)))
