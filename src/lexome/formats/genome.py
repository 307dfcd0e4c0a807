"""A genome: any stretch of any contig of a FASTA file."""

import hashlib
import logging
import mmap
import os
import struct
import tempfile
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Self

from lexome.core import FormatError, UnknownName, atomic_path, nearest
from lexome.formats.fasta import read_fasta, write_fasta
from lexome.formats.fasta_index import Contig, build_index, index_text, read_index
from lexome.formats.streams import GZIP_MAGIC, byte_blocks, existing_file, is_bgzf

_LOG = logging.getLogger(__name__)
_CACHED_BGZF_BLOCKS = 512  # of 64 kB


class Genome:
    """Random access to the contigs of a FASTA file.

    Parameters
    ----------
    path
        FASTA, plain or bgzip, with lines of equal length within a contig; read in place. The
        index is taken from ``<path>.fai`` if that fits the file, else made, and left there for
        later where the folder can be written. A file that cannot be read in place (plain gzip,
        lines of unequal length) is unpacked once into the user's cache, with a note.

    Attributes
    ----------
    contigs
        Length of each contig in bases, in file order.

    Notes
    -----
    Can be copied to other processes, forked or spawned; each reads for itself.

    Raises
    ------
    FormatError
        If the file is no FASTA.
    """

    def __init__(self, path: str | Path):
        self.path = existing_file(path)
        source = self.path
        with source.open("rb") as stream:
            start = stream.read(18)
        if not start:
            raise FormatError(path, "the file is empty. Expected a genome; make it again.")
        index = None
        if not start.startswith(GZIP_MAGIC) or is_bgzf(start):
            index = _load_or_build_index(source)
            reason = "its sequence lines differ in length"
        else:
            reason = "it is gzip and not bgzip"
        if index is None:
            source = _unpacked(source, reason)
            index = _load_or_build_index(source)
            assert index is not None
        self._index = index
        self._bytes = _open_source(source)
        self.contigs: dict[str, int] = {name: c.length for name, c in index.items()}
        self._plain_names = _plain_names(self.contigs)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def fetch(self, contig: str, start: int, end: int, *, pad: str = "N") -> str:
        """Return bases `start` to `end` of a contig.

        Parameters
        ----------
        contig
            Its name, also in the other spelling that :meth:`resolve` knows.
        start, end
            0-based half-open; may lie outside the contig.
        pad
            The letter for each place outside the contig; empty to leave such places out.

        Returns
        -------
        Letters in the case of the file.

        Raises
        ------
        UnknownName
            If there is no such contig.
        """
        entry = self._index.get(contig)
        if entry is None:
            entry = self._index[self._known(contig)]
        length, offset, line_bases, line_bytes = entry
        first, last = max(start, 0), min(end, length) - 1
        if last < first:
            return pad * (end - start)
        lines_before, column = divmod(first, line_bases)
        from_byte = offset + lines_before * line_bytes + column
        lines_before, column = divmod(last, line_bases)
        raw = self._bytes(from_byte, offset + lines_before * line_bytes + column + 1)
        if len(raw) > last + 1 - first:
            raw = raw.translate(None, b"\r\n")
        text = raw.decode("latin-1")
        if start < 0 or end > length:
            return pad * -min(start, 0) + text + pad * max(end - length, 0)
        return text

    def resolve(self, name: str) -> str | None:
        """Return the contig that `name` means, or None.

        A contig of exactly that name comes first; else one that differs only in case, in a
        leading ``chr``, or as the mitochondrial names M and MT do, if there is just one such.
        """
        if name in self.contigs:
            return name
        return self._plain_names.get(_plain_name(name))

    def has(self, name: str) -> bool:
        """Tell whether :meth:`resolve` finds a contig."""
        return self.resolve(name) is not None

    def _known(self, name: str) -> str:
        known = self.resolve(name)
        if known is None:
            close = nearest(name, self.contigs) or list(self.contigs)[:3]
            raise UnknownName(
                f"{self.path} has no contig {name!r} under any spelling. It has "
                f"{len(self.contigs):,}, such as {', '.join(close)}. Check the assembly."
            )
        return known


def _plain_name(name: str) -> str:
    plain = name.lower().removeprefix("chr")
    return "mt" if plain in {"m", "mt", "mito"} else plain


