"""All small changes of coding sequences: every letter, every codon, every amino acid.

Axes: P masked places, V vocabulary.
"""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lexome.core import FormatError, InputError, free_path, pick
from lexome.core.json_files import write_json
from lexome.core.messages import counted, tab_table
from lexome.formats import RowStore, SequenceRecord, read_sequences, writer_for
from lexome.formats.streams import bare_suffix
from lexome.formats.table import DELIMITERS, PARQUET, open_table
from lexome.inference.batching import progress_bar, token_budget
from lexome.inference.causal_likelihood import change_logliks
from lexome.inference.likelihood import Likelihoods, masked_logprobs, score_sequences
from lexome.inference.reading import Source, tokenizer_of
from lexome.inference.runs import fingerprint, loaded, provenance
from lexome.inference.stretches import carries_state
from lexome.model import Model
from lexome.sequence.genetic_codes import BACTERIAL, GeneticCode
from lexome.sequence.genetic_codes import genetic_code as code_of
from lexome.tasks.bootstrap import Interval95, interval, resampled
from lexome.training.metrics import regression_metrics

Changes = Literal["nucleotide", "codon", "amino-acid"]
Synonyms = Literal["mean", "best"]

_BATCHES_TOGETHER = 8
_LEAST_MEASURED = 3
_SHOWN_FAULTS = 5
_HGVS = re.compile(r"(\d+)([A-Z]+)>([A-Z]+)")
_SEVERITY = {"synonymous": 0.0, "missense": -1.0, "start lost": -2.0, "stop lost": -2.0}


@dataclass(frozen=True, slots=True)
class _Change:
    """Letters of a codon put in the place of others.

    `start` and `letters` are counted in the record; `codon` is the whole codon after the change.
    """

    name: str
    start: int
    letters: str
    codon: str


