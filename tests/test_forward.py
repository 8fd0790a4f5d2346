"""Forward values of every op, on every device, against the float64 reference."""

import functools

import pytest
import torch
from cases import DEVICES, DTYPES, over
from specs import BY_NAME, FUNCTIONAL

from d2lkernels.testing import assert_accurate, call, converted, magnitude, poisoned_memory, strides_that_matter


@functools.cache
def _expected(name, sample_name, dtype):
    """Reference, native result and magnitude: the same for every instruction set."""
    spec = BY_NAME[name]
    sample = next(sample for sample in spec.samples + spec.tiny if sample.name == sample_name)
    tensors = sample.make(dtype, "cpu")
    exact = converted(tensors, torch.Tensor.double)
    expected = call(spec.reference, exact, sample.arguments)
    native = tuple(output.detach() for output in call(spec.native, tensors, sample.arguments))
    return expected, native, magnitude(spec.native, spec, tensors, sample.arguments)


@over(dtypes=DTYPES, samples=lambda spec: spec.samples + spec.tiny)
def test_forward(spec, device, dtype, sample):
    expected, native, scale = _expected(spec.name, sample.name, dtype)
    tensors = sample.make(dtype, device.type)
    before = converted(tensors, torch.Tensor.clone)
    with poisoned_memory():
        actual = call(spec.function, tensors, sample.arguments)
    assert len(actual) == len(expected)
    for i, output in enumerate(actual):
        assert_accurate(output.cpu(), expected[i], native[i], scale, device.precision, f"output {i}")
    for tensor, copy in zip(tensors, before, strict=True):
        assert tensor is None or torch.equal(tensor, copy), "an input was written to"


@over(specs=FUNCTIONAL, dtypes=(torch.float32,), samples=lambda spec: spec.samples)
def test_strides(spec, device, dtype, sample):
    tensors = sample.make(dtype, device.type)
    ours, native = (call(function, tensors, sample.arguments) for function in (spec.function, spec.native))
    for mine, theirs in zip(ours, native, strict=True):
        assert strides_that_matter(mine) == strides_that_matter(theirs)
        assert mine.device == theirs.device


def _plant(tensor, values):
    """The values at a few places all over the tensor, two of them side by side."""
    planted = tensor.clone()
    flat = planted.view(-1)
    places = torch.linspace(0, flat.numel() - 2, 3 * len(values), dtype=torch.float64).long()
    for i, place in enumerate(places.tolist()):
        flat[place] = values[i % len(values)]
    flat[places[-1] + 1] = values[-1]
    return planted


NOT_FINITE = {
    "nan": (float("nan"),),
    "inf": (float("inf"),),
    "minus_inf": (float("-inf"),),
    "mixed": (float("inf"), float("nan"), float("-inf")),
}


@pytest.mark.parametrize("values", NOT_FINITE.values(), ids=NOT_FINITE)
@over(specs=FUNCTIONAL, dtypes=DTYPES, samples=lambda spec: spec.tiny)
def test_not_finite(spec, device, dtype, sample, values):
    first, *rest = sample.make(dtype, "cpu")
    tensors = [_plant(first, values), *rest]
    expected = call(spec.reference, converted(tensors, torch.Tensor.double), sample.arguments)
    native = call(spec.native, tensors, sample.arguments)
    scale = magnitude(spec.native, spec, [first, *rest], sample.arguments)
    on_device = converted(tensors, lambda tensor: tensor.to(device.type))
    with poisoned_memory():
        actual = call(spec.function, on_device, sample.arguments)
    for i, output in enumerate(actual):
        assert_accurate(output.cpu(), expected[i], native[i], scale, device.precision, f"output {i}")


@pytest.mark.parametrize("value", [float("-inf"), float("nan"), 0.0], ids=str)
@over(
    specs=[spec for spec in FUNCTIONAL if not spec.is_linear],
    samples=lambda spec: [one for one in spec.samples if one.tensors[0].layout == "contiguous" and one.cost > 0],
)
def test_indices_of_equal_values(spec, device, sample, value):
    """The first maximum, and the last NaN, give the index; also where all of a window is minus infinity."""
    input = torch.full(sample.tensors[0].size, value, device=device.type)
    arguments = {**sample.arguments, "return_indices": True}
    output, indices = spec.function(input, **arguments)
    expected, expected_indices = spec.native(input, **arguments)
    torch.testing.assert_close(output, expected, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(indices, expected_indices)


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_windows_beside_the_map(device, format):
    """Dilated windows with all taps in the padding: minus infinity, and nothing to give a gradient to. (Torch's own
    backward writes out of bounds here.)"""
    input = torch.randn(2, 3, 2, 25, device=device.type).contiguous(memory_format=format).requires_grad_()
    output = BY_NAME["max_pool2d"].function(input, (2, 5), stride=(3, 5), padding=(1, 0), dilation=3)
    assert output.shape == (2, 3, 1, 3) and output.isneginf().all()
    output.backward(torch.ones_like(output))
    assert torch.equal(input.grad, torch.zeros_like(input))


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_results_do_not_alias_their_inputs(device):
    for spec in FUNCTIONAL:
        for sample in spec.tiny:
            tensors = sample.make(torch.float32, device.type)
            output = call(spec.function, tensors, sample.arguments)[0]
            assert output.data_ptr() != tensors[0].data_ptr()
