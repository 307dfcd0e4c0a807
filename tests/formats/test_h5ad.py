import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from lexome.core import FormatError, InputError, UnknownName
from lexome.formats import h5ad, read_cells

COUNTS = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [5, 0, 3, 0]], dtype=np.float32)


def cells(matrix, **parts):
    return AnnData(
        X=matrix,
        obs=pd.DataFrame(
            {
                "type": pd.Categorical(["T", "B", None]),
                "age": [3.5, np.nan, 7.0],
                "donor": ["d1", "d2", "d1"],
            },
            index=["c1", "c2", "c3"],
        ),
        var=pd.DataFrame({"feature_name": ["W", "X", "Y", "Z"]}, index=["w", "x", "y", "z"]),
        **parts,
    )


def dense(reader):
    rows = np.zeros((len(reader), len(reader.genes)), np.float32)
    for row, record in zip(rows, reader, strict=True):
        assert (np.diff(record.indices) > 0).all()
        assert (record.values != 0).all()
        row[record.indices] = record.values
    return rows


@pytest.fixture(params=[sp.csr_matrix, np.asarray])
def path(request, tmp_path, monkeypatch):
    monkeypatch.setattr(h5ad, "_CELLS_AT_ONCE", 2)
    cells(request.param(COUNTS), layers={"twice": request.param(2 * COUNTS)}).write_h5ad(
        tmp_path / "a.h5ad"
    )
    return tmp_path / "a.h5ad"


def test_cells_come_in_order_with_their_expressed_genes(path):
    reader = read_cells(path)
    first, second, third = reader
    assert [r.id for r in (first, second, third)] == ["c1", "c2", "c3"]
    assert first.genes is third.genes
    assert list(first.genes) == ["w", "x", "y", "z"]
    assert (first.indices.tolist(), first.values.tolist()) == ([1, 3], [2.0, 1.0])
    assert len(second.indices) == 0
    assert (first.indices.dtype, first.values.dtype) == (np.int64, np.float32)


def test_the_column_of_names_that_the_model_knows_is_taken(path):
    assert read_cells(path, known={"X", "Z", "w"}).gene_column == "feature_name"
    assert list(read_cells(path, known={"X"}).genes) == ["W", "X", "Y", "Z"]
    assert read_cells(path, known={"x", "W"}).gene_column == "var_names"  # as many of both
    assert read_cells(path, known={"TP53"}).gene_column == "var_names"
    assert read_cells(path, genes="var_names", known={"X"}).gene_column == "var_names"


def test_annotations_come_as_text(path):
    first, second, _ = read_cells(path)
    assert first.fields == {"type": "T", "age": "3.5", "donor": "d1"}
    assert second.fields == {"type": "B", "age": "", "donor": "d2"}
    assert read_cells(path).fields == ("type", "age", "donor")


def test_the_matrix_is_read_whole_and_again(path):
    reader = read_cells(path)
    assert np.array_equal(dense(reader), COUNTS)
    assert np.array_equal(dense(reader), COUNTS)
    assert np.array_equal(dense(read_cells(path, layer="twice")), 2 * COUNTS)


def test_a_layer_that_is_not_there_is_named(path):
    with pytest.raises(UnknownName, match=r"no layer named 'twise'\. Did you mean 'twice'"):
        read_cells(path, layer="twise")


def test_raw_counts_are_read(tmp_path):
    whole = cells(sp.csr_matrix(COUNTS))
    processed = whole[:, :2].copy()
    processed.raw = whole
    processed.write_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(dense(read_cells(tmp_path / "a.h5ad", layer="raw")), COUNTS)
    assert np.array_equal(dense(read_cells(tmp_path / "a.h5ad")), COUNTS[:, :2])


def test_gene_names_are_taken_from_the_index_or_a_named_column(path):
    assert list(read_cells(path, genes="feature_name").genes) == ["W", "X", "Y", "Z"]
    with pytest.raises(UnknownName, match="no column of gene names named 'symbol'"):
        read_cells(path, genes="symbol")


def test_ensembl_ids_give_way_to_a_column_of_names(tmp_path):
    adata = cells(sp.csr_matrix(COUNTS))
    adata.var_names = [f"ENSG0000000000{i}" for i in range(4)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    reader = read_cells(tmp_path / "a.h5ad")
    assert (reader.gene_column, list(reader.genes)) == ("feature_name", ["W", "X", "Y", "Z"])
    by_id = read_cells(tmp_path / "a.h5ad", genes="var_names")
    assert by_id.genes[0] == "ENSG00000000000"


def test_stored_zeros_and_unsorted_indices_are_put_right(tmp_path):
    matrix = sp.csr_matrix(
        (np.array([1.0, 0.0, 2.0]), np.array([3, 2, 1]), np.array([0, 3, 3, 3])), shape=(3, 4)
    )
    cells(matrix).write_h5ad(tmp_path / "a.h5ad")
    first = next(iter(read_cells(tmp_path / "a.h5ad")))
    assert (first.indices.tolist(), first.values.tolist()) == ([1, 3], [2.0, 1.0])


def test_a_matrix_stored_by_genes_says_how_to_turn_it(tmp_path):
    cells(sp.csc_matrix(COUNTS)).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(FormatError, match=r"X is stored by genes \(CSC\).*tocsr"):
        read_cells(tmp_path / "a.h5ad")


def test_a_file_without_a_matrix_is_named(tmp_path):
    cells(None).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="has no matrix X"):
        read_cells(tmp_path / "a.h5ad")


@pytest.mark.parametrize("content", ["", "rubbish"])
def test_a_file_that_is_no_hdf5_is_named(make_file, content):
    with pytest.raises(FormatError, match=r"a\.h5ad: cannot be opened as HDF5"):
        read_cells(make_file("a.h5ad", content))


def test_a_truncated_file_is_named(path):
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FormatError, match="cannot be opened as HDF5"):
        read_cells(path)


def test_another_hdf5_file_is_named(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["X"] = COUNTS
    with pytest.raises(FormatError, match="has no 'var'"):
        read_cells(tmp_path / "a.h5ad")
