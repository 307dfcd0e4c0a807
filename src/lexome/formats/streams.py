"""Bytes in and out: plain, gzip, bgzip and stdin, with the ways they can be broken named."""

import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from lexome.core import FormatError, InputError, atomic_path, nearest

STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 1 << 18
_RAW_BYTES = 1 << 18

# The empty block that ends every whole bgzip file (SAM specification, section 4.1.2).
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

_KNOWN_BY_START = {
    b"\x89PNG": "a PNG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive (an .xlsx workbook is one)",
    b"\x89HDF": "an HDF5 file (.h5, .h5ad)",
    b"PAR1": "a Parquet table",
    b"BAM\x01": "a BAM file",
    b"BCF\x02": "a BCF file",
    b"CRAM": "a CRAM file",
    b"\x43\x27\x41\x1a": "a 2bit genome; turn it into FASTA with twoBitToFa",
    b"\x1a\x41\x27\x43": "a 2bit genome; turn it into FASTA with twoBitToFa",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it, gzip and bgzip are read as they are",
    b"BZh": "compressed with bzip2; decompress it, gzip and bgzip are read as they are",
    b"\xfd7zXZ": "compressed with xz; decompress it, gzip and bgzip are read as they are",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}


class Sink(Protocol):
    """Anything that takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""
        ...


def refuse_frame(source: object, instead: str) -> None:
    """Refuse a data frame, which hands out the names of its columns and not its rows.

    Parameters
    ----------
    source
        What should be sequences or variants.
    instead
        What to give of it, as code.

    Raises
    ------
    InputError
        If it has columns.
    """
    if hasattr(source, "columns"):
        names = ", ".join(repr(str(name)) for name in list(getattr(source, "columns", ()))[:6])
        raise InputError(
            f"a {type(source).__name__} with the columns {names} was given. Expected its rows; "
            f"pass {instead}, or the name of a file."
        )


def existing_file(path: str | Path) -> Path:
    """Return `path` if it is a file, or say what it is instead.

    Raises
    ------
    InputError
        If there is no such file (with the nearest names beside it), or it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder. Expected a file; name one of the files in it.")
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, beside)
        hint = f"Did you mean {' or '.join(close)}?" if close else "Check the path."
        raise InputError(f"there is no file {path}. Expected a file that exists. {hint}")
    return path


def bare_suffix(path: str | Path) -> str:
    """Return the suffix in lower case, without a final ``.gz``, ``.bgz`` or ``.bgzf``.

    Examples
    --------
    >>> bare_suffix("Reads.FASTQ.gz"), bare_suffix("genome.fa"), bare_suffix("names")
    ('.fastq', '.fa', '')
    """
    suffixes = [s.lower() for s in Path(path).suffixes]
    if suffixes and suffixes[-1] in {".gz", ".bgz", ".bgzf"}:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def byte_blocks(path: str | Path) -> Iterator[bytes]:
    """Yield the text of a file in blocks of about 256 kB, decompressed where needed.

    Parameters
    ----------
    path
        A plain, gzip or bgzip file, told apart by content; ``"-"`` is stdin.

    Yields
    ------
    Non-empty blocks that may end in the middle of a line. A UTF-8 byte order mark is left out.

    Raises
    ------
    InputError
        If there is no such file.
    FormatError
        If it is empty, not text, or its compression is damaged or cut off.
    """
    blocks = _decompressed(path)
    first = next(blocks, b"")
    if not first:
        raise FormatError(path, "the file is empty. Expected at least one record; make it again.")
    _refuse_binary(first, path)
    first = first.removeprefix(b"\xef\xbb\xbf")
    if first:
        yield first
    yield from blocks


def _refuse_binary(first: bytes, path: str | Path) -> None:
    for start, what in _KNOWN_BY_START.items():
        if first.startswith(start):
            raise FormatError(path, f"this is {what}. Expected text.")
    if b"\0" in first[:65536]:
        raise FormatError(
            path,
            f"this is not text: it begins with the bytes {first[:8].hex(' ')} and holds zero "
            "bytes. Expected text, plain or gzip; check that the file is what its name says.",
        )


