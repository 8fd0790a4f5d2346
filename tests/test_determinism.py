"""The same call gives the same bits: again and again, and with any number of threads where that is promised."""

import pytest
import torch
from cases import DEVICES, DTYPES, not_about_kernels, over
from specs import FUNCTIONAL

from d2lkernels.testing import call, converted, gradients

RUNS = 10


CONVOLUTIONS = (
    "conv1d",
    "conv2d",
    "conv2d_activation",
    "conv2d_max_pool2d",
    "conv2d_avg_pool2d",
    "conv2d_batch_norm",
    "dense_block",
    "concat_convolutions",
)


def _representative(spec):
    """Layers large enough that several threads or blocks share the work, and some small ones."""
    return (*spec.samples[:2], spec.tiny[0], *(one for one in spec.samples if one.name.startswith("rectangular")))


def _run(spec, sample, tensors):
    """Output and all gradients."""
    outputs = call(spec.function, tensors, sample.arguments)
    generator = torch.Generator().manual_seed(3)
    grad_output = torch.randn(outputs[0].shape, generator=generator, dtype=torch.float64)
    places = [place for place, tensor in enumerate(tensors) if tensor is not None]
    grad_output = grad_output.to(outputs[0])
    return [*outputs, *gradients(spec.function, tensors, sample.arguments, grad_output, places)]


@pytest.mark.parametrize("deterministic_algorithms", [False, True], ids=["default", "deterministic_algorithms"])
@over(dtypes=DTYPES[:1], samples=_representative)
def test_bit_equal_runs(spec, device, dtype, sample, deterministic_algorithms):
    if device.is_emulated and deterministic_algorithms:
        pytest.skip("too slow in the emulator to run twice")
    before = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    tensors = sample.make(dtype, device.type)
    try:
        torch.use_deterministic_algorithms(deterministic_algorithms)
        expected = _run(spec, sample, tensors)
        for _ in range(1 if device.is_emulated else RUNS - 1):
            copies = converted(tensors, torch.Tensor.clone)  # at other addresses
            for first, again in zip(expected, _run(spec, sample, copies), strict=True):
                assert torch.equal(first, again)
    finally:
        torch.use_deterministic_algorithms(before)


@not_about_kernels
@over(
    specs=FUNCTIONAL,
    devices=[device for device in DEVICES if device.type == "cpu"],
    dtypes=DTYPES[:2],
    samples=_representative,
)
def test_number_of_threads(spec, device, dtype, sample):
    """Forward passes, and the gradients of pools; a weight gradient may split its sum by threads."""
    tensors = sample.make(dtype, device.type)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(
            call(spec.function, tensors, sample.arguments) if spec.name in CONVOLUTIONS else _run(spec, sample, tensors)
        )
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)
