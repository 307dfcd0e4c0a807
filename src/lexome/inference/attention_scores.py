"""How much attention tokens and letters get, for any model that has attention.

The maps are recomputed for the layers that were asked for, beside the ordinary run, which never
makes them; all other layers keep their fast path. Axes: B batch, H heads, L tokens.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lexome.core import InputError, atomic_path
from lexome.formats import Genome, StoredRows, Writer
from lexome.formats.outputs import write_delimited
from lexome.formats.streams import writing
from lexome.inference.batching import collate_rows, enough_memory, plan_batches, token_budget
from lexome.inference.predictor import SETTINGS, load_predictor
from lexome.inference.reading import (
    Cutting,
    Item,
    Source,
    cutting,
    prepare,
    read_records,
    share,
    tokenizer_of,
)
from lexome.inference.runs import (
    Advance,
    Collected,
    Summary,
    deliver,
    fingerprint,
    item_row,
    loaded,
    provenance,
    run,
)
from lexome.model import Model

Query = Literal["cls", "mean"]

LONGEST = 1024
"""Tokens of a piece where neither the model nor the user sets a limit."""

RECORDS, SCORES, MAPS = "records.tsv", "scores.tsv", "maps"
_BATCH_BYTES = 1 << 28  # of the maps of one layer over one batch


@dataclass(frozen=True, kw_only=True)
class View:
    """What is looked at.

    Attributes
    ----------
    layers
        0-based, ascending.
    query
        Whose attention counts: the first token's (``"cls"``), or the mean over all tokens of the
        sequence.
    unit_length
        Whether a record's scores are scaled to a Euclidean length of 1.
    """

    layers: tuple[int, ...]
    query: Query
    unit_length: bool = True


@dataclass(frozen=True, kw_only=True)
class AttentionScores:
    """Scores of records, in their order.

    Attributes
    ----------
    ids
        Names of the records.
    status
        ``"ok"`` or why there are no scores.
    scores
        For each record (letters, layers), float64; of no rows where the status is not ``"ok"``,
        NaN where no token covers a letter.
    layers
        The columns, 0-based.
    provenance
        Model, checkpoint hash, precision, settings, version.
    summary
        The run in numbers.
    """

    ids: tuple[str, ...]
    status: tuple[str, ...]
    scores: tuple[NDArray[np.float64], ...]
    layers: tuple[int, ...]
    provenance: Mapping[str, object]
    summary: Summary

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        """Return the summary; the scores are too many to print."""
        return f"{self.summary.line()}. Scores are kept only with an output folder."


def attention_scores(
    model: Model | str | Path,
    source: Source,
    *,
    out: str | Path | None = None,
    layers: Sequence[int] = (-1,),
    query: Query | None = None,
    unit_length: bool = True,
    maps: bool = True,
    base: str | Path | None = None,
    genome: str | Path | Genome | None = None,
    sequence_column: str = "sequence",
    id_column: str | None = None,
    upper: bool = False,
    max_tokens: int | None = None,
    overlap_tokens: int | None = None,
    max_unknown: float = 0.5,
    max_tokens_per_batch: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> AttentionScores | Summary:
    """Say how much attention each letter gets, and keep the maps.

    A token's score is the attention that it gets from the query token, summed over the heads of a
    layer; a letter's is the mean over the tokens that cover it.

    Parameters
    ----------
    model
        A model, what `lexome.load` takes, or what `lexome finetune` wrote.
    source
        Sequences, or cells for models of cells, as in `lexome.embed`.
    out
        A folder for ``records.tsv`` (one row per record), ``scores.tsv`` (one row per letter: id,
        start and end, 0-based and half-open, one column per layer, the letter; the first four
        columns are a bedGraph) and ``maps``. Without it, the scores are returned.
    layers
        Which layers, 0-based; negative ones count from the end.
    query
        ``cls`` takes what the first token attends to, ``mean`` the mean over the sequence's
        tokens. By default ``cls`` where the authors put a token before a sequence that sees it.
    unit_length
        Scale the scores of a record to a Euclidean length of 1, as published.
    maps
        Write the maps, one ``.npz`` per record (per piece for what had to be cut): ``layer_<n>``
        of shape (heads, tokens, tokens), what a token takes in its row; ``tokens``, their texts;
        ``spans``, the letters that they cover, 0-based and half-open, -1 for special tokens.
    base
        Where the model is now that head or adapter were trained on, if it has moved since.
    genome
        FASTA that a BED file's intervals are taken from.
    sequence_column, id_column
        Columns of a table.
    upper
        Read all letters as upper case.
    max_tokens
        Sequences of more tokens, special ones counted, are cut into overlapping pieces of that
        many. By default the model's limit, or 1,024. Each piece has its own map, and a token's
        score comes from the piece in which it stands farthest from a cut. A fine-tuned model has
        pieces of its own, and this must be left out.
    overlap_tokens
        Fewest tokens that neighbouring pieces share; by default an eighth of a piece.
    max_unknown
        Largest share of letters that the model may not know; more is refused.
    max_tokens_per_batch
        Padding counted. By default what suits the machine. It changes speed and memory only.
    resume
        Continue an interrupted run of the same arguments.
    overwrite
        Replace the output of an earlier run, and rows of an interrupted one.
    progress
        Whether to show a progress bar and a last line of numbers on stderr.
    device, precision
        As for `lexome.load`.

    Returns
    -------
    `AttentionScores`, or with `out` a `Summary`.

    Raises
    ------
    InputError
        If the model has no attention or no such layer, or arguments contradict each other.

    References
    ----------
    Ji et al. 2021, Bioinformatics 37(15):2112-2120, "DNABERT-viz".
    """
    folder = None if out is None else Path(out)
    kept, summary, made = run_attention(
        model,
        source,
        out=None if folder is None else folder / RECORDS,
        writer=_write_tables,
        maps=folder / MAPS if folder and maps else None,
        layers=layers,
        query=query,
        unit_length=unit_length,
        base=base,
        genome=genome,
        sequence_column=sequence_column,
        id_column=id_column,
        upper=upper,
        max_tokens=max_tokens,
        overlap_tokens=overlap_tokens,
        max_unknown=max_unknown,
        max_tokens_per_batch=max_tokens_per_batch,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        device=device,
        precision=precision,
    )
    if folder is not None:
        return summary
    rows: list[Mapping[str, Any]] = list(kept.rows)
    chosen = made["layers"]
    assert isinstance(chosen, list)
    return AttentionScores(
        ids=tuple(row["id"] for row in rows),
        status=tuple(row["status"] for row in rows),
        scores=tuple(a for block in kept.arrays.get("score", []) for a in block),
        layers=tuple(chosen),
        provenance=made,
        summary=summary,
    )


def run_attention(
    model: Model | str | Path,
    source: Source,
    *,
    out: Path | None,
    writer: Writer,
    maps: Path | None,
    layers: Sequence[int],
    query: Query | None,
    unit_length: bool,
    command: str = "attention",
    more: Mapping[str, object] = MappingProxyType({}),
    base: str | Path | None,
    genome: str | Path | Genome | None,
    sequence_column: str,
    id_column: str | None,
    upper: bool,
    max_tokens: int | None,
    overlap_tokens: int | None,
    max_unknown: float,
    max_tokens_per_batch: int | None,
    resume: bool,
    overwrite: bool,
    progress: bool | None,
    device: str,
    precision: str,
) -> tuple[Collected, Summary, dict[str, object]]:
    """Score the letters of records and hand them to a writer; what commands have in common.

    Parameters
    ----------
    model, source
        As for `attention_scores`.
    out, writer
        The last file of the output, and what makes all of it from rows with ``letters`` (cells:
        gene names between tabs) and the array ``score`` (letters, layers). None keeps the rows.
    maps
        Folder of the maps, if they are wanted.
    command, more
        For the provenance: the command, and settings of its own, which also decide whether a run
        continues an earlier one.
    layers, query, unit_length, base, genome, sequence_column, id_column, upper, max_tokens
        As for `attention_scores`.
    overlap_tokens, max_unknown, max_tokens_per_batch, resume, overwrite, progress
        As for `attention_scores`.
    device, precision
        As for `attention_scores`.

    Returns
    -------
    The rows where there is no file, the numbers of the run, and its provenance.
    """
    model, cut, settings = _opened(
        model, base, max_tokens, overlap_tokens, device=device, precision=precision
    )
    tokenizer = tokenizer_of(model)
    if max_tokens is not None and tokenizer.item == "cell":
        tokenizer = tokenizer.limited(max_tokens)
    view = view_of(model, layers, query, unit_length=unit_length)
    budget = token_budget(model, max_tokens_per_batch)
    records = read_records(
        tokenizer,
        source,
        genome=genome,
        sequence_column=sequence_column,
        id_column=id_column,
        upper=upper,
    )
    settings |= {
        "layers": list(view.layers),
        "query": view.query,
        "unit_length": unit_length,
        "maps": maps is not None,
        "piece_tokens": cut.room,
        "overlap_tokens": cut.overlap,
        "max_unknown": max_unknown,
        "upper": upper,
        "item": tokenizer.item,
        **tokenizer.settings(),
        **more,
    }
    prepared = partial(
        prepare, tokenizer=tokenizer, cutting=cut, max_unknown=share(max_unknown), content=True
    )
    window = _Window(model, view, budget, maps)
    made = provenance(model, command, settings)
    columns = {"columns": [sequence_column, id_column]}
    kept, summary = deliver(
        partial(run, model, records, prepared, window, budget=budget, progress=progress),
        out,
        settings=fingerprint(model, source, genome, made | columns),
        made=made,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        writer=writer,
    )
    return kept, summary, made


def _opened(
    model: Model | str | Path,
    base: str | Path | None,
    max_tokens: int | None,
    overlap_tokens: int | None,
    *,
    device: str,
    precision: str,
) -> tuple[Model, Cutting, dict[str, object]]:
    """Return a model, released or fine-tuned, how it cuts, and where it came from."""
    if isinstance(model, str | Path):
        places = Path(model), Path(model) / "model"
        tuned = next((place for place in places if (place / SETTINGS).is_file()), None)
        if tuned is not None:
            if max_tokens is not None or overlap_tokens is not None:
                raise InputError(
                    f"{model} was fine-tuned with pieces of its own, and max_tokens or "
                    "overlap_tokens was given. Leave them out."
                )
            found = load_predictor(tuned, base=base, device=device, precision=precision)
            return found.model, found.cutting, {"finetuned": str(tuned)}
    if base is not None:
        raise InputError(
            f"base was given, but {model!r:.60} is not fine-tuned and needs none. Leave it out."
        )
    network = loaded(model, device, precision)
    return network, cutting(network, max_tokens, overlap_tokens, longest=LONGEST), {}


def view_of(
    model: Model, layers: Sequence[int], query: Query | None, *, unit_length: bool = True
) -> View:
    """Return what is looked at, with the numbers of layers counted from 0.

    Raises
    ------
    InputError
        If the model has no such layer or no attention, or no token that stands before a sequence.
    """
    model.backbone.each_attention(layers)  # refuses before any work is done
    if not layers:
        raise InputError("no layer was asked for. Give at least one, e.g. -1 for the last.")
    first = tokenizer_of(model).prefix and model.objective != "causal"
    if query == "cls" and not first:
        why = "sees nothing of it" if tokenizer_of(model).prefix else "is not there"
        raise InputError(
            f"the token before a sequence, whose attention would be taken, {why} in {model.name}. "
            "Pass query='mean'."
        )
    count = len(model.backbone.layers)
    return View(
        layers=tuple(sorted({layer % count for layer in layers})),
        query=query or ("cls" if first else "mean"),
        unit_length=unit_length,
    )


def letter_scores(token_scores: ArrayLike, spans: ArrayLike, letters: int) -> NDArray[np.float64]:
    """Spread scores of tokens over letters: each gets the mean over the tokens that cover it.

    Parameters
    ----------
    token_scores
        Shape (tokens,) or (tokens, layers).
    spans
        Letters that each token covers, shape (tokens, 2), 0-based and half-open.
    letters
        Letters of the sequence.

    Returns
    -------
    Shape (letters,) or (letters, layers); NaN where no token covers a letter.

    Examples
    --------
    >>> letter_scores([2.0, 4.0], [(0, 3), (1, 4)], 5).tolist()
    [2.0, 3.0, 3.0, 4.0, nan]
    """
    scores = np.asarray(token_scores, np.float64)
    spans = np.asarray(spans, np.int64).reshape(-1, 2)
    lengths = spans[:, 1] - spans[:, 0]
    token = np.repeat(np.arange(len(spans)), lengths)
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    letter = spans[token, 0] + np.arange(len(token)) - before
    count = np.bincount(letter, minlength=letters)[:letters]
    columns = scores.reshape(len(spans), -1).T
    sums = np.stack([np.bincount(letter, c[token], letters)[:letters] for c in columns], -1)
    with np.errstate(invalid="ignore"):
        means = sums / np.where(count, count, np.nan)[:, None]
    return means.reshape(letters, *scores.shape[1:])


class _Window:
    """Computes the rows and scores of some items, and writes their maps."""

    def __init__(self, model: Model, view: View, budget: int, maps: Path | None):
        self.model, self.view, self.budget, self.maps = model, view, budget, maps
        self.tokens = tokenizer_of(model).vocabulary

    def __call__(
        self, items: list[Item], advance: Advance
    ) -> tuple[list[dict[str, object]], dict[str, Any]]:
        tokenizer = tokenizer_of(self.model)
        texts = [_texts(item, self.tokens) for item in items]
        spans = [_spans(item, tokenizer) for item in items]
        files = [self._files(item, spans[i]) for i, item in enumerate(items)]
        parts = look(self.model, self.view, items, self.budget, advance, files)
        scores = []
        for i, item in enumerate(items):
            if item.status != "ok":
                scores.append(np.zeros((0, len(self.view.layers))))
                continue
            found = letter_scores(np.concatenate(parts[i]), spans[i], len(texts[i]))
            if self.view.unit_length:
                found /= np.sqrt(np.nansum(found**2, 0)) + np.finfo(float).tiny
            scores.append(found)
        rows = []
        for item, text, paths in zip(items, texts, files, strict=True):
            shown = text if isinstance(text, str) else "\t".join(text)
            results = {"maps": " ".join(f.path.name for f in paths), "letters": shown}
            rows.append(item_row(item, results))
        return rows, {"score": scores}

    def _files(self, item: Item, spans: NDArray[np.int64]) -> list["MapFile"]:
        """Return where the maps of an item's pieces go; nowhere if they are not wanted."""
        if self.maps is None:
            return []
        tokenizer = tokenizer_of(self.model)
        first, around = len(tokenizer.prefix), len(tokenizer.prefix) + len(tokenizer.suffix)
        found, at = [], 0
        for k, piece in enumerate(item.pieces):
            part = f".{k + 1}" if len(item.pieces) > 1 else ""
            ids = piece.tokens["input_ids"]
            start, stop = piece.keep
            placed = np.full((len(ids), 2), -1, np.int64)
            inside, begin = len(ids) - around, at - (start - first)
            placed[first : first + inside] = spans[begin : begin + inside]
            at += stop - start
            found.append(
                MapFile(
                    path=self.maps / f"{_file_name(item)}{part}.npz",
                    arrays={"tokens": np.array([self.tokens[t] for t in ids]), "spans": placed},
                )
            )
        return found