def _decompressed(path: str | Path) -> Iterator[bytes]:
    with ExitStack() as stack:
        if str(path) == STDIN:
            stream: BinaryIO = sys.stdin.buffer
        else:
            stream = stack.enter_context(existing_file(path).open("rb"))
        first = stream.read(_RAW_BYTES)
        if first.startswith(GZIP_MAGIC):
            if is_bgzf(first) and stream.seekable():
                _check_bgzf_end(stream, path)
            yield from _gunzip(first, stream, path)
        else:
            if first:
                yield first
            while block := stream.read(BLOCK_BYTES):
                yield block


def is_bgzf(start: bytes) -> bool:
    """Tell whether the first 18 bytes of a file are a bgzip block's header."""
    return start[:4] == b"\x1f\x8b\x08\x04" and start[12:16] == b"BC\x02\x00"


def _check_bgzf_end(stream: BinaryIO, path: str | Path) -> None:
    here = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - len(BGZF_END)))
    whole = stream.read() == BGZF_END
    stream.seek(here)
    if not whole:
        raise FormatError(
            path,
            "this bgzip file lacks the empty block that marks its end, so it is most likely cut "
            "off. Expected a whole file: copy or download it again, or, if you know it to be "
            "whole, write it anew with `gzip -dc FILE | bgzip > NEW`.",
        )


def _gunzip(raw: bytes, stream: BinaryIO, path: str | Path) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=31)
    waiting: list[bytes] = []
    waiting_bytes = 0
    read_bytes = len(raw)
    while raw:
        try:
            text = inflater.decompress(raw, BLOCK_BYTES)
        except zlib.error as error:
            raise FormatError(
                path,
                f"the gzip data are damaged within the first {read_bytes:,} bytes of the file "
                f"({error}). Expected a whole gzip file; copy or download it again.",
            ) from None
        if text:
            waiting.append(text)
            waiting_bytes += len(text)
        if waiting_bytes >= BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, waiting_bytes = [], 0
        if inflater.eof:
            # Members may follow each other, and zero bytes may fill up the end.
            raw = inflater.unused_data.lstrip(b"\0")
            while len(raw) < 2 and (more := stream.read(_RAW_BYTES)):
                read_bytes += len(more)
                raw = (raw + more).lstrip(b"\0")
            if raw and not raw.startswith(GZIP_MAGIC):
                raise FormatError(
                    path,
                    f"after the end of the gzip data come other bytes ({raw[:8].hex(' ')}). "
                    "Expected nothing or more gzip data; copy or download the file again.",
                )
            if raw:
                inflater = zlib.decompressobj(wbits=31)
        else:
            raw = inflater.unconsumed_tail
            if not raw:
                raw = stream.read(_RAW_BYTES)
                read_bytes += len(raw)
    if waiting:
        yield b"".join(waiting)
    if not inflater.eof:
        raise FormatError(
            path,
            f"the gzip data end too early, after {read_bytes:,} bytes: the file is cut off. "
            "Expected a whole gzip file; copy or download it again.",
        )


def lines_of(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of `blocks` without their ends, whether these are LF or CRLF.

    The empty piece after a final line end is no line.
    """
    unfinished: list[bytes] = []
    for block in blocks:
        pieces = block.split(b"\n")
        if len(pieces) > 1:
            unfinished.append(pieces[0])
            pieces[0] = b"".join(unfinished)
            unfinished = []
            last = pieces.pop()
            if b"\r" in block or pieces[0].endswith(b"\r"):
                pieces = [piece.removesuffix(b"\r") for piece in pieces]
            yield from pieces
            pieces = [last]
        unfinished.append(pieces[0])
    last = b"".join(unfinished)
    if last:
        yield last.removesuffix(b"\r")


def as_text(raw: bytes) -> str:
    """Decode UTF-8, or Latin-1 where a line is not UTF-8, as in old headers with author names."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


@contextmanager
def bgzip_stream(path: Path) -> Iterator[Sink]:
    """Give a stream that writes `path` as bgzip."""
    from pysam import BGZFile

    stream = BGZFile(str(path), "wb")
    try:
        yield stream
    finally:
        stream.close()


@contextmanager
def writing(path: str | Path) -> Iterator[Sink]:
    """Give a stream for bytes that becomes `path` when the block succeeds.

    A name that ends in ``.gz``, ``.bgz`` or ``.bgzf`` is written as bgzip, which every gzip
    reader understands and which can be indexed.
    """
    compressed = Path(path).suffix.lower() in {".gz", ".bgz", ".bgzf"}
    with (
        atomic_path(path) as temporary,
        bgzip_stream(temporary) if compressed else temporary.open("wb") as stream,
    ):
        yield stream
