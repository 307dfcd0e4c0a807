"""What every run over a file has in common: windows, safe rows, resuming, a last line.

`embed` and `score_sequences` differ in what they compute for a window of items; the rest is here.
"""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from lexome import __version__
from lexome.catalog import load
from lexome.core import InputError, UnknownLetters, free_path
from lexome.core.messages import counted
from lexome.formats import RowStore, file_fingerprint, writer_for
from lexome.formats.store import Arrays, Row, Writer
from lexome.inference.batching import ahead, progress_bar, windows
from lexome.inference.reading import Item, advise, hint, tokenizer_of
from lexome.model import Model

SAFE_EVERY_SECONDS = 5.0
"""How much work a kill may cost."""

_WAITING_BYTES = 1 << 28  # of results that are not yet on disk
_SEPARATOR = "; "  # of the remarks in a row
_WINDOW_BATCHES = 16  # batches' worth of tokens that are sorted together

Record = tuple[str, Any, int, Mapping[str, str]]
Advance = Callable[[float], object]
Compute = Callable[[list[Item], Advance], tuple[list[dict[str, object]], dict[str, Any]]]
"""Items and a function to report the letters that are done -> rows, arrays."""


class Sink(Protocol):
    """Where rows go: a store on disk, or memory."""

    def append(self, rows: Sequence[Row], arrays: Arrays | None = None) -> None:
        """Add rows behind those that are there."""
        ...


@dataclass
class Collected:
    """Rows in memory.

    Attributes
    ----------
    rows, arrays
        All that was appended; each array as the list of its parts.
    """

    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, list[Any]] = field(default_factory=dict)

    def append(self, rows: Sequence[Row], arrays: Arrays | None = None) -> None:
        """Add rows behind those that are there."""
        self.rows += rows
        for name, array in (arrays or {}).items():
            self.arrays.setdefault(name, []).append(array)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of the records of a run.

    Attributes
    ----------
    records
        How many there were.
    refused
        {status: how many} of those without a result.
    cut
        How many were too long for one piece.
    remarks
        {remark: how many} of what the tokenizer says of them.
    length
        Letters or genes of all records.
    unknown
        How many of them the model does not know.
    seconds
        Wall time of this run; an earlier run that was continued is not in it.
    unit
        What `length` counts.
    out
        The output file, if any.
    """

    records: int
    refused: Mapping[str, int]
    cut: int
    length: int
    unknown: int
    seconds: float
    unit: str
    out: Path | None = None
    remarks: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the path of the output; the numbers have gone to stderr."""
        return str(self.out)

    def line(self) -> str:
        """Return the numbers as one line for people.

        Examples
        --------
        >>> Summary(records=3, refused={"empty": 1}, cut=0, length=60, unknown=2, seconds=2.0,
        ...         unit="bases").line()
        '3 records, 1 refused (1 empty), 60 bases (2 unknown) in 2.0 s'
        """
        refused = ", ".join(f"{count:,} {status}" for status, count in self.refused.items())
        parts = [counted(self.records, "record")]
        parts += [f"{sum(self.refused.values()):,} refused ({refused})"] if refused else []
        parts += [f"{self.cut:,} cut into overlapping pieces"] if self.cut else []
        parts += [f"{count:,} with {remark}" for remark, count in self.remarks.items()]
        unknown = f" ({self.unknown:,} unknown)" if self.unknown else ""
        return ", ".join([*parts, f"{self.length:,} {self.unit}{unknown} in {self.seconds:.1f} s"])


@dataclass
class _Tally:
    unit: str
    remarked: bool
    records: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    length: int = 0
    unknown: int = 0
    began: float = field(default_factory=time.perf_counter)

    def add(self, row: Mapping[str, Any]) -> None:
        self.records += 1
        self.cut += row["pieces"] > 1
        self.length += row["length"]
        self.unknown += row["unknown"]
        if self.remarked:
            self.remarks.update(filter(None, row["remarks"].split(_SEPARATOR)))
        if row["status"] != "ok":
            self.refused[row["status"]] += 1

    def summary(self, out: Path | None) -> Summary:
        return Summary(
            records=self.records,
            refused=dict(self.refused),
            remarks=dict(self.remarks),
            cut=self.cut,
            length=self.length,
            unknown=self.unknown,
            seconds=time.perf_counter() - self.began,
            unit=self.unit,
            out=out,
        )


