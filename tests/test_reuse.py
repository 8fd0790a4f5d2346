"""Backwards that write over the gradient that they were called with, or their input: only where nobody can see it."""

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


@pytest.mark.parametrize("name", ["relu", "add_relu", "batch_norm", "batch_norm_add_relu"])
def test_one_of_bfloat16_is_written_over(name, leaf):
    leaf = leaf.detach().bfloat16().requires_grad_()
    assert maps_made(OPS[name](leaf), leaf) == 1


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


# ---- saved inputs ------------------------------------------------------------------------------------------------


def parameter(*size):
    return torch.linspace(-0.3, 0.4, int(np.prod(size))).view(size).requires_grad_()


def residual_norm(input):
    residual = input.sum() * torch.zeros_like(input, requires_grad=False)  # wants a gradient, and does not keep input
    return ops.batch_norm_add_relu(input, residual, None, None, training=True)


CONVOLUTIONS = {
    "conv2d": lambda input: ops.conv2d(input, parameter(5, 8, 3, 3), padding=1),
    "conv2d_activation": lambda input: ops.conv2d_activation(input, parameter(5, 8, 3, 3), activation="tanh"),
    "conv2d_max_pool2d": lambda input: ops.conv2d_max_pool2d(input, parameter(5, 8, 3, 3), pool_size=2),
    "conv2d_avg_pool2d": lambda input: ops.conv2d_avg_pool2d(
        input, parameter(5, 8, 3, 3), padding=1, activation="sigmoid", pool_size=2
    ),
}
READERS = CONVOLUTIONS | {
    "batch_norm_add_relu": residual_norm,
    "linear": lambda input: ops.linear(input, parameter(7, 6)),
}


@pytest.fixture(params=[4, 64], ids=["few images", "images in lanes"])
def images(request):
    torch.manual_seed(0)
    return torch.randn(request.param, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()


def input_place(op, leaf, hold=lambda input: None, **options):
    """Whether the gradient of the argument of `op` lay where the argument was, and the gradient of `leaf`."""
    input = leaf * 2
    hold(input)
    place, places = input.data_ptr(), []
    input.register_hook(pointer_to(places))
    result = op(input)
    del input
    (gradient,) = torch.autograd.grad(result.square().sum(), leaf, **options)
    return places == [place], gradient


def leaf_of(name, images):
    """Rows for linear: of more axes it takes a view, whose memory is never its own."""
    return images.detach()[:, :, 0].contiguous().view(-1, 6).requires_grad_() if name == "linear" else images


@pytest.mark.parametrize("name", READERS)
def test_the_input_is_written_over(name, images):
    leaf = leaf_of(name, images)
    is_over, gradient = input_place(READERS[name], leaf)
    kept, expected = input_place(READERS[name], leaf, retain_graph=True)
    assert is_over
    assert not kept
    assert torch.equal(gradient, expected)


def test_an_input_of_bfloat16_is_written_over(images):
    leaf = images.detach().bfloat16().requires_grad_()
    is_over, gradient = input_place(residual_norm, leaf)
    kept, expected = input_place(residual_norm, leaf, retain_graph=True)
    assert is_over
    assert not kept
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("part", [lambda input: input, lambda input: input[1:], torch.Tensor.detach])
@pytest.mark.parametrize("name", READERS)
def test_an_input_that_somebody_holds_is_not(name, part, images):
    leaf, held = leaf_of(name, images), []
    is_over, _ = input_place(READERS[name], leaf, hold=lambda input: held.append(part(input)))
    assert not is_over
    assert torch.equal(held[0], part(2 * leaf))


def test_nor_one_that_another_node_needs(images):
    def both(input):
        output = torch.sigmoid(input)  # keeps its result, which is the argument of the convolution
        return CONVOLUTIONS["conv2d"](output)

    leaf = images.detach().contiguous().requires_grad_()
    (gradient,) = torch.autograd.grad(both(leaf).sum(), leaf)
    (expected,) = torch.autograd.grad(
        torch.nn.functional.conv2d(torch.sigmoid(leaf), parameter(5, 8, 3, 3), padding=1).sum(), leaf
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_nor_one_of_two_readers(name, images):
    def two(input):
        return CONVOLUTIONS[name](input) + CONVOLUTIONS[name](input)

    _, gradient = input_place(two, images)
    _, once = input_place(CONVOLUTIONS[name], images)
    torch.testing.assert_close(gradient, 4 * once, rtol=1e-4, atol=1e-4)


def test_nor_with_a_graph_of_the_gradient(images):
    is_over, gradient = input_place(CONVOLUTIONS["conv2d"], images, create_graph=True)
    assert not is_over
    assert gradient.requires_grad


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_nor_what_hooks_of_saved_tensors_keep(name, images):
    kept = []

    def pack(tensor):
        kept.append((tensor, tensor.clone()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = CONVOLUTIONS[name](images * 2)
    result.square().sum().backward()
    assert all(torch.equal(tensor, copy) for tensor, copy in kept)


def test_nor_the_memory_of_an_array_that_was_saved(images):
    array = np.full((4, 8, 6, 6), 0.5, dtype=np.float32)
    input = torch.from_numpy(array).requires_grad_()
    CONVOLUTIONS["conv2d"](input).sum().backward()
    assert (array == 0.5).all()


def test_a_graph_is_gone_after_its_backward(images):
    result = CONVOLUTIONS["conv2d"](images * 2).sum()
    result.backward()
    with pytest.raises(RuntimeError, match="second time"):
        result.backward()


def test_the_gradient_behind_a_pool_in_either_order(images):
    gradients = []
    for format in (torch.channels_last, torch.contiguous_format):
        output = CONVOLUTIONS["conv2d_avg_pool2d"](images * 2)
        weights = torch.arange(output.numel(), dtype=torch.float32).view(output.shape)
        gradients += torch.autograd.grad(output, images, weights.contiguous(memory_format=format))
    assert torch.equal(*gradients)
