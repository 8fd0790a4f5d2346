"""Every op of the library is registered as torch wants it, and owned by a spec."""

import pytest
import torch
from cases import not_about_kernels
from specs import SPECS
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

import d2lkernels

pytestmark = not_about_kernels

OWNED = [(spec, name) for spec in SPECS for name in spec.dispatcher_ops]

WITHOUT_VMAP_RULE = {
    # It writes running statistics in place. Under vmap, batch_norm calls batch_norm_train and moves them itself.
    "batch_norm_train_update",
}


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


def test_every_op_has_a_vmap_rule():
    def has_rule(name):
        return torch._C._dispatch_has_kernel_for_dispatch_key(f"d2lkernels::{name}", "FuncTorchBatched")

    assert {name for _, name in OWNED if not has_rule(name)} == WITHOUT_VMAP_RULE


@pytest.mark.parametrize(
    "spec, name", [pytest.param(spec, name, id=name) for spec, name in OWNED if name not in WITHOUT_VMAP_RULE]
)
def test_vmap_of_the_op(spec, name):
    """The op itself, not its wrapper, which may call others under vmap: all tensors batched, and each one alone."""
    op = getattr(torch.ops.d2lkernels, name).default
    for arguments in spec.dispatcher_ops[name]("cpu"):
        leaves, structure = tree_flatten(_each_tensor(arguments, torch.Tensor.detach))
        places = [place for place, one in enumerate(leaves) if isinstance(one, torch.Tensor)]
        for batched in (places, *([place] for place in places)):
            dims = [0 if place in batched else None for place in range(len(leaves))]
            problems = [_problem(leaves, batched, i) for i in range(3)]
            expected = [tree_leaves(op(*tree_unflatten(one, structure))) for one in problems]
            batches = [
                torch.stack(values) if dim == 0 else values[0]
                for values, dim in zip(zip(*problems, strict=True), dims, strict=True)
            ]
            batched_op = torch.vmap(op, tuple(tree_unflatten(dims, structure)))
            actual = tree_leaves(batched_op(*tree_unflatten(batches, structure)))
            for mine, theirs in zip(actual, zip(*expected, strict=True), strict=True):
                torch.testing.assert_close(mine, torch.stack(theirs))


def _problem(leaves, places, i):
    """Other values at these places; integers stay the targets, offsets and seeds that they are."""
    return [
        one * (1 + 0.5 * i) + 0.1 * i if place in places and one.is_floating_point() else one
        for place, one in enumerate(leaves)
    ]


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
