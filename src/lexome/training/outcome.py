"""What comes out of fine-tuning, as a table for people and as files.

A folder of a run has ``scores.json``, ``metrics.jsonl``, ``predictions.tsv`` and the same
predictions as numbers in ``outputs.npz``.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexome.core import atomic_path
from lexome.core.json_files import write_json
from lexome.training.labelled import Labelled
from lexome.training.metrics import METRICS, SHOWN, Task
from lexome.training.targets import Target, letters_of, texts_of
from lexome.training.tuning import Judgement

SCORES, HISTORY = "scores.json", "metrics.jsonl"
PREDICTIONS, OUTPUTS = "predictions.tsv", "outputs.npz"


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What came out of fine-tuning.

    Attributes
    ----------
    model
        Folder that `lexome predict` takes: of several runs, that of the best on validation.
    task, classes, columns
        What is predicted.
    metric
        What decided.
    judged_on
        ``"test"``; ``"validation"`` where there is no test: then the scores are of sequences that
        chose epoch, penalty and word length, and too good; or ``"folds"``: each fold by a model
        that was trained on the others.
    scores
        Of the model and of the baselines: {who: {metric: value}}; of several runs, the means.
    spread
        Standard deviations of the same over the runs; empty for one run.
    validation
        Scores on validation, of the model only; of several runs, of the best.
    sizes
        Sequences of each part.
    shared
        Exact duplicates between parts, e.g. ``{"test in train": 16}``.
    parameters, trained
        Size of the model with its head, and how much of it was trained.
    best_epoch
        Passes over the training sequences until the weights that were kept; 0 for those before
        the first step.
    history
        All judgements on the way; of several runs, of the best.
    seconds
        Time of everything.
    outputs, truth
        Of the judged sequences, as `measure` takes them: of the model in `model`; of folds, of all
        training sequences in their order. Of letters, those of all sequences one below the other.
    runs
        {name: what came out} of each, where there are several.
    chosen
        What a search chose on validation.
    """

    model: Path
    task: Task
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    metric: str
    judged_on: str
    scores: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, Mapping[str, float]]
    validation: Mapping[str, float]
    sizes: Mapping[str, int]
    shared: Mapping[str, int]
    parameters: int
    trained: int
    best_epoch: float
    history: tuple[Judgement, ...]
    seconds: float
    outputs: NDArray
    truth: NDArray
    runs: Mapping[str, "FineTuning"]
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        names = list(METRICS[self.task][:SHOWN])
        if self.metric not in names:
            names.append(self.metric)
        table = [[f"on {self.judged_on}", *names]]
        for who, scores in self.scores.items():
            spread = self.spread.get(who, {})
            table.append([who, *(_shown(scores[name], spread.get(name)) for name in names)])
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            )
            for row in table
        ]
        if self.runs:
            lines.append(f"means over {len(self.runs)} runs ± standard deviations")
        if self.judged_on == "validation":
            lines.append("these sequences also chose the model: expect less on others (give test=)")
        for what, count in self.shared.items():
            later, earlier = what.split(" in ")
            if count:
                lines.append(
                    f"{count:,} of {self.sizes[later]:,} {later} sequences are also in {earlier}"
                )
        if self.chosen:
            lines.append(f"chosen on validation: {told(self.chosen)}")
        epochs = self.history[-1].epoch
        kept = f"epoch {self.best_epoch:.3g} of {epochs:.3g} kept, " if epochs else ""
        lines.append(
            f"{self.trained:,} of {self.parameters:,} parameters trained, {kept}"
            f"{self.seconds:,.0f} s"
        )
        best = " of the best run" if self.runs else ""
        return "\n".join([*lines, f"model{best} in {self.model}"])

    # ---------------------------------------------------------------- files

    def write(self, folder: Path, target: Target, judged: Labelled) -> None:
        """Write the files of a finished run; ``scores.json``, the last, says that it is whole.

        Parameters
        ----------
        folder
            The run's.
        target
            What is predicted.
        judged
            The sequences that `outputs` belong to.
        """
        write_predictions(folder / PREDICTIONS, target, judged, self.outputs)
        with (
            atomic_path(folder / OUTPUTS) as temporary,
            temporary.open("wb") as stream,
        ):
            np.savez_compressed(stream, outputs=self.outputs, truth=self.truth)
        apart = {"model", "history", "outputs", "truth", "runs"}
        plain = replace(self, runs={})  # runs have files of their own
        kept = {k: v for k, v in asdict(plain).items() if k not in apart}
        if self.runs:
            kept["runs"] = {name: dict(run.scores) for name, run in self.runs.items()}
        write_json(folder / SCORES, kept)


