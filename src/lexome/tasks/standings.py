"""Who did how well on the tasks of a suite, as data and as text.

Everything that is said of an evaluation, by its tables, its files and its report, comes from here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lexome.tasks.bootstrap import Interval95, Verdict
from lexome.tasks.suites import Published, Suite, SuiteTask

MODEL, BASELINE, PUBLISHED = "model", "baseline", "published"
"""What a score can be of."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model that takes part.

    Parameters
    ----------
    name
        What tables call it.
    source
        Release or folder.
    family
        Whose published settings it gets.
    sha256
        Of its checkpoint.
    thymine
        ``T`` if it knows no U, ``U`` if it knows no T: both are written so for it. None if it
        knows both, or neither.
    """

    name: str
    source: str
    family: str
    sha256: str | None
    thymine: str | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """How one model or baseline did on a task.

    Parameters
    ----------
    key
        The same on all tasks: the model's name, or the baseline's of `BASELINES`.
    name
        What it is on this task.
    kind
        ``model`` or ``baseline``.
    value
        Of the task's metric; of several runs, the mean.
    interval
        What resampling the test sequences gives.
    spread
        Standard deviation over runs; None of one.
    unshared
        Value on the test sequences that no training or validation sequence equals.
    metrics
        All metrics.
    runs
        Seeds times folds.
    seconds
        All runs together.
    trained
        Parameters that were trained; None for baselines.
    verdict
        A model beside the best baseline.
    """

    key: str
    name: str
    kind: str
    value: float
    interval: Interval95
    spread: float | None
    unshared: float
    metrics: Mapping[str, float]
    runs: int
    seconds: float
    trained: int | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """How everyone did on a task.

    Parameters
    ----------
    task
        The task.
    sizes
        Sequences of each part.
    shared
        Exact duplicates between parts.
    test_duplicates
        Test sequences that training or validation has too.
    notes
        In what the data or the protocol differ from what was published.
    scores
        Best first.
    published
        Scores of others for the same metric, best first.
    failures
        {model: why it could not be judged}.
    """

    task: SuiteTask
    sizes: Mapping[str, int]
    shared: Mapping[str, int]
    test_duplicates: int
    notes: tuple[str, ...]
    scores: tuple[Score, ...]
    published: tuple[tuple[str, float, Published], ...]
    failures: Mapping[str, str]

    def best_baseline(self) -> Score | None:
        """Return the baseline that did best."""
        return next((s for s in self.scores if s.kind == BASELINE), None)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How everyone did on the tasks of a suite that were run.

    Parameters
    ----------
    suite
        The suite.
    contenders
        The models.
    results
        By task.
    missing
        Tasks of the suite that are not in the data folder.
    out
        Folder with everything.
    seconds
        Time of this call.
    """

    suite: Suite
    contenders: tuple[Contender, ...]
    results: Mapping[str, TaskResult]
    missing: tuple[str, ...]
    out: Path
    seconds: float

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """Task, model and reason of all that could not be judged."""
        return [
            (name, model, why)
            for name, result in self.results.items()
            for model, why in result.failures.items()
        ]

    def means(self, metric: str) -> list[tuple[str, str, float, int]]:
        """Return name, kind, mean score and number of tasks, best first, of one metric's tasks.

        Only those who have a score, here or published, on every one of these tasks are there; what
        is published has the kind ``published``.
        """
        results = [r for r in self.results.values() if r.task.metric == metric]
        values: dict[tuple[str, str], list[float]] = {}
        for result in results:
            for score in result.scores:
                if math.isfinite(score.value):
                    values.setdefault((score.key, score.kind), []).append(score.value)
            for model in dict.fromkeys(m for m, _, _ in result.published):
                best = next(v for m, v, _ in result.published if m == model)
                values.setdefault((model, PUBLISHED), []).append(best)
        found = [
            (name, kind, float(np.mean(each)), len(each))
            for (name, kind), each in values.items()
            if len(each) == len(results)
        ]
        return sorted(found, key=lambda row: -row[2])

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that decide on the tasks that were run."""
        return tuple(dict.fromkeys(r.task.metric for r in self.results.values()))

    def __str__(self) -> str:
        lines: list[str] = []
        for result in self.results.values():
            lines += [*_task_lines(result), ""]
        for metric in self.metrics:
            count = sum(r.task.metric == metric for r in self.results.values())
            if count == 1:
                continue
            of = len(self.suite.chosen(None))
            lines.append(f"mean {metric} over {count} tasks run ({self.suite.title} has {of})")
            rows = self.means(metric)
            width = max((len(name) for name, *_ in rows), default=0)
            for name, kind, value, _ in rows:
                mark = "  published" if kind == PUBLISHED else ""
                lines.append(f"  {name:<{width}}  {value:.3f}{mark}")
            lines.append("")
        if self.missing:
            lines.append("not in the data folder:")
            wanted = {name: self.suite.tasks[name].files_wanted for name in self.missing}
            for files in dict.fromkeys(wanted.values()):
                names = ", ".join(name for name in self.missing if wanted[name] == files)
                lines.append(f"  {names}: {files}")
        lines += [f"failed: {model} on {task}: {why}" for task, model, why in self.failures]
        lines.append(f"{self.seconds:,.0f} s; tables and report in {self.out}")
        return "\n".join(lines)


def _task_lines(result: TaskResult) -> list[str]:
    task, duplicates = result.task, result.test_duplicates
    also = f", {duplicates:,} of them also in train or validation" if duplicates else ""
    lines = [
        f"{task.name}: {task.title} ({task.metric}; {result.sizes['train']:,} to train on, "
        f"{result.sizes['test']:,} to test{also})"
    ]
    lines += [f"  note: {note}" for note in result.notes]
    width = max((len(score.name) for score in result.scores), default=0)
    for score in result.scores:
        verdict = f"  {score.verdict}" if score.verdict else ""
        if math.isnan(score.value):
            lines.append(f"  {score.name:<{width}}  no {task.metric}: it says the same of all")
            continue
        without = f"  without duplicates {score.unshared:.3f}" if duplicates else ""
        lines.append(
            f"  {score.name:<{width}}  {score.value:.3f}  [{score.interval}]{without}{verdict}"
        )
    if result.published:
        shown = ", ".join(f"{model} {value:.3f}" for model, value, _ in result.published[:4])
        more = len(result.published) - 4
        lines.append(f"  published: {shown}" + (f" and {more} more" if more > 0 else ""))
    return lines
