"""FASTQ: reads with their qualities."""

from collections.abc import Iterator
from pathlib import Path

from lexome.core import FormatError
from lexome.formats.duplicates import SeenIds
from lexome.formats.letters import describe_letter
from lexome.formats.records import SequenceRecord
from lexome.formats.streams import as_text, byte_blocks, lines_of


def read_fastq(path: str | Path, *, unique_names: bool = True) -> Iterator[SequenceRecord]:
    """Yield the reads of a FASTQ file in order.

    Parameters
    ----------
    path
        Plain, gzip or bgzip; ``"-"`` is stdin. Four lines a read.
    unique_names
        Refuse a name that comes twice.

    Yields
    ------
    Records with sequence, quality letters and, as description, the rest of the header. A read may
    be empty, as trimming leaves it. Two reads may share a name if their descriptions begin with
    different mate numbers (``1:N:0`` and ``2:N:0``).

    Raises
    ------
    FormatError
        With file and line, if the file is empty, not text, cut off, names two reads alike, has
        anything but letters in a sequence, or a quality of another length than its sequence.
    """
    return parse_fastq(byte_blocks(path), path, unique_names=unique_names)


def parse_fastq(
    blocks: Iterator[bytes], path: str | Path, *, unique_names: bool = True
) -> Iterator[SequenceRecord]:
    """Yield the FASTQ records in blocks of bytes; `path` is for messages. See `read_fastq`."""
    name = str(path)
    seen = SeenIds()
    lines = lines_of(blocks)
    line_1based = 0
    empty = True
    for header in lines:
        line_1based += 1
        if not header.strip():
            continue
        if not header.startswith(b"@"):
            raise _no_header(header, name, line_1based)
        letters, plus, quality = next(lines, None), next(lines, None), next(lines, None)
        if plus is not None and not plus.startswith(b"+"):
            raise FormatError(
                name,
                f"found {as_text(plus[:40])!r} where the '+' line should be. Expected four lines a "
                "read: header, sequence, '+', quality; put each on a line of its own.",
                line_1based + 2,
            )
        if letters is None or plus is None or (quality is None and letters):
            raise FormatError(
                name,
                "the file ends in the middle of a read. Expected four lines a read; the file is "
                "cut off: copy or download it again.",
                line_1based,
            )
        quality = quality or b""
        id, *description = as_text(header[1:]).split(None, 1) or [""]
        if not id:
            raise FormatError(
                name, "a read without a name. Expected '@' and a name; add one.", line_1based
            )
        if letters and not letters.isalpha():
            raise _odd_letter(letters, id, name, line_1based + 1)
        if len(letters) != len(quality):
            raise FormatError(
                name,
                f"read {id!r} has {len(letters):,} bases and {len(quality):,} quality letters. "
                "Expected as many of each; the file is damaged: copy or download it again.",
                line_1based + 3,
            )
        rest = description[0].rstrip() if description else ""
        if unique_names:
            mate = rest[0] if rest[1:2] == ":" and rest[0] in "12" else ""
            seen.check(f"{id} {mate}" if mate else id, name, line_1based)
        empty = False
        yield SequenceRecord(id, letters.decode("ascii"), rest, quality.decode("latin-1"))
        line_1based += 3
    if line_1based and empty:
        raise FormatError(name, "holds only blank lines. Expected reads that begin with '@'.")


def _no_header(line: bytes, path: str, line_1based: int) -> FormatError:
    text = as_text(line[:40])
    message = f"found {text!r} where a read should begin. Expected a line that begins with '@'."
    if text.startswith(">"):
        message += " This looks like FASTA; name the file .fasta."
    else:
        message += " Reads must take four lines each; check the lines before."
    return FormatError(path, message, line_1based)


def _odd_letter(letters: bytes, id: str, path: str, line_1based: int) -> FormatError:
    text = as_text(letters)
    at = next(i for i, c in enumerate(text) if not (c.isascii() and c.isalpha()))
    return FormatError(
        path,
        f"read {id!r} has {text[at]!r} where letter {at + 1:,} of its sequence should be. "
        f"{describe_letter(text[at])}",
        line_1based,
    )
