"""How likely a model finds a sequence: log-likelihood and pseudo-log-likelihood.

Axes: V vocabulary, N scored tokens.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexome.core import InputError
from lexome.core.messages import tab_table
from lexome.formats import Genome
from lexome.inference.batching import (
    batches,
    collate_rows,
    enough_memory,
    plan_batches,
    token_budget,
)
from lexome.inference.causal_likelihood import entropies_of, score_tokens, unscored_tokens
from lexome.inference.kmer_likelihood import (
    OverlappingKmers,
    covering,
    letter_logprobs,
    overlapping_kmers,
)
from lexome.inference.position_scores import TRACKS, checked_positions, positions_writer
from lexome.inference.reading import (
    LONGEST,
    Cutting,
    Item,
    Source,
    prepare,
    read_records,
    share,
    tokenizer_of,
)
from lexome.inference.runs import (
    Advance,
    Summary,
    deliver,
    fingerprint,
    item_row,
    loaded,
    provenance,
    run,
)
from lexome.inference.stretches import LengthNote, cutting_with_state, stretch_tokens
from lexome.model import Model
from lexome.tokenizers import Encoded

LONGEST_MASKED = 512
"""Tokens of a piece where each of them is masked once and the model sets no limit."""


def masked_logprobs(
    model: Model,
    queries: Sequence[tuple[Encoded, Sequence[int] | np.ndarray]],
    *,
    max_tokens: int,
) -> Iterator[tuple[int, Tensor]]:
    """Yield log-probabilities of all tokens at masked places, by a masked model.

    Parameters
    ----------
    model
        A masked model with its token head.
    queries
        Pairs of an item with its special tokens and the places in it, 0-based and special tokens
        counted, that are masked together and scored. One item may come many times.
    max_tokens
        Most tokens of a batch, padding included.

    Yields
    ------
    Index of the query and its log-probabilities, shape (places, V), float32, natural log, in the
    order of the places given. Queries come longest first, not in order.
    """
    tokenizer = model.tokenizer
    assert tokenizer is not None, "a model without a tokenizer has no mask token"
    for batch in plan_batches([len(item["input_ids"]) for item, _ in queries], max_tokens):
        rows = [_mask(*queries[i], tokenizer.mask) for i in batch]
        inputs = collate_rows(tokenizer, rows, model.device)
        counts = [len(queries[i][1]) for i in batch]
        rows_N = torch.arange(len(batch)).repeat_interleave(torch.tensor(counts))
        columns_N = torch.tensor([place for i in batch for place in queries[i][1]])
        with torch.no_grad(), enough_memory([len(row["input_ids"]) for row in rows]):
            at = (rows_N.to(model.device), columns_N.to(model.device))
            scores_NV = model(**inputs, positions=at).logits.float().log_softmax(-1)
        yield from zip(batch, scores_NV.split(counts), strict=True)


def _mask(item: Encoded, places: Sequence[int] | np.ndarray, mask: int | None) -> Encoded:
    assert mask is not None, "a masked model's tokenizer has a mask token"
    ids = np.array(item["input_ids"])
    ids[list(places)] = mask
    return {**item, "input_ids": ids}


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """Log-likelihoods of sequences, in their order.

    Attributes
    ----------
    rows
        One mapping per sequence, with the columns that :func:`score_sequences` describes; None
        where there is no number.
    provenance
        Model, checkpoint hash, precision, method, version.
    summary
        The run in numbers.
    """

    rows: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, object]
    summary: Summary

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> np.ndarray:
        """Return a column; missing numbers are NaN."""
        values = [row[name] for row in self.rows]
        return np.array([math.nan if value is None else value for value in values])

    def __str__(self) -> str:
        """Return the rows as a tab-separated table."""
        return tab_table(self.rows)


def score_sequences(
    model: Model | str | Path,
    source: Source,
    *,
    out: str | Path | None = None,
    positions: str | Path | None = None,
    mask_stride: int | None = None,
    genome: str | Path | Genome | None = None,
    sequence_column: str = "sequence",
    id_column: str | None = None,
    upper: bool = False,
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
) -> Likelihoods | Summary:
    """Say how likely a model finds whole sequences.

    A causal model gives the log-likelihood: the sum of log p(token | tokens before it). The first
    token is scored where the authors put a token in front of every sequence, and otherwise only
    conditioned on. A masked model gives the pseudo-log-likelihood: the sum of log p(token | all
    others), each token masked once. N and unknown letters are seen but not scored. Natural
    logarithm; higher is likelier. A record's numbers depend on that record alone.

    Where tokens are overlapping k-mers (DNABERT), letters are scored instead: the sum of
    log p(letter | all k-mers that do not cover it), with the k-mers that do masked together. Each
    of them gives the letter a probability, that of the k-mers which agree with all visible letters;
    their mean is taken (:func:`lexome.inference.kmer_likelihood.letter_logprobs`).

    Parameters
    ----------
    model
        A model with its pretraining head, or what `lexome.load` takes: a release name, a hub id,
        a folder.
    source
        FASTA, FASTQ, BED with `genome`, TSV, CSV, Parquet, text with one sequence a line, ``-``
        for stdin, or from Python a list of strings or (name, sequence) pairs.
    out
        ``.tsv``, ``.csv`` or ``.parquet``. Without it, the rows are returned.
    positions
        Also write the log-probability of every token, and the entropy of the distribution that it
        is taken from (over the whole vocabulary; over the four letters where tokens are
        overlapping k-mers), both in nats: ``.tsv`` (``id``, ``start``,
        ``end`` from 0, ``logprob``, ``entropy``; ``.tsv.gz`` too), ``.npz`` (all records end to
        end, with their offsets, and the rows beside) or ``.bedgraph`` (two tracks; intervals of a
        BED file are placed on their contigs). What was not scored is NaN, in a bedGraph absent.
    mask_stride
        For masked models: mask every so many-th token together instead of each alone. That takes
        as many passes as the stride instead of one per token, and is an approximation, named as
        such in the output. Of overlapping k-mers, every so many-th run of k is masked, which takes
        k times as many passes; at least 2.
    genome
        FASTA that a BED file's intervals are taken from.
    sequence_column
        Column of a table that holds the sequences.
    id_column
        Column of a table that holds their names; by default ``id`` if there is one, else rows are
        numbered from 1.
    upper
        Read all letters as upper case.
    max_tokens
        Sequences of more tokens, special ones counted, are cut into overlapping pieces of that
        many. By default the model's limit; where it has none, masked models take 512, and causal
        ones with a state (Mamba, Evo) whole sequences, whatever their length. Each token is scored
        once: by a causal model in the earliest piece that holds it, with at least the overlap
        before it, by a masked one where it stands farthest from a cut.
    overlap_tokens
        Fewest tokens that neighbouring pieces share; by default an eighth of a piece.
    chunk_tokens
        For causal models with a state: so many tokens go through at a time, and the state, or the
        keys and values of attention, is carried on. By default what suits the machine. It changes
        speed and memory only.
    max_unknown
        Largest share of letters that the model may not know; more is refused.
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
    `Likelihoods`, or with `out` or `positions` a `Summary`. Columns: ``id``; ``status`` (``ok``,
    ``empty``, ``too short``, ``unknown letters``); ``length`` in letters; ``tokens``; ``unknown``
    letters; ``pieces`` it was cut into; ``scored_tokens`` (letters, where k-mers overlap),
    ``scored_bases``; ``loglik``, the sum; ``loglik_per_base``; ``bits_per_base``, the latter's
    negative in bits; then the columns of the input. Rows without a score have empty cells.

    Raises
    ------
    UnknownLetters
        If no record at all has letters that the model knows.
    InputError
        If arguments contradict each other, the model or the input.
    FormatError
        If the input is not what its name says, with file and line.

    Examples
    --------
    >>> from lexome.catalog import new
    >>> model = new("gpn", width=8, depth=2, mlp_width=8)
    >>> found = score_sequences(model, ["ACGTN", ""])
    >>> [(row["status"], row["scored_bases"]) for row in found.rows]
    [('ok', 4), ('empty', 0)]
    """
    model = loaded(model, device, precision).to_score()
    causal = _check(model, mask_stride)
    tokenizer = tokenizer_of(model)
    cut = _cutting(model, max_tokens, overlap_tokens, causal=causal)
    settings: dict[str, object] = {
        "method": _method(model, mask_stride),
        "mask_stride": mask_stride,
        "piece_tokens": cut.room,
        "overlap_tokens": cut.overlap,
        "max_unknown": max_unknown,
        "upper": upper,
    }
    if positions is not None:
        settings["positions"] = checked_positions(positions, out, overwrite=overwrite)
    records = read_records(
        tokenizer,
        source,
        genome=genome,
        sequence_column=sequence_column,
        id_column=id_column,
        upper=upper,
    )
    budget = token_budget(model, max_tokens_per_batch)
    kmers = overlapping_kmers(tokenizer)
    stretch_tokens(model, 1, chunk_tokens, budget)  # refused before any work
    if causal:
        score = _CausalScorer(model, budget, chunk_tokens, LengthNote(model))
    elif kmers is None:
        score = partial(_score_masked, model, budget, mask_stride)
    else:
        score = partial(_score_letters, model, budget, kmers, mask_stride)
    work = partial(
        run,
        model,
        records,
        partial(
            prepare,
            tokenizer=tokenizer,
            cutting=cut,
            max_unknown=share(max_unknown),
            letters=True,
        ),
        partial(_score_window, model, score, detailed=positions is not None),
        budget=budget,
        progress=progress,
        size=partial(
            _tokens_to_run,
            causal=causal,
            mask_stride=mask_stride and mask_stride * (kmers.k if kmers else 1),
        ),
    )
    made = provenance(model, "likelihood", settings)
    columns = {"columns": [sequence_column, id_column]}
    place = positions if out is None else out
    kept, summary = deliver(
        work,
        place,
        settings=fingerprint(model, source, genome, made | columns),
        made=made,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        writer=None if positions is None else positions_writer(positions, out),
    )
    if place is not None:
        return summary
    return Likelihoods(rows=tuple(kept.rows), provenance=made, summary=summary)


def _check(model: Model, mask_stride: int | None) -> bool:
    """Return whether the model is causal, after making sure that it can score."""
    objective = model.objective
    if objective not in {"causal", "masked"}:
        raise InputError(
            f"{model.family.title} gives no probabilities of letters (its objective is "
            f"{objective}). Sequences are scored by causal and masked models."
        )
    if model.head_name != objective:
        raise InputError(
            f"{model.name} has {model.head_name or 'no'} head, and scoring needs the {objective} "
            "one that it was pretrained with. Load the pretrained checkpoint."
        )
    tokenizer = tokenizer_of(model)
    kmers = overlapping_kmers(tokenizer)
    spans = tokenizer.spans("ACGTACGTACGTACGT")
    overlap = len(spans) > 1 and spans[1, 0] < spans[0, 1]
    if objective == "masked" and overlap and kmers is None:
        raise InputError(
            f"the tokens of {model.name} overlap, so the letters of a hidden token stand in its "
            "neighbours, and a pseudo-likelihood would be far too high. Use a model whose tokens "
            "lie side by side, or are k-mers that begin at every letter."
        )
    if mask_stride == 1 and kmers is not None:
        raise InputError(
            f"mask_stride is 1, which would hide all k-mers of {model.name} at once. Expected at "
            "least 2; 8 hides an eighth of them."
        )
    if mask_stride is not None and objective == "causal":
        raise InputError(
            f"mask_stride is for masked models, and {model.name} is causal: it scores all tokens "
            "in one pass. Leave it out."
        )
    if mask_stride is not None and mask_stride < 1:
        raise InputError(
            f"mask_stride is {mask_stride}. Expected at least 1 (each token masked alone is the "
            "default)."
        )
    return objective == "causal"


def _cutting(
    model: Model, max_tokens: int | None, overlap_tokens: int | None, *, causal: bool
) -> Cutting:
    longest = LONGEST if causal else LONGEST_MASKED
    return cutting_with_state(model, max_tokens, overlap_tokens, longest=longest, suffix=not causal)


def _method(model: Model, mask_stride: int | None) -> str:
    tokenizer = tokenizer_of(model)
    if model.objective == "causal":
        first = "is not scored"
        if tokenizer.prefix:
            names = (tokenizer.vocabulary[i].strip() or f"id {i}" for i in tokenizer.prefix)
            first = f"is scored given {' '.join(names)}"
        return f"sum of ln p(token | tokens before it); the first token {first}"
    if overlapping_kmers(tokenizer) is not None:
        alone = "sum of ln p(letter | k-mers that do not cover it), those that do masked together"
        if mask_stride is None:
            return alone
        return f"approximation to the {alone}; every {mask_stride}th run of k k-mers at once"
    if mask_stride is None:
        return "sum of ln p(token | all others), each token masked alone"
    return (
        f"approximation to the sum of ln p(token | all others), every {mask_stride}th token "
        "masked together"
    )


def _tokens_to_run(item: Item, *, causal: bool, mask_stride: int | None) -> int:
    """Count the tokens that go through the model for an item."""
    lengths = [len(piece.tokens["input_ids"]) for piece in item.pieces]
    if causal:
        return sum(lengths)
    return sum(n * (n if mask_stride is None else mask_stride) for n in lengths)


class _Sums:
    """What is scored of one item, added up in double precision."""

    def __init__(self, item: Item, unscored: np.ndarray):
        self.item, self.unscored = item, unscored
        kept = np.cumsum([0, *(stop - start for start, stop in (p.keep for p in item.pieces))])
        self.first_kept = kept[:-1]
        self.tokens = self.bases = 0
        self.loglik = 0.0
        self.tracks: np.ndarray | None = None  # (2, tokens): see position_scores.TRACKS

    def places(self, piece: int) -> np.ndarray:
        """Return which tokens of a piece can be scored: those kept that are letters."""
        tokens = self.item.pieces[piece].tokens["input_ids"]
        places = np.arange(*self.item.pieces[piece].keep)
        return places[~np.isin(tokens[places], self.unscored)]

    def add(
        self, piece: int, places: np.ndarray, logprobs: Tensor, entropies: Tensor | None
    ) -> None:
        """Take the log-probabilities of the tokens at some places of a piece."""
        assert self.item.spans is not None, "asked for when the items were prepared"
        start, _ = self.item.pieces[piece].keep
        self.loglik += float(logprobs.double().sum())
        self.tokens += len(places)
        at = self.first_kept[piece] + places - start
        spans = self.item.spans[at]
        self.bases += int((spans[:, 1] - spans[:, 0]).sum())
        self._keep(at, logprobs, entropies)

    def letters_of(self, piece: int, kmers: OverlappingKmers, prefix: int) -> np.ndarray:
        """Return the letters of a piece, counted in it, that are scored there.

        Each letter of the item belongs to the piece that keeps the k-mer k // 2 before it, the
        first ones to the first and the last ones to the last.
        """
        start, stop = self.item.pieces[piece].keep
        first, kept = int(self.first_kept[piece]), stop - start
        low = first + kmers.k // 2 if first else 0
        high = first + kept + (kmers.k // 2 if first + kept < self.item.tokens else kmers.k - 1)
        letters = np.arange(low, high) - self.before(piece, prefix)
        ids = self.item.pieces[piece].tokens["input_ids"][prefix:]
        return letters[kmers.spell(ids)[letters] >= 0]

    def before(self, piece: int, prefix: int) -> int:
        """Return how many letters of the item, whose tokens begin at each, precede a piece."""
        return int(self.first_kept[piece]) - (self.item.pieces[piece].keep[0] - prefix)

    def add_letters(self, at: np.ndarray, logprobs: Tensor, entropies: Tensor | None) -> None:
        """Take the log-probabilities of some letters, counted in the item."""
        self.loglik += float(logprobs.double().sum())
        self.tokens += len(logprobs)
        self.bases += len(logprobs)
        self._keep(at, logprobs, entropies)

    def _keep(self, at: np.ndarray, logprobs: Tensor, entropies: Tensor | None) -> None:
        if self.tracks is not None and entropies is not None:
            self.tracks[:, at] = torch.stack([logprobs, entropies]).float().cpu().numpy()

    def row(self) -> dict[str, object]:
        """Return the item's row."""
        status = self.item.status
        if status == "ok" and not self.tokens:
            first = self.item.pieces[0]
            is_known = first.tokens["input_ids"][first.keep[0]] not in self.unscored
            status = "too short" if self.item.tokens == 1 and is_known else "unknown letters"
        scored = self.bases > 0
        per_base = self.loglik / self.bases if scored else None
        results = {
            "scored_tokens": self.tokens,
            "scored_bases": self.bases,
            "loglik": self.loglik if scored else None,
            "loglik_per_base": per_base,
            "bits_per_base": None if per_base is None else -per_base / math.log(2),
        }
        return item_row(self.item, results, status)


