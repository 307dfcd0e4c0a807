import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexome.core import InputError
from lexome.formats import RowStore, file_fingerprint, writer_for
from lexome.formats import store as store_module

ROWS = 12


def rows_and_vectors(first, count):
    rows = [{"id": f"s{i}", "score": i / 3} for i in range(first, first + count)]
    return rows, {"vector": np.arange(first * 4, (first + count) * 4.0).reshape(-1, 4)}


def run(out):
    """Do the work that is left, three rows at a time."""
    with RowStore(out, {"model": "toy"}) as store:
        done_before = store.rows_done
        while store.rows_done < ROWS:
            store.append(*rows_and_vectors(store.rows_done, 3))
        store.finish(writer_for(out), provenance={"tool": "lexome"})
    return done_before


def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(number, real, action):
    """Wrap `real` so that its call of this number does `action` instead."""
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        return action(real, *args, **kwargs) if calls == number else real(*args, **kwargs)

    return wrapped


def half_written(_real, stream, **_kwargs):
    stream.write(b"PK half of a shard")
    stream.flush()
    die()


def then_die(real, *args, **kwargs):
    real(*args, **kwargs)
    die()


def half_removed(_real, folder):
    next(iter(sorted(Path(folder).glob("*.npz")))).unlink()
    die()


# Where the kill comes, and how many rows are safe then.
KILLS = {
    "before the folder is known": (store_module, "atomic_path", 1, die, 0),
    "while a shard is written": (np, "savez", 3, half_written, 6),
    "before a shard has its name": (Path, "replace", 4, die, 6),
    "after a shard has its name": (Path, "replace", 4, then_die, 9),
    "before the output has its name": (Path, "replace", 6, die, 12),
    "after the output has its name": (Path, "replace", 6, then_die, 12),
    "while the shards are removed": (shutil, "rmtree", 1, half_removed, 0),
}


def run_until_killed(out, moment):
    """Do the work in a child that is killed at the moment; return what ended it."""
    child = os.fork()
    if child == 0:
        owner, name, number, action, _ = KILLS[moment]
        setattr(owner, name, on_call(number, getattr(owner, name), action))
        try:
            run(out)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on
@pytest.mark.parametrize("moment", KILLS)
def test_a_kill_loses_and_repeats_nothing(tmp_path, moment):
    whole = tmp_path / "whole.tsv"
    run(whole)
    out = tmp_path / "out.tsv"
    assert run_until_killed(out, moment) == signal.SIGKILL
    assert run(out) == KILLS[moment][-1]
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if ".writing-" not in p.name) == [
        "out.tsv",
        "whole.tsv",
    ]


def test_an_exception_keeps_the_rows_so_far(tmp_path):
    def interrupted():
        with RowStore(tmp_path / "out.tsv", {}) as store:
            store.append(*rows_and_vectors(0, 5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "out.tsv").exists()
    with RowStore(tmp_path / "out.tsv", {}) as store:
        assert store.rows_done == 5


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), max_size=6), st.integers(0, 6))
def test_rows_come_back_as_they_went_in_whatever_the_shards(tmp_path_factory, counts, stop):
    out = tmp_path_factory.mktemp("store") / "out.npz"
    first = 0
    for part in (counts[:stop], counts[stop:]):
        with RowStore(out, {}) as store:
            assert store.rows_done == first
            for count in part:
                store.append(*rows_and_vectors(first, count))
                first += count
    with RowStore(out, {}) as store:
        stored = store.stored()
        assert stored.count == first
        assert list(stored.rows()) == rows_and_vectors(0, first)[0]
        found = [shard.array("vector") for shard in stored.shards()]
        expected = rows_and_vectors(0, first)[1]["vector"]
        assert np.array_equal(np.concatenate([np.zeros((0, 4)), *found]), expected)


def test_cells_keep_their_type_and_columns_know_it(tmp_path):
    rows = [
        {"s": "a\tb", "i": np.int32(3), "f": np.float32(0.5), "b": True, "n": None, "m": 1},
        {"s": "", "i": 4, "f": 1, "b": np.bool_(False), "n": None, "m": "x", "late": 0.1},
    ]
    with RowStore(tmp_path / "out.tsv", {}) as store:
        store.append(rows)
        stored = store.stored()
    assert list(stored.rows()) == [
        {"s": "a\tb", "i": 3, "f": 0.5, "b": True, "n": None, "m": 1, "late": None},
        {"s": "", "i": 4, "f": 1, "b": False, "n": None, "m": "x", "late": 0.1},
    ]
    assert {name: (c.kind, c.has_missing) for name, c in stored.columns.items()} == {
        "s": (str, False),
        "i": (int, False),
        "f": (float, False),
        "b": (bool, False),
        "n": (str, True),
        "m": (str, False),
        "late": (float, True),
    }


