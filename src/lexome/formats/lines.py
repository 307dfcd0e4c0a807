"""Plain text with one sequence a line."""

from collections.abc import Iterator
from pathlib import Path

from lexome.formats.letters import check_letters
from lexome.formats.records import SequenceRecord
from lexome.formats.streams import as_text, byte_blocks, lines_of


def read_lines(path: str | Path) -> Iterator[SequenceRecord]:
    """Yield the sequences of a text file that has one on each line.

    Parameters
    ----------
    path
        Plain, gzip or bgzip; ``"-"`` is stdin.

    Yields
    ------
    Records named by their line, counted from 1. Blank lines are passed over.

    Raises
    ------
    FormatError
        With file and line, if the file is empty, not text, or has anything but letters in a line.
    """
    return parse_lines(byte_blocks(path), path)


def parse_lines(blocks: Iterator[bytes], path: str | Path) -> Iterator[SequenceRecord]:
    """Yield the sequences in blocks of bytes; `path` is for messages. See `read_lines`."""
    for line_1based, raw in enumerate(lines_of(blocks), 1):
        line = raw.strip()
        if line:
            sequence = as_text(line)
            check_letters(sequence, "the sequence", path, line_1based)
            yield SequenceRecord(str(line_1based), sequence)
