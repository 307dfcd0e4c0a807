"""Mutagenesis as a folder: tables of all mutants, and a page that shows what matters where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lexome.core import InputError
from lexome.core.signatures import takes_options_of
from lexome.inference.mutagenesis import EFFECTS, RECORDS, mutation_effects
from lexome.inference.reading import Source
from lexome.inference.runs import Summary
from lexome.reports.page import Column, Page
from lexome.reports.png import write_figure
from lexome.reports.sequence_figures import mutation_map
from lexome.reports.tables import read_table

Measure = Literal["log_odds", "score", "difference"]

PAGE, FIGURES = "report.html", "figures"
_LABELS = {
    "log_odds": "change of the log2 odds of",
    "score": "score of",
    "difference": "change of",
}
_SHOWN_LETTERS = 600
_SHOWN_MUTANTS = 10


@takes_options_of(mutation_effects)
def mutagenesis(
    model: str | Path,
    source: Source,
    *,
    out: str | Path,
    show: Sequence[str] | None = None,
    measure: Measure | None = None,
    png: bool = False,
    **options: Any,
) -> Summary:
    """Mutate every letter of sequences and see what a fine-tuned model makes of it.

    Parameters
    ----------
    model
        What `lexome finetune` wrote: its folder ``model``, or the one above it. It must predict
        classes, labels or values of whole sequences.
    source
        FASTA, FASTQ, BED with `genome`, TSV, CSV, Parquet, text with one sequence a line, ``-``
        for stdin, or from Python a list of strings or (name, sequence) pairs.
    out
        A folder for ``records.tsv`` (one row per record), ``effects.tsv`` (one row per mutant),
        ``figures`` and ``report.html``. Columns of a mutant: ``id``; ``start`` and ``end``,
        0-based and half-open; ``ref`` and ``alt``, ``-`` for nothing; ``target``; ``reference``
        and ``mutant``, its probability or value without and with the mutation; ``difference``,
        mutant minus reference; for probabilities also ``score``, the difference times the larger
        of the two, and ``log_odds_ratio``, log2 odds of the reference minus those of the mutant.
    show
        Names of the records that the page shows; by default the first three with effects.
    measure
        What the page draws: the change of the ``log_odds`` (log2), the ``difference`` or the
        ``score``. By default the first, which does not fade where the model is sure of itself;
        the difference for values.
    png
        Write the figures as PNG too; needs the extra ``report``.
    **options
        As for `mutation_effects`.

    Returns
    -------
    The run in numbers; `str` of it is the page.

    Raises
    ------
    InputError
        If the model predicts letters, there is no such target, or a mutation does not fit its
        sequence.

    References
    ----------
    Ji et al. 2021, Bioinformatics 37(15):2112-2120: ``score``, ``log_odds_ratio`` and the form of
    the table of mutations.
    """
    summary = mutation_effects(model, source, out=out, **options)
    assert isinstance(summary, Summary), "there is an output"
    return replace(summary, out=show_mutagenesis(out, show=show, measure=measure, png=png))


def show_mutagenesis(
    folder: str | Path,
    *,
    show: Sequence[str] | None = None,
    measure: Measure | None = None,
    png: bool = False,
) -> Path:
    """Make the page and the figures of a folder that `mutagenesis` wrote, again if need be.

    Parameters
    ----------
    folder
        The folder.
    show, measure, png
        As for `mutagenesis`.

    Returns
    -------
    The page.

    Raises
    ------
    InputError
        If the folder has no such record, or values are to be drawn as odds.
    """
    folder = Path(folder)
    _, made = read_table(folder / RECORDS)
    is_value = made["task"] == "regression"
    measure = measure or ("difference" if is_value else "log_odds")
    if is_value and measure != "difference":
        raise InputError(f"measure is {measure!r}, and values have no odds. Expected 'difference'.")
    page = Page(
        "What mutations change",
        f"{made['finetuned']}: {made['mutations']}"
        + (" and deletions" if made["deletions"] == "true" else "")
        + ". A mutation's difference is the model's "
        + ("value" if is_value else "probability")
        + " with it minus that without it"
        + ("." if is_value else "; its score is that times the larger of the two."),
    )
    shown = list(_shown(folder, show))
    if not shown:
        page.text("No record has mutants; records.tsv says why.")
    for number, record in enumerate(shown, 1):
        page.heading(record.id)
        what = f"the value {record.target}" if is_value else f"p({record.target})"
        page.text(f"Without mutations, {what} is {record.reference:.4g}.")
        if made["mutations"] == "all substitutions":
            sequence, effects, first, note = _stretch(record, measure)
            rows = [*_alleles(record), *(["del"] if made["deletions"] == "true" else [])]
            svg = mutation_map(
                sequence,
                effects,
                value_label=f"{_LABELS[measure]} {record.target}",
                rows=rows,
                first_1based=first + 1,
            )
            page.figure(
                svg,
                "Cells: what a mutation to that letter does; blue lowers, red raises, a dot is the "
                "letter that is there. Letters above: the mean over a position's mutations, "
                f"upwards where the letter holds {what} up, downwards where it holds it down."
                f"{note}",
            )
            for suffix in (".svg", ".png") if png else (".svg",):
                write_figure(folder / FIGURES / f"record_{number}{suffix}", svg)
        _add_table(page, record, measure)
    page.text(f"{EFFECTS} and {RECORDS} beside this page hold all mutants of all records.")
    page.write(folder / PAGE, made)
    return folder / PAGE


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The mutants of one record, as the table has them."""

    id: str
    target: str
    reference: float
    rows: list[dict[str, str]]

    def effects(self, measure: Measure) -> NDArray[np.float64]:
        """Return what is drawn of each mutant; positive where the mutation raises the target."""
        if measure == "log_odds":
            return -self._column("log_odds_ratio")
        return self._column(measure)

    def _column(self, name: str) -> NDArray[np.float64]:
        return np.array([float(row[name] or "nan") for row in self.rows])


