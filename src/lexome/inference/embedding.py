"""Sequences and cells to vectors.

Axes: B batch, L tokens, D width.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import numpy as np
import torch

from lexome.blocks.pooling import range_max, range_sum
from lexome.core import InputError, pick
from lexome.formats import Genome
from lexome.inference.batching import batches, enough_memory, token_budget
from lexome.inference.reading import (
    Item,
    Source,
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
from lexome.inference.stretches import LengthNote, cutting_with_state, stretch_tokens, stretches
from lexome.model import Model

Pooling = Literal["mean", "max", "cls", "last", "concat", "token"]
POOLINGS: dict[str, tuple[str, ...]] = {  # what each is joined from
    "mean": ("mean",),
    "max": ("max",),
    "cls": ("cls",),
    "last": ("last",),
    "concat": ("cls", "max", "mean"),
    "token": ("token",),
}

_HELD_BYTES = 1 << 26  # of the vectors of one record's tokens; more wait in a file


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Vectors of records, in their order.

    Attributes
    ----------
    ids
        Names of the records.
    vectors
        Shape (records, D), float32, NaN where the status is not ``"ok"``; for pooling ``"token"``
        a tuple of one array (tokens, D) per record, of no rows where the status is not ``"ok"``.
    status
        ``"ok"`` or why there is no vector.
    lengths, unknown
        Letters or expressed genes of each record, and how many of them the model does not know.
    fields
        What else the source said of each record.
    provenance
        Model, checkpoint hash, precision, pooling, layer, version.
    summary
        The run in numbers.
    """

    ids: tuple[str, ...]
    vectors: np.ndarray | tuple[np.ndarray, ...]
    status: tuple[str, ...]
    lengths: np.ndarray
    unknown: np.ndarray
    fields: tuple[Mapping[str, str], ...]
    provenance: Mapping[str, object]
    summary: Summary

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        """Return the summary; the vectors are too many to print."""
        return f"{self.summary.line()}. Vectors are kept only with an output file."


