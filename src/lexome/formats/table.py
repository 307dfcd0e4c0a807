"""Tables: TSV, CSV and Parquet, row by row."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lexome.core import FormatError, nearest, need
from lexome.formats.duplicates import SeenIds
from lexome.formats.letters import check_letters
from lexome.formats.records import SequenceRecord
from lexome.formats.streams import as_text, bare_suffix, byte_blocks, existing_file, lines_of

DELIMITERS = {".tsv": "\t", ".tab": "\t", ".csv": ","}
PARQUET = (".parquet", ".pq")
_PARQUET_ROWS = 256
_USUAL_SEQUENCE_COLUMNS = {"seq", "sequences", "dna", "rna", "nucleotides", "text", "utr"}


@dataclass(frozen=True)
class TableRows:
    """A table that is being read.

    Parameters
    ----------
    columns
        Names, as the file has them, without a ``#`` before the first.
    rows
        Place (1-based line of the file, or row of a Parquet table) and cells as text. A row of a
        text table may have more or fewer cells than there are columns.
    """

    columns: tuple[str, ...]
    rows: Iterator[tuple[int, Sequence[str]]]


def open_table(path: str | Path) -> TableRows:
    """Open a TSV, CSV or Parquet table by its suffix.

    Parameters
    ----------
    path
        Text tables may be gzip or bgzip, have quoted cells, Windows line ends, and lines before
        the column names that begin with ``##`` or ``# ``. In a ``.csv`` without commas in its
        first line, semicolons or tabs separate. Nested columns of a Parquet table are left out.

    Raises
    ------
    FormatError
        If the file is empty, is no table, or names two columns alike.
    """
    if bare_suffix(path) in PARQUET:
        return _parquet_rows(existing_file(path))
    return parse_table(byte_blocks(path), path, DELIMITERS[bare_suffix(path)])


def parse_table(blocks: Iterator[bytes], path: str | Path, delimiter: str) -> TableRows:
    """Read a text table in blocks of bytes; `path` is for messages. See `open_table`."""
    lines = (as_text(line) for line in lines_of(blocks))
    skipped = 0
    header = ""
    for header in lines:
        if header.strip() and not header.startswith(("##", "# ")):
            break
        skipped += 1
    else:
        raise FormatError(path, "holds no line of column names. Expected one; add it.")
    if delimiter == "," and "," not in header:
        delimiter = next((d for d in ";\t" if d in header), ",")
    try:
        (cells,) = csv.reader([header.removeprefix("#")], delimiter=delimiter)
    except csv.Error as error:
        raise _no_cells(error, path, skipped + 1) from None
    columns = tuple(cell.strip() for cell in cells)
    repeated = [c for c in dict.fromkeys(columns) if columns.count(c) > 1]
    if repeated:
        raise FormatError(
            path,
            f"the column {repeated[0]!r} comes more than once. Expected different names; rename "
            "one of them.",
            skipped + 1,
        )
    return TableRows(columns, _text_rows(lines, path, delimiter, skipped + 1))


def _text_rows(
    lines: Iterator[str], path: str | Path, delimiter: str, lines_before: int
) -> Iterator[tuple[int, Sequence[str]]]:
    # The default limit of 128 kB a cell would refuse long sequences; it is one for the process.
    csv.field_size_limit(sys.maxsize)
    line_1based = lines_before + 1
    # The reader joins the lines of a cell in quotes, so they need their ends back.
    # A TSV may have stray marks within cells; in a CSV one that is not closed would swallow rows.
    strict = delimiter != "\t"
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=strict)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _no_cells(error, path, line_1based) from None
        if cells is None:
            return
        if delimiter == "\t" and any("\n" in cell for cell in cells):
            raise FormatError(
                path,
                "a cell begins with a quotation mark that is not closed on the same line. "
                "Expected pairs of quotation marks; remove or double it.",
                line_1based,
            )
        if cells:
            yield line_1based, cells
        line_1based = lines_before + reader.line_num + 1


def _no_cells(error: csv.Error, path: str | Path, line_1based: int) -> FormatError:
    return FormatError(
        path,
        f"cannot be split into cells ({error}). Expected pairs of quotation marks and lines that "
        "end in LF or CRLF; correct them.",
        line_1based,
    )


@contextmanager
def _parquet_errors(path: str | Path) -> Iterator[None]:
    """Turn pyarrow's complaints about a file into ours."""
    arrow_error = need("pyarrow", "report", "to read Parquet tables").ArrowException
    try:
        yield
    except (arrow_error, OSError, UnicodeDecodeError) as error:
        first_line = str(error).partition("\n")[0]
        raise FormatError(
            path,
            f"cannot be read as a Parquet table ({first_line}). Expected a whole Parquet file; "
            "copy or download it again.",
        ) from None