def item_row(
    item: Item, results: Mapping[str, object] = MappingProxyType({}), status: str | None = None
) -> dict[str, object]:
    """Return the row of an item: what every output says of it, results, columns of the input.

    A column of the input that has one of our names is given as ``input_<name>``.

    Parameters
    ----------
    item
        The item.
    results
        Columns that this command adds.
    status
        The status where it is not the item's.
    """
    own: dict[str, object] = {
        "id": item.id,
        "status": status or item.status,
        "length": item.length,
        "tokens": item.tokens,
        "unknown": item.unknown,
        "pieces": len(item.pieces),
        **({} if item.remarks is None else {"remarks": _SEPARATOR.join(item.remarks)}),
        **results,
    }
    return own | {f"input_{k}" if k in own else k: v for k, v in item.fields.items()}


def run(
    model: Model,
    records: Iterable[Record],
    prepare: Callable[[Iterator[Record]], Iterator[Item]],
    compute: Compute,
    *,
    sink: Sink,
    budget: int,
    progress: bool | None,
    size: Callable[[Item], int] = lambda item: item.tokens,
) -> Summary:
    """Send all records through a computation, in windows, and their rows to a sink, in order.

    Parameters
    ----------
    model
        The model, for messages.
    records
        The source.
    prepare
        Records -> items; runs in a thread of its own.
    compute
        A window of items -> their rows and arrays.
    sink
        A `RowStore` whose first rows may be there already, or `Collected`.
    budget
        Tokens of a batch.
    progress
        Whether to show a progress bar; None does on a terminal.
    size
        Tokens that go through the model for an item.

    Raises
    ------
    UnknownLetters
        If not one record could be taken because its letters or genes are unknown.
    InputError
        If the records are not those that the store's rows came from.
    """
    tokenizer = tokenizer_of(model)
    item = tokenizer.item
    tally = _Tally(
        unit={"sequence": "bases"}.get(item, f"expressed genes of {item}s"),
        remarked=tokenizer.makes_remarks,
    )
    store = sink if isinstance(sink, RowStore) else None
    sample: Item | None = None
    told = False
    records = iter(records)
    waiting = _Waiting(sink)
    try:
        if store is not None and store.rows_done:
            _skip_done(records, store, tally)
        most = _WINDOW_BATCHES * budget
        ready = ahead(windows(prepare(records), size, max_size=most))
        with closing(ready), progress_bar(tally.unit.split()[-1], show=progress) as bar:
            for window in ready:
                if not told:
                    told = _told(model, window)
                rows, arrays = compute(window, bar.update)
                for row in rows:
                    tally.add(row)
                sample = sample or next((i for i in window if i.status.startswith("unk")), None)
                waiting.append(rows, arrays)
            waiting.flush()
    except BaseException:
        if store is not None and store.rows_done:
            print(
                f"{store.rows_done:,} rows are safe in {store.folder}; the same command "
                "continues there.",
                file=sys.stderr,
            )
        raise
    if sample is not None and tally.refused[sample.status] == tally.records:
        raise UnknownLetters(
            f"{model.name} knows too little of {_any_of(tally.records)}: "
            f"{sample.unknown:,} of {sample.length:,} in {sample.id!r} are {sample.status} "
            f"({sample.sample[:40]}). {advise(tokenizer, sample.sample)}"
        )
    return tally.summary(store.out if store else None)


def _told(model: Model, items: Sequence[Item]) -> bool:
    """Say what would help to read the first of some items that is hard to read, if anything."""
    hard = next((item for item in items if item.status == "ok" and item.sample), None)
    advice = "" if hard is None else hint(tokenizer_of(model), hard)
    if advice:
        print(f"note: {model.name} may read this badly. {advice}", file=sys.stderr)
    return bool(advice)


def _any_of(records: int) -> str:
    return "the only record" if records == 1 else f"any of the {records:,} records"


class _Waiting:
    """Rows on their way to the sink, so that few windows make one shard."""

    def __init__(self, sink: Sink):
        self.sink = sink
        self._rows: list[dict[str, object]] = []
        self._arrays: dict[str, list[Any]] = {}
        self._bytes = 0
        self._since = time.perf_counter()

    def append(self, rows: list[dict[str, object]], arrays: Mapping[str, Any]) -> None:
        self._rows += rows
        for name, array in arrays.items():
            self._arrays.setdefault(name, []).append(array)
            parts = [array] if isinstance(array, np.ndarray) else array
            self._bytes += sum(part.nbytes for part in parts)
        late = time.perf_counter() - self._since > SAFE_EVERY_SECONDS
        if late or self._bytes > _WAITING_BYTES:
            self.flush()

    def flush(self) -> None:
        joined = {
            name: np.concatenate(parts)
            if isinstance(parts[0], np.ndarray)
            else [array for part in parts for array in part]
            for name, parts in self._arrays.items()
        }
        for some in _portions(joined, len(self._rows)):
            self.sink.append(
                self._rows[some], {name: array[some] for name, array in joined.items()}
            )
        self._rows, self._arrays, self._bytes = [], {}, 0
        self._since = time.perf_counter()


