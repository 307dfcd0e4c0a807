"""Cells from .h5ad files, a few at a time.

Layout: AnnData on-disk format, https://anndata.readthedocs.io/en/latest/fileformat-prose.html.
"""

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lexome.core import FormatError, InputError, need, pick
from lexome.formats.streams import existing_file

if TYPE_CHECKING:
    import h5py
    import pandas as pd

_CELLS_AT_ONCE = 512
_GENE_NAME_COLUMNS = ("feature_name", "gene_name", "gene_names", "gene_symbols", "gene_symbol")
_PURPOSE = "to read .h5ad files"


@dataclass(frozen=True, slots=True, eq=False)
class CellRecord:
    """The genes that one cell expresses.

    Parameters
    ----------
    id
        Name of the cell.
    genes
        Names of all genes of the file, shared by all its cells.
    indices
        Which of `genes` have a value other than zero, ascending, shape (expressed,), int64.
    values
        Their values, shape (expressed,), float32.
    fields
        The cell's annotations (`obs`), as text.
    """

    id: str
    genes: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    fields: Mapping[str, str]


class CellReader:
    """The cells of a file, in order, as often as asked. Made by `read_cells`.

    Attributes
    ----------
    path
        The file.
    genes
        Names of the genes, shape (genes,), str.
    gene_column
        The column of `var` that the names are from; ``"var_names"`` for its index.
    fields
        Names of the annotations that each cell has.
    """

    def __init__(
        self, path: str | Path, layer: str | None, genes: str | None, known: Container[str]
    ):
        self.path = existing_file(path)
        with _opened(self.path) as file:
            self._matrix = _matrix_name(file, layer, self.path)
            var = _table(file, "raw/var" if layer == "raw" else "var", self.path)
            obs = _table(file, "obs", self.path)
            self.gene_column = _gene_column(var, genes, known)
            self.genes = np.array(_names(var, self.gene_column), dtype=str)
            self._ids = [str(name) for name in obs.index]
            self._obs = {str(c): obs[c] for c in obs.columns}
            self.fields = tuple(self._obs)
            shape = _shape(file[self._matrix])
        if shape != (len(self._ids), len(self.genes)):
            raise FormatError(
                self.path,
                f"{self._matrix} has the shape {shape}, but there are {len(self._ids):,} cells and "
                f"{len(self.genes):,} genes. Expected them to agree; write the file again.",
            )

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[CellRecord]:
        with _opened(self.path) as file:
            matrix = file[self._matrix]
            cells = len(self._ids)
            rows = (_sparse_rows if _is_sparse(matrix) else _dense_rows)(matrix, cells)
            for number, (indices, values) in enumerate(rows):
                fields = {c: _text(column.iloc[number]) for c, column in self._obs.items()}
                yield CellRecord(self._ids[number], self.genes, indices, values, fields)


def read_cells(
    path: str | Path,
    *,
    layer: str | None = None,
    genes: str | None = None,
    known: Container[str] = frozenset(),
) -> CellReader:
    """Open the cells of an .h5ad file.

    Parameters
    ----------
    path
        The file. Its matrix may be dense or sparse by rows (CSR).
    layer
        Where the counts are: a name among `layers`, ``"raw"``, or None for `X`.
    genes
        The column of `var` that has the genes' names, or ``"var_names"`` for its index. None takes
        the index or the usual column (``feature_name``, ``gene_name``, ``gene_symbols``) that has
        most of the names in `known`; where none has any, the index, unless that holds Ensembl ids.
    known
        Names that the model knows.

    Returns
    -------
    A reader to iterate over, which holds a few hundred cells at a time, and the annotations.

    Raises
    ------
    UnknownName
        If there is no such layer or column.
    FormatError
        If the file is no .h5ad, or its matrix is stored by columns (CSC).
    """
    return CellReader(path, layer, genes, known)


