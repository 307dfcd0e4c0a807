"""Benchmarks: models and honest baselines on the tasks of a suite, with tables and a report."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lexome import __version__
from lexome.core import InputError, LexomeError, atomic_path, pick
from lexome.core.json_files import write_json
from lexome.core.messages import teller
from lexome.reports.evaluation_page import evaluation_page
from lexome.tasks.evaluation import (
    OWN,
    Plan,
    check_settings,
    contenders_of,
    read_recipe,
    run_suite,
)
from lexome.tasks.standings import PUBLISHED, Evaluation, Score, TaskResult
from lexome.tasks.suites import read_suite
from lexome.training.baselines import BASELINES, STANDARD

TABLE, SUMMARY, REPORT = "results.tsv", "results.json", "report.html"


class EvaluationIncomplete(LexomeError):
    """Some model could not be judged on some task; everything else is written."""


def evaluate(
    suite: str | Path,
    *,
    models: Sequence[str | Path] = (),
    data: str | Path,
    out: str | Path,
    tasks: Sequence[str] | None = None,
    method: str | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, bool | int | float | str | dict[str, list[bool | int | float | str]]]
    | None = None,
    folds: int | None = None,
    seeds: int = 1,
    baselines: Sequence[str] = STANDARD,
    genome: str | Path | None = None,
    max_train: int | None = None,
    train_on_validation: bool = False,
    progress: bool = True,
    device: str = "auto",
    precision: str | None = None,
) -> Evaluation:
    """Fine-tune models on the tasks of a benchmark and judge them beside honest baselines.

    Everyone gets the same sequences. Scores come with the interval that resampling the test
    sequences gives, exact duplicates between parts are counted, and what others published stands
    beside, marked as such. A stopped evaluation goes on where it was; models can be added later.

    Parameters
    ----------
    suite
        ``gue``, ``nt-original``, ``nt-revised``, ``seqlens``, ``genomic-benchmarks``,
        ``mrna``, ``dnabert-sample``, or a YAML file of your own in the same form.
    models
        Releases or folders; ``NAME=FOLDER`` gives a folder a name. None runs the baselines alone.
    data
        Folder with the suite's files, or ``hub`` to download them.
    out
        Folder of the evaluation. Gets ``report.html``, ``results.tsv``, ``results.json`` and
        ``runs/``.
    tasks
        Some of the suite's tasks; by default all that are in `data`, but for optional ones.
    method
        As for `finetune`; by default what was published for the model's family, else ``full``.
    recipe
        A recipe of `finetune` for all models. It wins over what the suite says was published.
    settings
        Further arguments of `finetune` for all models. They win over the recipe.
    folds
        Train each model so many times, each time with another part of training and validation as
        validation; by default as the suite says.
    seeds
        Train each model with so many seeds.
    baselines
        ``majority``, ``kmer`` (regression on counts of words), ``position`` (on which letter
        stands where), ``cnn`` (a small convolutional network from scratch), and for sequences that
        begin with their frame ``codon`` (regression on which codons are used).
    genome
        FASTA of the bases, for suites that list intervals.
    max_train
        Draw so many training sequences of larger sets, for a quick look.
    train_on_validation
        Where a training file is missing, train on nine tenths of the validation file.
    progress
        Whether to tell on standard error what is going on.
    device
        As for `finetune`.
    precision
        As for `finetune`; by default as the settings say, else ``float32``.

    Returns
    -------
    Scores, intervals, verdicts and published scores of every task.

    Raises
    ------
    InputError
        If a task that was named is not in `data`, or the data is not what the suite says.
    EvaluationIncomplete
        If a model could not be judged on a task; all else is written before.
    """
    given: dict[str, Any] = {}
    if recipe is not None:
        given |= read_recipe(recipe)
        folds = folds or given.get("folds")
        given = {name: value for name, value in given.items() if name not in OWN}
    given |= settings or {}
    if method is not None:
        given["method"] = method
    check_settings(given)
    for name, value in (("seeds", seeds), ("folds", folds), ("max_train", max_train)):
        if value is not None and (type(value) is not int or value < 1):
            raise InputError(f"{name} is {value!r}. Expected a whole number of at least 1.")
    names = tuple(pick("baseline", name, BASELINES) for name in baselines)
    if not models and not names:
        raise InputError("there is nothing to judge. Expected models, baselines, or both.")
    read = read_suite(suite)
    if tasks is not None:
        read.chosen(tasks)
    plan = Plan(
        suite=read,
        contenders=contenders_of(models),
        data=data,
        out=Path(out),
        tasks=None if tasks is None else tuple(tasks),
        baselines=names,
        settings=given,
        folds=folds,
        seeds=seeds,
        genome=genome,
        max_train=max_train,
        train_on_validation=train_on_validation,
        device=device,
        precision=precision,
    )
    made = run_suite(plan, teller(aloud=progress), progress=progress)
    write_results(made, plan)
    if made.failures:
        print(made)
        task, model, why = made.failures[0]
        raise EvaluationIncomplete(
            f"{len(made.failures)} of the judgements asked for failed, the first of {model} on "
            f"{task}: {why} All others are in {made.out}; mend this and run the same command again."
        )
    return made


# --------------------------------------------------------------------------- files


def write_results(made: Evaluation, plan: Plan) -> None:
    """Write the table, the summary and the report of an evaluation into its folder.

    Parameters
    ----------
    made
        What came out.
    plan
        What was done.
    """
    facts = {
        "suite": f"{made.suite.title}, version {made.suite.version}",
        "data": str(plan.data),
        **{f"model {c.name}": f"{c.source}, checkpoint {c.sha256}" for c in made.contenders},
        "settings": json.dumps(dict(plan.settings)) if plan.settings else "as published or default",
        "seeds": str(plan.seeds),
        "precision": plan.precision or "as the settings say, else float32",
    }
    with (
        atomic_path(made.out / TABLE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.DictWriter(stream, _COLUMNS, delimiter="\t", lineterminator="\n")
        rows.writeheader()
        for result in made.results.values():
            rows.writerows(_rows(result))
    write_json(made.out / SUMMARY, _plain(made, facts))
    evaluation_page(made).write(made.out / REPORT, facts)


_COLUMNS = (
    *("task", "metric", "kind", "who", "name", "score", "low", "high", "spread", "runs"),
    *("without_duplicates", "verdict", "against", "difference", "difference_low"),
    *("difference_high", "trained", "seconds", "source"),
)


def _rows(result: TaskResult) -> Iterator[dict[str, object]]:
    """Yield the rows of a task: everyone here, then what is published."""
    task: dict[str, object] = {"task": result.task.name, "metric": result.task.metric}
    for score in result.scores:
        yield task | {k: v for k, v in _entry(score).items() if k in _COLUMNS}
    for model, value, block in result.published:
        source = f"{block.source} ({block.known}; {block.protocol})"
        yield task | {"kind": PUBLISHED, "who": model, "score": value, "source": source}


def _entry(score: Score) -> dict[str, object]:
    entry: dict[str, object] = {
        "kind": score.kind,
        "who": score.key,
        "name": score.name,
        "score": _number(score.value),
        "low": _number(score.interval.low),
        "high": _number(score.interval.high),
        "spread": _number(score.spread),
        "runs": score.runs,
        "without_duplicates": _number(score.unshared),
        "trained": score.trained,
        "seconds": score.seconds,
        "metrics": {name: _number(value) for name, value in score.metrics.items()},
    }
    if score.verdict is not None:
        entry |= {
            "verdict": score.verdict.word,
            "against": score.verdict.against,
            "difference": _number(score.verdict.difference),
            "difference_low": _number(score.verdict.interval.low),
            "difference_high": _number(score.verdict.interval.high),
        }
    return entry


def _number(value: float | None) -> float | None:
    """Return six decimals; what is not defined is None."""
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _plain(made: Evaluation, facts: Mapping[str, str]) -> dict[str, object]:
    return {
        "lexome": __version__,
        **facts,
        "missing": made.missing,
        "tasks": {
            name: {
                "title": result.task.title,
                "metric": result.task.metric,
                "sizes": result.sizes,
                "duplicates": result.shared,
                "notes": result.notes,
                "scores": [_entry(score) for score in result.scores],
                "published": [
                    {"model": m, "score": v, "source": b.source, "known": b.known}
                    for m, v, b in result.published
                ],
                "failures": result.failures,
            }
            for name, result in made.results.items()
        },
        "means": {
            metric: [
                {"who": name, "kind": kind, "mean": _number(value), "tasks": count}
                for name, kind, value, count in made.means(metric)
            ]
            for metric in made.metrics
        },
    }
