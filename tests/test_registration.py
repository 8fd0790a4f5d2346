"""Every op of the library is registered as torch wants it, and owned by a spec."""

import pytest
import torch
from cases import not_about_kernels
from specs import SPECS
from torch.utils._pytree import tree_leaves, tree_map

import d2lkernels

pytestmark = not_about_kernels

OWNED = [(spec, name) for spec in SPECS for name in spec.dispatcher_ops]


def _registered() -> set[str]:
    schemas = torch._C._dispatch_get_all_op_names()
    return {name.removeprefix("d2lkernels::") for name in schemas if name.startswith("d2lkernels::")}


def test_every_op_has_a_spec():
    assert _registered() == {name for _, name in OWNED}


def test_every_op_has_one_spec():
    names = [name for _, name in OWNED]
    assert sorted(names) == sorted(set(names))


def test_every_function_has_a_spec():
    assert {spec.public or spec.function for spec in SPECS} == {
        getattr(d2lkernels.ops, name) for name in d2lkernels.ops.__all__
    }


@pytest.mark.parametrize("name", sorted(name for _, name in OWNED))
@pytest.mark.parametrize("key", ["CPU", "CUDA", "Meta"])
def test_kernel_is_registered(name, key):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"d2lkernels::{name}", key)


@pytest.mark.parametrize("spec, name", [pytest.param(spec, name, id=name) for spec, name in OWNED])
def test_opcheck(spec, name):
    op = getattr(torch.ops.d2lkernels, name).default
    for arguments in spec.dispatcher_ops[name]("cpu"):
        results = torch.library.opcheck(op, arguments)
        assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("spec, name", [pytest.param(spec, name, id=name) for spec, name in OWNED])
def test_meta_strides(spec, name):
    """A meta tensor gets the sizes, strides and dtypes that a CPU tensor gets, for each memory format."""
    op = getattr(torch.ops.d2lkernels, name).default
    for arguments in spec.dispatcher_ops[name]("cpu"):
        for format in (torch.contiguous_format, torch.channels_last):
            formatted = _each_tensor(arguments, lambda one, format=format: _formatted(one.detach(), format))
            meta = _each_tensor(formatted, lambda one: one.to("meta"))
            ours, theirs = tree_leaves(op(*formatted)), tree_leaves(op(*meta))
            for real, fake in zip(ours, theirs, strict=True):
                assert fake.device.type == "meta"
                assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


def _each_tensor(arguments, function):
    return tree_map(lambda one: function(one) if isinstance(one, torch.Tensor) else one, list(arguments))


def _formatted(tensor, format):
    return tensor.contiguous(memory_format=format) if tensor.dim() == 4 else tensor


def test_tangents_around_the_wrappers_are_refused():
    """An op called directly must not drop a tangent silently."""
    with torch.autograd.forward_ad.dual_level():
        input = torch.autograd.forward_ad.make_dual(torch.randn(1, 1, 2, 2), torch.randn(1, 1, 2, 2))
        with pytest.raises(NotImplementedError, match=r"call d2lkernels\.ops instead"):
            torch.ops.d2lkernels.adaptive_avg_pool2d(input, [1, 1])
