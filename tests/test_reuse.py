"""Backwards that write over the gradient that they were called with: only where nobody can see it."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from d2lkernels import ops

OPS = {
    "relu": ops.relu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "add_relu": lambda input: ops.add_relu(input, torch.ones_like(input)),
    "batch_norm": lambda input: ops.batch_norm(input, None, None, training=True),
    "batch_norm_sigmoid": lambda input: ops.batch_norm_sigmoid(input, None, None, training=True),
    "batch_norm_add_relu": lambda input: ops.batch_norm_add_relu(
        input, torch.ones_like(input), None, None, training=True
    ),
}


@pytest.fixture
def leaf():
    torch.manual_seed(0)
    return torch.randn(4, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()


def through(op, leaf, see_output, see_input):
    """Three times the result of `op`, whose gradient and that of the argument are seen by hooks."""
    input = leaf * 2
    input.register_hook(see_input)
    output = op(input)
    output.register_hook(see_output)
    return output * 3


def pointer_to(places):
    return lambda gradient: places.append(gradient.data_ptr())


def maps_made(output, leaf):
    """How many maps of the size of `leaf` a backward makes that begins with one in channels_last."""
    loss = (output * torch.full_like(leaf, 3, requires_grad=False)).sum()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        torch.autograd.grad(loss, leaf)
    size, events = leaf.numel() * leaf.element_size(), profiler.profiler.kineto_results.events()
    return sum(event.name() == "[memory]" and event.nbytes() == size for event in events)


@pytest.mark.parametrize("name", OPS)
def test_the_gradient_is_written_over(name, leaf):
    assert maps_made(OPS[name](leaf), leaf) == 1  # the product


def test_a_gradient_in_another_order_is_not(leaf):
    assert maps_made(ops.relu(leaf.contiguous()), leaf) >= 3  # the product, its copy, the result


@pytest.mark.parametrize("name", OPS)
def test_what_somebody_holds_is_not(name, leaf):
    held, places = [], []
    result = through(OPS[name], leaf, lambda gradient: held.append((gradient, gradient.clone())), pointer_to(places))
    result.square().mean().backward()
    ((gradient, copy),) = held
    assert places[0] != gradient.data_ptr()
    assert torch.equal(gradient, copy)


def test_nor_what_somebody_holds_a_part_of(leaf):
    held, places = [], []
    result = through(
        ops.relu, leaf, lambda gradient: held.append((gradient[1:], gradient[1:].clone())), pointer_to(places)
    )
    result.square().mean().backward()
    ((part, copy),) = held
    assert places[0] != part.untyped_storage().data_ptr()
    assert torch.equal(part, copy)


def test_nor_retained_gradients(leaf):
    output = ops.relu(leaf * 2)
    output.retain_grad()
    (output * 3).square().mean().backward()
    expected = 18 * output / output.numel()  # (3 y)^2 / n
    torch.testing.assert_close(output.grad, expected.detach())


def test_nor_the_gradient_of_the_caller(leaf):
    gradient = torch.ones_like(leaf)
    ops.relu(leaf * 2).backward(gradient)
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_nor_the_memory_of_an_array(leaf):
    class Threes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            return 3 * input

        @staticmethod
        def backward(ctx, gradient):
            return torch.from_numpy(array)

    array = np.full(tuple(leaf.shape), 3, dtype=np.float32)
    Threes.apply(ops.relu((leaf * 2).contiguous())).sum().backward()
    assert (array == 3).all()
    torch.testing.assert_close(leaf.grad, 6.0 * (leaf.detach() > 0))


def test_nor_with_a_graph_of_the_backward(leaf):
    places = []
    result = through(ops.tanh, leaf, pointer_to(places), pointer_to(places)).square().mean()
    (gradient,) = torch.autograd.grad(result, leaf, create_graph=True)
    assert places[0] != places[1]
    assert gradient.requires_grad


def test_nor_for_a_batch_of_gradients(leaf):
    outputs = ops.sigmoid(leaf * 2)
    directions = torch.stack([torch.ones_like(outputs), torch.full_like(outputs, 2.0)])
    (batched,) = torch.autograd.grad(outputs * 3, leaf, directions, is_grads_batched=True, retain_graph=True)
    (one,) = torch.autograd.grad(outputs * 3, leaf, directions[0])
    torch.testing.assert_close(batched[0], one)
    torch.testing.assert_close(batched[1], 2 * one)


def test_nor_under_the_eyes_of_a_dispatch_mode(leaf):
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function.name() == "d2lkernels::relu_input_grad":
                seen.append(result.data_ptr() == args[0].data_ptr())
            return result

    seen = []
    with Watch():
        (ops.relu(leaf * 2) * 3).square().mean().backward()
    assert seen == [False]


def test_both_sides_of_a_residual_get_the_gradient(leaf):
    residual = torch.zeros_like(leaf).requires_grad_()
    output, _, _ = torch.ops.d2lkernels.batch_norm_train(leaf * 2, residual * 1, None, None, None, None, 1e-5, "none")
    weights = torch.arange(output.numel(), dtype=torch.float32).view_as(output)
    (output * weights).sum().backward()
    assert torch.equal(residual.grad, weights)


def test_a_gradient_that_goes_two_ways_is_not(leaf):
    other = torch.zeros_like(leaf).requires_grad_()
    for pair in ((ops.relu(leaf * 2), other * 1), (other * 1, ops.relu(leaf * 2))):
        leaf.grad = other.grad = None
        ((pair[0] + pair[1]) * torch.full_like(leaf, 3, requires_grad=False)).sum().backward()
        assert torch.equal(other.grad, torch.full_like(other, 3))
        assert torch.equal(leaf.grad, 6.0 * (leaf > 0))
