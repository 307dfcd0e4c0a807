"""Results out: tables, vectors, cells and FASTA, by the suffix of the output file.

Every writer streams stored rows shard by shard, and its file appears whole or not at all.
"""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from lexome.core import InputError, UnknownName, atomic_path, need, pick
from lexome.core.json_files import write_json
from lexome.formats.fasta import write_fasta
from lexome.formats.records import SequenceRecord
from lexome.formats.store import ArraySpec, Cell, Column, Shard, StoredRows, Writer
from lexome.formats.streams import bare_suffix, writing

if TYPE_CHECKING:
    import h5py
    import pyarrow as pa

_ROW_GROUP_ROWS = 8192
_ROW_GROUP_BYTES = 1 << 27


def writer_for(path: str | Path, *, ragged: bool = False) -> Writer:
    """Return the writer for an output file, after checking that it can do the job.

    Parameters
    ----------
    path
        ``.tsv``, ``.csv`` (``.gz`` too), ``.parquet``, ``.npz``, ``.npy``, ``.h5ad`` or
        ``.fa``, ``.fasta``.
    ragged
        Whether each row has an array of a length of its own, as with one vector per token. Only
        ``.npz`` (all rows end to end, with their offsets) and ``.parquet`` (lists) can hold these.

    Raises
    ------
    UnknownName
        If no writer has this suffix.
    InputError
        If the format cannot hold ragged arrays.
    MissingExtra
        If the format needs a package that is not installed.
    """
    suffix = bare_suffix(path)
    if not suffix:
        raise UnknownName(
            f"{path} has no suffix that says a format. Expected one of "
            f"{', '.join(OUTPUT_WRITERS)}; name a file with it."
        )
    suffix = pick("output format", suffix, OUTPUT_WRITERS)
    if ragged and suffix not in _FOR_RAGGED:
        raise _not_for_ragged(path)
    if suffix in {".parquet", ".pq"}:
        need("pyarrow", "report", "to write Parquet tables")
    if suffix == ".h5ad":
        need("h5py", "cells", "to write .h5ad files")
    return OUTPUT_WRITERS[suffix]


def _not_for_ragged(path: str | Path) -> InputError:
    return InputError(
        f"{path} cannot hold one vector per token, since its rows would differ in length. Expected "
        f"{' or '.join(_FOR_RAGGED)}; choose one of them, or pool to one vector per record."
    )


def _only_fixed(path: Path, stored: StoredRows) -> None:
    if any(spec.ragged for spec in stored.arrays.values()):
        raise _not_for_ragged(path)