@dataclass(frozen=True, kw_only=True)
class MapFile:
    """Where the maps of a piece go.

    Attributes
    ----------
    path
        An ``.npz`` file.
    arrays
        What it holds beside the maps.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]


def look(
    model: Model,
    view: View,
    items: Sequence[Item],
    budget: int,
    advance: Advance,
    files: Sequence[Sequence[MapFile]],
) -> list[list[NDArray[np.float64]]]:
    """Return the scores of the kept tokens of each piece of each item, shape (tokens, layers).

    Parameters
    ----------
    model
        In evaluation mode.
    view
        What is looked at.
    items
        As `prepare` gives them.
    budget
        Most tokens of a batch, padding included; the maps limit it further.
    advance
        Called with the letters that are done.
    files
        For each item, where the maps of its pieces go; none of them if they are not wanted.
    """
    places = [(i, k) for i, item in enumerate(items) for k in range(len(item.pieces))]
    lengths = [len(items[i].pieces[k].tokens["input_ids"]) for i, k in places]
    tokenizer = tokenizer_of(model)
    found = [[np.zeros((0, 0))] * len(item.pieces) for item in items]
    heads = getattr(model.config, "heads", 16)
    for chosen in _fitting(plan_batches(lengths, budget), lengths, heads):
        rows = [places[n] for n in chosen]
        tokens = [items[i].pieces[k].tokens for i, k in rows]
        inputs = collate_rows(tokenizer, tokens, model.device)
        parts: list[list[NDArray[np.float64]]] = [[] for _ in rows]
        with ExitStack() as stack, torch.no_grad(), enough_memory([lengths[n] for n in chosen]):
            archives = [
                stack.enter_context(_Archive(files[i][k])) if files[i] else None for i, k in rows
            ]
            for layer, weights_BHLL in model.backbone.each_attention(view.layers, **inputs):
                for row, (i, k) in enumerate(rows):
                    keep, length = items[i].pieces[k].keep, lengths[chosen[row]]
                    map_HLL = weights_BHLL[row, :, :length, :length].float()
                    parts[row].append(_received(map_HLL, keep, view.query))
                    if (archive := archives[row]) is not None:
                        archive.add(f"layer_{layer}", map_HLL.cpu().numpy())
        for row, (i, k) in enumerate(rows):
            found[i][k] = np.stack(parts[row], -1)
            start, stop = items[i].pieces[k].keep
            advance((stop - start) * items[i].length / items[i].tokens)
    return found


def _received(map_HLL: torch.Tensor, keep: tuple[int, int], query: Query) -> NDArray[np.float64]:
    """Return what the kept tokens of a piece get, summed over heads."""
    start, stop = keep
    asking_HL = map_HLL[:, 0] if query == "cls" else map_HLL[:, start:stop].mean(1)
    return asking_HL[:, start:stop].double().sum(0).cpu().numpy()


def _fitting(
    plan: Sequence[Sequence[int]], lengths: Sequence[int], heads: int
) -> Iterator[list[int]]:
    """Split batches until the maps of one layer fit."""
    for batch in plan:
        longest = max(lengths[n] for n in batch)
        rows = max(1, _BATCH_BYTES // (4 * heads * longest**2))
        for start in range(0, len(batch), rows):
            yield list(batch[start : start + rows])


class _Archive:
    """An ``.npz`` that is filled array by array and appears whole or not at all."""

    def __init__(self, file: MapFile):
        self._file = file
        self._closing = ExitStack()

    def __enter__(self) -> "_Archive":
        self._file.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._closing.enter_context(atomic_path(self._file.path))
        self._zip = self._closing.enter_context(ZipFile(temporary, "w"))
        for name, array in self._file.arrays.items():
            self.add(name, array)
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._closing.__exit__(*error)

    def add(self, name: str, array: np.ndarray) -> None:
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)  # type: ignore[arg-type]


def _texts(item: Item, vocabulary: Sequence[str]) -> str | list[str]:
    """Return what is scored of an item: letters, or the names of a cell's genes."""
    if isinstance(item.content, str):
        return item.content
    return [str(vocabulary[t]) for p in item.pieces for t in p.tokens["input_ids"][slice(*p.keep)]]


