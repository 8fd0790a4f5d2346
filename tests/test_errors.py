"""What a wrong call says, word for word: run eagerly, on meta tensors and under torch.compile."""

import pytest
import torch
from cases import DEVICES, not_about_kernels
from specs import SPECS
from specs.convolution import MIXED_DEVICES

from d2lkernels import config, ops

ERRORS = [(spec.function, error, f"{spec.name}-{error.name}") for spec in SPECS for error in spec.errors]
MIXED = [(ops.conv2d, error, f"conv2d-{error.name}") for error in MIXED_DEVICES]


def _parameters(cases):
    return pytest.mark.parametrize(
        "function, error", [pytest.param(function, error, id=name) for function, error, name in cases]
    )


def _raised(function, arguments, error):
    before = [one.clone() if isinstance(one, torch.Tensor) else one for one in arguments]
    with pytest.raises(error.exception) as caught:
        function(*arguments, **error.options)
    for one, copy in zip(arguments, before, strict=True):
        assert not isinstance(one, torch.Tensor) or one.is_meta or torch.equal(one, copy), "an input was written to"
    return caught.value


@pytest.mark.parametrize("device", DEVICES[-1:], ids=lambda device: device.name)
@_parameters(ERRORS)
def test_error(device, function, error):
    raised = _raised(function, error.make(device.type), error)
    assert type(raised) is error.exception
    assert str(raised) == error.message


@not_about_kernels
@_parameters(ERRORS)
def test_error_with_grad(function, error):
    arguments = [
        one.requires_grad_() if isinstance(one, torch.Tensor) and one.is_floating_point() else one
        for one in error.make("cpu")
    ]
    with pytest.raises(error.exception) as caught:
        function(*arguments, **error.options)
    assert str(caught.value) == error.message


@not_about_kernels
@_parameters(ERRORS)
def test_error_on_meta(function, error):
    assert str(_raised(function, error.make("meta"), error)) == error.message


@not_about_kernels
@_parameters(MIXED)
def test_error_of_devices(function, error):
    assert str(_raised(function, error.make("cpu"), error)) == error.message


@not_about_kernels
@_parameters(ERRORS)  # of mixed devices torch.compile itself complains first
def test_error_under_compile(function, error):
    torch._dynamo.reset()
    arguments = error.make("cpu")
    compiled = torch.compile(lambda *tensors: function(*tensors, **error.options), backend="eager", fullgraph=True)
    with pytest.raises(Exception) as caught:
        compiled(*arguments)
    assert error.message in _whole_text(caught.value)


def _whole_text(error: BaseException | None) -> str:
    parts = []
    while error is not None:
        parts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


@not_about_kernels
def test_unknown_capability():
    with pytest.raises(ValueError) as caught:
        config.set_cpu_capability("mmx")
    expected = "set_cpu_capability(): expected name to be one of baseline, avx2, avx512, but got 'mmx'"
    assert str(caught.value) == expected


@not_about_kernels
def test_mixed_devices_under_compile():
    weight = torch.ones(4, 3, 3, 3)
    compiled = torch.compile(lambda input: ops.conv2d(input, weight), fullgraph=True, backend="eager")
    message = r"conv2d\(\): expected weight to be on the device of input \(meta\), but got cpu"
    with pytest.raises(RuntimeError, match=message):
        compiled(torch.ones(2, 3, 8, 8, device="meta"))
