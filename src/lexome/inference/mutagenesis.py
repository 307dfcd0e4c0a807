"""What a fine-tuned model says when letters of a sequence are changed, one change at a time.

Axes: M mutants of a record.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexome.core import InputError, pick
from lexome.formats import Genome, StoredRows
from lexome.formats.outputs import write_delimited
from lexome.formats.streams import writing
from lexome.inference.batching import token_budget, windows
from lexome.inference.predictor import OF_LETTERS, Predictor, digest, load_predictor
from lexome.inference.reading import Item, Source, prepare, read_records, share, tokenizer_of
from lexome.inference.runs import (
    Advance,
    Record,
    Summary,
    deliver,
    fingerprint,
    item_row,
    provenance,
    run,
)

RECORDS, EFFECTS = "records.tsv", "effects.tsv"
LETTERS = "ACGT"
"""Letters that stand in for each other, in this order; U for T in RNA."""

_WINDOW_BATCHES = 16  # batches' worth of mutants that are prepared together
_LARGEST = 126.0  # log2 odds beyond what float32 tells from certainty


@dataclass(frozen=True)
class Mutation:
    """Letters `start` to `end` (0-based, half-open) replaced by `allele`, which may be empty."""

    start: int
    end: int
    allele: str

    def of(self, sequence: str) -> str:
        """Return the mutated sequence."""
        return sequence[: self.start] + self.allele + sequence[self.end :]


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Mutants of one record.

    Attributes
    ----------
    id, status
        The record and why it has no mutants, if it has none.
    sequence
        Its letters.
    target
        The class, label or value that is followed.
    reference
        Its probability (value) for the sequence as it is; NaN without a result.
    reference_log_odds
        Log2 of its odds; NaN for values.
    mutations
        The mutations, M of them.
    mutant, mutant_log_odds
        The same of each mutant, shape (M,).
    """

    id: str
    status: str
    sequence: str
    target: str
    reference: float
    reference_log_odds: float
    mutations: tuple[Mutation, ...]
    mutant: NDArray[np.float64]
    mutant_log_odds: NDArray[np.float64]

    @property
    def is_value(self) -> bool:
        """Whether a value is followed, not a probability."""
        return math.isnan(self.reference_log_odds)

    @property
    def difference(self) -> NDArray[np.float64]:
        """Mutant minus reference, shape (M,)."""
        return self.mutant - self.reference

    @property
    def score(self) -> NDArray[np.float64]:
        """DNABERT's score: the difference of probabilities times the larger of them."""
        return self.difference * np.maximum(self.mutant, self.reference)

    @property
    def log_odds_ratio(self) -> NDArray[np.float64]:
        """Log2 odds of the reference minus those of the mutant, shape (M,)."""
        return self.reference_log_odds - self.mutant_log_odds


def saturation(sequence: str, *, deletions: bool = False) -> Iterator[Mutation]:
    """Yield all substitutions of single letters, position by position, A, C, G, T in this order.

    Parameters
    ----------
    sequence
        DNA, or RNA (with U and without T), whose fourth letter is U. Alleles have the case of the
        letter that they replace; a letter such as N is replaced by all four.
    deletions
        Whether each position's deletion follows its substitutions.

    Examples
    --------
    >>> [m.of("AC") for m in saturation("AC", deletions=True)]
    ['CC', 'GC', 'TC', 'C', 'AA', 'AG', 'AT', 'A']
    """
    folded = sequence.upper()
    letters = LETTERS.replace("T", "U") if "U" in folded and "T" not in folded else LETTERS
    for at, letter in enumerate(sequence):
        for other in letters:
            if other != letter.upper():
                allele = other if letter.isupper() else other.lower()
                yield Mutation(at, at + 1, allele)
        if deletions:
            yield Mutation(at, at + 1, "")


