"""Sequences to the classes, labels or values that a fine-tuned model gives them or their letters.

Axes: N sequences, L letters, C classes or values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexome.core import InputError
from lexome.core.messages import tab_table
from lexome.formats import Genome
from lexome.inference.batching import token_budget
from lexome.inference.letters import join_values
from lexome.inference.predictor import OF_LETTERS, Predictor, digest, load_predictor
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
        Labels that were possible; none where values are predicted.
    columns
        Columns of the rows that hold what is predicted.
    letters
        Probabilities of the classes of each record's letters, or their values, (L, C), if they
        were asked for; no rows where a record has no prediction.
    provenance
        Model, checkpoint hash, precision, version.
    summary
        The run in numbers.
    """

    rows: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    letters: tuple[NDArray[np.float32], ...]
    provenance: Mapping[str, object]
    summary: Summary

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """Return the predictions as a tab-separated table."""
        return tab_table(self.rows, ["id", "status", *self.columns])


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
    letter_outputs: bool = False,
    max_tokens_per_batch: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Predictions | Summary:
    """Predict classes, labels or values of sequences, or classes or values of their letters.

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
        ``.tsv``, ``.csv``, ``.parquet``, or another output of `lexome embed`. Without it, the
        predictions are returned.
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
    letter_outputs
        For models of letters: also give numbers, an array for each record, letters by classes or
        values: ``probabilities`` of the classes, or ``values``; `out` must then be ``.npz`` or
        ``.parquet``.
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
    ``pieces`` it was cut into, as in fine-tuning; what is predicted; then the columns of the
    input. Rows without a prediction have empty cells.

    What is predicted stands in ``prediction``: the likeliest class; the labels above 0.5 with
    ``;`` between them, ``-`` for none; the value, of several in columns ``prediction_<name>``; for
    letters one character each, or words with blanks between them if classes have longer names, or
    their values with blanks between them.
    For classes and labels of sequences, ``p_<class>`` are their probabilities.

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
    of_letters = predictor.task in OF_LETTERS
    if letter_outputs and not of_letters:
        raise InputError(
            f"letter_outputs was given, but {folder} predicts the {predictor.task} of whole "
            "sequences. Leave it out."
        )
    cut = predictor.cutting
    settings: dict[str, object] = {
        "finetuned": str(folder),
        "finetuned_sha256": digest(folder),
        "piece_tokens": predictor.piece_tokens,
        "overlap_tokens": cut.overlap,
        "max_unknown": max_unknown,
        "upper": upper,
        **({"classes": list(predictor.classes)} if of_letters else {}),
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
        partial(
            prepare,
            tokenizer=tokenizer,
            cutting=cut,
            max_unknown=share(max_unknown),
            letters=of_letters,
            content=predictor.both_strands,
        ),
        partial(_predict_window, predictor, budget, arrays=letter_outputs),
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
        ragged=letter_outputs,
    )
    if out is not None:
        return summary
    return Predictions(
        rows=tuple(kept.rows),
        classes=predictor.classes,
        columns=tuple(_columns(predictor)),
        letters=tuple(a for part in kept.arrays.get(_array_name(predictor), ()) for a in part),
        provenance=made,
        summary=summary,
    )


def _columns(predictor: Predictor) -> list[str]:
    """Return the names of the columns that hold what is predicted."""
    if not predictor.classes and len(predictor.columns) > 1:
        return [f"prediction_{name}" for name in predictor.columns]
    shares = () if predictor.task in OF_LETTERS else predictor.classes
    return ["prediction", *(f"p_{label}" for label in shares)]


def _array_name(predictor: Predictor) -> str:
    """Return what the numbers of letters are called in files."""
    return "probabilities" if predictor.classes else "values"


def _predict_window(
    predictor: Predictor, budget: int, items: list[Item], advance: Advance, *, arrays: bool
) -> tuple[list[dict[str, object]], dict[str, Any]]:
    """Return the rows of some items."""
    if predictor.task in OF_LETTERS:
        outputs = list(predictor.letter_outputs(items, budget, advance))
        width = predictor.head.scores
        numbers = [each.reshape(len(each), width).astype(np.float32) for each in outputs]
        made = {_array_name(predictor): numbers} if arrays else {}
    else:
        outputs, made = predictor.outputs(predictor.vectors(items, budget, advance)), {}
    names = _columns(predictor)
    rows: list[dict[str, object]] = []
    for item, output in zip(items, outputs, strict=True):
        cells = _cells(predictor, output) if item.status == "ok" else [None] * len(names)
        rows.append(item_row(item, dict(zip(names, cells, strict=True))))
    return rows, made


def _cells(predictor: Predictor, output: Any) -> list[object]:
    """Return what is predicted of one item, in the order of `_columns`."""
    classes = predictor.classes
    match predictor.task:
        case "regression":
            return [float(value) for value in np.atleast_1d(output)]
        case "multilabel":
            chosen = [label for label, p in zip(classes, output, strict=True) if p > 0.5]
            return [";".join(chosen) or "-", *map(float, output)]
        case "token_classification":
            between = "" if all(len(label) == 1 for label in classes) else " "
            return [between.join(classes[c] for c in output.argmax(1))]
        case "token_regression":
            return [join_values(values) for values in output.reshape(len(output), -1).T]
    return [classes[int(output.argmax())], *map(float, output)]