def _spans(item: Item, tokenizer: Any) -> NDArray[np.int64]:
    if isinstance(item.content, str):
        return tokenizer.spans(item.content)
    count = sum(stop - start for start, stop in (p.keep for p in item.pieces))
    return np.stack([np.arange(count), np.arange(1, count + 1)], -1)


def _file_name(item: Item) -> str:
    """Return a name that no other record has, whatever its place in the input."""
    content = item.content if isinstance(item.content, str) else item.pieces[0].tokens
    digest = hashlib.sha256(f"{item.id}\0{content}".encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', item.id)[:60]}-{digest}"


def scored_rows(
    stored: StoredRows, item: str
) -> Iterator[tuple[dict[str, Any], Sequence[str], NDArray[np.float64]]]:
    """Yield the row of each record, its letters (a cell's genes) and their scores."""
    for shard in stored.shards():
        scores, offsets = shard.array("score"), shard.offsets("score")
        for n, row in enumerate(shard.rows()):
            text = str(row["letters"])
            letters = text.split("\t") if item == "cell" else text
            yield row, letters, scores[offsets[n] : offsets[n + 1]]


def _write_tables(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write the scores of all letters, then the rows of all records."""
    layers = provenance["layers"]
    assert isinstance(layers, list)
    names = [f"layer_{layer}" for layer in layers]
    with writing(path.with_name(SCORES)) as stream:
        stream.write("\t".join(["id", "start", "end", *names, "letter"]).encode() + b"\n")
        for row, letters, scores in scored_rows(stored, str(provenance["item"])):
            lines = []
            for at, line in enumerate(scores.tolist()):
                numbers = "\t".join("" if math.isnan(v) else f"{v:.6g}" for v in line)
                lines.append(f"{row['id']}\t{at}\t{at + 1}\t{numbers}\t{letters[at]}\n")
            stream.write("".join(lines).encode())
    plain = copy(stored)
    plain.columns = {k: v for k, v in stored.columns.items() if k != "letters"}
    plain.arrays = {}
    write_delimited(path, plain, provenance)
