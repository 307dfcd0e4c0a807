"""Rows of results that survive a kill: kept in order, shard by shard, until all are there.

Beside the output ``scores.tsv`` grows a folder ``scores.tsv.partial`` of shards. A shard is
written under another name, flushed to disk and renamed, so it is complete or absent; its name
says which rows it holds. What a run finds there is therefore exactly what was done before.
"""

import fcntl
import json
import os
import shutil
import weakref
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self, cast

import numpy as np

from lexome.core import InputError, atomic_path
from lexome.formats.streams import STDIN, existing_file

Cell = str | int | float | bool | None
Row = Mapping[str, object]
Arrays = Mapping[str, np.ndarray | Sequence[np.ndarray]]

_SHOWN_DIFFERENCES = 4
_FINGERPRINT = "fingerprint.json"
_PART_BYTES = 1 << 24  # of an array that are read at a time
_KINDS = (bool, int, float, str)  # each can say what those before it can, save bool


def file_fingerprint(path: str | Path) -> dict[str, object]:
    """Return what tells a file from a changed one without reading it: path, size and time.

    Examples
    --------
    >>> file_fingerprint("-")
    {'path': '-'}
    """
    if str(path) == STDIN:
        return {"path": STDIN}
    stat = existing_file(path).stat()
    return {
        "path": str(Path(path).resolve()),
        "bytes": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
    }


