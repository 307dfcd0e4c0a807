"""The report on generated DNA: a page, a table, the proteins, the numbers."""

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

from lexome.core import InputError, atomic_path
from lexome.core.json_files import write_json
from lexome.core.messages import counted
from lexome.formats import Genome, SequenceRecord, write_fasta
from lexome.inference.batching import progress_bar
from lexome.reports.figures import Line, bar_chart, histogram, line_chart
from lexome.reports.page import Column, KeyNumber, Page
from lexome.sequence.genetic_codes import BACTERIAL
from lexome.tasks.generated import (
    GENERATED,
    LONGEST_WORD,
    REFERENCE,
    Comparison,
    Gene,
    GeneMethod,
    Traits,
    compare_generated,
)

_WHAT = {  # trait: what a table calls it, format of its numbers
    "gc": ("GC", ".3f"),
    "coding": ("coding", ".3f"),
    "protein_aa": ("protein, aa", ".0f"),
    "open_codons": ("open stretch, codons", ".0f"),
    "low_complexity": ("low complexity", ".4f"),
    "repeated": ("repeated", ".4f"),
}
_SHARE = "% of the sequences of each kind"


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityReport:
    """What came of judging generated sequences.

    Attributes
    ----------
    folder
        Where ``report.html``, ``sequences.tsv``, ``proteins.fa`` and ``summary.json`` are.
    comparison
        The numbers.
    """

    folder: Path
    comparison: Comparison

    def __str__(self) -> str:
        """Return the main numbers as a table, and where the report is."""
        rows = _table(self.comparison)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{row[0]:<{widths[0]}}"
            + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
            for row in rows
        ]
        return "\n".join([*lines, str(self.folder / "report.html")])


def quality(
    generated: str | Path,
    *,
    out: str | Path,
    reference: str | Path | None = None,
    genetic_code: int = BACTERIAL,
    genes: GeneMethod = "auto",
    reference_bp: int = 20_000_000,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool | None = None,
) -> QualityReport:
    """Report on the quality of generated DNA: composition, words, genes, proteins, repeats.

    With a reference, pieces of it and text of a Markov model, both of the lengths of the
    generated sequences, are measured alike and stand beside.

    Parameters
    ----------
    generated
        The sequences: FASTA or any other file that `lexome generate` writes or `lexome embed`
        reads.
    out
        Folder for ``report.html``, ``sequences.tsv`` (one row a sequence), ``proteins.fa`` and
        ``summary.json``.
    reference
        FASTA of a genome that the sequences should resemble.
    genetic_code
        NCBI's number; 11 is that of bacteria.
    genes
        ``prodigal`` (needs ``lexome[genes]``), ``frames`` (open reading frames of at least 100
        codons), or ``auto``: the first where it can be had.
    reference_bp
        Most letters of the reference to read, in blocks at even distances.
    seed
        Of the pieces and of the Markov text.
    overwrite
        Replace a report that is there.
    progress
        Whether to show a progress bar; by default on a terminal.

    Returns
    -------
    The numbers, and where the report is.

    Raises
    ------
    InputError
        If there is a report in `out`, no sequence to judge, or a reference that is too short.
    """
    folder = Path(out)
    if (folder / "report.html").exists() and not overwrite:
        raise InputError(
            f"{folder} holds a report already. Pass overwrite=True to replace it, or give another "
            "folder."
        )
    proteins: list[SequenceRecord] = []

    def keep(record: SequenceRecord, found: list[Gene]) -> None:
        for number_1based, gene in enumerate(found, 1):
            place = f"{gene.place.start + 1}-{gene.place.end}({gene.place.strand})"
            whole = "" if gene.whole else " partial"
            name = f"{record.id}_{number_1based}"
            proteins.append(SequenceRecord(name, gene.protein, f"{place}{whole}"))

    with progress_bar("bases", show=progress) as bar:
        comparison = compare_generated(
            generated,
            None if reference is None else Genome(reference),
            code_number=genetic_code,
            genes=genes,
            reference_bp=reference_bp,
            seed=seed,
            keep_genes=keep,
            advance=bar.update,
        )
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / "sequences.tsv", comparison.groups[GENERATED].traits)
    write_fasta(folder / "proteins.fa", proteins)
    told = {
        "generated": str(generated),
        "reference": "none" if reference is None else str(reference),
        "genetic code": str(genetic_code),
        "genes": comparison.genes_by,
        "seed": str(seed),
    }
    write_json(folder / "summary.json", _summary(comparison) | told)
    quality_page(comparison).write(folder / "report.html", told)
    return QualityReport(folder=folder, comparison=comparison)


def _write_table(path: Path, rows: list[Traits]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        names = [column.name for column in dataclasses.fields(Traits)]
        table = csv.writer(stream, delimiter="\t", lineterminator="\n")
        table.writerow(names)
        for row in rows:
            cells = (getattr(row, name) for name in names)
            table.writerow("" if isinstance(c, float) and math.isnan(c) else c for c in cells)


def _summary(comparison: Comparison) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "groups": {
            name: {
                "sequences": len(group.traits),
                "bases": int(group.values("length_bp").sum()),
                "genes": int(group.values("genes").sum()),
                **{key: number(group.mean(key)) for key in _WHAT},
            }
            for name, group in comparison.groups.items()
        },
        "divergence_bits": comparison.distances,
        "reference_bp": comparison.reference_bp,
    }


