"""Parametrisation of a test over specs, devices, dtypes and samples: ids `op-device-dtype-sample`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from specs import SPECS

from d2lkernels import config
from d2lkernels.testing import DTYPES, Device, OpSpec, Sample, devices

DEVICES = tuple(devices())
BEST_CPU = [device for device in DEVICES if device.type == "cpu" and not device.is_emulated][-1:]
# Where one instruction set is as good as another: the fastest CPU, and CUDA if it is there.
ONE_PER_TYPE = (*BEST_CPU, *(device for device in DEVICES if device.type == "cuda"))

# The emulator does about 1 GFLOP/s.
EMULATED_COST = 3_000_000

not_about_kernels = pytest.mark.skipif(
    config.emulates_cuda(), reason="not about kernels: the ordinary build tests it, the emulated one need not"
)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def over(
    specs: Iterable[OpSpec] = SPECS,
    devices: Iterable[Device] = DEVICES,
    dtypes: Iterable[torch.dtype] | None = None,
    samples: Callable[[OpSpec], Iterable[Sample]] | None = None,
):
    """Parametrises a test that takes spec and device, and sample and dtype where they are given here."""
    names = ["spec", "device", *(["dtype"] if dtypes else []), *(["sample"] if samples else [])]
    found = []
    for spec in specs:
        for device in devices:
            for dtype in dtypes or (None,):
                if dtype is not None and dtype not in spec.dtypes:
                    continue
                if device.name == "cpu-amx" and dtype not in (None, torch.bfloat16, torch.float32):
                    continue  # the kernels of AVX-512
                for sample in samples(spec) if samples else (None,):
                    for variant in _precisions(spec, device, dtype, sample):
                        values = [value for value in (spec, variant, dtype, sample) if value is not None]
                        parts = [spec.name, variant.name, dtype and dtype_name(dtype), sample and sample.name]
                        found.append(
                            pytest.param(*values, id="-".join(filter(None, parts)), marks=_marks(variant, sample))
                        )
    return pytest.mark.parametrize(names, found)


def _precisions(spec: OpSpec, device: Device, dtype: torch.dtype | None, sample: Sample | None) -> list[Device]:
    if dtype != torch.float32 or not spec.uses_float32_precision:
        return [device]
    if device.runs_cuda_kernels or sample is None or _may_run_winograd(sample):
        return [device, device.with_fast_convolution()]
    return [device]


def _may_run_winograd(sample: Sample) -> bool:
    weight_size = sample.arguments.get("weight_size") or sample.tensors[1].size
    if tuple(weight_size[2:]) not in ((3, 3), (5, 5)):
        return False
    possible = {"stride": (1, (1, 1), 2, (2, 2)), "dilation": (1, (1, 1)), "groups": (1,)}
    return all(sample.arguments.get(name, 1) in values for name, values in possible.items())


def _marks(device: Device, sample: Sample | None) -> list:
    if device.is_emulated and sample is not None and sample.cost > EMULATED_COST:
        return [pytest.mark.skip(reason=f"more than {EMULATED_COST:,} multiply-adds: too slow in the emulator")]
    return []


__all__ = ["DEVICES", "DTYPES", "ONE_PER_TYPE", "dtype_name", "not_about_kernels", "over"]