@dataclass(frozen=True, slots=True)
class _Site:
    """A codon of a record, and what may become of it: the changes of each row."""

    record: SequenceRecord
    number: int
    rows: tuple[tuple[str, tuple[_Change, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How scores agree with measurements.

    Attributes
    ----------
    spearman
        Rank correlation; of several rows that one measurement means there are none.
    interval
        The middle 95 % over resamples of the measurements.
    by_kind
        The same correlation of the kind of change alone (synonymous, missense, start or stop
        lost, stop gained), which needs no model; NaN if all are of one kind.
    matched, unmatched
        Measurements with a score, and the names of those without.
    """

    spearman: float
    interval: Interval95
    by_kind: float
    matched: int
    unmatched: tuple[str, ...]

    def __str__(self) -> str:
        left = f", {len(self.unmatched):,} without a score" if self.unmatched else ""
        numbers = f"{self.spearman:.3f} ({self.interval}) over {self.matched:,} measured changes"
        if math.isnan(self.by_kind):
            return f"Spearman {numbers}{left}"
        return f"Spearman {numbers}{left}; by kind of change alone {self.by_kind:.3f}"


@dataclass(frozen=True, kw_only=True)
class CodingEffects:
    """Scores of changes.

    Attributes
    ----------
    rows
        One mapping per change, with the columns that :func:`coding_effects` describes; empty
        where they are in a file.
    count
        How many there are.
    refused
        {name of a record: why it is no coding sequence}.
    measured
        The comparison with measurements, if there are any.
    provenance
        Model, checkpoint hash, settings, version.
    out
        The output file, if any.
    """

    rows: tuple[Mapping[str, Any], ...]
    count: int
    refused: Mapping[str, str]
    measured: Measured | None
    provenance: Mapping[str, object]
    out: Path | None = None

    def __str__(self) -> str:
        """Return the rows as a tab-separated table, or where they are and what they agree with."""
        if self.out is None:
            return tab_table(self.rows)
        return "\n".join([*([str(self.measured)] if self.measured else []), str(self.out)])


def coding_effects(
    model: Model | str | Path,
    source: Source,
    *,
    out: str | Path | None = None,
    changes: Changes = "nucleotide",
    synonymous: Synonyms = "mean",
    measured: str | Path | None = None,
    mutation_column: str = "mutation",
    score_column: str = "score",
    genetic_code: int = BACTERIAL,
    whole: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    max_tokens_per_batch: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> CodingEffects:
    """Score all single changes of coding sequences, and compare them with measurements.

    A causal model gives the log-likelihood of the changed sequence minus that of the given one.
    A masked model gives the log-odds of the changed tokens over the given ones, with all tokens
    hidden that hold the letter (for changes of a nucleotide) or the codon. In nats; negative
    means that the model prefers the sequence as it is.

    Parameters
    ----------
    model
        A causal or masked model, or what `lexome.load` takes.
    source
        Coding sequences: a file of sequences, or from Python a list of strings or pairs.
    out
        ``.tsv``, ``.csv`` or ``.parquet``; beside it ``<out>.json`` with the comparison. Without
        it, the rows are returned.
    changes
        ``nucleotide``: each letter to the three others; ``codon``: each codon to the 63 others;
        ``amino-acid``: each amino acid to the 19 others and to a stop.
    synonymous
        The score of an amino acid: the ``mean`` over its codons, or the ``best`` of them.
    measured
        TSV, CSV or Parquet table of measurements, to which the Spearman correlation is given.
    mutation_column, score_column
        Its columns. A mutation is called as in the output, or for letters ``c.1A>G``. With several
        coding sequences a column ``id`` says which one.
    genetic_code
        NCBI's number of the genetic code.
    whole
        Whether sequences must begin with a start codon. What is no multiple of 3, has other
        letters or a stop codon inside is refused in any case.
    resamples, seed
        Of the interval of the correlation.
    max_tokens_per_batch
        By default what suits the machine.
    resume
        Continue an interrupted run of the same arguments.
    overwrite
        Replace `out`, and rows of an interrupted run with other arguments.
    progress
        Whether to show a progress bar; by default on a terminal.
    device, precision
        For a model that is still to be loaded, see `lexome.load`.

    Returns
    -------
    Columns: ``id`` of the record; ``mutation`` with its place counted from 1 as it is usual:
    ``A3G`` for letters, ``ATG1GTG`` for codons, ``M1V`` for amino acids; ``codon``, its number
    from 0; ``before``, ``after``, the codons, of an amino acid the best one; ``protein``, such as
    ``M1V``; ``effect`` (``synonymous``, ``missense``, ``start lost``, ``stop gained``, ``stop
    lost``); ``score``.

    Raises
    ------
    InputError
        If no record is a coding sequence, the model cannot score it, or no measurement fits.
    FormatError
        If a file is not what its name says.

    Examples
    --------
    >>> from lexome.catalog import new
    >>> model = new("hyenadna", width=16, mlp_width=32, depth=1, length=64)
    >>> found = coding_effects(model, ["ATGAAATAA"])
    >>> [row["mutation"] for row in found.rows][:4], found.rows[3]["effect"]
    (['A1C', 'A1G', 'A1T', 'T2A'], 'start lost')
    """
    pick("kind of changes", changes, ("nucleotide", "codon", "amino-acid"))
    pick("way to join synonymous codons", synonymous, ("mean", "best"))
    model = loaded(model, device, precision)
    code = code_of(genetic_code)
    _check_tokens(model)
    table = None if measured is None else _read_measured(measured, mutation_column, score_column)
    settings: dict[str, object] = {
        "changes": changes,
        "synonymous": synonymous if changes == "amino-acid" else None,
        "genetic_code": genetic_code,
        "whole": whole,
        "score": "log-likelihood ratio" if model.objective == "causal" else "masked log-odds",
    }
    made = provenance(model, "coding-effects", settings)
    refused: dict[str, str] = {}
    budget = token_budget(model, max_tokens_per_batch)
    kept: list[Mapping[str, Any]] = []
    with ExitStack() as stack:
        store, writer, done = None, None, 0
        if out is not None:
            writer = writer_for(out)
            free_path(out, overwrite=overwrite)
            decides = fingerprint(model, source, None, made)
            store = RowStore(out, decides, resume=resume, overwrite=overwrite)
            stack.enter_context(store)
            done = store.rows_done
        bar = stack.enter_context(progress_bar("codons", show=progress))
        sites = _after(_sites(source, code, changes, refused, whole=whole), done)
        count = done
        for some in _together(sites, _BATCHES_TOGETHER * budget, changes):
            scores = _score(model, some, budget)
            rows = [
                _row(site, name, options, code, synonymous, scores)
                for site in some
                for name, options in site.rows
            ]
            count += len(rows)
            if store is None:
                kept += rows
            else:
                store.append(rows)
            bar.update(len(some))
        if not count:
            why = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
            raise InputError(
                f"no record is a coding sequence ({why or 'there is none'}). Expected multiples of "
                "3 letters that begin with a start codon and have no stop codon inside; give the "
                "genetic code with genetic_code, or whole=False for parts of genes."
            )
        agreement = None
        if table is not None:
            every = kept if store is None else store.stored().rows()
            agreement = _compare(every, table, resamples, seed)
        if store is not None and writer is not None:
            store.finish(writer, provenance=made)
            if agreement is not None:
                _write_agreement(Path(out or ""), agreement, made)
    _tell(refused, agreement if out is None else None)
    return CodingEffects(
        rows=tuple(kept),
        count=count,
        refused=refused,
        measured=agreement,
        provenance=made,
        out=None if out is None else Path(out),
    )


def _tell(refused: Mapping[str, str], agreement: Measured | None) -> None:
    """Say on standard error what the rows do not say."""
    for name, why in list(refused.items())[:_SHOWN_FAULTS]:
        print(f"{name} is no coding sequence: {why}", file=sys.stderr)
    if len(refused) > _SHOWN_FAULTS:
        rest = counted(len(refused) - _SHOWN_FAULTS, "record")
        print(f"... and {rest} more that are no coding sequences", file=sys.stderr)
    if agreement is not None:
        print(agreement, file=sys.stderr)


def _check_tokens(model: Model) -> None:
    if model.objective not in {"causal", "masked"} or model.head_name != model.objective:
        raise InputError(
            f"{model.name} gives no probabilities of letters. Expected a causal or masked model "
            "with the head it was pretrained with."
        )
    spans = tokenizer_of(model).spans("ATGACGTACGTACGTACG")
    if model.objective == "masked" and len(spans) > 1 and spans[1, 0] < spans[0, 1]:
        raise InputError(
            f"the tokens of {model.name} overlap, so that a change alters several of them. Score "
            "changes with `lexome score`, or use a model whose tokens lie side by side."
        )


def _sites(
    source: Source,
    code: GeneticCode,
    changes: Changes,
    refused: dict[str, str],
    *,
    whole: bool,
) -> Iterator[_Site]:
    for record in read_sequences(source, upper=True):  # type: ignore[arg-type]
        fault = code.fault(record.sequence, whole=whole)
        if fault:
            refused[record.id] = fault
            continue
        for number in range(len(record.sequence) // 3):
            codon = record.sequence[3 * number : 3 * number + 3]
            yield _Site(record, number, tuple(_rows(codon, number, code, changes)))


def _rows(
    codon: str, number: int, code: GeneticCode, changes: Changes
) -> Iterator[tuple[str, tuple[_Change, ...]]]:
    """Yield (name, changes that it may stand for) of each row of a codon."""
    is_rna = "U" in codon
    letters = "ACGU" if is_rna else "ACGT"
    if changes == "nucleotide":
        for place, before in enumerate(codon):
            for after in letters:
                if after != before:
                    name = f"{before}{3 * number + place + 1}{after}"
                    changed = codon[:place] + after + codon[place + 1 :]
                    yield name, (_Change(name, 3 * number + place, after, changed),)
        return
    plain = codon.replace("U", "T")
    own = code.amino_acids[plain]
    others = [each for each in code.amino_acids if each != plain]
    if changes == "codon":
        for each in others:
            changed = each.replace("T", "U") if is_rna else each
            name = f"{codon}{number + 1}{changed}"
            yield name, (_Change(name, 3 * number, changed, changed),)
        return
    for amino_acid in sorted(set(code.amino_acids.values()) - {own}):
        name = f"{own}{number + 1}{amino_acid}"
        changed = (c.replace("T", "U") if is_rna else c for c in code.codons(amino_acid))
        yield name, tuple(_Change(name, 3 * number, each, each) for each in changed)


def _after(sites: Iterator[_Site], rows_done: int) -> Iterator[_Site]:
    """Pass over the sites whose rows are there; rows are stored by whole sites."""
    for site in sites:
        if rows_done > 0:
            rows_done -= len(site.rows)
            continue
        yield site


def _together(sites: Iterator[_Site], most: int, changes: Changes) -> Iterator[list[_Site]]:
    """Yield sites in lists of about so many tokens to run."""
    each = 9 if changes == "nucleotide" else 63
    some: list[_Site] = []
    tokens = 0
    for site in sites:
        some.append(site)
        tokens += each * len(site.record.sequence)
        if tokens >= most:
            yield some
            some, tokens = [], 0
    if some:
        yield some


_Key = tuple[str, int, str]  # record, first letter, letters instead


def _score(model: Model, sites: Sequence[_Site], budget: int) -> dict[_Key, float]:
    if model.objective == "causal":
        return _score_causal(model, sites, budget)
    return _score_masked(model, sites, budget)


def _score_causal(model: Model, sites: Sequence[_Site], budget: int) -> dict[_Key, float]:
    """Return the log-likelihood ratio of each change.

    Where the model carries a state, what stands before a change is run once for all.
    """
    texts: dict[_Key, str] = {}
    for site in sites:
        whole = site.record.sequence
        texts[site.record.id, -1, ""] = whole
        for _, options in site.rows:
            for one in options:
                end = one.start + len(one.letters)
                changed = whole[: one.start] + one.letters + whole[end:]
                texts[site.record.id, one.start, one.letters] = changed
    longest = max(map(len, texts.values())) + len(tokenizer_of(model).prefix)
    if carries_state(model) and longest <= (model.context or math.inf):
        forms: dict[str, list[str]] = {}
        for (record, start, _), text in texts.items():
            if start >= 0:
                forms.setdefault(texts[record, -1, ""], []).append(text)
        deltas = change_logliks(model, forms, max_tokens=budget)
        return {
            key: deltas[texts[key[0], -1, ""], text] for key, text in texts.items() if key[1] >= 0
        }
    found = score_sequences(
        model, list(texts.values()), max_tokens_per_batch=budget, max_unknown=0.0, progress=False
    )
    assert isinstance(found, Likelihoods), "no output was asked for"
    given = dict(zip(texts, found.column("loglik").tolist(), strict=True))
    return {key: value - given[key[0], -1, ""] for key, value in given.items() if key[1] >= 0}


def _score_masked(model: Model, sites: Sequence[_Site], budget: int) -> dict[_Key, float]:
    """Return the log-odds of each change, its tokens hidden together."""
    tokenizer = tokenizer_of(model)
    queries, asked = [], []
    for site in sites:
        whole = site.record.sequence
        (given,) = tokenizer.encode([whole])
        wrapped = tokenizer.wrap(given)
        if model.context is not None and len(wrapped["input_ids"]) > model.context:
            raise InputError(
                f"{site.record.id!r} has {len(wrapped['input_ids']):,} tokens, special ones "
                f"counted, and {model.name} takes {model.context:,}. Give parts of the gene with "
                "whole=False, or use a model with a longer context."
            )
        spans = tokenizer.spans(whole)
        hidden: dict[tuple[int, int], list[_Change]] = {}
        for _, options in site.rows:
            for one in options:
                place = (one.start, one.start + len(one.letters))
                hidden.setdefault(place, []).append(one)
        for (start, end), options in hidden.items():
            covering = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
            queries.append((wrapped, covering + len(tokenizer.prefix)))
            asked.append((site, given["input_ids"], covering, options))
    scores: dict[_Key, float] = {}
    for query, logprobs_PV in masked_logprobs(model, queries, max_tokens=budget):
        site, given, covering, options = asked[query]
        whole = site.record.sequence
        table_PV = logprobs_PV.double().cpu().numpy()
        texts = [whole[: o.start] + o.letters + whole[o.start + len(o.letters) :] for o in options]
        rows = np.arange(len(covering))
        before = table_PV[rows, given[covering].astype(np.int64)].sum()
        for one, changed in zip(options, tokenizer.encode(texts), strict=True):
            ids = changed["input_ids"]
            outside = np.ones(len(given), bool)
            outside[covering] = False
            if len(ids) != len(given) or (ids[outside] != given[outside]).any():
                raise InputError(
                    f"the change {one.name} of {site.record.id!r} moves the borders of tokens, so "
                    f"that {model.name} cannot be asked for it alone. Use a model of single "
                    "letters or codons, or a causal one."
                )
            after = table_PV[rows, ids[covering].astype(np.int64)].sum()
            scores[site.record.id, one.start, one.letters] = float(after - before)
    return scores


def _row(
    site: _Site,
    name: str,
    options: tuple[_Change, ...],
    code: GeneticCode,
    synonymous: Synonyms,
    scores: Mapping[_Key, float],
) -> dict[str, Any]:
    found = [scores[site.record.id, one.start, one.letters] for one in options]
    best = int(np.argmax(found))
    before = site.record.sequence[3 * site.number : 3 * site.number + 3]
    after = options[best].codon
    own, new = _residue(site, before, code), _residue(site, after, code)
    return {
        "id": site.record.id,
        "mutation": name,
        "codon": site.number,
        "before": before,
        "after": after,
        "protein": f"{own}{site.number + 1}{new}",
        "effect": _effect(site, before, after, code),
        "score": float(found[best] if synonymous == "best" else np.mean(found)),
    }


def _effect(site: _Site, before: str, after: str, code: GeneticCode) -> str:
    own, new = _residue(site, before, code), _residue(site, after, code)
    if _is_start(site, before, code) and not _is_start(site, after, code):
        return "start lost"
    if own == new:
        return "synonymous"
    if "*" in (own, new):
        return "stop gained" if new == "*" else "stop lost"
    return "missense"


def _is_start(site: _Site, codon: str, code: GeneticCode) -> bool:
    return site.number == 0 and codon.replace("U", "T") in code.starts


def _residue(site: _Site, codon: str, code: GeneticCode) -> str:
    """Return the amino acid of a codon; every start codon is read as M at the beginning."""
    own = site.record.sequence[3 * site.number : 3 * site.number + 3]
    starts = _is_start(site, own, code) and _is_start(site, codon, code)
    return "M" if starts else code.translate(codon)


def _name(text: str) -> str:
    """Return a mutation as the output calls it."""
    text = re.sub(r"^[cp]\.", "", text.strip()).upper()
    match = _HGVS.fullmatch(text)
    return f"{match[2]}{match[1]}{match[3]}" if match else text


def _read_measured(
    path: str | Path, mutation_column: str, score_column: str
) -> dict[tuple[str, str], float]:
    """Return the measurements by (record, or nothing if there is no such column; mutation)."""
    if bare_suffix(path) not in {*DELIMITERS, *PARQUET}:
        raise InputError(f"{path} is no table. Expected .tsv, .csv or .parquet.")
    table = open_table(path)
    for flag, column in (("mutation", mutation_column), ("score", score_column)):
        if column not in table.columns:
            raise FormatError(
                path,
                f"has the columns {', '.join(table.columns)} and none named {column!r}. Name the "
                f"right one with {flag}_column.",
            )
    at_name, at_score = (table.columns.index(c) for c in (mutation_column, score_column))
    at_id = table.columns.index("id") if "id" in table.columns else None
    found: dict[tuple[str, str], float] = {}
    for line_1based, cells in table.rows:
        if len(cells) <= max(at_name, at_score) or not cells[at_score].strip():
            continue
        key = ("" if at_id is None else cells[at_id].strip(), _name(cells[at_name]))
        try:
            value = float(cells[at_score])
        except ValueError:
            raise FormatError(
                path, f"{score_column} is {cells[at_score]!r}. Expected a number.", line_1based
            ) from None
        if key in found:
            raise FormatError(
                path,
                f"the mutation {key[1]} was measured before. Expected one number of each; average "
                "them.",
                line_1based,
            )
        if math.isfinite(value):
            found[key] = value
    return found


def _compare(
    rows: Any, table: Mapping[tuple[str, str], float], resamples: int, seed: int
) -> Measured:
    with_id = any(record for record, _ in table)
    records: set[str] = set()
    pairs: dict[tuple[str, str], tuple[float, float, float]] = {}
    example = ""
    for row in rows:
        records.add(row["id"])
        example = example or str(row["mutation"])
        key = (row["id"] if with_id else "", str(row["mutation"]).upper())
        if key in table:
            pairs[key] = (row["score"], table[key], _SEVERITY.get(row["effect"], -3.0))
    if len(records) > 1 and not with_id:
        raise InputError(
            f"there are {len(records):,} coding sequences, and the table of measurements does not "
            "say whose they are. Expected a column id; add it."
        )
    unmatched = tuple(name for _, name in table.keys() - pairs.keys())
    if len(pairs) < _LEAST_MEASURED:
        some = ", ".join(repr(name) for name in unmatched[:3])
        raise InputError(
            f"{len(pairs):,} of {len(table):,} measurements are of changes that were scored. "
            f"Expected names such as {example!r}, and the table has {some}. Choose the kind of "
            "changes that were measured with changes."
        )
    scores, truth, kinds = np.array(list(pairs.values())).T
    drawn = resampled(
        "regression", "spearman", truth, {"model": [scores]}, count=resamples, seed=seed
    )["model"]
    return Measured(
        spearman=regression_metrics(scores, truth)["spearman"],
        interval=interval(drawn),
        by_kind=regression_metrics(kinds, truth)["spearman"],
        matched=len(pairs),
        unmatched=tuple(sorted(unmatched)),
    )


def _write_agreement(out: Path, found: Measured, made: Mapping[str, object]) -> None:
    told = {
        "spearman": found.spearman,
        "interval_95": [found.interval.low, found.interval.high],
        "spearman_by_kind": None if math.isnan(found.by_kind) else found.by_kind,
        "measured": found.matched,
        "measured_without_score": list(found.unmatched),
        **made,
    }
    write_json(out.with_name(f"{out.name}.json"), told, default=str)
