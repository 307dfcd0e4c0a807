import csv
import gzip
import json
import sys
import tracemalloc
import warnings

import anndata
import numpy as np
import pyarrow.parquet as pq
import pytest

from lexome.core import InputError, MissingExtra, UnknownName
from lexome.formats import OUTPUT_WRITERS, RowStore, outputs, read_fasta, read_table, writer_for

PROVENANCE = {"tool": "lexome 0.1", "arguments": {"pooling": "mean"}, "note": "two\nlines"}
ROWS = [
    {"id": "a", "status": "ok", "score": 0.1, "length": 4, "edge": True},
    {"id": "b", "status": 'bad "one"\tlow', "score": None, "length": 3, "edge": False},
    {"id": "c", "status": "", "score": -1e-30, "length": 10**12, "edge": True},
]
VECTORS = np.array([[0.1, -2.0], [np.nan, 1e-30], [3.0, 0.0]], np.float32)
TOKENS = [np.arange(n * 2, dtype=np.float32).reshape(n, 2) for n in (2, 0, 3)]


def write(out, rows=ROWS, arrays=None, per_shard=2, **kwargs):
    with RowStore(out, {}) as store:
        for at in range(0, len(rows), per_shard):
            part = slice(at, at + per_shard)
            store.append(rows[part], {n: a[part] for n, a in (arrays or {}).items()})
        store.finish(writer_for(out, **kwargs), provenance=PROVENANCE)
    return out


@pytest.mark.parametrize(("name", "delimiter"), [("out.tsv", "\t"), ("out.csv.gz", ",")])
def test_tables_open_with_their_provenance_and_read_back_equal(tmp_path, name, delimiter):
    out = write(tmp_path / name, arrays={"vector": VECTORS, "rank": np.arange(3)})
    text = (gzip.decompress(out.read_bytes()) if name.endswith("gz") else out.read_bytes()).decode()
    assert text.splitlines()[:3] == [
        "# tool: lexome 0.1",
        '# arguments: {"pooling": "mean"}',
        "# note: two lines",
    ]
    names, *rows = csv.reader(text.splitlines()[3:], delimiter=delimiter)
    assert names == ["id", "status", "score", "length", "edge", "vector_0", "vector_1", "rank"]
    assert rows[0] == ["a", "ok", "0.1", "4", "true", "0.100000001", "-2", "0"]
    assert rows[1] == ["b", 'bad "one"\tlow', "", "3", "false", "nan", "1e-30", "1"]
    found = np.array([row[5:7] for row in rows], np.float32)
    assert np.array_equal(found, VECTORS, equal_nan=True)
    assert rows[2][:4] == ["c", "", "-1e-30", "1000000000000"]


def test_line_breaks_within_cells_become_blanks(tmp_path):
    out = write(tmp_path / "out.tsv", [{"id": "a", "note": "one\r\ntwo\rthree\n"}])
    assert out.read_text().splitlines()[-1] == "a\tone two three"


def test_a_table_of_ours_can_be_read_again(tmp_path):
    out = write(tmp_path / "out.tsv", [{"id": "a", "sequence": "ACGT", "score": 1.5}])
    (record,) = read_table(out)
    assert (record.id, record.sequence, record.fields) == ("a", "ACGT", {"score": "1.5"})


def test_parquet_keeps_types_vectors_and_provenance(tmp_path):
    cubes = np.arange(12, dtype=np.int16).reshape(3, 2, 2)
    out = write(
        tmp_path / "out.parquet", arrays={"vector": VECTORS, "cube": cubes, "rank": np.arange(3)}
    )
    table = pq.read_table(out)
    assert [str(f.type) for f in table.schema] == [
        "string",
        "string",
        "double",
        "int64",
        "bool",
        "fixed_size_list<element: float>[2]",
        "fixed_size_list<element: fixed_size_list<element: int16>[2]>[2]",
        "int64",
    ]
    assert table.select(list(ROWS[0])).to_pylist() == ROWS
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), VECTORS, True)
    assert np.array_equal(np.array(table["cube"].to_pylist()), cubes)
    assert json.loads(table.schema.metadata[b"lexome"]) == PROVENANCE


def test_parquet_gathers_small_shards_into_large_row_groups(tmp_path):
    rows = [{"id": str(i)} for i in range(300)]
    out = write(tmp_path / "out.parquet", rows, per_shard=7)
    assert pq.ParquetFile(out).num_row_groups == 1


def test_parquet_holds_one_vector_per_token(tmp_path):
    out = write(tmp_path / "out.parquet", arrays={"tokens": TOKENS}, ragged=True)
    found = pq.read_table(out)["tokens"].to_pylist()
    assert [np.array(x).reshape(-1, 2).tolist() for x in found] == [t.tolist() for t in TOKENS]


def test_npz_holds_arrays_and_lays_rows_and_provenance_beside(tmp_path):
    out = write(tmp_path / "out.npz", arrays={"vector": VECTORS, "tokens": TOKENS}, ragged=True)
    with np.load(out) as arrays:
        assert sorted(arrays.files) == ["tokens", "tokens_offsets", "vector"]
        assert np.array_equal(arrays["vector"], VECTORS, equal_nan=True)
        assert arrays["tokens_offsets"].tolist() == [0, 2, 2, 5]
        assert np.array_equal(arrays["tokens"], np.concatenate(TOKENS))
    assert (tmp_path / "out.npz.tsv").read_text().splitlines()[0].split("\t") == list(ROWS[0])
    assert json.loads((tmp_path / "out.npz.json").read_text()) == PROVENANCE


