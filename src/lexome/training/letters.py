"""The letters of genomes one after the other: a file of bytes that any process can map and read.

Positions in this file are called flat: contigs follow each other in the order of the FASTA files,
with one place free between them so that no window touches two.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lexome.core import FormatError, InputError, atomic_path
from lexome.formats.genome import Genome
from lexome.formats.letters import describe_letter
from lexome.sequence import reverse_complement

_KNOWN, _UNKNOWN, _NO_LETTER = 0, 1, 2
_KIND = np.full(256, _NO_LETTER, np.uint8)
_KIND[[ord(c) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"]] = _UNKNOWN
_KIND[[ord(c) for c in "ACGTUacgtu"]] = _KNOWN

_READ_BP = 1 << 24  # letters in memory at a time


@dataclass(frozen=True)
class Contig:
    """One contig: its name, its file, and its flat positions, 0-based half-open."""

    name: str
    source: str
    start: int
    end: int


class Letters:
    """All letters of some genomes, in the case of their files.

    Parameters
    ----------
    folder
        Where `encode_letters` wrote them.

    Attributes
    ----------
    contigs
        The contigs in flat order.
    unknown
        Runs of letters other than A, C, G, T and U: flat positions, shape (runs, 2).
    sha256
        Hash of all names and letters.
    """

    def __init__(self, folder: Path):
        index = json.loads((folder / "letters.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.contigs = tuple(Contig(**each) for each in index["contigs"])
        self.sha256: str = index["sha256"]
        self.unknown: np.ndarray = np.load(folder / "unknown.npy")
        self._letters = np.asarray(np.load(folder / "letters.npy", mmap_mode="r"))

    def __reduce__(self) -> tuple[type["Letters"], tuple[Path]]:
        return type(self), (self.folder,)  # another process maps the file anew

    def __len__(self) -> int:
        """Count the letters of all contigs."""
        return sum(contig.end - contig.start for contig in self.contigs)

    def text(self, start: int, length: int, *, reverse: bool = False) -> str:
        """Return `length` letters from a flat position, or their reverse complement."""
        text = self._letters[start : start + length].tobytes().decode("ascii")
        return reverse_complement(text) if reverse else text


def encode_letters(fasta: Sequence[str | Path], folder: Path) -> Letters:
    """Write the letters of FASTA files to a folder, or find them there.

    Parameters
    ----------
    fasta
        One file or several; contigs of several files may have the same names. Read in pieces of
        16 Mb, never whole.
    folder
        Gets a folder for these files in their present state, which is used again as long as they
        do not change. One byte a base; it can be deleted at any time and is then made anew.

    Raises
    ------
    InputError
        If a file is missing, or all of them hold no base.
    FormatError
        If a file is no FASTA, or a sequence has something else than letters.
    """
    genomes = [Genome(path) for path in fasta]
    state = [f"{g.path.resolve()} {_state(g.path)}" for g in genomes]
    folder = folder / hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]
    if (folder / "letters.json").is_file():
        return Letters(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".writing-*"):  # of a process that was killed
        left.unlink()
    contigs: list[Contig] = []
    end = 0
    for genome in genomes:
        for name, length in genome.contigs.items():
            if length:
                contigs.append(Contig(name, str(genome.path), end, end + length))
                end += length + 1
    if not contigs:
        raise InputError(
            f"{', '.join(str(g.path) for g in genomes)}: there are headers but no bases. "
            "Expected sequences under them; check that the file is whole."
        )
    by_source = {str(genome.path): genome for genome in genomes}
    runs: list[np.ndarray] = []
    digest = hashlib.sha256()
    # Written as a stream and not through a map: a full disk is then an error, not a crash.
    with atomic_path(folder / "letters.npy") as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (end - 1,)}
        )
        for number, contig in enumerate(contigs):
            if number:
                stream.write(b"\0")
            digest.update(f">{contig.name}\n".encode())
            genome = by_source[contig.source]
            for start in range(0, contig.end - contig.start, _READ_BP):
                text = genome.fetch(contig.name, start, start + _READ_BP, pad="")
                letters = np.frombuffer(text.encode("latin-1"), np.uint8)
                runs.append(_unknown_runs(letters, contig, start) + contig.start + start)
                digest.update(letters.tobytes())
                stream.write(letters.tobytes())
    with atomic_path(folder / "unknown.npy") as temporary:
        np.save(temporary, joined(np.concatenate(runs)))
    index = {"sha256": digest.hexdigest(), "contigs": [asdict(contig) for contig in contigs]}
    with atomic_path(folder / "letters.json") as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")
    return Letters(folder)


def joined(spans: np.ndarray) -> np.ndarray:
    """Return the union of half-open spans as sorted spans that neither overlap nor touch.

    Examples
    --------
    >>> joined(np.array([[5, 9], [0, 2], [2, 4], [6, 7]])).tolist()
    [[0, 4], [5, 9]]
    """
    spans = spans[spans[:, 1] > spans[:, 0]]
    if not len(spans):
        return np.zeros((0, 2), np.int64)
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    first = np.concatenate([[True], spans[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([spans[first, 0], reach[last]], axis=1).astype(np.int64)


def _unknown_runs(letters: np.ndarray, contig: Contig, start: int) -> np.ndarray:
    kind = _KIND[letters]
    if kind.max() == _NO_LETTER:
        at = int(np.argmax(kind == _NO_LETTER))
        letter = chr(letters[at])
        raise FormatError(
            contig.source,
            f"contig {contig.name!r} has {letter!r} where base {start + at + 1:,} should be. "
            f"{describe_letter(letter)}",
        )
    edges = np.flatnonzero(np.diff(kind, prepend=np.uint8(0), append=np.uint8(0)))
    return edges.reshape(-1, 2)


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
