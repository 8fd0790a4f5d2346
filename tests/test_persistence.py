"""Saving and loading: values come back, strangers' files run no code, what does not fit is named."""

from __future__ import annotations

import os
import pickle
import stat
import sys
from collections import OrderedDict

import pytest
import torch

import d2lkernels
from d2lkernels import PersistenceError, models
from d2lkernels.data import load_fashion_mnist
from d2lkernels.training import TrainConfig, Trainer

FORMATS = pytest.mark.parametrize("format", ["safetensors", "torch"])


def assert_same(one, other) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


base = torch.arange(12.0).reshape(3, 4)
VALUES = {
    "tensor": base,
    "scalar": torch.tensor(3, dtype=torch.int16),
    "empty": torch.zeros(0, 2),
    "list": [torch.arange(4), torch.zeros(4).bfloat16()],
    "dict": {"x": torch.ones(2), "y": torch.tensor([True])},
    "nested": {"a": [(base, {"b": [base.half()]}), []], 3: None, "c": {"lr": 0.1, "name": "x", "on": True}},
    "views": [base.t(), base[:, 1], base, base.expand(2, 3, 4)],
    "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "keys that look alike": {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), "['a']": {"": torch.full((1,), 2.0)}},
}


@FORMATS
@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(tmp_path, name, format):
    path = tmp_path / "values"
    d2lkernels.save(VALUES[name], path, format=format)
    assert_same(d2lkernels.load(path), VALUES[name])
    assert [item.name for item in tmp_path.iterdir()] == ["values"]


@FORMATS
def test_parameters_go_into_a_model_of_either_back_end(tmp_path, format):
    model = models.build("bn_lenet")
    model.train()(torch.rand(4, 1, 28, 28))
    d2lkernels.save(model, tmp_path / "mlp.params", format=format)
    native = models.build("bn_lenet", nn=torch.nn)
    assert d2lkernels.load_parameters(native, tmp_path / "mlp.params") is native
    assert_same(dict(native.state_dict()), dict(model.state_dict()))
    assert native[0].weight.stride() == model[0].weight.stride()


def test_files_of_others_are_read(tmp_path):
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in models.build("mlp", num_hiddens=4).state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(OrderedDict(state), tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        assert_same(dict(d2lkernels.load(tmp_path / name)), dict(sorted(state.items())) if name != "a.pt" else state)
        d2lkernels.load_parameters(models.build("mlp", num_hiddens=4), tmp_path / name)


def test_a_checkpoint_of_training_has_the_parameters(tmp_path):
    data = load_fashion_mnist("sample", notify=lambda text: None)
    trainer = Trainer(TrainConfig("mlp", 32, 0.1, 1), data)
    trainer.save(tmp_path / "c.safetensors")
    model = d2lkernels.load_parameters(models.build("mlp"), tmp_path / "c.safetensors")
    assert_same(dict(model.state_dict()), dict(trainer.model.state_dict()))


class Harmful:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder: str) -> None:
        self.folder = folder


@pytest.mark.parametrize("writer", ["pickle", "torch", "old torch"])
def test_a_file_from_a_stranger_runs_no_code(tmp_path, writer):
    path, harm = tmp_path / "file", tmp_path / "harm"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Harmful(str(harm))))
    else:
        torch.save({"x": Harmful(str(harm))}, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(PersistenceError, match="reading it would run code, which is refused"):
        d2lkernels.load(path)
    with pytest.raises(PersistenceError, match="would run code"):
        d2lkernels.load_parameters(models.build("mlp"), path)
    assert not harm.exists()


@FORMATS
@pytest.mark.parametrize("keep", [0, 1, 5, 300, -1])
def test_a_damaged_file_is_said_to_be_one(tmp_path, format, keep):
    path = tmp_path / "file"
    d2lkernels.save({"x": torch.rand(100)}, path, format=format)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PersistenceError, match=r"expected .*file to "):
        d2lkernels.load(path)


