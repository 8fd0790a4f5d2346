"""The harness behind the tests of the ops: specs, samples, devices and tolerances.

An :class:`OpSpec` says what an op is (ours, native, a float64 reference) and on what it is tried (:class:`Sample`,
:class:`ErrorSample`). The tests are made from the specs, for each :class:`Device` that this build and machine have.

The tolerance is not a constant but follows from the problem: see :func:`error_bound`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import config

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LAYOUTS = ("contiguous", "channels_last", "transposed", "strided", "expanded", "unaligned")


@dataclasses.dataclass(frozen=True)
class Input:
    """A tensor of a sample: its size, and how it lies in memory (one of LAYOUTS).

    "transposed" lies with its last two axes swapped, "strided" is every other element, "expanded" has stride 0 along
    its first axis, "unaligned" begins one element behind an aligned address.
    """

    size: tuple[int, ...]
    layout: str = "contiguous"
    dtype: torch.dtype | None = None  # None: that of the sample
    device: str | None = None  # None: that of the test

    def make(self, seed: int, dtype: torch.dtype, device: str) -> Tensor:
        """Normally distributed values, the same for every device and, but for rounding, every dtype."""
        generator = torch.Generator().manual_seed(seed)
        dtype, device = self.dtype or dtype, self.device or device

        def draw(*size: int) -> Tensor:
            values = torch.randn(size, generator=generator, dtype=torch.float64)
            return (values if dtype.is_floating_point or dtype.is_complex else values * 8).to(dtype).to(device)

        size = self.size
        if self.layout == "contiguous":
            return draw(*size)
        if self.layout == "channels_last":
            return draw(*size).contiguous(memory_format=torch.channels_last)
        if self.layout == "transposed":
            return draw(*size[:-2], size[-1], size[-2]).transpose(-1, -2)
        if self.layout == "strided":
            return draw(*(2 * length for length in size))[tuple(slice(i % 2, None, 2) for i in range(len(size)))]
        if self.layout == "expanded":
            return draw(1, *size[1:]).expand(size)
        if self.layout == "unaligned":
            return draw(1 + math.prod(size))[1:].view(size)
        raise ValueError(f"Input: expected layout to be one of {', '.join(LAYOUTS)}, but got {self.layout!r}")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One call of an op: its tensors come first, in order, then the other arguments by name."""

    name: str
    tensors: tuple[Input | None, ...]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cost: int = 0  # multiply-adds of a forward pass: slow devices leave large samples out

    def make(self, dtype: torch.dtype, device: str) -> list[Tensor | None]:
        """The tensors. The seed follows from the name, so that a sample is the same wherever it is made."""
        seed = zlib.crc32(self.name.encode())
        return [None if one is None else one.make(seed + i, dtype, device) for i, one in enumerate(self.tensors)]


@dataclasses.dataclass(frozen=True)
class ErrorSample:
    """A call that must fail: tensors as Input or any other value, and the full text of the error."""

    name: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    exception: type[Exception]
    message: str

    def make(self, device: str) -> list[Any]:
        return [
            one.make(i, torch.float32, device) if isinstance(one, Input) else one
            for i, one in enumerate(self.arguments)
        ]


