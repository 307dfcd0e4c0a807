"""FASTA: records one after the other."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lexome.core import FormatError
from lexome.formats.duplicates import SeenIds
from lexome.formats.letters import describe_letter
from lexome.formats.records import SequenceRecord
from lexome.formats.streams import as_text, byte_blocks, writing

LONGEST_HEADER_BYTES = 1 << 20
_NOT_A_LETTER = re.compile(rb"[^A-Za-z\r\n]")


def read_fasta(path: str | Path, *, unique_names: bool = True) -> Iterator[SequenceRecord]:
    """Yield the records of a FASTA file in order.

    Parameters
    ----------
    path
        Plain, gzip or bgzip; ``"-"`` is stdin.
    unique_names
        Refuse a name that comes twice. Some data sets name records by their class.

    Yields
    ------
    Records with the sequence's letters and case as they are. Blank lines, Windows line ends and a
    missing final line end are accepted; a header without a sequence gives an empty sequence.

    Raises
    ------
    FormatError
        With file and line, if the file is empty, not text, cut off, does not begin with ``>``,
        names two records alike, or has anything but letters in a sequence.
    """
    return parse_fasta(byte_blocks(path), path, unique_names=unique_names)


def parse_fasta(
    blocks: Iterator[bytes], path: str | Path, *, unique_names: bool = True
) -> Iterator[SequenceRecord]:
    """Yield the FASTA records in blocks of bytes; `path` is for messages. See `read_fasta`."""
    name = str(path)
    seen = SeenIds()
    id = description = ""
    parts: list[str] = []
    length = 0
    # A line end that closes a block, or a header without its line end, waits for the next block,
    # so that every header is found as "\n>" in one piece.
    waiting = b"\n"
    line_ends = -1  # before the piece at hand; the first "\n" is ours
    for block in blocks:
        text = waiting + block
        pieces = text.split(b"\n>") if b">" in text else [text]
        if len(pieces) > 1 and b"\n" not in pieces[-1]:
            waiting = b"\n>" + pieces.pop()
        elif pieces[-1].endswith(b"\n"):
            waiting = b"\n"
            pieces[-1] = pieces[-1][:-1]
        else:
            waiting = b""
        for number, piece in enumerate(pieces):
            if number == 0:
                body = piece
                if not id and body.strip():
                    raise no_header(body, name, line_ends)
            else:
                if id:
                    yield SequenceRecord(id, "".join(parts), description)
                line_ends += 1
                first_line, _, body = piece.partition(b"\n")
                id, description = header_of(first_line, name, line_ends + 1)
                if unique_names:
                    seen.check(id, name, line_ends + 1)
                parts, length = [], 0
            letters = body.replace(b"\n", b"")
            if not letters.isalpha():
                letters = body.translate(None, b"\r\n")
                if letters and not letters.isalpha():
                    line_1based = line_ends + 1 + (number > 0)
                    raise _odd_letter(body, id, length, name, line_1based)
            parts.append(letters.decode("ascii"))
            length += len(letters)
            line_ends += piece.count(b"\n")
        if len(waiting) > LONGEST_HEADER_BYTES:
            raise endless_header(name, line_ends + 2)
    if waiting.startswith(b"\n>"):  # a last header without line end
        if id:
            yield SequenceRecord(id, "".join(parts), description)
        id, description = header_of(waiting[2:], name, line_ends + 2)
        if unique_names:
            seen.check(id, name, line_ends + 2)
        parts = []
    if not id:
        raise FormatError(name, "holds only blank lines. Expected records that begin with '>'.")
    yield SequenceRecord(id, "".join(parts), description)


def header_of(raw: bytes, path: str, line_1based: int) -> tuple[str, str]:
    """Return name and description of a header line, given without its ``>``."""
    if b"\r" in raw.removesuffix(b"\r"):
        raise FormatError(
            path,
            "lines end in a bare CR, as on old Macintosh systems. Expected LF or CRLF; convert the "
            "file, e.g. with `tr '\\r' '\\n'`.",
            line_1based,
        )
    id, *description = as_text(raw).split(None, 1) or [""]
    if not id:
        raise FormatError(
            path, "a header without a name. Expected '>' and a name; add one.", line_1based
        )
    return id, description[0].rstrip() if description else ""


def no_header(piece: bytes, path: str, line_ends: int) -> FormatError:
    """Describe a stream whose first text, in `piece` after `line_ends` lines, is no header."""
    blank = len(piece) - len(piece.lstrip())
    line = as_text(piece[blank : blank + 40].split(b"\n")[0].strip())
    message = (
        f"found {line!r} where the first header should be. Expected a line that begins with '>'."
    )
    if line.startswith("@"):
        message += " This looks like FASTQ; name the file .fastq."
    elif re.fullmatch("[A-Za-z]+", line):
        message += " If the file holds one sequence a line, name it .txt."
    else:
        message += " Check that the file is FASTA."
    return FormatError(path, message, line_ends + 1 + piece[:blank].count(b"\n"))


def endless_header(path: str, line_1based: int) -> FormatError:
    """Describe a header that does not end."""
    return FormatError(
        path,
        "a header line of more than one megabyte. Expected a line end after the name; the line "
        "ends seem to be lost.",
        line_1based,
    )


def _odd_letter(body: bytes, id: str, length: int, path: str, line_1based: int) -> FormatError:
    match = _NOT_A_LETTER.search(body)
    assert match is not None
    before = body[: match.start()].translate(None, b"\r\n")
    letter = as_text(match[0])
    return FormatError(
        path,
        f"record {id!r} has {letter!r} where letter {length + len(before) + 1:,} of its sequence "
        f"should be. {describe_letter(letter)}",
        line_1based + body[: match.start()].count(b"\n"),
    )


def write_fasta(path: str | Path, records: Iterable[SequenceRecord], *, line_bp: int = 80) -> int:
    """Write records to a FASTA file that is either whole or not there.

    Parameters
    ----------
    path
        Where to; ``.gz`` makes it bgzip.
    records
        Their `id`, `description` and `sequence` are written.
    line_bp
        Letters a line; 0 for one line a sequence.

    Returns
    -------
    Number of records written.
    """
    written = 0
    with writing(path) as stream:
        for record in records:
            stream.write(fasta_text(record, line_bp).encode())
            written += 1
    return written


def fasta_text(record: SequenceRecord, line_bp: int) -> str:
    """Return one record as FASTA lines."""
    header = f">{record.id} {record.description}".rstrip()
    step = line_bp or max(1, len(record.sequence))
    lines = (record.sequence[i : i + step] for i in range(0, len(record.sequence), step))
    return "\n".join((header, *lines, ""))
