"""What a model says of every token of a record, written as tables, arrays or genome tracks.

Rows come from a store whose ragged arrays are called as in `ARRAYS`, so that a record of a million
letters passes through, never more than its shard in memory.
"""

import math
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from lexome.core import InputError, free_path, pick
from lexome.formats import StoredRows, Writer, writer_for
from lexome.formats.outputs import write_npz
from lexome.formats.streams import bare_suffix, writing

TRACKS = ("logprob", "entropy")
ARRAYS = ("span", *TRACKS)
"""Letters that a token covers, shape (tokens, 2), from 0; its log-probability and entropy, nats."""

_TOGETHER = 1 << 16  # lines


def checked_positions(
    positions: str | Path, out: str | Path | None, *, overwrite: bool = False
) -> str:
    """Return the format of a file of positions after checking that it may be written.

    Raises
    ------
    InputError
        If the file is there already and may not be replaced, or is the other output.
    """
    form = pick("format for positions", bare_suffix(positions), _WRITERS)
    if out is not None and Path(out).resolve() == Path(positions).resolve():
        raise InputError(
            f"out and positions are both {out}. Expected two files, one with a row for each "
            "record, one with a row for each token; name another."
        )
    free_path(positions, overwrite=overwrite)
    return form


def positions_writer(positions: str | Path, out: str | Path | None) -> Writer:
    """Return what writes the positions and then, if there is a place for them, the rows."""
    write = _WRITERS[bare_suffix(positions)]
    write_rows = None if out is None else writer_for(out)

    def write_both(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
        write(Path(positions), stored, provenance)
        if write_rows is not None:
            plain = copy(stored)
            plain.arrays = {}
            write_rows(path, plain, provenance)

    return write_both


def _records(stored: StoredRows) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Yield each row with its arrays."""
    for shard in stored.shards():
        arrays = {name: shard.array(name) for name in ARRAYS}
        offsets = shard.offsets("span")
        for i, row in enumerate(shard.rows()):
            yield row, {name: a[offsets[i] : offsets[i + 1]] for name, a in arrays.items()}


def _lines(name: str, span: np.ndarray, *numbers: np.ndarray) -> Iterator[bytes]:
    """Yield lines of name, start, end and numbers, many at a time; NaN is an empty cell."""
    for first in range(0, len(span), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        columns = [["" if math.isnan(v) else f"{v:.7g}" for v in n[some].tolist()] for n in numbers]
        places = span[some].tolist()
        text = (
            f"{name}\t{start}\t{end}\t" + "\t".join(cells) + "\n"
            for (start, end), *cells in zip(places, *columns, strict=True)
        )
        yield "".join(text).encode()


def _write_table(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    with writing(path) as stream:
        stream.write(("\t".join(["id", "start", "end", *TRACKS]) + "\n").encode())
        for row, arrays in _records(stored):
            for block in _lines(" ".join(str(row["id"]).split()), *(arrays[n] for n in ARRAYS)):
                stream.write(block)


def _write_tracks(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write one bedGraph track after the other."""
    with writing(path) as stream:
        for track in TRACKS:
            title = f"{track} of {provenance.get('model', 'a model')}, nats"
            stream.write(f'track type=bedGraph name="{track}" description="{title}"\n'.encode())
            for row, arrays in _records(stored):
                known = ~np.isnan(arrays[track])
                span, numbers = arrays["span"][known], arrays[track][known]
                name, span = _placed(row, span)
                turn = slice(None, None, -1 if len(span) > 1 and span[0, 0] > span[-1, 0] else 1)
                for block in _lines(name, span[turn], numbers[turn]):
                    stream.write(block)


def _placed(row: Mapping[str, Any], span: np.ndarray) -> tuple[str, np.ndarray]:
    """Return contig and places there of an interval, or the record's name and its own places."""
    try:
        contig, start, end = str(row["contig"]), int(row["start"]), int(row["end"])
        strand = str(row["strand"])
    except (KeyError, TypeError, ValueError):
        end = start = -1
        contig = strand = ""
    if start < 0 or end - start != row["length"]:
        return "_".join(str(row["id"]).split()), span
    return contig, end - span[:, ::-1] if strand == "-" else start + span


_WRITERS: dict[str, Writer] = {
    ".tsv": _write_table,
    ".npz": write_npz,
    ".bedgraph": _write_tracks,
    ".bg": _write_tracks,
}