def _plain_names(contigs: Iterable[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    ambiguous = set()
    for contig in contigs:
        plain = _plain_name(contig)
        if names.setdefault(plain, contig) != contig:
            ambiguous.add(plain)
    return {plain: contig for plain, contig in names.items() if plain not in ambiguous}


class _PlainSource:
    """Bytes of an uncompressed file, mapped into memory."""

    def __init__(self, path: Path):
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __call__(self, start: int, end: int) -> bytes:
        return self._map[start:end]


class _BgzfSource:
    """Bytes of a bgzip file by their place in the decompressed stream.

    Blocks are read with pread, which leaves no shared file position to forked processes.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        self._starts, self._offsets = _bgzf_blocks(path)
        self._block = lru_cache(_CACHED_BGZF_BLOCKS)(self._inflate)

    def __call__(self, start: int, end: int) -> bytes:
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, end - 1) - 1
        base = self._starts[first]
        if first == last:
            return self._block(first)[start - base : end - base]
        whole = b"".join(self._block(i) for i in range(first, last + 1))
        return whole[start - base : end - base]

    def _inflate(self, number: int) -> bytes:
        at = self._offsets[number]
        raw = os.pread(self._file.fileno(), self._offsets[number + 1] - at, at)
        try:
            return zlib.decompress(raw, wbits=31)
        except zlib.error as error:
            raise FormatError(
                self._path,
                f"the bgzip block at byte {at:,} is damaged ({error}). Expected a whole bgzip "
                "file; copy or download it again.",
            ) from None


def _open_source(path: Path) -> _PlainSource | _BgzfSource:
    with path.open("rb") as stream:
        return _BgzfSource(path) if is_bgzf(stream.read(18)) else _PlainSource(path)


def _bgzf_blocks(path: Path) -> tuple[list[int], list[int]]:
    """Find where blocks start: in the decompressed stream, and in the file (and its end)."""
    starts, offsets, at, start = [], [], 0, 0
    size = path.stat().st_size
    with path.open("rb", buffering=0) as stream:
        descriptor = stream.fileno()
        head = os.pread(descriptor, 18, 0)
        while at < size:
            if not is_bgzf(head):
                raise FormatError(
                    path,
                    f"no bgzip block at byte {at:,}. Expected one after the other to the end of "
                    "the file; copy or download it again.",
                )
            block_bytes = struct.unpack_from("<H", head, 16)[0] + 1
            # The decompressed size of a block and the next block's header lie side by side.
            tail = os.pread(descriptor, 4 + 18, at + block_bytes - 4)
            if len(tail) < 4:
                raise FormatError(
                    path, "the last bgzip block is cut off. Copy or download the file again."
                )
            text_bytes = struct.unpack_from("<I", tail)[0]
            if text_bytes:
                starts.append(start)
                offsets.append(at)
            start += text_bytes
            at += block_bytes
            head = tail[4:]
    return starts, [*offsets, at]


def _load_or_build_index(path: Path) -> dict[str, Contig] | None:
    beside = path.with_name(path.name + ".fai")
    for index_path in (beside, _cached(path, ".fai")):
        if index_path.is_file():
            index = read_index(index_path)
            if index is not None and _fits(index, path):
                return index
            _LOG.warning("%s does not fit %s; made anew.", index_path, path.name)
    index = build_index(byte_blocks(path), path)
    if index is not None:
        text = index_text(index)
        try:
            _write_text(beside, text)
        except OSError:  # a folder that cannot be written
            _write_text(_cached(path, ".fai"), text)
    return index


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def _fits(index: dict[str, Contig], path: Path) -> bool:
    """Tell whether contigs start behind their headers and the last one ends with the file.

    Time stamps are no guide, since copies shuffle them. At most a thousand contigs are looked at.
    """
    source = _open_source(path)
    names = list(index)
    for name in names[:: len(names) // 1000 + 1]:
        offset = index[name].offset
        if offset < 1:
            return False
        before = source(max(0, offset - 1024), offset)
        header = before[before.rfind(b"\n", 0, -1) + 1 :]
        if not header.endswith(b"\n"):
            return False
        if len(header) < 1024 and header[1:].split()[:1] != [name.encode()]:
            return False
    length, offset, line_bases, line_bytes = index[names[-1]]
    if length == 0:
        return True
    lines, column = divmod(length, line_bases)
    end = offset + lines * line_bytes + column
    if column == 0:
        end -= line_bytes - line_bases
    return len(source(end - 1, end)) == 1 and not source(end, end + 64).strip()


def _unpacked(path: Path, reason: str) -> Path:
    """Return a plain copy of a FASTA file with one line a contig, kept for later calls."""
    copy = _cached(path, ".fa")
    if not copy.is_file():
        _LOG.warning(
            "%s cannot be read at random places because %s; unpacked to %s. "
            "To avoid the copy, write the genome with bgzip and lines of equal length.",
            path,
            reason,
            copy,
        )
        write_fasta(copy, read_fasta(path), line_bp=0)
    return copy


def _cached(path: Path, suffix: str) -> Path:
    """Return the place in the user's cache for what is made of a file in its present state."""
    stat = path.stat()
    key = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "lexome" / "genomes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"lexome-genomes-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}{suffix}"