def write_delimited(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write a TSV or CSV: ``# key: value`` lines, column names, rows.

    Vectors follow the columns, one value a column, named ``<array>_0``, ``<array>_1`` and so on.
    Floats are written so that they read back equal; missing values are empty cells; a line break
    within a cell becomes a blank.
    """
    _only_fixed(path, stored)
    _write_rows(path, stored, provenance, stored.arrays)


def _write_rows(
    path: Path,
    stored: StoredRows,
    provenance: Mapping[str, object],
    arrays: Mapping[str, ArraySpec],
) -> None:
    delimiter = "," if bare_suffix(path) == ".csv" else "\t"
    names = [*stored.columns]
    for name, spec in arrays.items():
        width = int(np.prod(spec.shape))
        names += [f"{name}_{i}" for i in range(width)] if spec.shape else [name]
    with writing(path) as stream:
        for key, value in provenance.items():
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            stream.write(f"# {key}: {_one_line(text)}\n".encode())
        stream.write(_delimited([(names, [])], delimiter))
        for shard in stored.shards():
            vectors = [_as_text(shard.array(name)) for name in arrays]
            rows = (
                (
                    [_one_line(_cell(row.get(column))) for column in stored.columns],
                    [number for v in vectors for number in v[at]],
                )
                for at, row in enumerate(shard.rows())
            )
            stream.write(_delimited(rows, delimiter))


def _delimited(rows: Iterable[tuple[list[str], list[str]]], delimiter: str) -> bytes:
    """Return lines of cells, quoted where they must be, and numbers, which never must."""
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter, lineterminator="")
    for cells, numbers in rows:
        table.writerow(cells)
        text.write(delimiter.join(("", *numbers)) + "\n")
    return text.getvalue().encode()


def _one_line(text: str) -> str:
    return " ".join(text.splitlines()) if "\n" in text or "\r" in text else text


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_text(array: np.ndarray) -> list[list[str]]:
    rows = array.reshape(len(array), -1).tolist()
    # As many digits as tell all numbers of the precision apart; Python has its own for doubles.
    digits = {"float16": 5, "float32": 9}.get(array.dtype.name)
    form = str if digits is None else f"%.{digits}g".__mod__
    return [[form(value) for value in row] for row in rows]


def write_parquet(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write a Parquet table; vectors are fixed-size lists, one vector per token lists of these.

    The provenance is JSON under the key ``lexome`` of the schema's metadata.
    """
    arrow = need("pyarrow", "report", "to write Parquet tables")
    parquet = need("pyarrow.parquet", "report", "to write Parquet tables")
    types = {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    fields = [arrow.field(name, types[column.kind]) for name, column in stored.columns.items()]
    fields += [arrow.field(name, _arrow_type(arrow, spec)) for name, spec in stored.arrays.items()]
    schema = arrow.schema(fields, metadata={"lexome": json.dumps(dict(provenance), default=str)})
    texts = [name for name, column in stored.columns.items() if column.kind is str]
    with (
        atomic_path(path) as temporary,
        parquet.ParquetWriter(temporary, schema, use_dictionary=texts or False) as writer,
    ):
        waiting: list[pa.Table] = []
        for shard in stored.shards():
            waiting.append(_arrow_table(arrow, schema, shard, stored))
            rows = sum(len(t) for t in waiting)
            if rows >= _ROW_GROUP_ROWS or sum(t.nbytes for t in waiting) >= _ROW_GROUP_BYTES:
                writer.write_table(arrow.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(arrow.concat_tables(waiting))


def _arrow_type(arrow: ModuleType, spec: ArraySpec) -> "pa.DataType":
    kind = arrow.from_numpy_dtype(spec.dtype)
    for width in reversed(spec.shape):
        kind = arrow.list_(kind, width)
    return arrow.list_(kind) if spec.ragged else kind


def _arrow_table(
    arrow: ModuleType, schema: "pa.Schema", shard: Shard, stored: StoredRows
) -> "pa.Table":
    rows = shard.rows()
    columns = []
    for name, column in stored.columns.items():
        cells = (row.get(name) for row in rows)
        typed = [None if cell is None else column.kind(cell) for cell in cells]
        columns.append(arrow.array(typed, schema.field(name).type))
    for name, spec in stored.arrays.items():
        array = shard.array(name)
        values = arrow.array(array.reshape(-1))
        for width in reversed(spec.shape):
            values = arrow.FixedSizeListArray.from_arrays(values, width)
        if spec.ragged:
            offsets = arrow.array(shard.offsets(name).astype(np.int32))
            values = arrow.ListArray.from_arrays(offsets, values)
        columns.append(values)
    return arrow.Table.from_arrays(columns, schema=schema)


def write_npz(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write arrays as ``.npz``; the rows lie beside as ``<path>.tsv``, the provenance as ``.json``.

    A ragged array is stored end to end, shape (all rows' tokens, ...), with ``<name>_offsets``,
    shape (rows + 1,), which says where each row's part begins.
    """
    _write_beside(path, stored, provenance)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name, spec in stored.arrays.items():
            length = stored.count
            if spec.ragged:
                offsets = _joined_offsets(stored, name)
                length = int(offsets[-1])
                with file.open(f"{name}_offsets.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(cast("IO[bytes]", member), offsets)
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {
                    "descr": np.lib.format.dtype_to_descr(spec.dtype),
                    "fortran_order": False,
                    "shape": (length, *spec.shape),
                }
                np.lib.format.write_array_header_2_0(cast("IO[bytes]", member), header)
                for shard in stored.shards():
                    for part in shard.parts(name):
                        member.write(part.tobytes())


def _joined_offsets(stored: StoredRows, name: str) -> np.ndarray:
    joined = [np.zeros(1, np.int64)]
    for shard in stored.shards():
        joined.append(joined[-1][-1] + shard.offsets(name)[1:])
    return np.concatenate(joined)


def _write_beside(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    rows = path.with_name(f"{path.name}.tsv")
    _write_rows(rows, stored, {}, {})
    write_json(path.with_name(f"{path.name}.json"), provenance, default=str)


def write_npy(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write the one array as ``.npy``, which can be opened as a memory map.

    The rows lie beside as ``<path>.tsv``, the provenance as ``<path>.json``.

    Raises
    ------
    InputError
        If there is more than one array, or it is ragged.
    """
    _only_fixed(path, stored)
    if len(stored.arrays) != 1:
        raise InputError(
            f"{path} holds one array, and there are {len(stored.arrays)} "
            f"({', '.join(stored.arrays) or 'none'}). Expected one; choose .npz instead."
        )
    _write_beside(path, stored, provenance)
    ((name, spec),) = stored.arrays.items()
    with atomic_path(path) as temporary:
        shape = (stored.count, *spec.shape)
        array = np.lib.format.open_memmap(temporary, "w+", spec.dtype, shape)
        for shard in stored.shards():
            array[shard.first_row : shard.first_row + shard.count] = shard.array(name)
        array.flush()


def write_h5ad(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write AnnData: the first array of vectors is `X` (float32), others `obsm`, columns `obs`.

    The column ``id`` names the observations; without one their numbers do, from 0. The provenance
    is JSON in ``uns["lexome"]``. Layout: AnnData on-disk format,
    https://anndata.readthedocs.io/en/latest/fileformat-prose.html.

    Raises
    ------
    InputError
        If an array is ragged, or none is one vector per row.
    """
    _only_fixed(path, stored)
    vectors = [name for name, spec in stored.arrays.items() if len(spec.shape) == 1]
    if not vectors:
        raise InputError(
            f"{path} needs one vector per row, and there is none. Expected vectors; choose .tsv "
            "or .parquet for rows without."
        )
    h5py = need("h5py", "cells", "to write .h5ad files")
    text = h5py.string_dtype()
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        _encode(file, "anndata", "0.1.0")
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            _encode(file.create_group(name), "dict", "0.1.0")
        uns = file["uns"].create_dataset(
            "lexome", data=json.dumps(dict(provenance), default=str), dtype=text
        )
        _encode(uns, "string", "0.2.0")
        width = stored.arrays[vectors[0]].shape[0]
        var = _frame(file, "var", "_index", ())
        _strings(var, "_index", width, text)[:] = [str(i) for i in range(width)]
        matrices = {}
        for name, spec in stored.arrays.items():
            key = "X" if name == vectors[0] else f"obsm/{name}"
            kind = np.float32 if key == "X" else spec.dtype
            shape = (stored.count, *spec.shape)
            matrices[name] = file.create_dataset(key, shape, kind)
            _encode(matrices[name], "array", "0.2.0")
        index = "id" if "id" in stored.columns else "_index"
        keys = {name: name.replace("/", "_") for name in stored.columns if name != index}
        obs = _frame(file, "obs", index, tuple(keys.values()))
        columns = {index: _strings(obs, index, stored.count, text)}
        for name, key in keys.items():
            kind = _obs_kind(stored.columns[name])
            if kind is str:
                columns[name] = _strings(obs, key, stored.count, text)
            else:
                columns[name] = obs.create_dataset(key, (stored.count,), kind)
                _encode(columns[name], "array", "0.2.0")
        for shard in stored.shards():
            span = slice(shard.first_row, shard.first_row + shard.count)
            for name, matrix in matrices.items():
                matrix[span] = shard.array(name)
            rows = shard.rows()
            for name, column in columns.items():
                column[span] = list(_obs_cells(rows, name, column.dtype, shard.first_row))


def _encode(node: "h5py.Group | h5py.Dataset", kind: str, version: str) -> None:
    node.attrs["encoding-type"] = kind
    node.attrs["encoding-version"] = version


def _frame(file: "h5py.File", name: str, index: str, columns: tuple[str, ...]) -> "h5py.Group":
    group = file.create_group(name)
    _encode(group, "dataframe", "0.2.0")
    group.attrs["_index"] = index
    group.attrs["column-order"] = np.array(columns, dtype=object) if columns else np.zeros(0)
    return group


def _strings(group: "h5py.Group", name: str, length: int, text: np.dtype) -> "h5py.Dataset":
    dataset = group.create_dataset(name, (length,), text)
    _encode(dataset, "string-array", "0.2.0")
    return dataset


def _obs_kind(column: Column) -> type:
    # Only float has a missing value of its own, NaN.
    return float if column.has_missing and column.kind is not str else column.kind


def _obs_cells(
    rows: list[dict[str, Cell]], name: str, dtype: np.dtype, first_row: int
) -> Iterator[Cell]:
    for number, row in enumerate(rows, first_row):
        value = row.get(name, str(number) if name == "_index" else None)
        if dtype.kind == "O":
            yield _cell(value)
        else:
            yield np.nan if value is None else value


def write_records(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write FASTA from the columns ``id``, ``sequence`` and, if there, ``description``.

    The provenance lies beside as ``<path>.json``.

    Raises
    ------
    InputError
        If one of the first two columns is missing.
    """
    if stored.count and not {"id", "sequence"} <= set(stored.columns):
        raise InputError(
            f"{path} needs columns id and sequence; there are {', '.join(stored.columns)}. "
            "Choose .tsv or .parquet for other rows."
        )
    write_json(path.with_name(f"{path.name}.json"), provenance, default=str)
    write_fasta(
        path,
        (
            SequenceRecord(
                str(row["id"]), str(row["sequence"] or ""), str(row.get("description") or "")
            )
            for row in stored.rows()
        ),
    )


OUTPUT_WRITERS: dict[str, Writer] = {
    ".tsv": write_delimited,
    ".csv": write_delimited,
    ".parquet": write_parquet,
    ".pq": write_parquet,
    ".npz": write_npz,
    ".npy": write_npy,
    ".h5ad": write_h5ad,
    ".fa": write_records,
    ".fasta": write_records,
}
_FOR_RAGGED = (".npz", ".parquet", ".pq")