def _opened(path: Path) -> "h5py.File":
    h5py = need("h5py", "cells", _PURPOSE)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FormatError(
            path,
            f"cannot be opened as HDF5 ({error}). Expected a whole .h5ad file; copy or download it "
            "again.",
        ) from None


def _table(file: "h5py.File", name: str, path: Path) -> "pd.DataFrame":
    if name not in file:
        raise FormatError(path, f"has no {name!r}. Expected an .h5ad file as AnnData writes it.")
    return need("anndata.io", "cells", _PURPOSE).read_elem(file[name])


def _matrix_name(file: "h5py.File", layer: str | None, path: Path) -> str:
    layers = list(file.get("layers", ()))
    choices = [*layers, *(["raw"] if "raw/X" in file else [])]
    if layer is None:
        name = "X"
    else:
        pick("layer", layer, choices, listing=f"{path} has {', '.join(choices) or 'none'}.")
        name = "raw/X" if layer == "raw" else f"layers/{layer}"
    if name not in file:
        raise InputError(
            f"{path} has no matrix {name}. Expected one; name a layer: "
            f"{', '.join(choices) or 'there is none'}."
        )
    matrix = file[name]
    encoding = matrix.attrs.get("encoding-type", matrix.attrs.get("h5sparse_format", ""))
    if "csc" in str(encoding):
        raise FormatError(
            path,
            f"{name} is stored by genes (CSC), so that cells cannot be read one by one. Expected "
            "it by cells; convert it with `adata.X = adata.X.tocsr()` and write it again.",
        )
    return name


def _is_sparse(matrix: "h5py.Group | h5py.Dataset") -> bool:
    return not hasattr(matrix, "shape")  # a group of three arrays, and no array itself


def _shape(matrix: "h5py.Group | h5py.Dataset") -> tuple[int, ...]:
    if _is_sparse(matrix):
        return tuple(int(n) for n in matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape")))
    return tuple(matrix.shape)


def _gene_column(var: "pd.DataFrame", genes: str | None, known: Container[str]) -> str:
    columns = [str(c) for c in var.columns]
    if genes is not None:
        return pick("column of gene names", genes, ["var_names", *columns])
    usual = [c for c in _GENE_NAME_COLUMNS if c in columns]
    found = {c: sum(name in known for name in _names(var, c)) for c in ("var_names", *usual)}
    best = max(found, key=found.__getitem__)
    if found[best]:
        return best
    looked_at = _names(var, "var_names")[:1000]
    ensembl = sum(bool(re.match(r"ENS[A-Z]*G\d{6,}", name)) for name in looked_at)
    return usual[0] if usual and ensembl > len(looked_at) / 2 else "var_names"


def _names(var: "pd.DataFrame", column: str) -> list[str]:
    return [str(name) for name in (var.index if column == "var_names" else var[column])]


def _sparse_rows(matrix: "h5py.Group", cells: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    ends = matrix["indptr"][:]
    for first in range(0, cells, _CELLS_AT_ONCE):
        last = min(first + _CELLS_AT_ONCE, cells)
        indices = matrix["indices"][ends[first] : ends[last]].astype(np.int64)
        values = matrix["data"][ends[first] : ends[last]].astype(np.float32)
        for start, end in zip(ends[first:last], ends[first + 1 : last + 1], strict=True):
            row = slice(start - ends[first], end - ends[first])
            yield _expressed(indices[row], values[row])


def _expressed(indices: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if (np.diff(indices) < 0).any():
        order = np.argsort(indices, kind="stable")
        indices, values = indices[order], values[order]
    kept = values != 0
    return (indices, values) if kept.all() else (indices[kept], values[kept])


def _dense_rows(matrix: "h5py.Dataset", cells: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first in range(0, cells, _CELLS_AT_ONCE):
        block = matrix[first : first + _CELLS_AT_ONCE].astype(np.float32)
        for row in block:
            indices = np.flatnonzero(row)
            yield indices, row[indices]


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)
