"""Gradients of every op: against float64 for each choice of inputs that require grad, and gradcheck of all orders."""

import functools
import itertools
import warnings

import pytest
import torch
from cases import DTYPES, ONE_PER_TYPE, not_about_kernels, over
from specs import BY_NAME, FUNCTIONAL
from torch.utils._python_dispatch import TorchDispatchMode

from d2lkernels.testing import (
    assert_accurate,
    call,
    converted,
    gradient_magnitudes,
    gradients,
    poisoned_memory,
)


def _places(tensors):
    return [place for place, tensor in enumerate(tensors) if tensor is not None]


def _subsets(places):
    return [subset for size in range(1, len(places) + 1) for subset in itertools.combinations(places, size)]


def _grad_output(spec, sample, dtype):
    """A gradient for the first output, made to lie in memory as no kernel would like it."""
    output = call(spec.native, sample.make(torch.float32, "cpu"), sample.arguments)[0]
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(*output.shape, 2, generator=generator, dtype=torch.float64)
    return values.to(dtype)[..., 1]


@functools.cache
def _expected(name, sample_name, dtype):
    """The gradients for all tensors, in float64 and by native torch, and their scales."""
    spec = BY_NAME[name]
    sample = next(sample for sample in spec.samples + spec.tiny if sample.name == sample_name)
    tensors, grad_output = sample.make(dtype, "cpu"), _grad_output(spec, sample, dtype)
    exact, exact_grad = converted(tensors, torch.Tensor.double), grad_output.double()
    places = _places(tensors)
    expected = gradients(spec.native, exact, sample.arguments, exact_grad, places)
    native = gradients(spec.native, tensors, sample.arguments, grad_output, places)
    scales = gradient_magnitudes(spec, exact, sample.arguments, exact_grad, places)
    return {place: values for place, *values in zip(places, expected, native, scales, strict=True)}


def _compare(device, actual, expected, subset):
    for place, gradient in zip(subset, actual, strict=True):
        assert_accurate(gradient.cpu(), *expected[place], device.precision, f"gradient of input {place}")


@over(dtypes=(torch.float32, torch.float64), samples=lambda spec: spec.samples)
def test_gradients(spec, device, dtype, sample):
    expected = _expected(spec.name, sample.name, dtype)
    tensors = sample.make(dtype, device.type)
    grad_output = _grad_output(spec, sample, dtype).to(device.type)
    before = converted([*tensors, grad_output], torch.Tensor.clone)
    places = _places(tensors)
    with poisoned_memory():
        actual = gradients(spec.function, tensors, sample.arguments, grad_output, places)
    _compare(device, actual, expected, places)
    for tensor, copy in zip([*tensors, grad_output], before, strict=True):
        assert tensor is None or torch.equal(tensor, copy), "an input was written to"


@over(dtypes=(torch.bfloat16, torch.float16), samples=lambda spec: (*spec.tiny, *spec.samples[:2], *spec.samples[-3:]))
def test_gradients_of_16_bit(spec, device, dtype, sample):
    tensors = sample.make(dtype, device.type)
    places = _places(tensors)
    grad_output = _grad_output(spec, sample, dtype).to(device.type)
    actual = gradients(spec.function, tensors, sample.arguments, grad_output, places)
    _compare(device, actual, _expected(spec.name, sample.name, dtype), places)


@over(dtypes=(torch.float32,), samples=lambda spec: spec.tiny)
def test_gradients_of_subsets(spec, device, dtype, sample):
    expected = _expected(spec.name, sample.name, dtype)
    tensors = sample.make(dtype, device.type)
    grad_output = _grad_output(spec, sample, dtype).to(device.type)
    for subset in _subsets(_places(tensors)):
        actual = gradients(spec.function, tensors, sample.arguments, grad_output, subset)
        _compare(device, actual, expected, subset)


