"""Memory formats: an output is channels_last if an input is, as in torch; views give what their copies give."""

import itertools

import pytest
import torch
from cases import DTYPES, over
from specs import BY_NAME, FUNCTIONAL

from d2lkernels import ops
from d2lkernels.testing import LAYOUTS, Sample, call, converted, gradients, strides_that_matter


def _laid_out(sample: Sample, layouts) -> Sample:
    inputs = [
        type(one)(one.size, layout) if one is not None else None
        for one, layout in zip(sample.tensors, layouts, strict=True)
    ]
    return Sample(sample.name, tuple(inputs), sample.arguments)


CONV = next(one for one in BY_NAME["conv2d"].samples if one.name == "layouts.strided")
FUSED = {
    name: next(one for one in BY_NAME[name].samples if one.name == "layouts.strided")
    for name in ("conv2d_activation", "conv2d_max_pool2d", "conv2d_avg_pool2d")
}
POOL = next(one for one in BY_NAME["max_pool2d"].samples if one.name == "layouts.strided")
LINEAR = {
    name: next(one for one in BY_NAME[name].samples if one.name.startswith("layouts.41.strided"))
    for name in ("linear", "linear_activation")
}
MATRIX_LAYOUTS = tuple(layout for layout in LAYOUTS if layout != "channels_last")
NORM = next(one for one in BY_NAME["batch_norm"].samples if one.name == "layouts.strided")
CONV_NORM = next(one for one in BY_NAME["conv2d_batch_norm"].samples if one.name == "layouts.strided")
ADAPTIVE = next(one for one in BY_NAME["adaptive_max_pool2d"].samples if one.name == "layouts.strided")
ADD_NORM = next(one for one in BY_NAME["batch_norm_add_relu"].samples if one.name == "layouts.strided")
CONCAT = next(one for one in BY_NAME["concat"].samples if one.name == "layouts.strided")
JOINED = next(one for one in BY_NAME["concat_convolutions"].samples if one.name == "layouts.strided")
CONV1D = next(one for one in BY_NAME["conv1d"].samples if one.name == "layouts.strided")
DENSE = next(one for one in BY_NAME["dense_block"].samples if one.name == "one_layer")
ADD = next(one for one in BY_NAME["add_relu"].samples if one.name == "layouts.strided")
CASES = {
    **{
        name: [_laid_out(NORM, (layout, *[None] * 2, *["contiguous"] * 2)) for layout in LAYOUTS]
        for name in ("batch_norm", "batch_norm_relu", "batch_norm_sigmoid")
    },
    "batch_norm_add_relu": [
        _laid_out(ADD_NORM, (layout, layout, *[None] * 2, *["contiguous"] * 2)) for layout in LAYOUTS
    ],
    "add_relu": [_laid_out(ADD, (layout, layout)) for layout in LAYOUTS],
    "dense_block": [_laid_out(DENSE, (layout, *["contiguous"] * 4)) for layout in LAYOUTS],
    "concat": [_laid_out(CONCAT, (layout,) * 3) for layout in LAYOUTS],
    "conv2d": [_laid_out(CONV, (a, b, "contiguous")) for a, b in itertools.product(LAYOUTS, repeat=2)],
    **{
        name: [_laid_out(sample, (a, b, "contiguous")) for a, b in itertools.product(LAYOUTS, repeat=2)]
        for name, sample in FUSED.items()
    },
    "conv2d_batch_norm": [
        _laid_out(CONV_NORM, (a, b, "contiguous", None, None, "contiguous", "contiguous", None))
        for a, b in itertools.product(LAYOUTS, repeat=2)
    ],
    **{
        name: [_laid_out(sample, (a, b, "contiguous")) for a, b in itertools.product(MATRIX_LAYOUTS, repeat=2)]
        for name, sample in LINEAR.items()
    },
    "concat_convolutions": [
        _laid_out(JOINED, (a, b, "contiguous") * 2) for a, b in itertools.product(LAYOUTS, repeat=2)
    ],
    "conv1d": [_laid_out(CONV1D, (a, b, "contiguous")) for a, b in itertools.product(MATRIX_LAYOUTS, repeat=2)],
    **{name: [_laid_out(POOL, (layout,)) for layout in LAYOUTS] for name in ("max_pool2d", "avg_pool2d")},
    **{
        name: [_laid_out(ADAPTIVE, (layout,)) for layout in LAYOUTS]
        for name in ("adaptive_max_pool2d", "adaptive_avg_pool2d")
    },
}