@pytest.mark.parametrize("length", range(0x4B40, 0x4B60, 8))
def test_a_header_whose_length_looks_like_another_format_is_read(tmp_path, length):
    """Safetensors files start with the length of their header: 0x..80 like a pickle, 0x4b50 ("PK") like an archive."""
    from safetensors.torch import save_file

    path = tmp_path / "x"
    for size in (length, 0x180):
        save_file({"x": base}, path, metadata={"note": ""})
        room = size - int.from_bytes(path.read_bytes()[:8], "little")
        for note in range(room - 8, room + 1):
            save_file({"x": base}, path, metadata={"note": "n" * note})
            if int.from_bytes(path.read_bytes()[:8], "little") == size:
                break
        assert int.from_bytes(path.read_bytes()[:8], "little") == size
        assert torch.equal(d2lkernels.load(path)["x"], base)


@pytest.mark.parametrize("value", ["[]", "{", '{"list": 3}', '{"tensor": "absent"}', '{"run": "x"}', "[" * 100_000])
def test_a_structure_that_makes_no_sense_is_refused(tmp_path, value):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "f", metadata={"format": "d2lkernels values 1", "value": value})
    with pytest.raises(PersistenceError, match="to say how its tensors belong together"):
        d2lkernels.load(tmp_path / "f")


def test_what_does_not_fit_is_named_and_the_model_stays_as_it_was(tmp_path):
    path = tmp_path / "file"
    model = models.build("mlp", num_hiddens=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for state, message in (
        ({k: v for k, v in before.items() if k != "3.bias"}, r"fit the model, but 3\.bias is missing$"),
        ({**before, "9.weight": torch.zeros(1)}, r"9\.weight is not expected$"),
        ({**before, "1.weight": torch.zeros(2, 3)}, r"1\.weight has size \[2, 3\], not \[8, 784\]$"),
        ({**before, "1.bias": torch.zeros(8).double()}, r"1\.bias is torch.float64, not torch.float32$"),
        (models.build("lenet").state_dict(), r"0\.bias is not expected; .*; and \d+ more$"),
        ([torch.zeros(1)], "to hold a dict of tensors, but got a list"),
    ):
        d2lkernels.save(dict(state) if not isinstance(state, list) else state, path)
        with pytest.raises(PersistenceError, match=message):
            d2lkernels.load_parameters(model, path)
        assert_same(dict(model.state_dict()), before)


def test_what_cannot_be_saved_is_named(tmp_path):
    loop: list = []
    loop.append(loop)
    for value, message in (
        ({"a": [torch.zeros(1), object()]}, r"value\['a'\]\[1\] to be a tensor, .*, but got a object"),
        ({(1, 2): torch.zeros(1)}, r"the keys of value to be plain values, but got \(1, 2\)"),
        (loop, "no container within itself"),
        (lambda: None, "but got a function"),
    ):
        with pytest.raises(PersistenceError, match=message):
            d2lkernels.save(value, tmp_path / "x")
    with pytest.raises(ValueError, match="format to be"):
        d2lkernels.save(base, tmp_path / "x", format="pickle")
    assert list(tmp_path.iterdir()) == []


def test_the_umask_says_who_may_read_a_file(tmp_path):
    before = os.umask(0o027)
    try:
        for format in ("safetensors", "torch"):
            d2lkernels.save(base, tmp_path / format, format=format)
            assert stat.S_IMODE((tmp_path / format).stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    d2lkernels.save(base, path)
    (tmp_path / f"x.{os.getpid()}.part").mkdir()
    for format in ("safetensors", "torch"):
        with pytest.raises(PersistenceError, match="x cannot be written"):
            d2lkernels.save(base + 1, path, format=format)
    assert torch.equal(d2lkernels.load(path), base)
    with pytest.raises(PersistenceError, match="to be a file, but got: No such file"):
        d2lkernels.load(tmp_path / "absent")
    with pytest.raises(PersistenceError, match="to be a file, but got: Is a directory"):
        d2lkernels.load(tmp_path)


def test_without_safetensors_torch_writes_the_file(tmp_path, monkeypatch):
    d2lkernels.save(base, tmp_path / "s")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    d2lkernels.save([base], tmp_path / "t")
    assert_same(d2lkernels.load(tmp_path / "t"), [base])
    with pytest.raises(PersistenceError, match="pip install safetensors"):
        d2lkernels.save(base, tmp_path / "u", format="safetensors")
    with pytest.raises(PersistenceError, match="pip install safetensors"):
        d2lkernels.load(tmp_path / "s")