def test_npy_holds_one_array_in_row_order(tmp_path):
    out = write(tmp_path / "out.npy", arrays={"vector": VECTORS})
    found = np.load(out, mmap_mode="r")
    assert found.dtype == np.float32
    assert np.array_equal(found, VECTORS, equal_nan=True)
    assert len((tmp_path / "out.npy.tsv").read_text().splitlines()) == 4
    with pytest.raises(InputError, match=r"there are 2 \(a, b\).*choose \.npz"):
        write(tmp_path / "two.npy", arrays={"a": VECTORS, "b": VECTORS})


def test_the_rows_beside_vectors_do_not_overwrite_a_table_of_the_same_stem(tmp_path):
    (tmp_path / "reads.tsv").write_text("the input")
    write(tmp_path / "reads.npy", arrays={"vector": VECTORS})
    assert (tmp_path / "reads.tsv").read_text() == "the input"


def test_h5ad_is_read_by_anndata_without_a_warning(tmp_path):
    out = write(
        tmp_path / "out.h5ad",
        [row | {"a/b": row["id"], "n": None} for row in ROWS],
        {"vector": VECTORS.astype(np.float64), "last": VECTORS},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = anndata.read_h5ad(out)
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X, VECTORS, equal_nan=True)
    assert np.array_equal(adata.obsm["last"], VECTORS, equal_nan=True)
    assert list(adata.obs_names) == ["a", "b", "c"]
    assert list(adata.var_names) == ["0", "1"]
    assert list(adata.obs.columns) == ["status", "score", "length", "edge", "a_b", "n"]
    assert adata.obs["status"].tolist() == [row["status"] for row in ROWS]
    assert adata.obs["length"].tolist() == [4, 3, 10**12]
    assert adata.obs["edge"].tolist() == [True, False, True]
    assert np.array_equal(adata.obs["score"], [0.1, np.nan, -1e-30], equal_nan=True)
    assert json.loads(adata.uns["lexome"]) == PROVENANCE


def test_h5ad_rows_without_names_are_numbered(tmp_path):
    out = write(tmp_path / "out.h5ad", [{"x": 1}, {"x": 2}, {"x": 3}], {"v": VECTORS}, per_shard=2)
    adata = anndata.read_h5ad(out)
    assert list(adata.obs_names) == ["0", "1", "2"]


def test_h5ad_without_vectors_says_what_to_choose(tmp_path):
    with pytest.raises(InputError, match=r"needs one vector per row.*choose \.tsv"):
        write(tmp_path / "out.h5ad", arrays={"rank": np.arange(3)})


def test_fasta_holds_named_sequences(tmp_path):
    rows = [{"id": "a", "sequence": "ACGT", "description": "made up"}, {"id": "b", "sequence": ""}]
    out = write(tmp_path / "out.fa", rows)
    assert [(r.id, r.sequence, r.description) for r in read_fasta(out)] == [
        ("a", "ACGT", "made up"),
        ("b", "", ""),
    ]
    assert json.loads((tmp_path / "out.fa.json").read_text()) == PROVENANCE
    with pytest.raises(InputError, match="needs columns id and sequence; there are id, status"):
        write(tmp_path / "other.fa")


@pytest.mark.parametrize("suffix", sorted(set(OUTPUT_WRITERS) - {".npz", ".parquet", ".pq"}))
def test_one_vector_per_token_is_refused_before_the_work_begins(suffix):
    with pytest.raises(InputError, match=r"cannot hold one vector per token.*\.npz or \.parquet"):
        writer_for(f"out{suffix}", ragged=True)


@pytest.mark.parametrize("name", ["out.tsv", "out.npy", "out.h5ad"])
def test_one_vector_per_token_is_refused_at_the_end_too(tmp_path, name):
    with pytest.raises(InputError, match="cannot hold one vector per token"):
        write(tmp_path / name, arrays={"tokens": TOKENS})


def test_an_unknown_format_is_refused_before_the_work_begins():
    with pytest.raises(UnknownName, match=r"scores has no suffix .* \.tsv, \.csv, \.parquet"):
        writer_for("scores")
    with pytest.raises(UnknownName, match=r"no output format named '\.xlsx'.*\.tsv"):
        writer_for("out.xlsx")


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("a.parquet", "pyarrow", "report"), ("a.h5ad", "h5py", "cells")]
)
def test_a_missing_package_is_named_before_the_work_begins(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"lexome\[{extra}\]"):
        writer_for(name)


@pytest.mark.parametrize("name", ["out.tsv", "out.csv", "out.npz", "out.parquet", "out.fa"])
def test_no_rows_make_an_empty_file(tmp_path, name):
    assert write(tmp_path / name, rows=[]).exists()


@pytest.mark.parametrize("name", ["out.npy", "out.npz", "out.h5ad", "out.parquet"])
def test_writing_holds_a_few_shards_at_a_time(tmp_path, name, monkeypatch):
    shard_bytes = 1 << 20
    monkeypatch.setattr(outputs, "_ROW_GROUP_BYTES", shard_bytes)
    vectors = np.zeros((64, shard_bytes // 64 // 4), np.float32)
    with RowStore(tmp_path / name, {}) as store:
        for number in range(24):
            store.append([{"id": f"{number}-{i}"} for i in range(64)], {"vector": vectors})
        writer = writer_for(tmp_path / name)
        tracemalloc.start()
        store.finish(writer)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 6 * shard_bytes
