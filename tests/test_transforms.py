"""torch.func: grad, jacobians, hessian, jvp and vmap; functional_call and checkpoint."""

import dataclasses
import itertools

import pytest
import torch
from cases import ONE_PER_TYPE, not_about_kernels, over
from specs import BY_NAME, FUNCTIONAL
from torch.utils.checkpoint import checkpoint

from d2lkernels import nn, ops
from d2lkernels.testing import Sample, call, gradients

pytestmark = [not_about_kernels, pytest.mark.filterwarnings("error:There is a performance drop")]


def _function(spec, sample):
    """The first output as a function of the tensors that are there."""

    def function(*tensors):
        given = iter(tensors)
        every = [None if one is None else next(given) for one in sample.tensors]
        return call(spec.function, every, sample.arguments)[0]

    return function


def _native(spec, sample):
    return _function(dataclasses.replace(spec, function=spec.native), sample)


def _tensors(sample, device, dtype=torch.float64):
    return [one for one in sample.make(dtype, device.type) if one is not None]


def _every_place(tensors):
    return tuple(range(len(tensors)))


@over(samples=lambda spec: spec.tiny, devices=ONE_PER_TYPE)
def test_grad(spec, device, sample):
    tensors = _tensors(sample, device)
    function = _function(spec, sample)
    actual = torch.func.grad(lambda *given: function(*given).square().sum(), _every_place(tensors))(*tensors)
    output = function(*tensors)
    every = [one for one in sample.make(torch.float64, device.type)]
    places = [place for place, one in enumerate(every) if one is not None]
    expected = gradients(spec.function, every, sample.arguments, 2 * output, places)
    torch.testing.assert_close(actual, expected)


@over(specs=FUNCTIONAL, samples=lambda spec: spec.tiny, devices=ONE_PER_TYPE)
def test_jacobians(spec, device, sample):
    tensors = _tensors(sample, device)
    places = _every_place(tensors)
    reverse = torch.func.jacrev(_function(spec, sample), places)(*tensors)
    forward = torch.func.jacfwd(_function(spec, sample), places)(*tensors)
    native = torch.func.jacrev(_native(spec, sample), places)(*tensors)
    torch.testing.assert_close(reverse, native)
    torch.testing.assert_close(forward, native)


@over(specs=FUNCTIONAL, samples=lambda spec: spec.tiny[:1], devices=ONE_PER_TYPE)
def test_hessian(spec, device, sample):
    tensors = _tensors(sample, device)

    def energy(function):
        return lambda *given: function(*given).pow(3).sum()

    places = _every_place(tensors)
    ours = torch.func.hessian(energy(_function(spec, sample)), places)(*tensors)
    # Native batch norm has a wrong second derivative for weight and input under torch.func (torch 2.13).
    trusted = dataclasses.replace(
        spec,
        function=spec.reference if "batch_norm" in spec.name or spec.name.startswith("dense_block") else spec.native,
    )
    expected = torch.func.jacrev(torch.func.jacrev(energy(_function(trusted, sample)), places), places)(*tensors)
    torch.testing.assert_close(ours, expected)


@over(samples=lambda spec: spec.tiny, devices=ONE_PER_TYPE)
def test_jvp(spec, device, sample):
    tensors = _tensors(sample, device)
    generator = torch.Generator().manual_seed(5)
    tangents = [torch.randn(one.shape, generator=generator).to(one) for one in tensors]
    value, tangent = torch.func.jvp(_function(spec, sample), tuple(tensors), tuple(tangents))
    step = 1e-6
    plus, minus = (
        _function(spec, sample)(*(one + sign * step * by for one, by in zip(tensors, tangents, strict=True)))
        for sign in (1, -1)
    )
    torch.testing.assert_close(value, _function(spec, sample)(*tensors))
    torch.testing.assert_close(tangent, (plus - minus) / (2 * step), rtol=1e-5, atol=1e-7)


def _batches(tensors, dims, size=3):
    """Several problems along `dims`: one tensor stays as it is where its dim is None."""
    return [
        one if dim is None else torch.stack([one * (1 + 0.5 * i) + 0.1 * i for i in range(size)], dim)
        for one, dim in zip(tensors, dims, strict=True)
    ]


def _problem(batches, dims, i):
    return [one if dim is None else one.select(dim, i) for one, dim in zip(batches, dims, strict=True)]


def _choices_of_dims(tensors):
    """Each tensor batched in front, behind or not at all; at least one is."""
    choices = itertools.product(*((None, 0, one.dim()) for one in tensors))
    return [dims for dims in choices if any(dim is not None for dim in dims)]


@over(samples=lambda spec: spec.tiny, devices=ONE_PER_TYPE)
def test_vmap(spec, device, sample):
    tensors, function = _tensors(sample, device), _function(spec, sample)
    for dims in _choices_of_dims(tensors):
        batches = _batches(tensors, dims)
        actual = torch.vmap(function, dims)(*batches)
        expected = torch.stack([function(*_problem(batches, dims, i)) for i in range(3)])
        torch.testing.assert_close(actual, expected, msg=lambda text, dims=dims: f"in_dims {dims}: {text}")


