"""Attention as a folder: tables of all letters, maps, and a page that shows some of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from lexome.core import InputError
from lexome.core.signatures import takes_options_of
from lexome.inference.attention_scores import MAPS, RECORDS, SCORES, attention_scores
from lexome.inference.reading import Source
from lexome.inference.runs import Summary
from lexome.model import Model
from lexome.reports.figures import sequence_strip
from lexome.reports.page import Column, Page
from lexome.reports.png import write_figure
from lexome.reports.sequence_figures import heat_map
from lexome.reports.tables import read_table

PAGE, FIGURES = "report.html", "figures"

_SHOWN_LETTERS = 1200
_SHOWN_GENES = 20
_BRIGHT = 0.99  # share of the cells that lie within the colour scale


@takes_options_of(attention_scores)
def attention(
    model: Model | str | Path,
    source: Source,
    *,
    out: str | Path,
    show: Sequence[str] | None = None,
    head: int | None = None,
    png: bool = False,
    **options: Any,
) -> Summary:
    """Show what a model attends to: maps of its layers, and a score for every letter.

    A token's score is the attention that it gets from the query token, summed over the heads of a
    layer; a letter's is the mean over the tokens that cover it (DNABERT's score). Only the layers
    that are asked for make maps, so that all others keep their speed.

    Parameters
    ----------
    model
        A release name, a hub id, a folder, or what `lexome finetune` wrote. Any model that has
        attention.
    source
        FASTA, FASTQ, BED with `genome`, TSV, CSV, Parquet, text with one sequence a line, ``-``
        for stdin; for models of cells, an .h5ad file with counts.
    out
        A folder for ``records.tsv`` (one row per record), ``scores.tsv`` (one row per letter: id,
        start and end, 0-based and half-open, one column per layer, the letter; the first four
        columns are a bedGraph), ``maps``, ``figures`` and ``report.html``.
    show
        Names of the records that the page shows; by default the first three with scores.
    head
        Which head's maps the page shows, 0-based; by default the mean of all.
    png
        Write the figures as PNG too; needs the extra ``report``.
    **options
        As for `attention_scores`.

    Returns
    -------
    The run in numbers; `str` of it is the page.

    Raises
    ------
    InputError
        If the model has no attention or no such layer, or arguments contradict each other.

    References
    ----------
    Ji et al. 2021, Bioinformatics 37(15):2112-2120, "DNABERT-viz".
    """
    summary = attention_scores(model, source, out=out, **options)
    assert isinstance(summary, Summary), "there is an output"
    return replace(summary, out=show_attention(out, show=show, head=head, png=png))


def show_attention(
    folder: str | Path,
    *,
    show: Sequence[str] | None = None,
    head: int | None = None,
    png: bool = False,
) -> Path:
    """Make the page and the figures of a folder that `attention` wrote, again if need be.

    Parameters
    ----------
    folder
        The folder.
    show, head, png
        As for `attention`.

    Returns
    -------
    The page.

    Raises
    ------
    InputError
        If the folder has no such record or head, or no maps where a head is asked for.
    """
    folder = Path(folder)
    rows, made = read_table(folder / RECORDS)
    chosen = _chosen(rows, show)
    page = Page(
        "What the model attends to",
        f"{made.get('finetuned', made['model'])} ({made['family']}), layer "
        f"{made['layers'].strip('[]')}, counted from 0. "
        f"A letter's score is the attention that the tokens over it get from "
        f"{_ASKING[made['query']]}, summed over heads.",
    )
    if not chosen:
        page.text("No record has scores; records.tsv says why.")
    for row, letters, scores in _letters(folder, chosen):
        page.heading(row["id"])
        if made["item"] == "cell":
            _add_genes(page, letters, scores)
        cut = len(letters) > _SHOWN_LETTERS
        for layer, values in scores.items() if made["item"] != "cell" else ():
            strip = sequence_strip(
                "".join(letters[:_SHOWN_LETTERS]), values[:_SHOWN_LETTERS], value_label="score"
            )
            page.figure(
                strip,
                f"Layer {layer}: score of each letter; darker is more."
                + (f" The first {_SHOWN_LETTERS:,} of {len(letters):,} letters." if cut else ""),
            )
            _save(folder, f"{_plain(row['id'])}-{layer}-letters", strip, png=png)
        for name in filter(None, row["maps"].split(" ")):
            _add_maps(page, folder, name, head, png=png)
    page.text(f"{SCORES} and {RECORDS} beside this page hold all records.")
    page.write(folder / PAGE, made)
    return folder / PAGE


_ASKING = {"cls": "the first token", "mean": "the tokens of the sequence, on average"}


def _chosen(rows: Iterator[dict[str, str]], show: Sequence[str] | None) -> list[dict[str, str]]:
    if show is None:
        return list(islice((row for row in rows if row["status"] == "ok"), 3))
    wanted = dict.fromkeys(show)
    found = {row["id"]: row for row in rows if row["id"] in wanted}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(
            f"there is no record {missing[0]!r} to show. Expected ids of {RECORDS}, whole words "
            "as they stand in its first column."
        )
    return [found[name] for name in wanted if found[name]["status"] == "ok"]


def _letters(
    folder: Path, chosen: Sequence[dict[str, str]]
) -> Iterator[tuple[dict[str, str], list[str], dict[str, np.ndarray]]]:
    """Yield the chosen records with their letters and the scores of each layer."""
    by_id = {row["id"]: row for row in chosen}
    rows, _ = read_table(folder / SCORES)
    left = len(by_id)
    for name, of_record in groupby(rows, lambda row: row["id"]):
        if name not in by_id:
            continue
        lines = list(of_record)
        layers = [key for key in lines[0] if key.startswith("layer_")]
        scores = {
            layer.removeprefix("layer_"): np.array([float(r[layer] or "nan") for r in lines])
            for layer in layers
        }
        yield by_id[name], [r["letter"] for r in lines], scores
        left -= 1
        if not left:
            return


def _add_genes(page: Page, genes: Sequence[str], scores: dict[str, np.ndarray]) -> None:
    """Add the genes of a cell that get most, by the last layer asked for."""
    last = list(scores.values())[-1]
    best = np.argsort(-last, kind="stable")[:_SHOWN_GENES]
    page.table(
        [
            Column(name="gene", values=[genes[i] for i in best]),
            *(
                Column(name=f"layer {name}", values=values[best].tolist(), format=".4g")
                for name, values in scores.items()
            ),
        ],
        caption=f"The {len(best)} genes of {len(genes):,} with the highest scores.",
    )


def _add_maps(page: Page, folder: Path, name: str, head: int | None, *, png: bool) -> None:
    """Add the maps of one piece of a record."""
    with np.load(folder / MAPS / name) as stored:
        tokens = [str(token) for token in stored["tokens"]]
        spans = stored["spans"]
        inside = spans[:, 0] >= 0
        place = ""
        if inside.any():
            place = f", letters {spans[inside, 0].min() + 1:,} to {spans[inside, 1].max():,}"
        for key in stored.files:
            if not key.startswith("layer_"):
                continue
            svg = map_figure(stored[key], tokens, head, inside=inside)
            shown = "the mean of all heads" if head is None else f"head {head}"
            page.figure(
                svg,
                f"{key.replace('_', ' ').capitalize()}, {shown}{place}: what each token (row) "
                "takes of each other (column). Special tokens often take most; the scale ends "
                f"where {_BRIGHT:.0%} of the other cells lie.",
            )
            part = "mean" if head is None else f"head_{head}"
            _save(folder, f"{name.removesuffix('.npz')}-{key}-{part}", svg, png=png)


def map_figure(
    map_HLL: np.ndarray,
    tokens: Sequence[str],
    head: int | None = None,
    *,
    inside: np.ndarray | None = None,
) -> str:
    """Draw the map of a head, or the mean of all, as SVG.

    Parameters
    ----------
    map_HLL
        Attention of a layer, shape (heads, tokens, tokens), as in the files of ``maps``.
    tokens
        Texts of the tokens.
    head
        0-based; None takes the mean.
    inside
        Which tokens are of the sequence, shape (tokens,): the scale is made for these. All by
        default.

    Raises
    ------
    InputError
        If there is no such head.
    """
    if head is not None and not 0 <= head < len(map_HLL):
        raise InputError(
            f"head is {head}, and there are {len(map_HLL)}. Expected 0 or more, below."
        )
    shown_LL = map_HLL.mean(0) if head is None else map_HLL[head]
    own = shown_LL if inside is None or not inside.any() else shown_LL[np.ix_(inside, inside)]
    return heat_map(
        shown_LL,
        rows=tokens,
        columns=tokens,
        value_label="share of attention",
        x_label="takes of",
        y_label="token",
        greatest=float(np.quantile(own, _BRIGHT)),
    )


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]


def _save(folder: Path, name: str, svg: str, *, png: bool) -> None:
    for suffix in (".svg", ".png") if png else (".svg",):
        write_figure(folder / FIGURES / f"{name}{suffix}", svg)