def _parquet_rows(path: Path) -> TableRows:
    parquet = need("pyarrow.parquet", "report", "to read Parquet tables")
    if path.stat().st_size == 0:
        raise FormatError(path, "the file is empty. Expected a Parquet table; make it again.")
    with _parquet_errors(path), parquet.ParquetFile(path) as file:
        columns = tuple(f.name for f in file.schema_arrow if f.type.num_fields == 0)

    def rows() -> Iterator[tuple[int, Sequence[str]]]:
        row_1based = 0
        with _parquet_errors(path), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_PARQUET_ROWS, columns=list(columns)):
                cells = [batch.column(name).to_pylist() for name in columns]
                for row in zip(*cells, strict=True):
                    row_1based += 1
                    yield row_1based, ["" if cell is None else str(cell) for cell in row]

    return TableRows(columns, rows())


def find_column(columns: Sequence[str], name: str, option: str, path: str | Path) -> int:
    """Return the index of a column by its name, or by its name in another case if that is clear.

    Parameters
    ----------
    columns
        The table's names.
    name
        The name wanted.
    option
        How the user can give another name, for the message.
    path
        The table.

    Raises
    ------
    FormatError
        If there is none, with the columns there are and the nearest.
    """
    if name in columns:
        return columns.index(name)
    folded = [c.casefold() for c in columns]
    if folded.count(name.casefold()) == 1:
        return folded.index(name.casefold())
    usual = [column for column in columns if column.casefold() in _USUAL_SEQUENCE_COLUMNS]
    close = usual if name == "sequence" and usual else nearest(name, columns, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise FormatError(
        path,
        f"has no column {name!r}; it has {', '.join(map(repr, columns))}.{hint} "
        f"Name the right one with {option}.",
    )


def read_table(
    path: str | Path,
    sequence: str = "sequence",
    id: str | None = None,
    *,
    unique_names: bool = True,
) -> Iterator[SequenceRecord]:
    """Yield the sequences of a table in order.

    Parameters
    ----------
    path
        ``.tsv``, ``.tab``, ``.csv`` (gzip too) or ``.parquet``; see :func:`open_table`.
    sequence
        Column with the sequences.
    id
        Column with their names, which must differ. None takes a column ``id`` if there is one,
        else the row's number, counted from 1.
    unique_names
        Refuse a name that comes twice.

    Yields
    ------
    Records with all other columns in `fields`, as text.

    Raises
    ------
    FormatError
        With file and line (for Parquet, the row), if a column is missing, a row has more or fewer
        cells than there are columns, a name comes twice, or a sequence has other than letters.
    """
    return table_sequences(open_table(path), path, sequence, id, unique_names=unique_names)


def table_sequences(
    table: TableRows, path: str | Path, sequence: str, id: str | None, *, unique_names: bool
) -> Iterator[SequenceRecord]:
    """Yield the sequences of an open table. See `read_table`."""
    columns = table.columns
    sequence_at = find_column(columns, sequence, "sequence_column", path)
    folded = [c.casefold() for c in columns]
    id_at = -1
    if id is not None:
        id_at = find_column(columns, id, "id_column", path)
    elif folded.count("id") == 1:
        id_at = folded.index("id")
    seen = SeenIds() if unique_names and id_at >= 0 else None
    return _sequences(table, str(path), sequence_at, id_at, seen)


def _sequences(
    table: TableRows, path: str, sequence_at: int, id_at: int, seen: SeenIds | None
) -> Iterator[SequenceRecord]:
    width = len(table.columns)
    others = [(i, c) for i, c in enumerate(table.columns) if i not in {sequence_at, id_at}]
    for row_1based, (place_1based, cells) in enumerate(table.rows, 1):
        if len(cells) != width:
            raise FormatError(
                path,
                f"{len(cells)} cells. Expected {width}, one for each column "
                f"({', '.join(table.columns)}); correct the row.",
                place_1based,
            )
        id = cells[id_at].strip() if id_at >= 0 else str(row_1based)
        if not id:
            raise FormatError(
                path,
                f"the column {table.columns[id_at]!r} is blank here. Expected a name; give one, "
                "or name another column with id_column.",
                place_1based,
            )
        if seen is not None:
            seen.check(id, path, place_1based)
        sequence = cells[sequence_at].strip()
        check_letters(sequence, f"the sequence of {id!r}", path, place_1based)
        yield SequenceRecord(id, sequence, fields={c: cells[i] for i, c in others})
