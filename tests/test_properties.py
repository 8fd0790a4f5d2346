"""Shapes, arguments and layouts drawn freely, against torch in float64.

D2LKERNELS_EXAMPLES sets how many per op and device (30 unless set); the draws are the same in every run.
"""

import os

import pytest
import torch
from cases import over
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specs import SPECS

from d2lkernels.testing import (
    assert_accurate,
    call,
    converted,
    gradient_magnitudes,
    gradients,
    magnitude,
    poisoned_memory,
)

EXAMPLES = int(os.environ.get("D2LKERNELS_EXAMPLES", "30"))
EMULATED_EXAMPLES = int(os.environ.get("D2LKERNELS_EXAMPLES", "8"))
AWKWARD = (0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"))


# Derivatives and compositions have no strategy of their own: those of their ops draw the shapes.
DRAWN = [spec for spec in SPECS if spec.strategy is not None]


def _drawn(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@over(dtypes=(torch.float32, torch.float64, torch.bfloat16), specs=DRAWN)
def test_drawn(spec, device, dtype):
    @_drawn(EMULATED_EXAMPLES if device.is_emulated else EXAMPLES)
    @given(sample=spec.strategy)
    def compare(sample):
        tensors = sample.make(dtype, "cpu")
        exact = converted(tensors, torch.Tensor.double)
        expected = call(spec.native, exact, sample.arguments)
        native = call(spec.native, tensors, sample.arguments)
        scale = magnitude(spec.native, spec, tensors, sample.arguments).detach()
        with poisoned_memory():
            actual = call(spec.function, sample.make(dtype, device.type), sample.arguments)
        for mine, exactly, theirs in zip(actual, expected, native, strict=True):
            assert_accurate(mine.cpu(), exactly.detach(), theirs.detach(), scale, device.precision)
        if not spec.name.endswith("_grad") and dtype != torch.bfloat16 and expected[0].numel() > 0:
            _compare_gradients(spec, device, dtype, sample, exact, tensors)

    compare()


def _compare_gradients(spec, device, dtype, sample, exact, tensors):
    places = [place for place, tensor in enumerate(tensors) if tensor is not None]
    output = call(spec.native, tensors, sample.arguments)[0]
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    expected = gradients(spec.native, exact, sample.arguments, grad.double(), places)
    native = gradients(spec.native, tensors, sample.arguments, grad, places)
    scales = gradient_magnitudes(spec, exact, sample.arguments, grad.double(), places)
    with poisoned_memory():
        on_device = sample.make(dtype, device.type)
        actual = gradients(spec.function, on_device, sample.arguments, grad.to(device.type), places)
    for i, mine in enumerate(actual):
        assert_accurate(
            mine.cpu(), expected[i], native[i], scales[i], device.precision, f"gradient of input {places[i]}"
        )


@pytest.mark.parametrize("spec", [spec for spec in DRAWN if not spec.is_linear], ids=lambda spec: spec.name)
@_drawn(EXAMPLES)
@given(data=st.data())
def test_maxima_of_any_values(spec, data):
    """Ties, NaN and infinities in any arrangement: values and indices as torch has them."""
    sample = data.draw(spec.strategy)
    values = data.draw(st.lists(st.sampled_from(AWKWARD), min_size=1))
    size = sample.tensors[0].size
    numel = torch.Size(size).numel()
    input = torch.tensor(values).repeat(numel // len(values) + 1)[:numel].view(size)
    arguments = {**sample.arguments, "return_indices": True}
    for mine, theirs in zip(spec.function(input, **arguments), spec.native(input, **arguments), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
