"""What this build can do, and its run-time switches."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from . import _C


def cpu_capability() -> str:
    """The instruction set that the CPU kernels run with: "baseline", "avx2", "avx512" or "amx".

    "amx" is "avx512" with products in the tiles of Intel AMX: those of bfloat16, and those of float32 by splitting each
    value into three bfloat16, exactly. The error of such float32 products against float64 is about half of that of
    multiply-adds; values below 2^-102 may lose bits, and subnormal ones count as zero.
    """
    return _C.cpu_capability()


def supported_cpu_capabilities() -> list[str]:
    """The instruction sets that both this build and this machine have."""
    return _C.supported_cpu_capabilities()


def set_cpu_capability(name: str) -> None:
    """Chooses the instruction set of the CPU kernels, as the environment variable D2LKERNELS_CPU_CAPABILITY does.

    Raises:
        ValueError: for a name that is unknown, or that this build or machine does not have.
    """
    _C.set_cpu_capability(name)


def conv_algorithm() -> str:
    """How the CPU kernels compute convolutions: "auto", "direct" or "winograd" (see :func:`set_conv_algorithm`)."""
    return _C.conv_algorithm()


def set_conv_algorithm(name: str) -> None:
    """Chooses how the CPU kernels compute convolutions, as the environment variable D2LKERNELS_CONV_ALGORITHM does.

    - ``"direct"`` is the strict switch: the sums of the definition. The relative L2 error of float32 against float64,
      for normally distributed inputs, is 2e-7 (16 channels) to 1.2e-6 (512 channels), much like torch's.
    - ``"winograd"`` saves up to five sixths of the multiplications of float32 convolutions with 3x3 or 5x5 kernels,
      stride 1, dilation 1 and one group, and two fifths with 3x3 kernels and stride 2 (the input gradient with a
      padding of 1); 16-bit types are computed in float32. The same error is below 3.5e-6 (up to 512 channels; 6e-7
      with tiles of 2x2, 1.5e-6 with 4x4 for 3x3 kernels); it is relative to a tile, not to each element, and an
      infinity or a NaN spreads to the tiles it touches. All other convolutions are computed directly.
    - ``"auto"``, the default, uses Winograd where it is possible and faster. float64 is always computed directly.

    The choice holds for the whole process, CPU only. :func:`conv2d_algorithm` tells what a convolution gets.

    Raises:
        ValueError: for any other name.
    """
    _C.set_conv_algorithm(name)


@contextmanager
def use_conv_algorithm(name: str) -> Iterator[None]:
    """Sets :func:`set_conv_algorithm` for the body of a ``with`` statement (for all threads of the process)."""
    before = conv_algorithm()
    set_conv_algorithm(name)
    try:
        yield
    finally:
        set_conv_algorithm(before)


def conv2d_algorithm(
    input_size: Sequence[int],
    weight_size: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> dict[str, str]:
    """What a float32 :func:`d2lkernels.ops.conv2d` of these sizes gets on the CPU.

    Returns:
        For each of "forward", "input_grad" and "weight_grad" either "direct" or Winograd's tile: "winograd F(2x2,3x3)",
        F(3x3,3x3), F(4x4,3x3), F(6x6,3x3), F(2x2,5x5) or F(4x4,5x5); for the weight gradient F(3x3,2x2) and so on;
        "winograd F(3x3,3x3) with stride 2".

    Raises:
        ValueError: sizes that do not fit, as in :func:`d2lkernels.ops.conv2d`.

    Example::

        >>> conv2d_algorithm((16, 64, 56, 56), (64, 64, 3, 3), padding=2, dilation=2)["forward"]
        'direct'
    """
    from .ops._arguments import pair
    from .ops.conv2d import _four_pads

    input, weight = torch.empty(input_size, device="meta"), torch.empty(weight_size, device="meta")
    strides, dilations = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    pads = _four_pads(padding, weight, strides, dilations)
    output = torch.ops.d2lkernels.conv2d(input, weight, None, strides, pads, dilations, groups)
    names = _C.conv2d_algorithms(
        input.shape, weight.shape, output.shape[2:], strides, (pads[0], pads[2]), dilations, groups
    )
    return dict(zip(("forward", "input_grad", "weight_grad"), names, strict=True))


def keep_freed_memory(keep: bool = True) -> bool:
    """Lets the process keep the memory of freed CPU tensors for the next ones, instead of giving it back to the system.

    glibc's malloc maps each large tensor anew, and the first touch of fresh pages takes longer than the kernels that
    write them: training steps with large maps or weights run up to 1.6 times as fast with memory kept (AlexNet and
    VGG; native torch gains as well). The process then holds on to its peak, about a tenth more than otherwise.
    ``python -m d2lkernels`` calls this when it starts. It holds for the whole process, CPU only.

    Returns:
        Whether the C library has such a setting (glibc does); elsewhere nothing changes.
    """
    return _C.keep_freed_memory(keep)


def is_cuda_built() -> bool:
    """Whether this build has the CUDA kernels (not whether a GPU is present)."""
    return _C.built_with_cuda


def emulates_cuda() -> bool:
    """Whether this is the test build that runs the CUDA kernels on CPU tensors, in a SIMT emulator."""
    return _C.emulates_cuda


def info() -> dict[str, str]:
    """Versions, build options, instruction sets and devices, by name; `python -m d2lkernels info` prints them."""
    from . import __version__, _build_info

    devices = [f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return {
        "d2lkernels": f"{__version__} (commit {_build_info.GIT_COMMIT}, built {_build_info.BUILT})",
        "python": platform.python_version() + f" ({sys.platform})",
        "torch": torch.__version__,
        "built against torch": _build_info.TORCH_VERSION,
        "compiler": _build_info.COMPILER,
        "CPU instruction set": f"{cpu_capability()} (supported here: {', '.join(supported_cpu_capabilities())})",
        "CPU convolutions": conv_algorithm(),
        "CUDA kernels": _cuda_text(),
        "devices": ", ".join(devices),
    }


def _cuda_text() -> str:
    from . import _build_info

    if emulates_cuda():
        return "emulated on the CPU, for tests"
    if not is_cuda_built():
        return f"off: {_build_info.NO_CUDA_REASON}"
    built = f"built with nvcc {_build_info.CUDA} for {', '.join(_build_info.CUDA_ARCHITECTURES)}"
    if torch.version.cuda is None:
        return f"{built}; off: the torch that is running is a CPU-only build"
    if not torch.cuda.is_available():
        return f"{built}; off: torch sees no GPU"
    return f"{built}; on"


def info_text() -> str:
    """:func:`info` as aligned lines."""
    entries = info()
    width = max(map(len, entries))
    return "\n".join(f"{key:{width}}  {value}" for key, value in entries.items())
