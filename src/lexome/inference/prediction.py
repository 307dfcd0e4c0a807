"""Sequences to the classes or values that a fine-tuned model gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lexome.core import InputError
from lexome.formats import Genome
from lexome.inference.batching import token_budget
from lexome.inference.predictor import Predictor, digest, load_predictor
from lexome.inference.reading import Item, Source, prepare, read_records, share, tokenizer_of
from lexome.inference.runs import (
    Advance,
    Summary,
    deliver,
    fingerprint,
    item_row,
    provenance,
    run,
)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of records, in their order.

    Attributes
    ----------
    rows
        One mapping per record, with the columns that :func:`predict` describes.
    classes
        Labels that were possible; none where a value is predicted.
    provenance
        Model, checkpoint hash, precision, version.
    summary
        The run in numbers.
    """

    rows: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...]
    provenance: Mapping[str, object]
    summary: Summary

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """Return the predictions as a tab-separated table."""
        names = ["id", "status", "prediction", *(f"p_{label}" for label in self.classes)]
        cells = (
            "\t".join("" if row[name] is None else str(row[name]) for name in names)
            for row in self.rows
        )
        return "\n".join(["\t".join(names), *cells])


def predict(
    model: str | Path,
    source: Source,
    *,
    out: str | Path | None = None,
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
) -> Predictions | Summary:
    """Predict the class or the value of sequences with a fine-tuned model.

    A record's prediction depends on that record alone, not on the others or on the batch. Every
    record comes out, in order; one that has no prediction says why in its status.

    Parameters
    ----------
    model
        What `lexome finetune` wrote: its folder ``model``, or the one above it.
    source
        FASTA, FASTQ, BED with `genome`, TSV, CSV, Parquet, text with one sequence a line, ``-``
        for stdin, or from Python a list of strings or (name, sequence) pairs.
    out
        ``.tsv``, ``.csv`` or ``.parquet``. Without it, the predictions are returned.
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
        Replace `out`, and rows of an interrupted run with other arguments.
    progress
        Whether to show a progress bar and a last line of numbers on stderr. By default on a
        terminal; the line also where there is an output.
    device, precision
        As for `lexome.load`.

    Returns
    -------
    `Predictions`, or with `out` a `Summary`. Columns: ``id``; ``status`` (``ok``, ``empty``, ``too
    short``, ``unknown letters``); ``length`` in letters; ``tokens``; ``unknown`` letters;
    ``pieces`` it was cut into, as in fine-tuning; ``prediction``, the likeliest class or the
    value; for classes, ``p_<class>`` their probabilities; then the columns of the input. Rows
    without a prediction have empty cells.

    Raises
    ------
    CheckpointError
        If the folder holds no fine-tuned model, or its base is another one.
    UnknownLetters
        If no record at all has letters that the model knows.
    InputError
        If arguments contradict each other, the model or the input.
    FormatError
        If the input is not what its name says, with file and line.
    """
    if not isinstance(model, str | Path):
        raise InputError(
            f"model is {model!r:.60}. Expected the folder that `lexome finetune` wrote; give its "
            "path."
        )
    folder = Path(model) / "model" if (Path(model) / "model").is_dir() else Path(model)
    predictor = load_predictor(folder, base=base, device=device, precision=precision)
    network, tokenizer = predictor.model, tokenizer_of(predictor.model)
    cut = predictor.cutting
    settings: dict[str, object] = {
        "finetuned": str(folder),
        "finetuned_sha256": digest(folder),
        "piece_tokens": predictor.piece_tokens,
        "overlap_tokens": cut.overlap,
        "max_unknown": max_unknown,
        "upper": upper,
    }
    records = read_records(
        tokenizer,
        source,
        genome=genome,
        sequence_column=sequence_column,
        id_column=id_column,
        upper=upper,
    )
    budget = token_budget(network, max_tokens_per_batch)
    work = partial(
        run,
        network,
        records,
        partial(prepare, tokenizer=tokenizer, cutting=cut, max_unknown=share(max_unknown)),
        partial(_predict_window, predictor, budget),
        budget=budget,
        progress=progress,
    )
    made = provenance(network, "predict", settings)
    kept, summary = deliver(
        work,
        out,
        settings=fingerprint(
            network, source, genome, made | {"columns": [sequence_column, id_column]}
        ),
        made=made,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )
    if out is not None:
        return summary
    return Predictions(
        rows=tuple(kept.rows), classes=predictor.classes, provenance=made, summary=summary
    )


def _predict_window(
    predictor: Predictor, budget: int, items: list[Item], advance: Advance
) -> tuple[list[dict[str, object]], dict[str, Any]]:
    """Return the rows of some items."""
    outputs = predictor.outputs(predictor.vectors(items, budget, advance))
    rows: list[dict[str, object]] = []
    for item, output in zip(items, outputs, strict=True):
        known = item.status == "ok"
        if not predictor.classes:
            rows.append(item_row(item, {"prediction": float(output) if known else None}))
            continue
        likeliest = predictor.classes[int(output.argmax())]
        shares = {
            f"p_{label}": float(p) if known else None
            for label, p in zip(predictor.classes, output, strict=True)
        }
        rows.append(item_row(item, {"prediction": likeliest if known else None, **shares}))
    return rows, {}