def _shown(folder: Path, show: Sequence[str] | None) -> Iterator[_Record]:
    """Yield the records to show, reading no further than needed."""
    if show is not None:
        known = {row["id"] for row in read_table(folder / RECORDS)[0]}
        missing = [name for name in show if name not in known]
        if missing:
            raise InputError(
                f"there is no record {missing[0]!r} to show. Expected ids of {RECORDS}, whole "
                "words as they stand in its first column."
            )
    rows, _ = read_table(folder / EFFECTS)
    groups = (
        _Record(id=name, target=own[0]["target"], reference=float(own[0]["reference"]), rows=own)
        for name, group in groupby(rows, lambda row: row["id"])
        if show is None or name in show
        for own in [list(group)]
    )
    yield from islice(groups, 3 if show is None else len(set(show)))


def _alleles(record: _Record) -> list[str]:
    """Return the letters that stand in for others: those of DNA, or of RNA."""
    is_rna = any(row["alt"].upper() == "U" for row in record.rows)
    return list("ACGU" if is_rna else "ACGT")


def _stretch(record: _Record, measure: Measure) -> tuple[str, NDArray[np.float64], int, str]:
    """Return letters, effects (letters, alleles and deletion), first position and a remark."""
    alleles = {letter: k for k, letter in enumerate([*_alleles(record), "-"])}
    length = 1 + max(int(row["start"]) for row in record.rows)
    letters = [""] * length
    effects = np.full((length, 5), np.nan)
    for row, value in zip(record.rows, record.effects(measure), strict=True):
        at = int(row["start"])
        letters[at] = row["ref"]
        effects[at, alleles[row["alt"].upper()]] = value
    if not any(row["alt"] == "-" for row in record.rows):
        effects = effects[:, :4]
    if length <= _SHOWN_LETTERS:
        return "".join(letters), effects, 0, ""
    sums = np.cumsum(np.concatenate([[0], np.nansum(np.abs(effects), 1)]))
    first = int((sums[_SHOWN_LETTERS:] - sums[:-_SHOWN_LETTERS]).argmax())
    chosen = slice(first, first + _SHOWN_LETTERS)
    note = f" Shown are the {_SHOWN_LETTERS} of {length:,} letters where mutations do most."
    return "".join(letters[chosen]), effects[chosen], first, note


def _add_table(page: Page, record: _Record, measure: Measure) -> None:
    """Add the mutants that change most."""
    size = np.abs(record.effects(measure))
    order = np.argsort(-np.nan_to_num(size), kind="stable")[:_SHOWN_MUTANTS]
    rows = [record.rows[i] for i in order]
    names = ["reference", "mutant", "difference"]
    names += ["score", "log_odds_ratio"] if "score" in record.rows[0] else []
    page.table(
        [
            Column(name="position, from 1", values=[int(row["start"]) + 1 for row in rows]),
            Column(name="mutation", values=[f"{row['ref']}>{row['alt']}" for row in rows]),
            *(
                Column(
                    name=name.replace("_", " "),
                    values=[float(row[name] or "nan") for row in rows],
                    format=".4g",
                )
                for name in names
            ),
        ],
        caption=f"The {len(rows)} of {len(record.rows):,} mutants that change most.",
    )
