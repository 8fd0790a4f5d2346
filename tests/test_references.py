"""The references against torch in float64: two independent witnesses."""

import pytest
import torch
from specs import SPECS

from d2lkernels.testing import call


@pytest.mark.parametrize(
    "spec, sample",
    [pytest.param(spec, sample, id=f"{spec.name}-{sample.name}") for spec in SPECS for sample in spec.samples],
)
def test_reference(spec, sample):
    tensors = sample.make(torch.float64, "cpu")
    expected = call(spec.native, tensors, sample.arguments)
    actual = call(spec.reference, tensors, sample.arguments)
    assert len(actual) == len(expected)
    for ours, native in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, native.detach(), rtol=1e-12, atol=1e-12, check_stride=False)