@over(dtypes=(torch.float32,), samples=lambda spec: spec.tiny)
def test_expanded_grad_output(spec, device, dtype, sample):
    """`.sum().backward()` hands over one element, expanded."""
    tensors = sample.make(dtype, device.type)
    leaves = converted(tensors, lambda tensor: tensor.requires_grad_())
    output = call(spec.function, leaves, sample.arguments)[0]
    output.sum().backward()
    exact = converted(tensors, lambda tensor: tensor.detach().cpu().double())
    ones = torch.ones(output.shape, dtype=torch.float64)
    places = _places(tensors)
    expected = gradients(spec.native, exact, sample.arguments, ones, places)
    scales = gradient_magnitudes(spec, exact, sample.arguments, ones, places)
    for place, value, scale in zip(places, expected, scales, strict=True):
        gradient = leaves[place].grad.cpu()
        assert_accurate(gradient, value, value.to(dtype), scale, device.precision, f"gradient of input {place}")


class _Calls(TorchDispatchMode):
    """The ops of ours that reach the dispatcher below autograd."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "d2lkernels":
            self.names.append(function._opname)
        return function(*args, **(kwargs or {}))


PASSES = ("conv2d_input_grad", "conv2d_weight_grad", "bias_grad")


@pytest.mark.parametrize("wanted", _subsets((0, 1, 2)), ids=str)
def test_only_needed_gradients_are_computed(wanted):
    spec = BY_NAME["conv2d"]
    sample = spec.tiny[0]
    leaves = [tensor.requires_grad_(i in wanted) for i, tensor in enumerate(sample.make(torch.float32, "cpu"))]
    output = spec.function(*leaves, **sample.arguments)
    with _Calls() as calls:
        output.backward(torch.ones_like(output))
    needed = [name for place, name in enumerate(PASSES) if place in wanted]
    assert sorted(calls.names) == sorted(needed)
    assert [leaf.grad is not None for leaf in leaves] == [i in wanted for i in range(3)]


def test_pools_keep_offsets_only_for_a_backward_pass():
    input = torch.randn(1, 2, 4, 4)
    for requires_grad, name in ((False, "max_pool2d"), (True, "max_pool2d_with_offsets")):
        with _Calls() as calls:
            BY_NAME["max_pool2d"].function(input.clone().requires_grad_(requires_grad), 2)
        assert calls.names == [name]


# ---- gradcheck: the emulator runs the same derivatives in the tests above ------------------------------------------


def _leaves(sample, device):
    return [None if one is None else one.requires_grad_() for one in sample.make(torch.float64, device.type)]


def _first_output(spec, sample):
    return lambda *tensors: call(spec.function, tensors, sample.arguments)[0]


@not_about_kernels
@over(samples=lambda spec: spec.tiny, devices=ONE_PER_TYPE)
def test_gradcheck(spec, device, sample):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a missing vmap rule only warns
        warnings.filterwarnings("ignore", "Using padding='same'")
        assert torch.autograd.gradcheck(
            _first_output(spec, sample),
            _leaves(sample, device),
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
        )


@not_about_kernels
@over(samples=lambda spec: spec.tiny, devices=ONE_PER_TYPE)
def test_gradgradcheck(spec, device, sample):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert torch.autograd.gradgradcheck(
            _first_output(spec, sample),
            _leaves(sample, device),
            gen_non_contig_grad_outputs=True,
            check_fwd_over_rev=True,
            check_batched_grad=True,
        )


@over(specs=FUNCTIONAL, dtypes=DTYPES[:2], samples=lambda spec: spec.tiny)
def test_double_backward(spec, device, dtype, sample):
    """The gradient of the squared norm of the gradients, as native torch has it in float64."""

    def penalty(function, tensors):
        leaves = converted(tensors, lambda tensor: tensor.detach().requires_grad_())
        places = _places(leaves)
        output = call(function, leaves, sample.arguments)[0]
        # Different for each element: of what is normalised, the sum of squares would be a constant.
        factors = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        weighted = output * factors.to(output)
        first = torch.autograd.grad(weighted.square().sum(), [leaves[i] for i in places], create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in first), [leaves[i] for i in places])

    tensors = sample.make(dtype, device.type)
    actual = penalty(spec.function, tensors)
    exact = converted(tensors, lambda tensor: tensor.cpu().double())
    expected = penalty(spec.native, exact)
    for mine, exactly in zip(actual, expected, strict=True):
        tolerance = 2e-2 if device.precision == "tf32" else 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(mine.cpu().double(), exactly, rtol=tolerance, atol=tolerance * exactly.abs().max())
