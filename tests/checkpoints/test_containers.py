import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lexome.checkpoints import find_weights, read_json, read_weights, write_weights
from lexome.checkpoints.containers import Inert, read_pickle
from lexome.core import CheckpointError, CheckpointMismatch, FormatError, UnsafeCheckpoint

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights.ckpt"])
def test_what_is_written_is_read_again_in_order(tmp_path, name):
    state = "state_dict" if name.endswith(".ckpt") else None
    write_weights(tmp_path / name, TENSORS, state)
    weights = read_weights(tmp_path / name, state)
    assert list(weights.tensors) == ["a", "b"]
    for key, tensor in TENSORS.items():
        assert torch.equal(weights.tensors[key], tensor)
        assert weights.tensors[key].dtype == tensor.dtype


def test_the_legacy_pickle_form_is_read(tmp_path):
    path = tmp_path / "old.bin"
    torch.save(OrderedDict(TENSORS), path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(path).tensors["a"], TENSORS["a"])


def test_shards_are_put_together(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "model-1.safetensors")
    save_file({"b": TENSORS["b"]}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    path = find_weights(tmp_path, ["model.safetensors"])
    assert path is not None
    assert set(read_weights(path).tensors) == {"a", "b"}
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(FormatError, match=r"not there: model-2.safetensors"):
        read_weights(path)


def test_neighbours_of_a_file_are_joined_without_a_copy(tmp_path):
    tensors = {name: torch.randn(n, 3).bfloat16() for name, n in (("a", 2), ("b", 1), ("c", 4))}
    save_file(tensors | {"d": torch.ones(2).bfloat16()}, tmp_path / "one.safetensors")
    weights = read_weights(tmp_path / "one.safetensors")
    for names, mapped in ((["a", "b", "c"], True), (["b", "c"], True), (["c", "a"], False)):
        joined = weights.join(names)
        assert torch.equal(joined, torch.cat([tensors[name] for name in names]))
        assert (str(tmp_path) in _mapping(joined)) == mapped
    before = (tmp_path / "one.safetensors").read_bytes()
    weights.join(["a", "b"]).zero_()
    assert (tmp_path / "one.safetensors").read_bytes() == before
    assert torch.equal(weights.tensors["a"], tensors["a"])


def _mapping(tensor):
    """Return the line of this process's memory map in which a tensor lies."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(end, 16) for end in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < stop:
            return line
    raise AssertionError("every tensor lies somewhere")


def test_parts_of_several_files_or_shapes_are_joined_too(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "model-1.safetensors")
    save_file({"b": TENSORS["a"] + 1}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    joined = read_weights(tmp_path / "model.safetensors.index.json").join(["a", "b"])
    assert torch.equal(joined, torch.cat([TENSORS["a"], TENSORS["a"] + 1]))
    write_weights(tmp_path / "pytorch_model.bin", {"a": TENSORS["a"], "b": TENSORS["a"]})
    pickled = read_weights(tmp_path / "pytorch_model.bin").join(["a", "b"])
    assert torch.equal(pickled, torch.cat([TENSORS["a"], TENSORS["a"]]))


def test_the_preferred_file_is_found_first(tmp_path):
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
    found = find_weights(tmp_path, ["model.safetensors", "pytorch_model.bin"])
    assert found == tmp_path / "model.safetensors"
    assert find_weights(tmp_path, ["weights.ckpt"]) is None


class Bomb:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, eval, exec, pickle.loads, getattr])
def test_a_hostile_pickle_runs_nothing(tmp_path, function, zipped):
    victim = tmp_path / "victim"
    code = f"__import__('pathlib').Path({str(victim)!r}).touch()"
    arguments = (f"touch {victim}",) if function is os.system else (code,)
    content = {"a": TENSORS["a"], "x": Bomb(function, *arguments)}
    path = tmp_path / "evil.bin"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpoint, match="Nothing of it was run"):
        read_pickle(path)
    assert not victim.exists()


class Program(torch.nn.Module):
    """What TorchScript can store, code that runs on loading included."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("hidden", [False, True])
def test_a_torchscript_program_is_not_loaded(tmp_path, monkeypatch, hidden):
    path = tmp_path / "pytorch_model.bin"
    torch.jit.save(torch.jit.script(Program()), path)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the program was loaded"))
    if hidden:  # as from a reader of archives that sees other entries than PyTorch's
        monkeypatch.setattr("lexome.checkpoints.containers._check_archive", lambda path: None)
    with pytest.raises(FormatError if hidden else UnsafeCheckpoint, match="TorchScript"):
        read_weights(path)


def test_a_packed_archive_is_not_unpacked(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save(TENSORS, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(FormatError, match="packed"):
        read_weights(path)


def test_a_hostile_class_of_a_known_package_is_never_imported(tmp_path):
    # numpy is known for its scalars in training left-overs; this one would run a command.
    path = tmp_path / "sly.bin"
    raw = b"cnumpy.testing._private.utils\nruncode\n(S'1/0'\ntR."
    path.write_bytes(raw)
    with pytest.raises((FormatError, UnsafeCheckpoint)):
        read_weights(path)


def test_training_left_overs_become_inert(tmp_path):
    import argparse

    path = tmp_path / "weights.ckpt"
    settings = argparse.Namespace(width=3)
    torch.save({"state_dict": TENSORS, "hyper_parameters": settings, "epoch": 4}, path)
    weights = read_weights(path, "state_dict")
    assert weights.rest["epoch"] == 4
    assert isinstance(weights.rest["hyper_parameters"], Inert)
    assert weights.rest["hyper_parameters"].state == {"width": 3}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"rubbish" * 100, b"PK\x03\x04 cut short"])
def test_rubbish_is_a_clear_error(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=name):
        read_weights(path)


def test_a_cut_checkpoint_is_a_clear_error(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(FormatError, match="download may be incomplete"):
        read_weights(path)


def test_a_file_without_tensors_is_a_clear_error(tmp_path):
    path = tmp_path / "x.bin"
    torch.save({"epoch": 3}, path)
    with pytest.raises(FormatError, match="no tensors, only epoch"):
        read_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(FormatError, match="holds a list"):
        read_weights(path)


def test_json_must_be_an_object(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[1]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(FormatError, match="no valid JSON"):
        read_json(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(path, TENSORS)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_weights(path, {"a": "no tensor"})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def sharded(folder, weight_map):
    """Write TENSORS as two files and an index that says `weight_map` of them."""
    save_file({"a": TENSORS["a"]}, folder / "one.safetensors")
    save_file({"b": TENSORS["b"]}, folder / "two.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.mark.parametrize(
    "place", ["../one.safetensors", "/etc/one.safetensors", "..", "", "x" * 300, "a\0b", 3, None]
)
def test_an_index_may_only_name_files_beside_it(tmp_path, place):
    (tmp_path / "in").mkdir()
    save_file(TENSORS, tmp_path / "one.safetensors")
    path = sharded(tmp_path / "in", {"a": "one.safetensors", "b": place})
    with pytest.raises(FormatError, match=r"names (the shard|shards that are not there)"):
        read_weights(path)


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": null}', "[" * 200_000])
def test_an_index_without_a_table_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=r"index.json: (has no table|is no valid JSON)"):
        read_weights(path)


def test_an_index_that_names_itself_is_refused(tmp_path):
    path = sharded(tmp_path, {"a": "model.safetensors.index.json"})
    with pytest.raises(FormatError, match="Expected names of weight files"):
        read_weights(path)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "one.safetensors"} | {"b": "one.safetensors"},
        {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"},
        {"b": "two.safetensors", "c": "one.safetensors"},
    ],
)
def test_an_index_and_its_shards_must_agree(tmp_path, weight_map):
    with pytest.raises(CheckpointMismatch, match=r"shards lack [012] tensors that it names"):
        read_weights(sharded(tmp_path, weight_map))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    path = sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    save_file({"b": TENSORS["b"], "a": TENSORS["a"] + 1}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"unexpected  a in two\.safetensors"):
        read_weights(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(FormatError, match="git lfs pull"):
        read_weights(path)


class View:
    """Pickles as a tensor of any shape over four numbers."""

    def __init__(self, offset, shape, strides):
        self.view = offset, shape, strides

    def __reduce__(self):
        storage = torch.zeros(4).storage()
        return torch._utils._rebuild_tensor_v2, (storage, *self.view, False, OrderedDict())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "view",
    [
        (0, (1 << 20, 1 << 12), (1 << 12, 1)),
        (2, (2, 2), (2, 1)),
        (0, (5,), (-1,)),
        (-1, (2,), (1,)),
        (0, (-3,), (1,)),
    ],
)
def test_a_tensor_may_not_reach_beyond_its_storage(tmp_path, view, zipped):
    path = tmp_path / "x.bin"
    torch.save({"a": View(*view)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match="in a storage of 4 numbers"):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_views_within_their_storage_are_read(tmp_path):
    path = tmp_path / "x.bin"
    views = {
        "a": (0, (2, 2), (1, 2)),
        "b": (3, (7,), (0,)),
        "c": (9, (0, 3), (3, 1)),
        "d": (1, (), ()),
    }
    torch.save({name: View(*view) for name, view in views.items()}, path)
    tensors = read_weights(path).tensors
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        name: view[1] for name, view in views.items()
    }


def test_a_pickle_cannot_change_pytorchs_functions(tmp_path):
    before = torch._utils._rebuild_tensor_v2.__defaults__
    # Sets an attribute of what it was given: PROTO 2, GLOBAL, (None, {...}), BUILD, STOP.
    path = tmp_path / "sly.bin"
    name = b"ctorch._utils\n_rebuild_tensor_v2\n"
    path.write_bytes(b"\x80\x02" + name + b"N}X\x0c\x00\x00\x00__defaults__)s\x86b.")
    with pytest.raises((FormatError, UnsafeCheckpoint)):
        read_weights(path)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_tensors_have_names_of_letters(tmp_path):
    path = tmp_path / "x.bin"
    torch.save({1: torch.zeros(2)}, path)
    with pytest.raises(FormatError, match="calls a tensor 1"):
        read_weights(path)