@over(samples=lambda spec: spec.tiny, devices=ONE_PER_TYPE)
def test_vmap_over_grad(spec, device, sample):
    """Per-sample gradients, the usual reason for vmap."""
    tensors, function = _tensors(sample, device), _function(spec, sample)
    gradient = torch.func.grad(lambda *given: function(*given).square().sum(), _every_place(tensors))
    for dims in _choices_of_dims(tensors):
        if any(dim not in (None, 0) for dim in dims):
            continue
        batches = _batches(tensors, dims)
        actual = torch.vmap(gradient, dims)(*batches)
        expected = [gradient(*_problem(batches, dims, i)) for i in range(3)]
        for place, mine in enumerate(actual):
            torch.testing.assert_close(mine, torch.stack([one[place] for one in expected]))


@over(samples=lambda spec: spec.tiny[:1], devices=ONE_PER_TYPE)
def test_vmap_outside_of_autograd(spec, device, sample):
    """backward() through a vmapped call."""
    tensors, function = [one.requires_grad_() for one in _tensors(sample, device)], _function(spec, sample)
    dims = (0,) * len(tensors)
    batches = _batches(tensors, dims)
    actual = torch.vmap(function, dims)(*batches)
    batches = _batches(tensors, dims)
    expected = torch.stack([function(*_problem(batches, dims, i)) for i in range(3)])
    for mine, theirs in zip(
        torch.autograd.grad(actual.square().sum(), tensors),
        torch.autograd.grad(expected.square().sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@over(specs=[spec for spec in FUNCTIONAL if not spec.is_linear], devices=ONE_PER_TYPE)
def test_vmap_of_indices(spec, device):
    sample = spec.tiny[0]
    input = sample.make(torch.float64, device.type)[0]
    batch = torch.stack([input, -input, input.flip(-1)], 1)
    arguments = {**sample.arguments, "return_indices": True}
    actual = torch.vmap(lambda one: spec.function(one, **arguments), 1)(batch)
    expected = [spec.function(batch[:, i], **arguments) for i in range(3)]
    for place, mine in enumerate(actual):
        assert torch.equal(mine, torch.stack([one[place] for one in expected]))


def test_vmap_of_an_empty_batch_of_images():
    spec = BY_NAME["conv2d"]
    input, weight = torch.randn(3, 0, 2, 5, 5), torch.randn(3, 4, 2, 3, 3)
    assert torch.vmap(spec.function)(input, weight).shape == (3, 0, 4, 3, 3)


def _net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(3, 2, 2, bias=False), nn.MaxPool2d(2)
    ).double()


def test_functional_call():
    net, input = _net(), torch.randn(2, 1, 6, 6, dtype=torch.float64)
    parameters = dict(net.named_parameters())
    ours = torch.func.grad(lambda given: torch.func.functional_call(net, given, (input,)).square().sum())(parameters)
    net(input).square().sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad)


def test_per_sample_gradients_of_a_net():
    net, inputs = _net(), torch.randn(4, 1, 6, 6, dtype=torch.float64)
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def loss(given, input):
        return torch.func.functional_call(net, given, (input[None],)).square().sum()

    ours = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, inputs)
    for i, input in enumerate(inputs):
        expected = torch.func.grad(loss)(parameters, input)
        for name in parameters:
            torch.testing.assert_close(ours[name][i], expected[name])


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["not_reentrant", "reentrant"])
def test_checkpoint(use_reentrant):
    net, input = _net(), torch.randn(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (net, lambda given: checkpoint(net, given, use_reentrant=use_reentrant)):
        net.zero_grad()
        input.grad = None
        function(input).square().sum().backward()
        results.append([input.grad.clone(), *(parameter.grad.clone() for parameter in net.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


def test_a_tensor_changed_in_place_is_noticed():
    """What backward needs is version-checked, as with torch's own ops."""
    spec = BY_NAME["conv2d"]
    sample: Sample = spec.tiny[0]
    input, weight, bias = sample.make(torch.float32, "cpu")
    weight.requires_grad_()
    output = spec.function(input, weight, bias, **sample.arguments)
    input.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_windows_without_a_pixel_are_minus_infinity():
    """With a dilation wider than the map every tap of a window can miss it."""
    x = torch.randn(3, 1, 2, 4, 9)
    arguments = {"kernel_size": 2, "stride": 1, "padding": (2, 0), "dilation": (5, 2)}
    expected = torch.stack([ops.max_pool2d(image, **arguments) for image in x])
    assert torch.isneginf(expected).any() and torch.isfinite(expected).any()
    assert torch.equal(torch.vmap(lambda image: ops.max_pool2d(image, **arguments))(x), expected)
    value, tangent = torch.func.jvp(lambda image: ops.max_pool2d(image, **arguments), (x[0],), (torch.ones_like(x[0]),))
    assert torch.equal(value, expected[0])
    assert torch.equal(tangent, torch.isfinite(value).float())


def test_nested_forward_mode_is_refused_where_torch_would_drop_tangents():
    weight = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64)

    def loss(x):
        return ops.conv2d(x, weight * x.sum()).square().sum()

    with pytest.raises(NotImplementedError, match="one level of forward-mode AD"):
        torch.func.jacfwd(torch.func.jacfwd(loss))(x)

    def native(x):
        return torch.nn.functional.conv2d(x, weight * x.sum()).square().sum()

    torch.testing.assert_close(torch.func.hessian(loss)(x), torch.func.hessian(native)(x))
    twice = torch.func.jacfwd(torch.func.jacfwd(lambda x: ops.avg_pool2d(x, 2).pow(3).sum()))(x)
    torch.testing.assert_close(
        twice, torch.func.hessian(lambda x: torch.nn.functional.avg_pool2d(x, 2).pow(3).sum())(x)
    )