@dataclasses.dataclass(frozen=True)
class OpSpec:
    """All that the harness needs to know of an op.

    Args:
        name: as it begins the ids of the tests.
        function: ours, as users call it.
        native: torch's, with the same signature.
        reference: the same again, written as plainly as can be, for float64.
        dispatcher_ops: for each torch.ops.d2lkernels op that belongs to this spec, a function of the device that
            returns argument tuples for torch.library.opcheck.
        samples: what forward and backward are compared on.
        tiny: a few float64-sized problems for what is slow: gradcheck, vmap, torch.compile.
        errors: calls that must fail.
        strategy: a hypothesis strategy of samples.
        is_linear: linear in each tensor, or has a majorant (else it selects some of its inputs): see :func:`magnitude`.
        majorant: for what is neither linear nor selects: a function with the same signature whose values, and whose
            gradients for the absolute grad_output, are those of the op without cancellation.
        keeps_memory_format: whether the output is channels_last if an input is.
        public: the function of d2lkernels.ops behind `function`, where that only adapts the arguments.
        uses_float32_precision: whether TF32 (CUDA, torch.backends.cudnn.conv.fp32_precision) or Winograd (CPU,
            config.set_conv_algorithm) may apply.
    """

    name: str
    function: Callable[..., Any]
    native: Callable[..., Any]
    reference: Callable[..., Any]
    dispatcher_ops: Mapping[str, Callable[[str], list[tuple]]]
    samples: tuple[Sample, ...]
    tiny: tuple[Sample, ...]
    errors: tuple[ErrorSample, ...] = ()
    strategy: Any = None
    is_linear: bool = True
    majorant: Callable[..., Any] | None = None
    keeps_memory_format: bool = True
    public: Callable[..., Any] | None = None
    uses_float32_precision: bool = False
    dtypes: tuple[torch.dtype, ...] = DTYPES

    def __repr__(self) -> str:
        return f"OpSpec({self.name})"


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that kernels run on, in one configuration.

    Args:
        name: as it stands in the ids of the tests.
        type: the torch device type of the tensors.
        capability: the instruction set of the CPU kernels.
        precision: how float32 convolutions are computed: "ieee", by CUDA kernels also "tf32", by CPU kernels also
            "winograd" where it is possible.
    """

    name: str
    type: str
    capability: str | None = None
    precision: str = "ieee"

    @property
    def is_emulated(self) -> bool:
        return self.name.startswith("cuda-emulated")

    @property
    def runs_cuda_kernels(self) -> bool:
        return self.name.startswith("cuda")

    def with_fast_convolution(self) -> Device:
        """The same with the fast but less precise way to compute float32 convolutions."""
        precision = "tf32" if self.runs_cuda_kernels else "winograd"
        return dataclasses.replace(self, name=f"{self.name}-{precision}", precision=precision)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Sets this configuration for the scope."""
        cudnn: Any = torch.backends.cudnn  # its submodules are no modules, to mypy
        conv = cudnn.conv
        before, precision = config.cpu_capability(), conv.fp32_precision
        winograd = self.precision == "winograd"
        try:
            if self.capability is not None:
                config.set_cpu_capability(self.capability)
            conv.fp32_precision = "ieee" if winograd else self.precision
            with config.use_conv_algorithm("winograd" if winograd else "direct"):
                yield
        finally:
            config.set_cpu_capability(before)
            conv.fp32_precision = precision


def devices() -> list[Device]:
    """What this build and machine can run: the CPU with each of its instruction sets, then CUDA or its emulator."""
    if config.emulates_cuda():
        return [Device("cuda-emulated", "cpu")]
    found = [Device(f"cpu-{name}", "cpu", name) for name in config.supported_cpu_capabilities()]
    if torch.cuda.is_available() and config.is_cuda_built():
        found.append(Device("cuda", "cuda"))
    return found


# ---- calls -----------------------------------------------------------------------------------------------------------