def embed(
    model: Model | str | Path,
    source: Source,
    *,
    pooling: Pooling | None = None,
    layer: int = -1,
    out: str | Path | None = None,
    genome: str | Path | Genome | None = None,
    sequence_column: str = "sequence",
    id_column: str | None = None,
    upper: bool = False,
    counts_layer: str | None = None,
    gene_column: str | None = None,
    special_tokens: bool = True,
    max_tokens: int | None = None,
    overlap_tokens: int | None = None,
    chunk_tokens: int | None = None,
    max_unknown: float = 0.5,
    max_tokens_per_batch: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Embeddings | Summary:
    """Turn sequences or cells into vectors.

    A record's vector depends on that record alone, not on the others or on the batch. Every
    record comes out, in order; one that has no vector says why in its status.

    Parameters
    ----------
    model
        A model, or what `lexome.load` takes: a release name, a hub id, a folder.
    source
        Sequences: FASTA, FASTQ, BED with `genome`, TSV, CSV, Parquet, text with one sequence a
        line, ``-`` for stdin, or from Python a list of strings or (name, sequence) pairs. For
        models of cells, an .h5ad file with counts.
    pooling
        One vector per record: ``mean`` of its tokens, ``max`` of each channel, ``cls`` (the first
        token), ``last``, or ``concat`` of cls, max and mean. ``token`` gives one per token
        instead. By default what the model's authors do, which may scale vectors to length 1.
    layer
        ``-1`` for the final state; 0 to n for the stream after so many of the n layers, before
        any final norm. Layers behind it are not computed.
    out
        ``.npz``, ``.npy`` (with the rows beside, in ``.tsv``), ``.parquet``, ``.h5ad``, ``.tsv``
        or ``.csv``. Without it, the vectors are returned.
    genome
        FASTA that a BED file's intervals are taken from.
    sequence_column
        Column of a table that holds the sequences.
    id_column
        Column of a table that holds their names; by default ``id`` if there is one, else rows are
        numbered from 1.
    upper
        Read all letters as upper case.
    counts_layer
        For cells: where the counts are if not in X, a name among the layers or ``raw``.
    gene_column
        For cells: the column of .var that holds the gene names; by default the one that the model
        knows most names of.
    special_tokens
        Whether the tokens that the authors put around a sequence are pooled (and given, for
        ``token``). The model sees them in any case.
    max_tokens
        Sequences of more tokens, special ones counted, are cut into overlapping pieces of that
        many. By default the model's limit; where it has none, causal models with a state (Mamba,
        Evo) take whole sequences, whatever their length, and others 4,096. Each token takes its
        vector from the piece in which it stands farthest from a cut (in a causal model, from the
        earliest that holds it), and is pooled once; ``cls`` is of the first piece, ``last`` of the
        last. A cell of more keeps a draw of its genes, which depends on the cell alone; by default
        as many as the model's authors take.
    overlap_tokens
        Fewest tokens that neighbouring pieces share; by default an eighth of a piece.
    chunk_tokens
        For causal models with a state: so many tokens go through at a time, and the state, or the
        keys and values of attention, is carried on; only the latter grow with the sequence. By
        default what suits the machine. It changes speed and memory only.
    max_unknown
        Largest share of letters or genes that the model may not know; more is refused.
    max_tokens_per_batch
        Padding counted. By default what suits the machine. It changes speed and memory only.
    resume
        Continue an interrupted run of the same arguments.
    overwrite
        Replace `out`, and rows of an interrupted run with other arguments.
    progress
        Whether to show a progress bar and a last line of numbers on stderr. By default on a
        terminal; the line also where there is an output.
    device
        Where to compute, if the model is not loaded yet: ``auto`` takes a GPU where there is one.
    precision
        In which numbers, if the model is not loaded yet: ``float32`` are the authors', ``auto`` is
        faster where the hardware allows and gives about three digits.

    Returns
    -------
    `Embeddings`, or with `out` a `Summary`.

    Raises
    ------
    UnknownLetters
        If no record at all has letters or genes that the model knows.
    InputError
        If arguments contradict each other, the model or the input.
    FormatError
        If the input is not what its name says, with file and line.

    Examples
    --------
    >>> from lexome.catalog import new
    >>> model = new("gpn", width=8, depth=2, mlp_width=8)
    >>> found = embed(model, [("a", "ACGT"), ("b", ""), ("c", "acgtN")])
    >>> found.vectors.shape, found.status
    ((3, 8), ('ok', 'empty', 'ok'))
    """
    model = loaded(model, device, precision)
    tokenizer = tokenizer_of(model)
    if max_tokens is not None and tokenizer.item == "cell":
        tokenizer = tokenizer.limited(max_tokens)
    how = How(
        parts=POOLINGS[pick("pooling", pooling or model.family.pooling, POOLINGS)],
        layer=_checked_layer(model, layer),
        special_tokens=special_tokens,
        normalise=pooling is None and model.family.normalise,
        width=model.config.width,
        chunk_tokens=chunk_tokens,
        scratch=None if out is None else Path(out).parent,
    )
    cut = cutting_with_state(model, max_tokens, overlap_tokens)
    settings: dict[str, object] = {
        "pooling": pooling or model.family.pooling,
        "unit_length": how.normalise,
        "layer": layer,
        "special_tokens": special_tokens,
        "piece_tokens": cut.room,
        "overlap_tokens": cut.overlap,
        "max_unknown": max_unknown,
        "upper": upper,
        **tokenizer.settings(),
    }
    records = read_records(
        tokenizer,
        source,
        genome=genome,
        sequence_column=sequence_column,
        id_column=id_column,
        upper=upper,
        counts_layer=counts_layer,
        gene_column=gene_column,
    )
    budget = token_budget(model, max_tokens_per_batch)
    stretch_tokens(model, 1, chunk_tokens, budget)  # refused before any work
    work = partial(
        run,
        model,
        records,
        partial(prepare, tokenizer=tokenizer, cutting=cut, max_unknown=share(max_unknown)),
        partial(_embed_window, model, how, budget, LengthNote(model)),
        budget=budget,
        progress=progress,
    )
    made = provenance(model, "embed", settings)
    columns = {"columns": [sequence_column, id_column, counts_layer, gene_column]}
    kept, summary = deliver(
        work,
        out,
        settings=fingerprint(model, source, genome, made | columns),
        made=made,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        ragged=how.parts == ("token",),
    )
    return _embeddings(kept, how, made, summary) if out is None else summary


@dataclass(frozen=True, kw_only=True)
class How:
    """What is pooled of an item, and how.

    Attributes
    ----------
    parts
        The poolings that are joined; see `POOLINGS`.
    layer
        As for `embed`.
    special_tokens
        Whether the tokens around a sequence are pooled.
    normalise
        Whether vectors are scaled to length 1.
    width
        Channels of a token.
    chunk_tokens
        As for `embed`.
    scratch
        Folder for the vectors of the tokens of long records; None holds them in memory.
    """

    parts: tuple[str, ...]
    layer: int
    special_tokens: bool
    normalise: bool
    width: int
    chunk_tokens: int | None = None
    scratch: Path | None = None


def _checked_layer(model: Model, layer: int) -> int:
    depth = len(model.backbone.layers)
    if not -1 <= layer <= depth:
        raise InputError(
            f"layer is {layer}, but {model.name} has {depth} layers. Expected 0 (before the first) "
            f"to {depth}, or -1 for the final state."
        )
    return layer


def _embed_window(
    model: Model, how: How, budget: int, note: LengthNote, items: list[Item], advance: Advance
) -> tuple[list[dict[str, object]], dict[str, Any]]:
    """Return the rows and vectors of some items."""
    note.tell(max((p.keep[1] - p.keep[0] for item in items for p in item.pieces), default=0))
    vectors = item_vectors(model, how, budget, items, advance)
    joined = vectors if how.parts == ("token",) else np.stack(vectors)
    return [item_row(item) for item in items], {"embedding": joined}


def item_vectors(
    model: Model, how: How, budget: int, items: list[Item], advance: Advance
) -> list[np.ndarray]:
    """Return one vector per item, NaN where it is refused; arguments as for `layer_vectors`."""
    return layer_vectors(model, how, [how.layer], budget, items, advance)[how.layer]


def layer_vectors(
    model: Model,
    how: How,
    layers: Collection[int],
    budget: int,
    items: list[Item],
    advance: Advance,
) -> dict[int, list[np.ndarray]]:
    """Return what `item_vectors` does for several layers, in one pass.

    Parameters
    ----------
    model
        In evaluation mode.
    how
        What is pooled, of every layer; its own `layer` is not looked at.
    layers
        As `layer` of `embed`.
    budget
        Most tokens of a batch, padding included.
    items
        As `prepare` gives them.
    advance
        Called with the letters that are done.

    Returns
    -------
    For each layer one vector per item, or its tokens' vectors; NaN, or none, where it is refused.
    """
    places = [(i, k) for i, item in enumerate(items) for k in range(len(item.pieces))]
    tokens = [items[i].pieces[k].tokens for i, k in places]
    pools = {layer: [_Pool(item, how) for item in items] for layer in layers}
    tokenizer = tokenizer_of(model)
    for batch in batches(tokens, tokenizer, max_tokens=budget, device=model.device):
        rows = [places[i] for i in batch.indices]
        ranges = [pooled_range(items[i], k, special_tokens=how.special_tokens) for i, k in rows]
        length = max(batch.lengths)
        stretch = stretch_tokens(model, length, how.chunk_tokens, budget)
        letters = sum(_letters(items[i], k) for i, k in rows)
        with torch.no_grad(), enough_memory(batch.lengths):
            for first, part in stretches(batch.inputs, stretch):
                columns = part["input_ids"].shape[1]
                here = [_within(pooled, first, columns) for pooled in ranges]
                for layer, x_BLD in _streams(model, layers, part):
                    parts = _pooled(x_BLD, here, how)
                    for row, (i, k) in enumerate(rows):
                        of_row = {name: values[row] for name, values in parts.items()}
                        pools[layer][i].add(k, first, here[row], of_row)
                advance(letters * columns / length)
    return {layer: [pool.vector() for pool in each] for layer, each in pools.items()}


def _letters(item: Item, piece: int) -> float:
    """Return how many letters of an item are done when one of its pieces is."""
    start, stop = item.pieces[piece].keep
    return (stop - start) * item.length / item.tokens


def _within(pooled: tuple[int, int], first: int, columns: int) -> tuple[int, int]:
    """Return which of some columns are in a range, counted from the first; none is (a, a)."""
    start, stop = (min(max(place - first, 0), columns) for place in pooled)
    return start, stop


def _streams(
    model: Model, layers: Collection[int], inputs: dict[str, torch.Tensor]
) -> Iterator[tuple[int, torch.Tensor]]:
    if len(layers) > 1:
        yield from model.backbone.streams(layers, **inputs)
        return
    (layer,) = layers  # an ordinary call, which a compiled backbone or a hook sees
    yield layer, model.backbone(depth=None if layer < 0 else layer, **inputs).last


def _pooled(x_BLD: torch.Tensor, ranges: list[tuple[int, int]], how: How) -> dict[str, Any]:
    """Return what the poolings need of each row of a batch, as float32 arrays.

    A row of which nothing is pooled has numbers without meaning.
    """
    ranges_B2 = torch.tensor(ranges, device=x_BLD.device)
    first_B = ranges_B2[:, 0].clamp(max=x_BLD.shape[1] - 1)
    rows_B = torch.arange(len(ranges), device=x_BLD.device)
    made: dict[str, Callable[[], torch.Tensor]] = {
        "mean": lambda: range_sum(x_BLD, ranges_B2),
        "max": lambda: range_max(x_BLD, ranges_B2),
        "cls": lambda: x_BLD[rows_B, first_B].float(),
        "last": lambda: x_BLD[rows_B, ranges_B2[:, 1] - 1].float(),
    }
    if how.parts == ("token",):
        whole = x_BLD.float().cpu().numpy()
        return {"token": [x[a:b] for x, (a, b) in zip(whole, ranges, strict=True)]}
    parts = {name: made[name]().cpu().numpy() for name in how.parts}
    # Sums go on in double precision: many stretches must not lose what one pass keeps.
    return {n: v.astype(np.float64) if n == "mean" else v for n, v in parts.items()}


def pooled_range(item: Item, piece: int, *, special_tokens: bool) -> tuple[int, int]:
    """Return which tokens of a piece are pooled: those kept, and special ones at its outer ends.

    Parameters
    ----------
    item, piece
        The item and the number of its piece.
    special_tokens
        Whether the tokens around a sequence are pooled.
    """
    start, stop = item.pieces[piece].keep
    if special_tokens:
        start = 0 if piece == 0 else start
        if piece == len(item.pieces) - 1:
            stop = len(item.pieces[piece].tokens["input_ids"])
    return start, stop


_JOIN: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": np.add,  # divided last
    "max": np.maximum,
}