@dataclass(frozen=True)
class ArraySpec:
    """What all arrays of one name share.

    Parameters
    ----------
    dtype
        Type of the values.
    shape
        Of one row's array; without its first axis if that differs from row to row.
    ragged
        Whether it does.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    ragged: bool


@dataclass(frozen=True)
class Shard:
    """Some consecutive rows, read from disk when asked for.

    Parameters
    ----------
    path
        Where they are.
    first_row
        Number of the first, 0-based.
    count
        How many.
    """

    path: Path
    first_row: int
    count: int

    def rows(self) -> list[dict[str, Cell]]:
        """Return the rows, each a dict by column."""
        table = json.loads(self._load("rows").tobytes())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]

    def array(self, name: str) -> np.ndarray:
        """Return an array with one entry per row, or if ragged the rows' arrays end to end."""
        return self._load(f"array:{name}")

    def offsets(self, name: str) -> np.ndarray:
        """Return where the rows' parts of a ragged array begin, and the end, shape (count + 1,)."""
        return self._load(f"offsets:{name}")

    def specs(self) -> dict[str, ArraySpec]:
        """Return what arrays the shard has."""
        with zipfile.ZipFile(self.path) as file:
            members = [name.removesuffix(".npy") for name in file.namelist()]
            specs = {}
            for name in (n.removeprefix("array:") for n in members if n.startswith("array:")):
                with file.open(f"array:{name}.npy") as member:
                    dtype, shape = _header(member)
                specs[name] = ArraySpec(dtype, shape[1:], f"offsets:{name}" in members)
        return specs

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """Yield an array in consecutive parts, of which none takes much memory."""
        with zipfile.ZipFile(self.path) as file, file.open(f"array:{name}.npy") as member:
            dtype, shape = _header(member)
            row = int(np.prod(shape[1:])) * dtype.itemsize
            together = max(1, _PART_BYTES // max(1, row))
            for first in range(0, shape[0], together):
                rows = min(together, shape[0] - first)
                yield np.frombuffer(member.read(rows * row), dtype).reshape(rows, *shape[1:])

    def _load(self, name: str) -> np.ndarray:
        with np.load(self.path) as file:
            return file[name]


@dataclass(frozen=True)
class Column:
    """What the cells of one column have in common.

    Parameters
    ----------
    kind
        The narrowest of `bool`, `int`, `float` and `str` that says them all.
    has_missing
        Whether some are None.
    """

    kind: type
    has_missing: bool


class StoredRows:
    """All rows of a store, for a writer to pass over as often as it needs.

    Attributes
    ----------
    count
        Number of rows.
    columns
        By name, in order of appearance.
    arrays
        Form of each array that goes with the rows, by name.
    """

    def __init__(self, shards: Sequence[Shard]):
        self._shards = tuple(shards)
        self.count = sum(shard.count for shard in shards)
        self.columns = _columns(self._shards, self.count)
        self.arrays = self._shards[0].specs() if self._shards else {}

    def shards(self) -> Iterator[Shard]:
        """Yield the shards in order."""
        yield from self._shards

    def rows(self) -> Iterator[dict[str, Cell]]:
        """Yield the rows in order, one shard in memory at a time."""
        for shard in self._shards:
            yield from shard.rows()


def _header(member: IO[bytes]) -> tuple[np.dtype, tuple[int, ...]]:
    """Read the type and shape of an array in front of its values."""
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, in_columns, dtype = read(member)
    assert not in_columns, "rows are written one after the other"
    return dtype, shape


def _columns(shards: Sequence[Shard], count: int) -> dict[str, Column]:
    kinds: dict[str, int] = {}
    present: Counter[str] = Counter()
    for shard in shards:
        for row in shard.rows():
            for name, value in row.items():
                before = kinds.setdefault(name, -1)
                if value is not None:
                    present[name] += 1
                    kind = _KINDS.index(type(value))
                    mixed = 0 in (before, kind) and before not in (-1, kind)
                    kinds[name] = 3 if mixed else max(before, kind)
    return {n: Column(_KINDS[kind], present[n] < count) for n, kind in kinds.items()}


class Writer(Protocol):
    """Makes the output file of stored rows, whole or not at all."""

    def __call__(self, path: Path, stored: StoredRows, provenance: Mapping[str, object], /) -> None:
        """Write `stored` to `path` with `provenance` where the format has room for it."""
        ...


class RowStore:
    r"""Rows on their way to an output file.

    Parameters
    ----------
    out
        The output file. The folder ``<out>.partial`` keeps the rows until :meth:`finish`.
    fingerprint
        All that decides the rows: arguments, checkpoint hash, `file_fingerprint` of each input.
        Only rows of an equal fingerprint are continued.
    resume
        Continue the rows that an earlier run left. If false they are removed.
    overwrite
        Remove rows of another fingerprint instead of raising.

    Raises
    ------
    InputError
        If an earlier run left rows of another fingerprint, or another run is at work on `out`.

    Examples
    --------
    >>> import tempfile
    >>> from lexome.formats import writer_for
    >>> out = Path(tempfile.mkdtemp()) / "scores.tsv"
    >>> with RowStore(out, {"model": "toy"}) as store:
    ...     store.append([{"id": "a", "score": 0.5}])
    >>> with RowStore(out, {"model": "toy"}) as store:  # a later run
    ...     print(store.rows_done)
    ...     store.append([{"id": "b", "score": 1.5}])
    ...     store.finish(writer_for(out), provenance={"tool": "lexome"})
    1
    >>> print(out.read_text().replace("\t", " "), end="")
    # tool: lexome
    id score
    a 0.5
    b 1.5
    """

    def __init__(
        self,
        out: str | Path,
        fingerprint: Mapping[str, object],
        *,
        resume: bool = True,
        overwrite: bool = False,
    ):
        self.out = Path(out)
        self.folder = self.out.with_name(f"{self.out.name}.partial")
        self._shards: list[Shard] = []
        self._rows_done = 0
        self._specs: dict[str, ArraySpec] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        self._unlock = weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._unlock()
            raise InputError(
                f"another run is writing {self.out}. Expected one at a time; wait for it, or give "
                "another output."
            ) from None
        try:
            self._begin(json.loads(json.dumps(fingerprint)), resume=resume, overwrite=overwrite)
        except BaseException:
            self._unlock()
            raise

    def _begin(self, fingerprint: dict[str, object], *, resume: bool, overwrite: bool) -> None:
        for left in self.out.parent.glob(f".{self.folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)  # of a run killed while it tidied up
        for left in self.folder.glob(".writing-*"):
            left.unlink()
        noted = self.folder / _FINGERPRINT
        if noted.is_file() and resume:
            before = json.loads(noted.read_text())
            if before == fingerprint:
                self._shards = _found_shards(self.folder)
                self._rows_done = sum(shard.count for shard in self._shards)
                self._specs = self._shards[0].specs() if self._shards else None
                return
            if not overwrite:
                raise InputError(
                    f"{self.folder} holds rows of a run with other settings "
                    f"({_differences(before, fingerprint)}). Expected the same, to continue it; "
                    "use those, pass overwrite=True to start afresh, or give another output."
                )
        for left in self.folder.glob("*.npz"):
            left.unlink()
        with atomic_path(noted) as temporary:
            temporary.write_text(json.dumps(fingerprint, indent=1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other runs have the output; the rows so far stay for a later run."""
        self._unlock()

    @property
    def rows_done(self) -> int:
        """Number of rows that are safe."""
        return self._rows_done

    def append(self, rows: Sequence[Row], arrays: Arrays | None = None) -> None:
        """Add rows behind those that are there, all or none, and safe when this returns.

        Parameters
        ----------
        rows
            Each a mapping of column to text, number, truth value or None.
        arrays
            By name an array with one entry per row, or a list of one array per row if their first
            axes differ. Names, dtypes and shapes are the same in every call.
        """
        if not rows:
            return
        first_row = self.rows_done
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[_plain(row.get(name)) for name in columns] for row in rows]
        text = json.dumps({"columns": columns, "rows": cells}).encode()
        packed: dict[str, np.ndarray] = {"rows": np.frombuffer(text, np.uint8)}
        specs = {}
        for name, array in (arrays or {}).items():
            ragged = not isinstance(array, np.ndarray)
            assert len(array) == len(rows), f"{len(array)} entries of {name}, {len(rows)} rows"
            if ragged:
                ends = np.cumsum([0, *map(len, array)])
                packed[f"offsets:{name}"] = ends.astype(np.int64)
                # One long array, perhaps in a file of its own, must not be copied into memory.
                array = array[0] if len(array) == 1 else np.concatenate(array)
            flat = packed[f"array:{name}"] = np.ascontiguousarray(array)
            specs[name] = ArraySpec(flat.dtype, flat.shape[1:], ragged)
        if self._specs is None:
            self._specs = specs
        assert specs == self._specs, f"arrays {specs} follow arrays {self._specs}"
        path = self.folder / f"{first_row:012d}-{len(rows)}.npz"
        _write_safely(path, packed)
        self._shards.append(Shard(path, first_row, len(rows)))
        self._rows_done += len(rows)

    def stored(self) -> StoredRows:
        """Return all rows so far for reading."""
        return StoredRows(self._shards)

    def finish(self, writer: Writer, *, provenance: Mapping[str, object] | None = None) -> None:
        """Make the output file, whole or not at all, and remove the folder of shards.

        Parameters
        ----------
        writer
            What makes it, such as :func:`lexome.formats.writer_for` gives.
        provenance
            What the file should say of its making.
        """
        writer(self.out, self.stored(), provenance or {})
        # Renamed first: a kill while the files go one by one must not leave a broken row of shards.
        doomed = self.folder.with_name(f".{self.folder.name}-{os.getpid()}")
        self.folder.rename(doomed)
        shutil.rmtree(doomed)
        self.close()


def _found_shards(folder: Path) -> list[Shard]:
    shards = []
    rows = 0
    for path in sorted(folder.glob("*.npz")):
        first_row, count = map(int, path.stem.split("-"))
        if first_row != rows:
            raise InputError(
                f"{folder} lacks the shard that begins with row {rows:,}. Expected all of them; "
                "remove the folder and start again."
            )
        shards.append(Shard(path, first_row, count))
        rows += count
    return shards


def _write_safely(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    with suppress(OSError):  # some file systems cannot sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _plain(value: object) -> Cell:
    if isinstance(value, np.generic):
        value = value.item()
    assert value is None or type(value) in _KINDS, f"a cell of type {type(value)}"
    return cast("Cell", value)


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = [
        f"{name}: {json.dumps(before.get(name))} then, {json.dumps(now.get(name))} now"
        for name in changed[:_SHOWN_DIFFERENCES]
    ]
    more = len(changed) - len(told)
    return "; ".join([*told, *([f"and {more} more"] if more else [])])