def _parameters(dtypes):
    """One test for all layouts of an op: what is compared are layouts with each other."""
    return over(specs=FUNCTIONAL, dtypes=dtypes)


def _cases(spec) -> list[Sample]:
    """The sample of that name in every layout that it has, unless more than one tensor has some."""
    if spec.name in CASES:
        return CASES[spec.name]
    sample = next(one for one in spec.samples if one.name == "layouts.strided")
    return [_laid_out(sample, (layout,) * len(sample.tensors)) for layout in LAYOUTS]


@_parameters(DTYPES[:2])
def test_strides_of_outputs_and_gradients(spec, device, dtype):
    for sample in _cases(spec):
        tensors = sample.make(dtype, device.type)
        output = call(spec.function, tensors, sample.arguments)[0]
        channels_last = spec.keeps_memory_format and any(one is not None and _is_channels_last(one) for one in tensors)
        assert _is_channels_last(output) == channels_last, [one.layout for one in sample.tensors]
        if dtype == torch.float32:
            native = call(spec.native, tensors, sample.arguments)[0]
            assert strides_that_matter(output) == strides_that_matter(native)
        places = list(range(len(tensors)))
        for gradient in gradients(spec.function, tensors, sample.arguments, torch.ones_like(output), places):
            if gradient.dim() == 4 and not gradient._is_view():  # that of a concatenation is a range of grad_output
                assert _is_channels_last(gradient) == channels_last


@pytest.mark.parametrize("pool", [lambda x: ops.avg_pool2d(x, 2), lambda x: ops.adaptive_avg_pool2d(x, 1)])
def test_gradients_of_averages_lie_as_their_input(pool):
    """Whatever the order of the gradient they come from, which Flatten for one changes."""
    input = torch.randn(2, 3, 4, 6)
    weights = torch.randn(pool(input).shape)
    gradients = {}
    for format in (torch.contiguous_format, torch.channels_last):
        leaf = input.contiguous(memory_format=format).requires_grad_()
        (gradients[format],) = torch.autograd.grad(pool(leaf), leaf, weights)
        assert _is_channels_last(gradients[format]) == (format == torch.channels_last)
    assert torch.equal(*gradients.values())


def _is_channels_last(tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


@_parameters(DTYPES[:2])
def test_views_give_what_copies_give(spec, device, dtype):
    """Up to the order of summation, which a memory format may change."""
    for sample in _cases(spec):
        tensors = sample.make(dtype, device.type)
        copies = converted(tensors, torch.Tensor.contiguous)
        outputs, expected = (call(spec.function, given, sample.arguments) for given in (tensors, copies))
        torch.testing.assert_close(outputs, expected, check_stride=False)


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
@_parameters(DTYPES)
def test_unaligned_addresses(spec, device, dtype, offset):
    """Kernels must not assume the alignment that an allocation happens to have."""
    sample = _cases(spec)[0]
    tensors = sample.make(dtype, device.type)

    def shifted(tensor):
        buffer = torch.full((tensor.numel() + 2 * offset,), float("nan"), dtype=dtype, device=device.type)
        view = buffer[offset : offset + tensor.numel()].view(tensor.shape)
        return view.copy_(tensor)

    expected = call(spec.function, tensors, sample.arguments)
    actual = call(spec.function, converted(tensors, shifted), sample.arguments)
    for mine, theirs in zip(actual, expected, strict=True):
        assert torch.equal(mine, theirs)
