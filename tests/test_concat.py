"""Concatenation of what a spec has no word for: mixed dtypes and formats, dtypes without gradients, autocast."""

import itertools

import pytest
import torch

from d2lkernels import ops
from d2lkernels.testing import strides_that_matter

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


def _tensors(*dtypes, size=(2, 3, 5, 4)):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, generator=generator) * 3).to(dtype) for dtype in dtypes]


@pytest.mark.parametrize("dtypes", list(itertools.combinations_with_replacement(DTYPES, 2)), ids=str)
def test_dtypes_are_promoted(dtypes):
    tensors = _tensors(*dtypes)
    torch.testing.assert_close(ops.concat(tensors), torch.cat(tensors, 1), rtol=0, atol=0)


def test_complex():
    tensors = [torch.randn(2, 3, dtype=torch.complex64), torch.randn(2, 3, dtype=torch.complex64).conj()]
    assert torch.equal(ops.concat(tensors), torch.cat(tensors, 1))


def test_gradients_have_the_dtypes_of_their_tensors():
    tensors = [one.requires_grad_() for one in _tensors(torch.float32, torch.bfloat16, torch.float64)]
    ops.concat(tensors).sum().backward()
    for tensor in tensors:
        assert tensor.grad.dtype == tensor.dtype and torch.equal(tensor.grad, torch.ones_like(tensor))


@pytest.mark.parametrize("formats", list(itertools.product((torch.contiguous_format, torch.channels_last), repeat=2)))
def test_formats(formats):
    tensors = [one.contiguous(memory_format=to) for one, to in zip(_tensors(*DTYPES[:2]), formats, strict=True)]
    ours, native = ops.concat(tensors), torch.cat(tensors, 1)
    assert strides_that_matter(ours) == strides_that_matter(native) and torch.equal(ours, native)


@pytest.mark.parametrize("dtypes", list(itertools.product((torch.float32, torch.bfloat16), repeat=2)), ids=str)
def test_autocast(dtypes):
    tensors = _tensors(*dtypes)
    with torch.autocast("cpu", torch.bfloat16):
        ours, native = ops.concat(tensors), torch.cat(tensors, 1)
    assert ours.dtype == native.dtype and torch.equal(ours, native)


def test_gradients_are_views():
    """Nothing is copied on the way back."""
    tensors = [one.requires_grad_() for one in _tensors(torch.float32, torch.float32)]
    grad_output = torch.randn(2, 6, 5, 4)
    first, second = torch.autograd.grad(ops.concat(tensors), tensors, grad_output)
    assert first.data_ptr() == grad_output.data_ptr()
    assert second.untyped_storage().data_ptr() == grad_output.untyped_storage().data_ptr()


def test_what_is_no_sequence():
    with pytest.raises(TypeError) as caught:
        ops.concat(torch.ones(2, 3))
    assert str(caught.value) == "concat(): expected tensors to be a sequence of Tensors, but got Tensor"