_Score = Callable[[list[Item], list[_Sums], Advance], None]
"""Adds up what is scored of some items."""


def _score_window(
    model: Model, score: _Score, items: list[Item], advance: Advance, *, detailed: bool
) -> tuple[list[dict[str, object]], dict[str, Any]]:
    """Return the rows of some items, and if `detailed` the arrays of `position_scores.ARRAYS`."""
    tokenizer = tokenizer_of(model)
    unscored = unscored_tokens(tokenizer)
    sums = [_Sums(item, unscored) for item in items]
    if not detailed:
        score(items, sums, advance)
        return [s.row() for s in sums], {}
    by_letter = overlapping_kmers(tokenizer) is not None
    spans = []
    for item, one in zip(items, sums, strict=True):
        span = np.zeros((0, 2), np.int64) if item.spans is None else item.spans
        if by_letter and len(span):
            span = np.arange(item.length)[:, None] + np.arange(2)
        spans.append(span.astype(np.int32))
        one.tracks = np.full((len(TRACKS), len(span)), np.nan, np.float32)
    score(items, sums, advance)
    return [s.row() for s in sums], {
        "span": spans,
        **{name: [s.tracks[i] for s in sums] for i, name in enumerate(TRACKS)},  # type: ignore[index]
    }


@dataclass
class _CausalScorer:
    """Scores tokens given those before them, long records in stretches."""

    model: Model
    budget: int
    chunk_tokens: int | None
    note: LengthNote

    def __call__(self, items: list[Item], sums: list[_Sums], advance: Advance) -> None:
        """Add up what is scored of some items."""
        tokenizer = tokenizer_of(self.model)
        pieces = [(i, k) for i, item in enumerate(items) for k in range(len(item.pieces))]
        tokens = [items[i].pieces[k].tokens for i, k in pieces]
        longest = max(map(len, (t["input_ids"] for t in tokens)), default=0)
        self.note.tell(longest - len(tokenizer.scored_after))
        for batch in batches(tokens, tokenizer, max_tokens=self.budget, device=self.model.device):
            rows = [pieces[i] for i in batch.indices]
            places = [sums[i].places(k) for i, k in rows]
            places = [p[p > 0] for p in places]  # before the first token stands nothing
            counts = [len(p) for p in places]
            device = self.model.device
            rows_N = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)).to(device)
            columns_N = torch.from_numpy(np.concatenate(places)).to(device)
            stretch = stretch_tokens(self.model, max(batch.lengths), self.chunk_tokens, self.budget)
            letters = sum(
                (items[i].pieces[k].keep[1] - items[i].pieces[k].keep[0])
                * items[i].length
                / items[i].tokens
                for i, k in rows
            )
            with enough_memory(batch.lengths):
                found = score_tokens(
                    self.model,
                    batch.inputs,
                    rows_N,
                    columns_N,
                    stretch=stretch,
                    entropies=sums[0].tracks is not None,
                    done=lambda share, letters=letters: advance(share * letters),
                )
            logprobs = found.logprobs_N.cpu().split(counts)
            entropies = [None] * len(rows)
            if found.entropies_N is not None:
                entropies = found.entropies_N.cpu().split(counts)
            for (i, k), at, some, spread in zip(rows, places, logprobs, entropies, strict=True):
                sums[i].add(k, at, some, spread)