def read_outcome(folder: Path) -> FineTuning | None:
    """Return what came out of a run; None while it is not done."""
    if not (folder / SCORES).is_file():
        return None
    kept = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    kept.pop("runs", None)
    for name in ("scores", "spread"):
        kept[name] = {who: _with_nan(scores) for who, scores in kept[name].items()}
    lines = (folder / HISTORY).read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    with np.load(folder / OUTPUTS) as arrays:
        outputs, truth = arrays["outputs"], arrays["truth"]
    return FineTuning(
        **kept
        | {
            "validation": _with_nan(kept["validation"]),
            "classes": tuple(kept["classes"]),
            "columns": tuple(kept["columns"]),
        },
        model=folder / "model",
        history=tuple(
            Judgement(**each | {"validation": _with_nan(each["validation"])}) for each in history
        ),
        outputs=outputs,
        truth=truth,
        runs={},
    )


def told(values: Mapping[str, Any]) -> str:
    """Return settings as people read them.

    Examples
    --------
    >>> told({"learning_rate": 1e-4, "batch_size": 8})
    'learning_rate 0.0001, batch_size 8'
    """
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _with_nan(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in scores.items()}


def joined(
    runs: Mapping[str, FineTuning], best: str, judged_on: str, seconds: float, **given: Any
) -> FineTuning:
    """Join several runs: means and standard deviations of their scores.

    Parameters
    ----------
    runs
        {name: what came out}.
    best
        Name of the run whose model is kept.
    judged_on, seconds, **given
        What is not the best run's.
    """
    by_place = [list(run.scores.items()) for run in runs.values()]
    means, spread = {}, {}
    for rows in zip(*by_place, strict=True):  # the model, then baseline by baseline
        who = rows[0][0] if len({name for name, _ in rows}) == 1 else _common(n for n, _ in rows)
        for into, what in ((means, _mean), (spread, _deviation)):
            into[who] = {name: what([s[name] for _, s in rows]) for name in rows[0][1]}
    return replace(
        runs[best],
        scores=means,
        spread=spread,
        judged_on=judged_on,
        seconds=round(seconds, 3),
        runs=dict(runs),
        **given,
    )


def _common(names: Iterable[str]) -> str:
    """Join names that end alike: folds may choose words of other lengths."""
    words = [name.split() for name in dict.fromkeys(names)]
    shared = 0
    while len({tuple(w[len(w) - shared - 1 :]) for w in words}) == 1 and shared < min(
        map(len, words)
    ):
        shared += 1
    heads = (" ".join(w[: len(w) - shared]) for w in words)
    return " ".join([" / ".join(heads), *words[0][len(words[0]) - shared :]]).strip()


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _deviation(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else math.nan


def _shown(value: float, deviation: float | None = None) -> str:
    if math.isnan(value):
        return "-"
    spread = "" if deviation is None or math.isnan(deviation) else f" ± {deviation:.3f}"
    return f"{value:.3f}{spread}"


def write_predictions(path: Path, target: Target, judged: Labelled, outputs: NDArray) -> None:
    """Write a table of what is true and what is predicted of each sequence.

    Parameters
    ----------
    path
        TSV with the columns ``id``, ``truth``, ``prediction`` and, of classes and labels of whole
        sequences, ``p_<class>``.
    target
        What is predicted.
    judged
        The sequences.
    outputs
        As for `measure`.
    """
    letters = [len(record.sequence) for record in judged.records]
    shares = target.task in {"classification", "multilabel"}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        names = [f"p_{label}" for label in target.classes] if shares else []
        rows.writerow(["id", "truth", "prediction", *names])
        texts = texts_of(target, outputs, letters)
        for number, (record, label, text) in enumerate(
            zip(judged.records, judged.labels, texts, strict=True)
        ):
            truth = label if isinstance(label, str) else ";".join(label)
            if target.task == "multilabel" and len(target.columns) > 1:
                flags = zip(target.classes, label, strict=True)
                truth = ";".join(name for name, flag in flags if flag == "1") or "-"
            share = [f"{p:.6g}" for p in outputs[number]] if shares else []
            rows.writerow([record.id, truth, text, *share])


def flat_truth(target: Target, truth: Any) -> NDArray:
    """Return the truth as `measure` takes it."""
    return letters_of(truth) if target.of_letters else truth
