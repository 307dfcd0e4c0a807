"""Motifs as a folder: what a model's attention has in common, as tables, logos and a page."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lexome.core import InputError, atomic_path
from lexome.core.signatures import takes_options_of
from lexome.formats import StoredRows, read_sequences
from lexome.formats.sequences import Source as SequenceSource
from lexome.inference.attention_scores import attention_scores, run_attention, scored_rows
from lexome.inference.reading import Source
from lexome.inference.runs import Summary
from lexome.model import Model
from lexome.reports.page import Column, KeyNumber, Page
from lexome.reports.png import write_figure
from lexome.reports.sequence_figures import sequence_logo
from lexome.reports.tables import write_table
from lexome.tasks.motifs import Motif, MotifSearch, find_motifs, meme_text

MOTIFS, CANDIDATES, INSTANCES, MEME = "motifs.tsv", "candidates.tsv", "instances.tsv", "motifs.meme"
LOGOS, PAGE = "logos", "report.html"
_SHOWN = 30


@takes_options_of(attention_scores, but={"layers", "unit_length", "maps"})
def motifs(
    model: Model | str | Path,
    positives: Source,
    negatives: SequenceSource,
    *,
    out: str | Path,
    layer: int = -1,
    least_length: int = 5,
    times_least: float = 10.0,
    cutoff: float = 0.005,
    window: int = 24,
    least_instances: int = 3,
    png: bool = False,
    **options: Any,
) -> Summary:
    """Find motifs in what a model attends to, as DNABERT's authors do.

    Stretches of letters with high attention in the positive sequences are candidates. Those that
    more positive than negative sequences hold (hypergeometric test, false discovery rate) are kept,
    similar ones merged, and windows around them make the motifs.

    Parameters
    ----------
    model
        Usually what `lexome finetune` wrote, trained to tell the two groups apart; any model that
        has attention.
    positives
        Sequences with what is looked for: FASTA, FASTQ, BED with `genome`, TSV, CSV, Parquet, text
        with one sequence a line.
    negatives
        Sequences without it, in any of these forms; the model does not see them.
    out
        A folder for ``motifs.tsv``, ``candidates.tsv`` (all that were tested), ``instances.tsv``
        (where the windows are), ``motifs.meme``, ``logos`` and ``report.html``.
    layer
        Whose attention, 0-based; negative numbers count from the end.
    least_length
        Letters of the shortest candidate.
    times_least
        A letter counts as high if its score is above the sequence's mean and above so many times
        its least. 10 as published; attention that is spread more evenly, as in small models, needs
        3 or less.
    cutoff
        Largest false discovery rate (Benjamini and Hochberg) of a candidate that is kept.
    window
        Letters of a motif.
    least_instances
        Motifs with fewer windows are left out.
    png
        Write the logos as PNG too; needs the extra ``report``.
    **options
        As for `attention_scores`.

    Returns
    -------
    The run in numbers; `str` of it is the page.

    Raises
    ------
    InputError
        If the model has no attention, a group is empty, or arguments contradict each other.

    Notes
    -----
    The candidates come from the very sequences that they are tested on, as published: q orders
    candidates, and is no promise for other sequences. Judge a motif on sequences held back.

    References
    ----------
    Ji et al. 2021, Bioinformatics 37(15):2112-2120, "DNABERT-viz".
    """
    folder = Path(out)
    reading = {name: options[name] for name in ("sequence_column", "id_column", "genome", "upper")}
    others = [record.sequence for record in read_sequences(negatives, **reading)]
    if not others:
        raise InputError(
            "there are no negative sequences. Motifs are what one group has more of than another; "
            "give sequences of the other class."
        )
    search = {
        "least_length": least_length,
        "times_least": times_least,
        "cutoff": cutoff,
        "window": window,
        "least_instances": least_instances,
    }
    find_motifs([others[0]], [[]], others[:1], **search)  # refuses before any work is done
    _, summary, _ = run_attention(
        model,
        positives,
        out=folder / MOTIFS,
        writer=partial(_write, others, search, png),
        maps=None,
        layers=(layer,),
        unit_length=False,
        command="motifs",
        more={**search, "negatives": len(others)},
        **options,
    )
    return replace(summary, out=folder / PAGE)


def _write(
    others: list[str],
    search: Mapping[str, Any],
    png: bool,  # noqa: FBT001
    path: Path,
    stored: StoredRows,
    provenance: Mapping[str, object],
) -> None:
    """Search the stored scores and write all of the output, the table of motifs last."""
    if provenance["item"] != "sequence":
        raise InputError("motifs are of sequences, and this model reads cells.")
    names, texts, scores = [], [], []
    for row, letters, of_letters in scored_rows(stored, "sequence"):
        names.append(str(row["id"]))
        texts.append(str(letters))
        scores.append(of_letters[:, 0])
    found = find_motifs(texts, scores, others, **search)
    named = {f"motif_{i}": motif for i, motif in enumerate(found.motifs, 1)}
    folder = path.parent
    write_table(
        folder / CANDIDATES,
        ["text", "stretches", "positives", "negatives", "p", "q"],
        [
            [c.text, c.stretches, c.positives, c.negatives, f"{c.p:.4g}", f"{c.q:.4g}"]
            for c in found.candidates
        ],
        provenance,
    )
    write_table(
        folder / INSTANCES,
        ["motif", "id", "start", "end", "text"],
        [
            [name, names[i.sequence], i.start, i.start + len(i.text), i.text]
            for name, motif in named.items()
            for i in motif.instances
        ],
        provenance,
    )
    with atomic_path(folder / MEME) as temporary:
        temporary.write_text(meme_text(named), encoding="utf-8")
    page = motif_page(named, found, provenance, sizes=(len(texts), len(others)))
    for left in (folder / LOGOS).glob("motif_*"):  # of an earlier run that found more
        left.unlink()
    for name, motif in named.items():
        for suffix in (".svg", ".png") if png else (".svg",):
            write_figure(folder / LOGOS / f"{name}{suffix}", logo(motif))
    page.write(folder / PAGE, {key: str(value) for key, value in provenance.items()})
    write_table(
        path,
        ["motif", "consensus", "seed", "members", "windows", "positives", "negatives", "p", "q"],
        [
            [
                name,
                motif.consensus,
                motif.seed.text,
                " ".join(member.text for member in motif.members),
                len(motif.instances),
                motif.seed.positives,
                motif.seed.negatives,
                f"{motif.seed.p:.4g}",
                f"{motif.seed.q:.4g}",
            ]
            for name, motif in named.items()
        ],
        provenance,
    )


def logo(motif: Motif) -> str:
    """Draw a motif as a logo, letters as tall as their bits."""
    return sequence_logo(motif.bits, y_label="bits", greatest=2.0)


def motif_page(
    motifs: Mapping[str, Motif],
    found: MotifSearch,
    provenance: Mapping[str, object],
    *,
    sizes: tuple[int, int],
) -> Page:
    """Return the report.

    Parameters
    ----------
    motifs
        By name.
    found
        What they come from.
    provenance
        As the tables have it.
    sizes
        Numbers of positive and negative sequences.
    """
    positives, negatives = sizes
    page = Page(
        "Motifs in what the model attends to",
        f"{provenance.get('finetuned', provenance['model'])}: stretches of high attention in "
        f"{positives:,} sequences, tested against {negatives:,} others.",
    )
    kept = sum(c.q < float(str(provenance["cutoff"])) for c in found.candidates)
    page.numbers(
        KeyNumber(value=f"{len(motifs):,}", label="motifs", detail=f"of {kept:,} candidates kept"),
        KeyNumber(
            value=f"{len(found.candidates):,}",
            label="candidates tested",
            detail="different stretches of high attention",
        ),
        KeyNumber(value=str(provenance["cutoff"]), label="false discovery rate", detail="cutoff"),
    )
    if not motifs:
        page.text(_why_none(found, kept, provenance))
    for name, motif in list(motifs.items())[:_SHOWN]:
        seed = motif.seed
        page.heading(f"{name.replace('_', ' ')}: {motif.consensus.strip('.') or seed.text}")
        page.figure(
            logo(motif),
            f"{len(motif.instances):,} windows around {seed.text} and stretches like it, of "
            f"{len(motif.members)} kinds in all{_left_out(motif)}. {seed.text} is in "
            f"{seed.positives:,} of {positives:,} positive and {seed.negatives:,} of "
            f"{negatives:,} negative sequences, q = {seed.q:.2g}.",
        )
    if len(motifs) > _SHOWN:
        page.text(f"{len(motifs) - _SHOWN:,} more motifs are in {MOTIFS}.")
    if motifs:
        rows = list(motifs.items())
        page.heading("All motifs")
        page.table(
            [
                Column(name="motif", values=[name for name, _ in rows[:_SHOWN]]),
                Column(name="consensus", values=[m.consensus for _, m in rows[:_SHOWN]]),
                Column(name="windows", values=[len(m.instances) for _, m in rows[:_SHOWN]]),
                Column(name="positives", values=[m.seed.positives for _, m in rows[:_SHOWN]]),
                Column(name="negatives", values=[m.seed.negatives for _, m in rows[:_SHOWN]]),
                Column(name="q", values=[m.seed.q for _, m in rows[:_SHOWN]], format=".2g"),
            ],
            caption="Counts and q are of the motif's shortest stretch.",
        )
    page.text(
        "Candidates come from the sequences that they are tested on, so q orders them and promises "
        "nothing for other sequences; judge a motif on sequences held back."
    )
    return page


def _left_out(motif: Motif) -> str:
    """Say how many places a window around did not fit."""
    missing = sum(member.stretches for member in motif.members) - len(motif.instances)
    if not missing:
        return ""
    return f" ({missing:,} more places lie too near an end for a window: try a smaller one)"


def _why_none(found: MotifSearch, kept: int, provenance: Mapping[str, object]) -> str:
    if not found.candidates:
        return (
            "No stretch stands out: nowhere is attention above the mean and above "
            f"{provenance['times_least']:g} times the least over {provenance['least_length']} "
            "letters. A model that was not fine-tuned on these classes gives this, and so does one "
            "whose attention is spread more evenly than DNABERT's: try --times-least 3."
        )
    if not kept:
        return (
            "No candidate is commoner in the positives than chance allows; candidates.tsv lists "
            "them by q."
        )
    return (
        f"No motif has {provenance['least_instances']} windows of {provenance['window']} letters; "
        "try a smaller window or fewer instances."
    )
