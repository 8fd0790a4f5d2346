"""The nodes that ops leave in the graph behave as torch's own: csrc/common/function.h derives from what torch makes."""

from __future__ import annotations

import pytest
import torch
from cases import not_about_kernels

from d2lkernels import ops

pytestmark = not_about_kernels


@pytest.fixture
def leaf() -> torch.Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda x: ops.max_pool2d(x, 2), "MaxPool2d"),
        (lambda x: ops.conv2d(x, x.detach()), "Conv2d"),
        (lambda x: ops.dropout(x, 0.5), "Dropout"),
    ],
    ids=["max_pool2d", "conv2d", "dropout"],
)
def test_a_node_has_the_name_of_its_class(leaf, op, name):
    node = op(leaf).grad_fn
    assert node.name() == f"torch::autograd::CppNode<d2l::(anonymous namespace)::{name}>"


def test_a_freed_graph_says_so(leaf):
    loss = ops.tanh(leaf).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_a_graph_that_is_kept_gives_the_same_again(leaf):
    loss = ops.max_pool2d(ops.tanh(leaf), 2).sum()
    first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_what_was_saved_must_not_be_written_to(leaf):
    output = ops.tanh(leaf)
    output.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_hooks_of_a_node_see_and_replace_gradients(leaf):
    output = ops.relu(leaf)
    output.grad_fn.register_prehook(lambda grads: (grads[0] * 2,))
    output.grad_fn.register_hook(lambda results, grads: (results[0] + grads[0],))
    (grad,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    assert torch.equal(grad, 2 * (leaf > 0).to(grad.dtype) + 2)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_autograd(leaf):
    from torch._dynamo import compiled_autograd

    def gradient() -> torch.Tensor:
        loss = ops.avg_pool2d(ops.tanh(ops.conv2d(leaf, leaf.detach()[:, :, :2, :2], padding=1)), 2).square().sum()
        return torch.autograd.grad(loss, leaf)[0]

    expected = gradient()
    with compiled_autograd._enable(torch.compile(backend="eager", fullgraph=False)):
        actual = gradient()
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
