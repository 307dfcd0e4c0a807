"""BED: intervals of a genome."""

from collections.abc import Iterator
from pathlib import Path

from lexome.core import FormatError
from lexome.formats.streams import as_text, byte_blocks, lines_of
from lexome.sequence import Interval


def read_bed(path: str | Path) -> Iterator[Interval]:
    """Yield the intervals of a BED file in order.

    Parameters
    ----------
    path
        Plain, gzip or bgzip, with tabs or blanks between columns; ``"-"`` is stdin. Columns are
        contig, start, end (0-based half-open, as in the file), and if present name, score and
        strand; others are not read. Comments, ``track`` and ``browser`` lines are passed over.

    Raises
    ------
    FormatError
        With file and line, if the file is empty or not text, or a line has fewer than three
        columns, coordinates that are no whole numbers, or an end before its start.
    """
    return parse_bed(byte_blocks(path), path)


def parse_bed(blocks: Iterator[bytes], path: str | Path) -> Iterator[Interval]:
    """Yield the intervals in blocks of bytes; `path` is for messages. See `read_bed`."""
    name = str(path)
    for line_1based, raw in enumerate(lines_of(blocks), 1):
        if not raw.strip() or raw.startswith((b"#", b"track ", b"browser ")):
            continue
        text = as_text(raw)
        columns = text.split("\t") if "\t" in text else text.split()
        if len(columns) < 3:
            raise FormatError(
                name,
                f"{len(columns)} column{'s' * (len(columns) > 1)} ({text[:40]!r}). Expected "
                "contig, start and end, separated by tabs; check that the file is BED.",
                line_1based,
            )
        contig, start, end = columns[:3]
        if not (start.isdecimal() and end.isdecimal()):
            raise FormatError(
                name,
                f"start {start!r} and end {end!r}. Expected whole numbers, 0-based half-open, "
                "without thousands separators; put '#' before a line of column names.",
                line_1based,
            )
        if int(end) < int(start):
            raise FormatError(
                name,
                f"the interval ends at {end}, before its start {start}. Expected start <= end; "
                "the reverse strand is said in the sixth column.",
                line_1based,
            )
        strand = columns[5].strip() if len(columns) > 5 else "+"
        if strand not in {"+", "-", "."}:
            raise FormatError(
                name,
                f"strand {strand!r} in the sixth column. Expected '+', '-' or '.'.",
                line_1based,
            )
        label = columns[3].strip() if len(columns) > 3 else ""
        yield Interval(contig, int(start), int(end), "" if label == "." else label, strand)