def quality_page(comparison: Comparison) -> Page:
    """Return the page that shows a comparison."""
    own = comparison.groups[GENERATED]
    bases = int(own.values("length_bp").sum())
    page = Page(
        "Generated DNA",
        f"{counted(len(own.traits), 'sequence')} with {bases:,} letters"
        + (
            ", beside pieces of the reference and a Markov model's text of the same lengths."
            if comparison.distances
            else "; no reference was given to compare them with."
        ),
    )
    natural = comparison.groups.get(REFERENCE)

    def beside(key: str) -> str:
        form = _WHAT[key][1]
        return f"the reference has {natural.mean(key):{form}}" if natural else ""

    numbers = [
        KeyNumber(value=f"{own.mean('gc'):.3f}", label="GC", detail=beside("gc")),
        KeyNumber(
            value=f"{own.mean('coding'):.1%}",
            label="lies in predicted genes",
            detail=f"the reference has {natural.mean('coding'):.1%}" if natural else "",
        ),
        KeyNumber(
            value=f"{own.mean('repeated'):.1%}",
            label="repeats itself",
            detail=f"the reference has {natural.mean('repeated'):.1%}" if natural else "",
        ),
    ]
    if comparison.distances:
        far = {name: distances[-1] for name, distances in comparison.distances.items()}
        numbers.append(
            KeyNumber(
                value=f"{far[GENERATED]:.3f}",
                label=f"bits between its {LONGEST_WORD}-mers and the reference's",
                detail=f"pieces of the reference: {far[REFERENCE]:.3f}",
            )
        )
    page.numbers(*numbers)
    _composition(page, comparison)
    if comparison.distances:
        _words(page, comparison)
    _genes(page, comparison)
    _all_numbers(page, comparison)
    return page


def _composition(page: Page, comparison: Comparison) -> None:
    page.heading("Composition")
    groups = comparison.groups.values()
    page.figure(
        histogram(
            {g.name: g.values("gc") for g in groups}, x_label="GC of a sequence", y_label=_SHARE
        ),
        "How the share of G and C spreads over the sequences. Too narrow a spread means that a "
        "model writes the same kind of sequence again and again.",
    )


def _words(page: Page, comparison: Comparison) -> None:
    page.heading("Short words")
    page.text(
        "The Jensen-Shannon divergence says how far two spectra of words lie apart: 0 bits for "
        "equal ones, 1 bit for those that share no word. Each spectrum is compared with the half "
        "of the reference that gave no pieces. Pieces of the other half show how small the "
        "distance of as many natural letters is. The Markov model imitates words of 6 letters "
        "and knows nothing beyond them, so a model should be judged by more than this."
    )
    page.figure(
        line_chart(
            [
                Line(name=name, x=list(range(1, len(far) + 1)), y=far, points=True)
                for name, far in comparison.distances.items()
            ],
            x_label="letters of a word",
            y_label="divergence from the reference, bits",
        ),
        f"{comparison.reference_bp:,} letters of the reference were read.",
    )


def _genes(page: Page, comparison: Comparison) -> None:
    page.heading("Genes")
    groups = comparison.groups
    page.text(
        f"Genes were found by {comparison.genes_by}. Their proteins are in proteins.fa. Genes cut "
        "off by the end of a sequence count for the coding share and not for the length of "
        "proteins."
    )
    page.figure(
        bar_chart(
            {name: 100 * group.mean("coding") for name, group in groups.items()},
            value_label="% of the letters in a predicted gene",
            decimals=1,
            highlight=(GENERATED,),
        )
    )
    stretches = {name: group.values("open_codons") for name, group in groups.items()}
    page.figure(
        histogram(stretches, x_label="longest open stretch of a sequence, codons", y_label=_SHARE),
        "Most codons in a row without a stop, in any of six frames. Text without genes is stopped "
        "every 20 to 30 codons on average.",
    )


def _all_numbers(page: Page, comparison: Comparison) -> None:
    page.heading("All numbers")
    names, *rows = zip(*_table(comparison), strict=True)
    columns = [Column(name="", values=names[1:])]
    columns += [Column(name=row[0], values=row[1:], right=True) for row in rows]
    page.table(
        columns,
        caption="Means over sequences, weighted by length: the share of letters in genes, the "
        "length of proteins of whole genes, the longest stretch without a stop. Low "
        "complexity: windows of 64 letters whose DUST score is above 2. Repeated: words of "
        "20 letters that came before in the same sequence, on either strand.",
    )


def _table(comparison: Comparison) -> list[list[str]]:
    """Return the numbers of all groups as rows of text, the names of the groups on top."""
    groups = comparison.groups.values()
    rows = [
        ["", *comparison.groups],
        ["sequences", *(f"{len(g.traits):,}" for g in groups)],
        ["letters", *(f"{int(g.values('length_bp').sum()):,}" for g in groups)],
        ["genes", *(f"{int(g.values('genes').sum()):,}" for g in groups)],
    ]
    for key, (what, form) in _WHAT.items():
        means = [group.mean(key) for group in groups]
        if not all(map(math.isnan, means)):
            rows.append([what, *("–" if math.isnan(mean) else f"{mean:{form}}" for mean in means)])
    if comparison.distances:
        far = (f"{comparison.distances[name][-1]:.4f}" for name in comparison.groups)
        rows.append([f"distance of {LONGEST_WORD}-mers, bits", *far])
    return rows
