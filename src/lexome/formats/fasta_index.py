"""Where in a FASTA file the bases of each contig are: the index of ``samtools faidx``."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lexome.core import FormatError
from lexome.formats.fasta import LONGEST_HEADER_BYTES, endless_header, header_of, no_header


class Contig(NamedTuple):
    """A line of a FASTA index: where a contig's bases lie in the (decompressed) file."""

    length: int
    offset: int
    line_bases: int
    line_bytes: int


def read_index(path: Path) -> dict[str, Contig] | None:
    """Read a ``.fai`` file; None if it is not one."""
    index = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        name, *numbers = line.split("\t")
        if len(numbers) != 4 or not all(n.isdecimal() for n in numbers) or name in index:
            return None
        index[name] = Contig(*map(int, numbers))
    return index or None


def index_text(index: dict[str, Contig]) -> str:
    """Return the lines of a ``.fai`` file."""
    return "".join("\t".join(map(str, (name, *contig))) + "\n" for name, contig in index.items())


def build_index(blocks: Iterator[bytes], path: str | Path) -> dict[str, Contig] | None:
    """Find the contigs of a FASTA stream, as ``samtools faidx`` does.

    Parameters
    ----------
    blocks
        The decompressed file.
    path
        Named in messages.

    Returns
    -------
    Name to place in the stream, or None if lines of one contig differ in length, so that no
    index can tell where its bases are.

    Raises
    ------
    FormatError
        If the stream does not begin with ``>`` or names two contigs alike.
    """
    builder = _IndexBuilder(str(path))
    for block in blocks:
        builder.add(block)
        if builder.irregular:
            return None
    return builder.finish()


class _IndexBuilder:
    """The lines of a FASTA stream, looked at by their ends only."""

    def __init__(self, path: str):
        self.irregular = False
        self._path = path
        self._index: dict[str, Contig] = {}
        self._name: str | None = None
        self._place = Contig(0, 0, 0, 0)
        self._closed = False  # a line shorter than the others has come
        self._read_bytes = 0
        self._lines = 0
        self._line_start = 0
        self._unfinished = (
            b""  # of an unfinished line all that has come if it is a header, else a letter
        )
        self._last_byte = 0

    def add(self, block: bytes) -> None:
        """Take the next block of the stream."""
        if self._name is None and not self._unfinished:
            first = block.lstrip()
            if first and not first.startswith(b">"):
                raise no_header(block, self._path, self._lines)
        letters = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(letters == ord("\n"))
        if not len(ends):
            self._keep(block)
        else:
            starts = np.concatenate(([self._line_start - self._read_bytes], ends[:-1] + 1))
            before_end = letters[ends - 1]
            if ends[0] == 0:
                before_end[0] = self._last_byte
            bases = ends - starts - (before_end == ord("\r"))
            is_header = letters[np.maximum(starts, 0)] == ord(">")
            if self._unfinished:
                is_header[0] = self._unfinished[0] == ord(">")
            widths = ends + 1 - starts
            at = 0
            for header in np.flatnonzero(is_header):
                self._lines_of_bases(bases[at:header], widths[at:header])
                text = block[max(0, starts[header]) : ends[header]]
                self._open(text if header else self._unfinished + text, int(header))
                self._place = Contig(0, self._read_bytes + int(ends[header]) + 1, 0, 0)
                at = header + 1
            self._lines_of_bases(bases[at:], widths[at:])
            self._lines += len(ends)
            self._line_start = self._read_bytes + int(ends[-1]) + 1
            self._unfinished = b""
            self._keep(block[int(ends[-1]) + 1 :])
        self._read_bytes += len(block)
        self._last_byte = block[-1]

    def _keep(self, text: bytes) -> None:
        if not self._unfinished:
            self._unfinished = text if text[:1] == b">" else text[:1]
        elif self._unfinished[:1] == b">":
            self._unfinished += text
            if len(self._unfinished) > LONGEST_HEADER_BYTES:
                raise endless_header(self._path, self._lines + 1)

    def _open(self, header: bytes, line: int) -> None:
        self._close()
        line_1based = self._lines + line + 1
        self._name, _ = header_of(header[1:], self._path, line_1based)
        self._closed = False
        if self._name in self._index:
            raise FormatError(
                self._path,
                f"the contig {self._name!r} comes a second time. Expected every contig to have a "
                "name of its own; rename or remove one of the two.",
                line_1based,
            )

    def _close(self) -> None:
        if self._name is not None:
            self._index[self._name] = self._place

    def _lines_of_bases(self, bases: np.ndarray, widths: np.ndarray) -> None:
        if not bases.any():
            self._closed = self._closed or len(bases) > 0
            return
        if self._closed:
            self.irregular = True
            return
        length, offset, line_bases, line_bytes = self._place
        if not line_bases:
            line_bases, line_bytes = int(bases[0]), int(widths[0])
        other = np.flatnonzero((bases != line_bases) | (widths != line_bytes))
        if len(other):
            first = int(other[0])
            if bases[first] > line_bases or bases[first + 1 :].any() or line_bases == 0:
                self.irregular = True
                return
            self._closed = True
        self._place = Contig(length + int(bases.sum()), offset, line_bases, line_bytes)

    def finish(self) -> dict[str, Contig] | None:
        """Return the index after the last block, None if there can be none."""
        if self._read_bytes > self._line_start:
            # The last line lacks its end; as the last it may be as long as it is.
            if self._unfinished[:1] == b">":
                self._open(self._unfinished, 0)
                self._place = Contig(0, self._read_bytes, 0, 0)
            else:
                bases = self._read_bytes - self._line_start - (self._last_byte == ord("\r"))
                end_bytes = self._place.line_bytes - self._place.line_bases or 1
                self._lines_of_bases(np.array([bases]), np.array([bases + end_bytes]))
        self._close()
        if self.irregular:
            return None
        if not self._index:
            raise FormatError(self._path, "holds no record. Expected lines that begin with '>'.")
        return self._index