def test_ragged_arrays_keep_their_rows_apart(tmp_path):
    tokens = [np.arange(n * 2, dtype=np.float16).reshape(n, 2) for n in (3, 0, 1)]
    with RowStore(tmp_path / "out.npz", {}) as store:
        store.append([{"id": str(i)} for i in range(3)], {"tokens": tokens})
        (shard,) = store.stored().shards()
    assert shard.offsets("tokens").tolist() == [0, 3, 3, 4]
    assert np.array_equal(shard.array("tokens"), np.concatenate(tokens))
    assert store.stored().arrays["tokens"].ragged


def test_an_array_is_read_in_parts_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_PART_BYTES", 50)
    vectors = np.arange(28, dtype=np.float32).reshape(7, 4)
    tokens = [np.zeros((0, 2, 1), np.int16), np.arange(60, dtype=np.int16).reshape(30, 2, 1)]
    for rows, arrays in ((7, {"vector": vectors}), (2, {"tokens": tokens})):
        out = tmp_path / f"{rows}.npz"
        with RowStore(out, {}) as store:
            store.append([{"id": i} for i in range(rows)], arrays)
            (shard,) = store.stored().shards()
        (name,) = arrays
        parts = list(shard.parts(name))
        assert len(parts) > 1
        assert max(part.nbytes for part in parts) <= 50
        np.testing.assert_array_equal(np.concatenate(parts), shard.array(name))
        spec = shard.specs()[name]
        whole = shard.array(name)
        assert (spec.dtype, spec.shape) == (whole.dtype, whole.shape[1:])
        assert spec.ragged is (name == "tokens")


def test_other_settings_are_refused_and_named(tmp_path):
    out = tmp_path / "out.tsv"
    with RowStore(out, {"model": "toy", "pooling": "mean"}) as store:
        store.append([{"id": "a"}])
    with pytest.raises(InputError, match=r'pooling: "mean" then, "max" now.*overwrite=True'):
        RowStore(out, {"model": "toy", "pooling": "max"})
    with RowStore(out, {"model": "toy", "pooling": "mean"}, overwrite=True) as store:
        assert store.rows_done == 1
    with RowStore(out, {"model": "toy", "pooling": "max"}, overwrite=True) as store:
        assert store.rows_done == 0


def test_rows_are_not_continued_when_that_is_not_wanted(tmp_path):
    out = tmp_path / "out.tsv"
    with RowStore(out, {}) as store:
        store.append([{"id": "a"}])
    with RowStore(out, {}, resume=False) as store:
        assert store.rows_done == 0


def test_two_runs_cannot_write_one_output(tmp_path):
    with RowStore(tmp_path / "out.tsv", {}):
        with pytest.raises(InputError, match=r"another run is writing .*out\.tsv"):
            RowStore(tmp_path / "out.tsv", {})
        with RowStore(tmp_path / "other.tsv", {}):
            pass
    with RowStore(tmp_path / "out.tsv", {}):
        pass


def test_a_lost_shard_is_named(tmp_path):
    out = tmp_path / "out.tsv"
    with RowStore(out, {}) as store:
        for i in range(3):
            store.append([{"id": str(i)}])
    (tmp_path / "out.tsv.partial" / "000000000001-1.npz").unlink()
    with pytest.raises(InputError, match="lacks the shard that begins with row 1"):
        RowStore(out, {})


def test_a_writer_that_fails_leaves_the_rows_for_another_try(tmp_path):
    out = tmp_path / "out.npy"
    with RowStore(out, {}) as store:
        store.append([{"id": "a"}])
        with pytest.raises(InputError):
            store.finish(writer_for(out))
    with RowStore(out, {}) as store:
        assert store.rows_done == 1


def test_arrays_of_another_form_are_refused(tmp_path):
    with RowStore(tmp_path / "out.npz", {}) as store:
        store.append([{"id": "a"}], {"v": np.zeros((1, 3))})
        with pytest.raises(AssertionError):
            store.append([{"id": "b"}], {"v": np.zeros((1, 4))})
        with pytest.raises(AssertionError):
            store.append([{"id": "b"}], {"v": np.zeros((2, 3))})
        assert store.rows_done == 1


def test_no_rows_are_no_shard(tmp_path):
    with RowStore(tmp_path / "out.tsv", {}) as store:
        store.append([])
        assert list(store.stored().shards()) == []


def test_a_changed_file_has_another_fingerprint(make_file):
    before = file_fingerprint(make_file("a.fa", ">a\nAC\n"))
    assert before == file_fingerprint(before["path"])
    assert before != file_fingerprint(make_file("a.fa", ">a\nACG\n"))
    with pytest.raises(InputError, match="no file"):
        file_fingerprint("nowhere.fa")


def test_of_many_settings_that_differ_the_first_are_told(tmp_path):
    out = tmp_path / "out.tsv"
    with RowStore(out, dict.fromkeys("abcdef", 1)):
        pass
    with pytest.raises(InputError, match=r"a: 1 then, 2 now; b: .*; d: 1 then, 2 now; and 2 more"):
        RowStore(out, dict.fromkeys("abcdef", 2))
