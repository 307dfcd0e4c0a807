"""Standings are told as they are: means over equal tasks, what is published apart."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lexome.tasks.bootstrap import Interval95
from lexome.tasks.standings import BASELINE, MODEL, Evaluation, Score, TaskResult
from lexome.tasks.suites import read_suite

SUITE = read_suite("gue")


def score(key: str, value: float, kind: str = BASELINE, **given) -> Score:
    return Score(
        key=key,
        name=f"{key} here",
        kind=kind,
        value=value,
        interval=Interval95(value - 0.1, value + 0.1),
        spread=None,
        unshared=value - 0.01,
        metrics={"mcc": value},
        runs=1,
        seconds=1.0,
        **given,
    )


def result(task: str, *scores: Score, **given) -> TaskResult:
    return TaskResult(
        **{
            "task": SUITE.tasks[task],
            "sizes": {"train": 4904, "validation": 613, "test": 613},
            "shared": {},
            "test_duplicates": 0,
            "notes": (),
            "scores": scores,
            "published": tuple(SUITE.published_scores(task)),
            "failures": {},
        }
        | given
    )


def evaluation(*results: TaskResult, missing: tuple[str, ...] = ()) -> Evaluation:
    return Evaluation(
        suite=SUITE,
        contenders=(),
        results={each.task.name: each for each in results},
        missing=missing,
        out=Path("out"),
        seconds=2.0,
    )


def test_means_are_of_those_who_have_a_score_on_every_task():
    made = evaluation(
        result("mouse_0", score("a", 0.4), score("b", 0.2), score("c", math.nan)),
        result("mouse_3", score("a", 0.6), score("c", 0.9)),
    )
    rows = {(name, kind): mean for name, kind, mean, _ in made.means("mcc")}
    assert rows["a", BASELINE] == pytest.approx(0.5)
    assert not {("b", BASELINE), ("c", BASELINE)} & set(rows)
    assert "mean mcc over 2 tasks run (GUE, Genome Understanding Evaluation has 28)" in str(made)
    assert rows["dnabert2-117m", "published"] == pytest.approx((0.5676 + 0.6647) / 2)


def test_tasks_of_another_metric_have_means_of_their_own():
    made = evaluation(result("mouse_0", score("a", 0.4)), result("virus_covid", score("a", 0.8)))
    assert made.metrics == ("mcc", "macro_f1")
    assert [m for n, k, m, _ in made.means("macro_f1") if n == "a"] == [0.8]


def test_a_model_and_a_published_score_of_the_same_name_stay_apart():
    made = evaluation(result("mouse_0", score("dnabert2-117m", 0.9, MODEL)))
    kinds = [kind for name, kind, *_ in made.means("mcc") if name == "dnabert2-117m"]
    assert kinds == [MODEL, "published"]


def test_duplicates_and_the_score_without_them_are_told_where_there_are_any():
    clean = str(evaluation(result("mouse_0", score("a", 0.4))))
    assert "without duplicates" not in clean
    told = str(evaluation(result("prom_core_tata", score("a", 0.8), test_duplicates=17)))
    assert "17 of them also in train or validation" in told
    assert "without duplicates 0.790" in told


def test_what_is_missing_or_failed_is_told():
    failing = result("mouse_0", score("a", 0.4), failures={"m": "it cannot. Mend it."})
    made = evaluation(failing, missing=("tf_3", "tf_4"))
    assert made.failures == [("mouse_0", "m", "it cannot. Mend it.")]
    assert "not in the data folder:\n  tf_3, tf_4: train and test (.csv" in str(made)
    assert "failed: m on mouse_0: it cannot. Mend it." in str(made)
    assert "note: few" in str(evaluation(replace(failing, notes=("few",))))


def test_a_constant_is_said_to_have_no_score():
    made = evaluation(result("mouse_0", score("a", 0.4), score("b", math.nan)))
    assert "no mcc: it says the same of all" in str(made)
    assert "nan" not in str(made)


def test_the_best_baseline_is_the_first_that_is_no_model():
    made = result("mouse_0", score("m", 0.9, MODEL), score("a", 0.4), score("b", 0.2))
    best = made.best_baseline()
    assert best is not None
    assert best.key == "a"
    assert result("mouse_0", score("m", 0.9, MODEL)).best_baseline() is None