def _score_masked(
    model: Model,
    budget: int,
    mask_stride: int | None,
    items: list[Item],
    sums: list[_Sums],
    advance: Advance,
) -> None:
    asked = [
        (i, k, places)
        for i, item in enumerate(items)
        for k in range(len(item.pieces))
        for places in _together(sums[i].places(k), mask_stride)
    ]
    queries = [(items[i].pieces[k].tokens, places) for i, k, places in asked]
    for query, logprobs_NV in masked_logprobs(model, queries, max_tokens=budget):
        i, k, places = asked[query]
        true = torch.from_numpy(items[i].pieces[k].tokens["input_ids"][places].astype(np.int64))
        logprobs = logprobs_NV.gather(1, true.to(logprobs_NV.device)[:, None])[:, 0]
        detailed = sums[i].tracks is not None
        sums[i].add(k, places, logprobs.cpu(), entropies_of(logprobs_NV) if detailed else None)
        advance(len(places) * items[i].length / items[i].tokens)


def _score_letters(
    model: Model,
    budget: int,
    kmers: OverlappingKmers,
    mask_stride: int | None,
    items: list[Item],
    sums: list[_Sums],
    advance: Advance,
) -> None:
    tokenizer = tokenizer_of(model)
    prefix, suffix = len(tokenizer.prefix), len(tokenizer.suffix)
    stride = mask_stride and mask_stride * kmers.k
    asked, queries = [], []
    for i, item in enumerate(items):
        for k, piece in enumerate(item.pieces):
            whole = piece.tokens["input_ids"]
            ids = whole[prefix : len(whole) - suffix]
            for letters in _together(sums[i].letters_of(k, kmers, prefix), stride):
                places = covering(ids, letters, kmers)
                asked.append((i, k, ids, places, letters))
                queries.append((piece.tokens, places + prefix))
    for query, logprobs_PV in masked_logprobs(model, queries, max_tokens=budget):
        i, k, ids, places, letters = asked[query]
        found_J4 = letter_logprobs(logprobs_PV, ids, places, letters, kmers).cpu()
        true_J = torch.from_numpy(kmers.spell(ids)[letters].astype(np.int64))
        logprobs_J = found_J4.gather(1, true_J[:, None])[:, 0]
        at = letters + sums[i].before(k, prefix)
        sums[i].add_letters(at, logprobs_J, entropies_of(found_J4))
        advance(len(letters) * items[i].length / (items[i].tokens + kmers.k - 1))


def _together(places: np.ndarray, mask_stride: int | None) -> list[np.ndarray]:
    """Group the tokens that are masked in the same pass."""
    if mask_stride is None:
        return list(places[:, None])
    return [g for r in range(mask_stride) if len(g := places[places % mask_stride == r])]