def _portions(arrays: Mapping[str, Any], rows: int) -> Iterator[slice]:
    """Cut rows where those arrays that differ in length get large, so that few are joined."""
    ragged = [array for array in arrays.values() if not isinstance(array, np.ndarray)]
    first = size = 0
    for row in range(rows):
        more = sum(array[row].nbytes for array in ragged)
        if row > first and size + more > _WAITING_BYTES:
            yield slice(first, row)
            first, size = row, 0
        size += more
    yield slice(first, rows)


def _skip_done(records: Iterator[Record], store: RowStore, tally: _Tally) -> None:
    """Pass over the records whose rows are there, making sure that they are the same ones."""
    for number_1based, row in enumerate(store.stored().rows(), 1):
        record = next(records, None)
        if record is None or (record[0], record[2]) != (row["id"], row["length"]):
            here = "is missing" if record is None else f"is {record[0]!r} ({record[2]:,} long)"
            raise InputError(
                f"{store.folder} holds the rows of an earlier run over other records: number "
                f"{number_1based:,} was {row['id']!r} ({row['length']:,} long) and now {here}. "
                "Give the same input to continue, or resume=False to start again."
            )
        tally.add(row)


def loaded(model: Model | str | Path, device: str, precision: str) -> Model:
    """Return a model in evaluation mode, loading it if it is a name or a folder.

    Raises
    ------
    InputError
        If a model that is there already is given with a device or a precision.
    """
    if not isinstance(model, Model):
        return load(model, device=device, precision=precision)
    if (device, precision) != ("auto", "float32"):
        raise InputError(
            "device and precision are for models that are still to be loaded. Give them to "
            "lexome.load instead."
        )
    model.eval()
    return model


def deliver(
    work: Callable[..., Summary],
    out: str | Path | None,
    *,
    settings: Mapping[str, object],
    made: Mapping[str, object],
    resume: bool,
    overwrite: bool,
    progress: bool | None,
    ragged: bool = False,
    writer: Writer | None = None,
) -> tuple[Collected, Summary]:
    """Do a run into a file, or into memory where no file is named.

    Parameters
    ----------
    work
        :func:`run` with all but `sink` bound.
    out
        The file; its format is checked before any work is done.
    settings
        All that decides the rows; see :func:`fingerprint`.
    made
        What the file says of its making.
    resume, overwrite
        As for `RowStore`.
    progress
        Whether to print a last line of numbers to stderr; None does on a terminal, and where
        there is a file.
    ragged
        Whether rows have arrays of different lengths.
    writer
        What makes the file, where its suffix does not say it all.

    Returns
    -------
    The rows, none of them where they are in a file, and the numbers of the run.

    Raises
    ------
    InputError
        If the file is there already and `overwrite` is false.
    """
    kept = Collected()
    if out is None:
        summary = work(sink=kept)
    else:
        writer = writer or writer_for(out, ragged=ragged)
        free_path(out, overwrite=overwrite)
        with RowStore(out, settings, resume=resume, overwrite=overwrite) as store:
            summary = work(sink=store)
            store.finish(writer, provenance=made)
    if progress or (progress is None and (out is not None or sys.stderr.isatty())):
        print(summary.line(), file=sys.stderr)
    return kept, summary


def provenance(model: Model, command: str, settings: Mapping[str, object]) -> dict[str, object]:
    """Say how an output was made: version, command, model, settings."""
    return {"lexome": __version__, "command": command, **model.provenance(), **settings}


def fingerprint(
    model: Model, source: Any, genome: Any, settings: Mapping[str, object]
) -> dict[str, object]:
    """Return all that decides the rows of a run, for a later one to know whether it continues it.

    Records given from Python are compared one by one when a run is continued, not here.
    """
    given = {"source": source, "genome": genome}
    files = {k: file_fingerprint(v) for k, v in given.items() if isinstance(v, str | Path)}
    return {**settings, **files, "weights": weights_digest(model)}


def weights_digest(model: Model) -> str:
    """Return a hash of a sample of every tensor, which changes when a model is trained."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().reshape(-1)
        part = flat[:: max(1, len(flat) // 64)][:64].float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + part.tobytes())
    return digest.hexdigest()