class _Pool:
    """The vector of one item, joined from what its pieces give, stretch by stretch."""

    def __init__(self, item: Item, how: How):
        self.how = how
        ranges = [
            pooled_range(item, k, special_tokens=how.special_tokens)
            for k in range(len(item.pieces))
        ]
        self.starts = [start for start, _ in ranges]
        *self.before, self.tokens = accumulate((b - a for a, b in ranges), initial=0)
        self.parts: dict[str, np.ndarray] = {}
        if how.parts == ("token",):
            self.parts["token"] = _room((self.tokens, how.width), how.scratch)

    def add(
        self, piece: int, first: int, here: tuple[int, int], parts: Mapping[str, np.ndarray]
    ) -> None:
        """Take what some columns of a piece give; pieces come in any order.

        Parameters
        ----------
        piece
            Its number.
        first
            Its token that is the first column.
        here
            The columns that are pooled.
        parts
            What `_pooled` gives of them.
        """
        start, stop = here
        if start == stop:
            return
        at = self.before[piece] + first + start - self.starts[piece]
        end = at + stop - start
        for name, value in parts.items():
            before = self.parts.get(name)
            if name == "token":
                self.parts[name][at:end] = value
            elif (name == "cls" and at > 0) or (name == "last" and end < self.tokens):
                continue
            elif before is None:
                self.parts[name] = value
            else:
                self.parts[name] = _JOIN[name](before, value)

    def vector(self) -> np.ndarray:
        """Return the item's vector, or its tokens' vectors."""
        how, parts = self.how, self.parts
        if how.parts == ("token",):
            return parts["token"]
        if not parts:
            return np.full(len(how.parts) * how.width, np.nan, np.float32)
        vector = np.concatenate([self._whole(name) for name in how.parts])
        if how.normalise:
            vector = vector / np.linalg.norm(vector)
        return vector.astype(np.float32)

    def _whole(self, name: str) -> np.ndarray:
        return self.parts[name] / self.tokens if name == "mean" else self.parts[name]