def call(function: Callable, tensors: Sequence[Tensor | None], arguments: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The outputs as a tuple.

    Arguments that are tensors (targets, weights of classes) follow the first tensor: to its device, and to its dtype if
    they are no integers.
    """
    first = tensors[0]
    options = {
        name: value.to(first.device, first.dtype if value.is_floating_point() else value.dtype)
        if isinstance(value, Tensor) and first is not None
        else value
        for name, value in arguments.items()
    }
    outputs = function(*tensors, **options)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def converted(tensors: Sequence[Tensor | None], function: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
    return [None if tensor is None else function(tensor) for tensor in tensors]


def gradients(
    function: Callable,
    tensors: Sequence[Tensor | None],
    arguments: Mapping[str, Any],
    grad_output: Tensor,
    wanted: Collection[int],
) -> tuple[Tensor, ...]:
    """The gradients of the first output for the tensors at the places `wanted`, in the order of the tensors."""
    leaves = [
        None if tensor is None else tensor.detach().requires_grad_(place in wanted)
        for place, tensor in enumerate(tensors)
    ]
    output = call(function, leaves, arguments)[0]
    inputs = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    return torch.autograd.grad(output, inputs, grad_output)


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fills what torch.empty allocates with NaN (integers: the largest), so that a place never written is noticed."""
    deterministic: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        deterministic.fill_uninitialized_memory = before[1]


# ---- tolerances ------------------------------------------------------------------------------------------------------

# Roundings of the compute dtype that a result may be off by, in units of its magnitude, however exact native torch is.
FLOOR = 4.0
# TF32 keeps 11 significant bits; both factors of each product are rounded to nearest.
TF32_ERROR = 2.0**-10
# Winograd: relative L2 error for normally distributed inputs, and the largest error of an element as a multiple of the
# root mean square of that.
WINOGRAD_ERROR = 2.5e-6
WINOGRAD_OUTLIER = 16.0


def magnitude(function: Callable, spec: OpSpec, tensors: Sequence[Tensor | None], arguments: Mapping) -> Tensor:
    """What a result would be without cancellation: the scale of its rounding errors. In float64."""
    if spec.majorant is not None:
        return call(spec.majorant, converted(tensors, lambda tensor: tensor.detach().double()), arguments)[0].abs()
    if not spec.is_linear:
        return torch.zeros((), dtype=torch.float64)
    positive = converted(tensors, lambda tensor: tensor.detach().double().abs())
    return call(function, positive, arguments)[0].abs()


def gradient_magnitudes(
    spec: OpSpec,
    tensors: Sequence[Tensor | None],
    arguments: Mapping[str, Any],
    grad_output: Tensor,
    wanted: Collection[int],
) -> list[Tensor]:
    """The same for :func:`gradients`."""
    if spec.majorant is None and spec.is_linear:
        tensors = converted(tensors, torch.Tensor.abs)
    function = spec.majorant or spec.native
    return [one.abs() for one in gradients(function, tensors, arguments, grad_output.abs(), wanted)]


def error_bound(expected: Tensor, native: Tensor, magnitude: Tensor, precision: str = "ieee") -> Tensor:
    """How far a result of native's dtype may be from the float64 value `expected`.

    Twice the largest error of native torch, plus one rounding of the result, FLOOR roundings of the compute dtype
    (float32 for 16-bit types) in units of the magnitude. TF32 adds TF32_ERROR in units of the magnitude; Winograd,
    whose errors are spread over a tile, WINOGRAD_OUTLIER times WINOGRAD_ERROR in units of the root mean square.
    """
    limits = torch.finfo(native.dtype)
    compute = torch.finfo(torch.promote_types(native.dtype, torch.float32))
    finite = expected.isfinite()
    native_error = (native.double() - expected).abs()[finite & native.isfinite()]
    bound = limits.eps * expected.abs() + FLOOR * compute.eps * magnitude + limits.smallest_normal
    if precision == "tf32" and native.dtype == torch.float32:
        bound = bound + TF32_ERROR * magnitude
    if precision == "winograd" and native.dtype != torch.float64 and finite.any():
        bound = bound + WINOGRAD_OUTLIER * WINOGRAD_ERROR * expected[finite].square().mean().sqrt()
    return bound + 2 * (native_error.max() if native_error.numel() else 0.0)


def assert_accurate(
    actual: Tensor, expected: Tensor, native: Tensor, magnitude: Tensor, precision: str = "ieee", what: str = "output"
) -> None:
    """Asserts that `actual` is within :func:`error_bound` of `expected`, and not finite exactly where that is not.

    Args:
        actual: ours.
        expected: in float64; integers must be equal.
        native: torch's result from the same inputs.
        magnitude: see :func:`magnitude`.
    """
    assert actual.shape == expected.shape, f"{what}: size {list(actual.shape)}, expected {list(expected.shape)}"
    assert actual.dtype == native.dtype, f"{what}: dtype {actual.dtype}, expected {native.dtype}"
    if not actual.dtype.is_floating_point:
        wrong = actual != expected
        assert not wrong.any(), f"{what}: {_first(wrong, actual, expected)}"
        return
    expected_in_dtype = expected.to(actual.dtype)
    pattern = (actual.isnan() == expected.isnan()) & (
        actual.isfinite() | ~expected_in_dtype.isfinite()
    )  # an overflow of the dtype is no error
    infinite = expected.isinf()
    pattern &= ~infinite | (actual.double() == expected)
    assert pattern.all(), f"{what}: not finite in the wrong places: {_first(~pattern, actual, expected)}"
    error = (actual.double() - expected).abs()
    bound = error_bound(expected, native, magnitude, precision).expand_as(error)
    wrong = expected.isfinite() & actual.isfinite() & ~(error <= bound)
    assert not wrong.any(), f"{what}: {_first(wrong, actual, expected)}, where the bound is {bound[wrong][0]:.3g}"


def _first(wrong: Tensor, actual: Tensor, expected: Tensor) -> str:
    place = tuple(wrong.nonzero()[0].tolist())
    return (
        f"{int(wrong.sum())} of {wrong.numel()} elements are wrong, the first at {place}: "
        f"{actual[place].item():.9g}, expected {expected[place].item():.9g}"
    )


def strides_that_matter(tensor: Tensor) -> list[int]:
    """The strides of the axes longer than 1: those of the others say nothing. An empty tensor has none."""
    if tensor.numel() == 0:
        return []
    return [stride for stride, length in zip(tensor.stride(), tensor.shape, strict=True) if length > 1]