def mutation_effects(
    model: str | Path,
    source: Source,
    *,
    out: str | Path | None = None,
    target: str | None = None,
    deletions: bool = False,
    mutations: str | Path | None = None,
    base: str | Path | None = None,
    genome: str | Path | Genome | None = None,
    sequence_column: str = "sequence",
    id_column: str | None = None,
    upper: bool = False,
    max_unknown: float = 0.5,
    max_tokens_per_batch: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> list[Effects] | Summary:
    """Predict every mutant of sequences with a fine-tuned model.

    Parameters
    ----------
    model
        What `lexome finetune` wrote.
    source
        Sequences, as in `lexome.predict`.
    out
        A folder for ``records.tsv`` (one row per record) and ``effects.tsv`` (one row per mutant).
        Without it, the effects are returned.
    target
        The class, label or column of values to follow. By default the second of two classes, the
        class predicted for the unchanged sequence where there are more, and the only value.
    deletions
        Also delete each letter.
    mutations
        Instead of all substitutions (in the order A, C, G, T at each position): a table with the
        columns ``idx`` (number of the record, from 0), ``start``, ``end`` (0-based, half-open) and
        ``allele`` (nothing or ``-`` deletes), separated by blanks, tabs or commas, with or without
        a line of names.
    base
        Where the model is now that head or adapter were trained on, if it has moved since.
    genome
        FASTA that a BED file's intervals are taken from.
    sequence_column, id_column
        Columns of a table.
    upper
        Read all letters as upper case.
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
    `Effects` of each record, or with `out` a `Summary`.

    Raises
    ------
    InputError
        If the model predicts letters, there is no such target, or a mutation does not fit its
        sequence.

    References
    ----------
    Ji et al. 2021, Bioinformatics 37(15):2112-2120: the scores, and the form of the table.
    """
    folder = Path(model) / "model" if (Path(model) / "model").is_dir() else Path(model)
    predictor = load_predictor(folder, base=base, device=device, precision=precision)
    if predictor.task in OF_LETTERS:
        raise InputError(
            f"{folder} predicts letters, of which every one may change with every mutation. "
            "Expected a model that predicts whole sequences."
        )
    names = list(predictor.classes or predictor.columns)
    if target is not None:
        pick("class" if predictor.classes else "column", target, names)
    elif predictor.task == "multilabel" or (not predictor.classes and len(names) > 1):
        raise InputError(
            f"{folder} predicts {', '.join(names)}, and one of them must be followed. Name it with "
            "target."
        )
    if mutations is not None and deletions:
        raise InputError("deletions is for all positions, and mutations names some. Give one.")
    network, tokenizer = predictor.model, tokenizer_of(predictor.model)
    given = None if mutations is None else _Given(mutations)
    settings: dict[str, object] = {
        "finetuned": str(folder),
        "finetuned_sha256": digest(folder),
        "task": predictor.task,
        "target": target or ("own class" if len(names) > 2 else str(names[-1])),
        "mutations": "all substitutions" if mutations is None else Path(mutations).name,
        "deletions": deletions,
        "piece_tokens": predictor.piece_tokens,
        "overlap_tokens": predictor.cutting.overlap,
        "max_unknown": max_unknown,
        "upper": upper,
    }
    records: Iterator[Record] = read_records(
        tokenizer,
        source,
        genome=genome,
        sequence_column=sequence_column,
        id_column=id_column,
        upper=upper,
    )
    if given is not None:
        records = given.watch(records)
    budget = token_budget(network, max_tokens_per_batch)
    window = _Window(predictor, budget, settings["target"], given, deletions=deletions)
    prepared = partial(
        prepare,
        tokenizer=tokenizer,
        cutting=predictor.cutting,
        max_unknown=share(max_unknown),
        content=True,
    )

    def work(**how: Any) -> Summary:
        summary = run(
            network,
            records,
            prepared,
            window,
            budget=budget,
            progress=progress,
            size=window.tokens,
            **how,
        )
        if given is not None:
            given.check_used(summary.records)
        return summary

    made = provenance(network, "mutagenesis", settings)
    marks = fingerprint(network, source, genome, made | {"columns": [sequence_column, id_column]})
    if given is not None:
        marks["mutation_table"] = given.digest
    kept, summary = deliver(
        work,
        None if out is None else Path(out) / RECORDS,
        settings=marks,
        made=made,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        writer=_write_tables,
    )
    if out is not None:
        return summary
    arrays = [a for part in kept.arrays.get("mutant", ()) for a in part]
    rows: list[Mapping[str, Any]] = list(kept.rows)
    return [_effects(row, array, made) for row, array in zip(rows, arrays, strict=True)]


class _Given:
    """A table of mutations, handed out as its records come by."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        text = self.path.read_text(encoding="utf-8")
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self._by_number: dict[int, list[Mutation]] = defaultdict(list)
        self._by_id: dict[str, tuple[Mutation, ...]] = {}
        for number_1based, line in enumerate(text.splitlines(), 1):
            cells = _cells(line)
            if not any(cells) or (number_1based == 1 and not cells[0].isdigit()):
                continue
            self._by_number[int(cells[0]) if cells[0].isdigit() else -1].append(
                self._mutation(cells, number_1based)
            )

    def _mutation(self, cells: Sequence[str], number_1based: int) -> Mutation:
        whole = len(cells) in (3, 4) and all(cell.isdigit() for cell in cells[:3])
        if not whole or int(cells[1]) > int(cells[2]):
            raise InputError(
                f"{self.path}, line {number_1based}: {' '.join(cells)!r} is no mutation. Expected "
                "idx, start, end and allele: three whole numbers, start not above end, and letters."
            )
        allele = cells[3] if len(cells) == 4 and cells[3] != "-" else ""
        return Mutation(int(cells[1]), int(cells[2]), allele)

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records, keeping the mutations of each under its name."""
        for number, record in enumerate(records):
            own = tuple(self._by_number.pop(number, ()))
            for mutation in own:
                if mutation.end > record[2]:
                    raise InputError(
                        f"{self.path} replaces letters {mutation.start} to {mutation.end} of "
                        f"record {number} ({record[0]!r}), which has {record[2]}. Expected "
                        "0-based, half-open places within it."
                    )
            if own:
                self._by_id[record[0]] = own
            yield record

    def take(self, item: Item) -> tuple[Mutation, ...]:
        """Return the mutations of a record."""
        return self._by_id.get(item.id, ())

    def check_used(self, records: int) -> None:
        """Refuse mutations of records that never came."""
        if self._by_number:
            raise InputError(
                f"{self.path} has mutations of record {min(self._by_number)}, and there are "
                f"{records} records, numbered from 0. Correct the table."
            )


def _cells(line: str) -> list[str]:
    for delimiter in ("\t", ","):
        if delimiter in line:
            return [cell.strip() for cell in line.split(delimiter)]
    return line.split() or [""]


class _Window:
    """Computes the rows and mutants of some records."""

    def __init__(
        self,
        predictor: Predictor,
        budget: int,
        target: object,
        given: _Given | None,
        *,
        deletions: bool,
    ):
        self.predictor, self.budget, self.given = predictor, budget, given
        self.deletions = deletions
        self.names = predictor.classes or predictor.columns
        self.index = self.names.index(str(target)) if target in self.names else None

    def tokens(self, item: Item) -> int:
        """Return how many tokens go through the model for a record and its mutants."""
        if self.given is not None:
            return item.tokens * (1 + len(self.given.take(item)))
        return item.tokens * (1 + (4 if self.deletions else 3) * item.length)

    def __call__(
        self, items: list[Item], advance: Advance
    ) -> tuple[list[dict[str, object]], dict[str, Any]]:
        mutants = [self._mutants(item) for item in items]
        outputs = self._outputs(
            m.of(item.content)
            for item, own in zip(items, mutants, strict=True)
            if item.status == "ok"
            for m in (Mutation(0, 0, ""), *own)
        )
        rows, arrays = [], []
        for item, own in zip(items, mutants, strict=True):
            results: dict[str, object] = {"target": None, "prediction": None, "log2_odds": None}
            measured = np.zeros((0, 2))
            if item.status == "ok":
                found = np.stack([*self._counted(outputs, 1 + len(own), item, advance)])
                index = int(found[0].argmax()) if self.index is None else self.index
                measured = self._measured(found, index)
                reference, odds = measured[0].tolist()
                results = {
                    "target": self.names[index],
                    "prediction": reference,
                    "log2_odds": None if math.isnan(odds) else odds,
                }
                measured = measured[1:]
            kept = [[m.start, m.end, m.allele] for m in own] if self.given is not None else []
            results |= {"letters": item.content, "mutants": len(own), "changes": json.dumps(kept)}
            rows.append(item_row(item, results))
            arrays.append(measured)
        return rows, {"mutant": arrays}

    def _mutants(self, item: Item) -> tuple[Mutation, ...]:
        if item.status != "ok":
            return ()
        if self.given is not None:
            return self.given.take(item)
        return tuple(saturation(item.content, deletions=self.deletions))

    def _outputs(self, texts: Iterable[str]) -> Iterator[NDArray]:
        """Yield what the model gives each text, many of them prepared together."""
        predictor = self.predictor
        records = ((str(i), text, len(text), {}) for i, text in enumerate(texts))
        prepared = prepare(
            records,
            tokenizer_of(predictor.model),
            cutting=predictor.cutting,
            max_unknown=1.0,
            content=predictor.both_strands,
        )
        most = _WINDOW_BATCHES * self.budget
        for group in windows(prepared, lambda item: item.tokens, max_size=most):
            vectors = predictor.vectors(group, self.budget, lambda _letters: None)
            yield from predictor.outputs(vectors)

    def _counted(
        self, outputs: Iterator[NDArray], count: int, item: Item, advance: Advance
    ) -> Iterator[NDArray]:
        for output in islice(outputs, count):
            advance(item.length / count)
            yield np.atleast_1d(output).astype(np.float64)

    def _measured(self, found: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return probability and log2 odds, or value and NaN, shape (1 + M, 2)."""
        chosen = found[:, index]
        if not self.predictor.classes:
            return np.stack([chosen, np.full(len(chosen), np.nan)], 1)
        if self.predictor.task == "multilabel":
            others = 1 - chosen
        else:  # exact where p is so near 1 that 1 - p would not be
            others = np.delete(found, index, 1).sum(1)
        with np.errstate(divide="ignore"):
            odds = (np.log2(chosen) - np.log2(others)).clip(-_LARGEST, _LARGEST)
        return np.stack([chosen, odds], 1)


def stored_effects(stored: StoredRows, made: Mapping[str, object]) -> Iterator[Effects]:
    """Yield the effects that a run has stored, record by record."""
    for shard in stored.shards():
        mutants, offsets = shard.array("mutant"), shard.offsets("mutant")
        for n, row in enumerate(shard.rows()):
            yield _effects(row, mutants[offsets[n] : offsets[n + 1]], made)


def _effects(
    row: Mapping[str, Any], mutants: NDArray[np.float64], made: Mapping[str, object]
) -> Effects:
    sequence = row["letters"]
    own = (Mutation(*change) for change in json.loads(row["changes"]))
    if made["mutations"] == "all substitutions" and len(mutants):
        own = saturation(sequence, deletions=bool(made["deletions"]))

    def number(cell: float | None) -> float:
        return math.nan if cell is None else cell

    return Effects(
        id=row["id"],
        status=row["status"],
        sequence=sequence,
        target=row["target"] or "",
        reference=number(row["prediction"]),
        reference_log_odds=number(row["log2_odds"]),
        mutations=tuple(own) if len(mutants) else (),
        mutant=mutants[:, 0],
        mutant_log_odds=mutants[:, 1],
    )


def _write_tables(path: Path, stored: StoredRows, provenance: Mapping[str, object]) -> None:
    """Write the effects of all mutants, then the rows of all records."""
    is_value = provenance["task"] == "regression"
    names = ["id", "start", "end", "ref", "alt", "target", "reference", "mutant", "difference"]
    names += [] if is_value else ["score", "log_odds_ratio"]
    with writing(path.with_name(EFFECTS)) as stream:
        stream.write("\t".join(names).encode() + b"\n")
        for effects in stored_effects(stored, provenance):
            columns = [effects.mutant, effects.difference]
            columns += [] if is_value else [effects.score, effects.log_odds_ratio]
            lines = []
            for mutation, numbers in zip(
                effects.mutations, np.stack(columns, -1).tolist(), strict=True
            ):
                cells = [
                    *(effects.id, mutation.start, mutation.end),
                    effects.sequence[mutation.start : mutation.end] or "-",
                    *(mutation.allele or "-", effects.target, f"{effects.reference:.6g}"),
                    *("" if math.isnan(number) else f"{number:.6g}" for number in numbers),
                ]
                lines.append("\t".join(map(str, cells)) + "\n")
            stream.write("".join(lines).encode())
    plain = copy(stored)
    plain.columns = {k: v for k, v in stored.columns.items() if k not in ("letters", "changes")}
    plain.arrays = {}
    write_delimited(path, plain, provenance)