def _room(shape: tuple[int, int], scratch: Path | None) -> np.ndarray:
    """Return room for vectors of tokens, in a file without a name if it is much."""
    size = 4 * shape[0] * shape[1]
    if scratch is None or size <= _HELD_BYTES:
        return np.empty(shape, np.float32)
    with TemporaryFile(dir=scratch) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a crash later
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, np.float32, "w+", shape=shape)


_OWN_COLUMNS = ("id", "status", "length", "tokens", "unknown", "pieces")


def _embeddings(
    kept: Collected, how: How, made: Mapping[str, object], summary: Summary
) -> Embeddings:
    """Turn the rows of a run in memory into arrays."""
    rows: list[Mapping[str, Any]] = list(kept.rows)
    blocks = kept.arrays.get("embedding", [])
    if how.parts == ("token",):
        vectors: Any = tuple(array for block in blocks for array in block)
    else:
        none = np.zeros((0, len(how.parts) * how.width), np.float32)
        vectors = np.concatenate([none, *blocks])
    return Embeddings(
        ids=tuple(row["id"] for row in rows),
        vectors=vectors,
        status=tuple(row["status"] for row in rows),
        lengths=np.array([row["length"] for row in rows], np.int64),
        unknown=np.array([row["unknown"] for row in rows], np.int64),
        fields=tuple({k: v for k, v in row.items() if k not in _OWN_COLUMNS} for row in rows),
        provenance=made,
        summary=summary,
    )
