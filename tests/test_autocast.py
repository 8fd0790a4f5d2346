"""Under autocast every op takes and gives the dtypes that native torch's takes and gives."""

import itertools

import pytest
import torch
from cases import ONE_PER_TYPE, dtype_name, not_about_kernels, over
from specs import FUNCTIONAL

from d2lkernels.testing import call, converted

pytestmark = not_about_kernels

LOWER = (torch.bfloat16, torch.float16)
GIVEN = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _run(function, tensors, arguments, device, dtype):
    leaves = converted(tensors, lambda tensor: tensor.detach().clone().requires_grad_())
    with torch.autocast(device.type, dtype):
        output = call(function, leaves, arguments)[0]
        second = call(function, leaves, arguments)[0]  # the casts of the weights come from autocast's cache
    (output.float().sum() + second.float().sum()).backward()
    return output, [leaf.grad for leaf in leaves if leaf is not None]


@pytest.mark.parametrize("given", GIVEN, ids=lambda dtype: f"given_{dtype_name(dtype)}")
@over(specs=FUNCTIONAL, devices=ONE_PER_TYPE, dtypes=LOWER, samples=lambda spec: spec.tiny[:1])
def test_autocast(spec, device, dtype, sample, given):
    if spec.name in ("concat", "concat_convolutions", "dense_block") and given not in (torch.float32, dtype):
        pytest.skip("torch.cat refuses other dtypes first under autocast")
    if spec.name == "conv2d_batch_norm" and given in LOWER and given != dtype:
        pytest.skip("batch_norm refuses parameters of the other 16-bit type, here beside the lowered convolution")
    tensors = sample.make(given, device.type)
    ours, gradients = _run(spec.function, tensors, sample.arguments, device, dtype)
    native, native_gradients = _run(spec.native, tensors, sample.arguments, device, dtype)
    assert ours.dtype == native.dtype
    assert [one.dtype for one in gradients] == [one.dtype for one in native_gradients]
    # A dense block joins what convolutions made in 16 bits to its input, in the dtype of both.
    rounds = torch.finfo(native.dtype).bits == 16 or spec.name == "dense_block"
    tolerance = 0.05 if rounds else 1e-5
    torch.testing.assert_close(ours, native, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(gradients, native_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("input, weight", list(itertools.product(GIVEN[:3], repeat=2)), ids=dtype_name)
@over(specs=FUNCTIONAL[:1], devices=ONE_PER_TYPE)
def test_autocast_of_mixed_dtypes(spec, device, input, weight):
    sample = spec.tiny[0]
    x, w, b = sample.make(torch.float32, device.type)
    tensors = [x.to(input), w.to(weight), b.to(weight)]

    def outcome(function):
        with torch.autocast(device.type, torch.bfloat16):
            try:
                return function(*tensors, **sample.arguments).dtype
            except (RuntimeError, TypeError):
                return "refused"

    assert outcome(spec.function) == outcome(spec.native)


@over(specs=FUNCTIONAL, devices=ONE_PER_TYPE)
def test_autocast_disabled_inside(spec, device):
    sample = spec.tiny[0]
    tensors = sample.make(torch.float32, device.type)
    with torch.autocast(device.type, torch.bfloat16), torch.autocast(device.type, enabled=False):
        assert call(spec.function, tensors, sample.arguments)[0].dtype == torch.float32
