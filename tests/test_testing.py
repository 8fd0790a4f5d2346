"""The harness itself: each planted fault must be found, and what is right must pass."""

import pytest
import torch
from cases import not_about_kernels
from specs import BY_NAME

from d2lkernels.testing import (
    LAYOUTS,
    TF32_ERROR,
    Input,
    assert_accurate,
    call,
    converted,
    magnitude,
    poisoned_memory,
    strides_that_matter,
)

pytestmark = not_about_kernels


@pytest.fixture
def problem():
    """Expected, native and magnitude of a convolution in float32."""
    spec = BY_NAME["conv2d"]
    sample = next(one for one in spec.samples if one.name == "lenet.conv2")
    tensors = sample.make(torch.float32, "cpu")
    expected = call(spec.reference, converted(tensors, torch.Tensor.double), sample.arguments)[0]
    native = call(spec.native, tensors, sample.arguments)[0]
    return expected, native, magnitude(spec.native, spec, tensors, sample.arguments)


def test_native_torch_is_accurate(problem):
    expected, native, scale = problem
    assert_accurate(native, expected, native, scale)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, None], ids=["nan", "inf", "zero", "slightly_off"])
def test_one_wrong_element_is_found(problem, value):
    expected, native, scale = problem
    wrong = native.clone()
    place = (1, 2, 3, 4)
    wrong[place] = native[place] + 2e-4 if value is None else value
    with pytest.raises(AssertionError, match=r"1 of 6400 elements are wrong, the first at \(1, 2, 3, 4\)"):
        assert_accurate(wrong, expected, native, scale)


def test_tf32_is_told_from_float32(problem):
    expected, native, scale = problem
    rounded = (expected + 0.5 * TF32_ERROR * scale).float()
    assert_accurate(rounded, expected, native, scale, "tf32")
    with pytest.raises(AssertionError):
        assert_accurate(rounded, expected, native, scale)
    with pytest.raises(AssertionError):
        assert_accurate((expected + 1.5 * TF32_ERROR * scale).float(), expected, native, scale, "tf32")


def test_wrong_size_and_dtype_are_found(problem):
    expected, native, scale = problem
    with pytest.raises(AssertionError, match="size"):
        assert_accurate(native[:1], expected, native, scale)
    with pytest.raises(AssertionError, match="dtype"):
        assert_accurate(native.double(), expected, native, scale)


def test_a_finite_result_where_it_should_not_be_is_found():
    expected = torch.tensor([float("nan"), float("inf"), 1.0], dtype=torch.float64)
    native = expected.float()
    assert_accurate(native, expected, native, torch.ones(3))
    for wrong in ([0.0, float("inf"), 1.0], [float("nan"), 1e30, 1.0], [float("nan"), float("-inf"), 1.0]):
        with pytest.raises(AssertionError, match="not finite"):
            assert_accurate(torch.tensor(wrong), expected, native, torch.ones(3))


def test_integers_must_be_equal():
    expected = torch.tensor([1, 2, 3])
    assert_accurate(expected, expected, expected, torch.zeros(()))
    with pytest.raises(AssertionError, match="1 of 3"):
        assert_accurate(torch.tensor([1, 2, 4]), expected, expected, torch.zeros(()))


def test_memory_is_poisoned():
    before = torch.are_deterministic_algorithms_enabled()
    with poisoned_memory():
        assert torch.empty(100).isnan().all()
    assert torch.are_deterministic_algorithms_enabled() == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    one = Input((2, 3, 4, 5), layout)
    tensor = one.make(0, torch.float32, "cpu")
    assert tensor.shape == (2, 3, 4, 5)
    assert torch.equal(tensor, one.make(0, torch.float32, "cpu"))
    assert tensor.is_contiguous() == (layout in ("contiguous", "unaligned"))
    assert (tensor.storage_offset() > 0) == (layout in ("strided", "unaligned"))
    assert one.make(0, torch.float32, "meta").stride() == tensor.stride()


def test_unknown_layout():
    with pytest.raises(ValueError, match="expected layout to be one of contiguous, channels_last"):
        Input((1,), "diagonal").make(0, torch.float32, "cpu")


def test_strides_of_axes_of_length_1_do_not_matter():
    assert strides_that_matter(torch.empty(1, 3, 1, 5)) == [5, 1]
    assert strides_that_matter(torch.empty(0, 3)) == []
