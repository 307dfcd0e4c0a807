"""The page of an evaluation shows every task, and keeps apart what is published."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lexome.core import InputError
from lexome.reports.evaluation_page import Bar, evaluation_page, overview_chart, score_chart
from lexome.tasks.bootstrap import Interval95, Verdict
from lexome.tasks.standings import Contender, Evaluation, Score, TaskResult
from lexome.tasks.suites import read_suite


def score(key: str, kind: str, value: float, **given) -> Score:
    return Score(
        key=key,
        name=key,
        kind=kind,
        value=value,
        interval=Interval95(value - 0.05, value + 0.05),
        spread=None,
        unshared=value - 0.01,
        metrics={"mcc": value},
        runs=1,
        seconds=1.0,
        **given,
    )


def evaluation(*values: float, missing: tuple[str, ...] = ()) -> Evaluation:
    """Return scores of one model, one baseline at 0.5, and what is published, on GUE's tasks."""
    suite = read_suite("gue")
    results = {}
    for task, value in zip(suite.chosen(["mouse_0", "mouse_3", "tf_0"]), values, strict=False):
        word = "beats" if value > 0.5 else "loses to"
        verdict = Verdict(
            against="6-mers", difference=value - 0.5, interval=Interval95(-0.1, 0.1), word=word
        )
        scores = [
            score("ours", "model", value, verdict=verdict),
            score("kmer", "baseline", 0.5),
        ]
        results[task.name] = TaskResult(
            task=task,
            sizes={"train": 100, "validation": 10, "test": 20},
            shared={"test in train": 3},
            test_duplicates=3,
            notes=("the training file is missing",),
            scores=tuple(sorted(scores, key=lambda s: -s.value)),
            published=tuple(sorted(suite.published_scores(task.name), key=lambda row: -row[1])),
            failures={},
        )
    contender = Contender(name="ours", source="folder", family="gpn", sha256="0" * 64)
    return Evaluation(
        suite=suite,
        contenders=(contender,),
        results=results,
        missing=missing,
        out=Path("out"),
        seconds=1.0,
    )


def test_bars_end_at_their_scores_and_intervals_around_them():
    drawn = ET.fromstring(
        score_chart(
            [
                Bar(name="a", kind="model", value=0.8, low=0.7, high=0.9),
                Bar(name="b", kind="baseline", value=0.4),
                Bar(name="c", kind="published", value=0.2),
            ],
            value_label="mcc",
        )
    )
    rects = [e for e in drawn.iter() if e.tag.endswith("rect")]
    widths = [float(e.get("width", 0)) for e in rects]
    assert widths[0] / widths[1] == pytest.approx(2, rel=1e-3)
    assert widths[1] / widths[2] == pytest.approx(2, rel=1e-3)
    assert len({e.get("fill") for e in rects}) == 3
    texts = [e.text for e in drawn.iter() if e.tag.endswith("text")]
    assert {"0.800", "0.400", "0.200"} <= set(texts)


def test_scores_below_zero_have_room():
    drawn = score_chart([Bar(name="a", kind="model", value=-0.1)], value_label="mcc")
    assert "−0.100" in drawn
    rect = re.search(r'<rect[^>]* width="([\d.]+)"', drawn)
    assert rect is not None
    assert float(rect[1]) > 0


def test_a_chart_of_nothing_is_refused():
    with pytest.raises(InputError, match="without scores"):
        score_chart([], value_label="mcc")


def test_the_overview_has_a_line_for_each_task_and_a_dot_for_each_model():
    drawn = overview_chart(evaluation(0.6, 0.4))
    assert drawn.count("ours: 0.") == 2
    assert "correlation<" in drawn, "the axis says what is measured"
    assert "mouse_0" in drawn
    assert "mouse_3" in drawn
    assert "best published" in drawn


def test_wins_and_losses_are_counted_and_coloured():
    html = evaluation_page(evaluation(0.6, 0.7, 0.4)).html()
    assert "2 of 3" in html
    assert 'class="good"' in html
    assert "ties 0, loses 1" in html
    assert 'class="bad"' in evaluation_page(evaluation(0.1, 0.2)).html()


def test_the_page_says_what_differs_from_what_was_published():
    html = evaluation_page(evaluation(0.6, missing=("tf_0", "tf_1"))).html()
    assert "1 of its 28 tasks" in html
    assert "2 not in the data folder" in html
    assert "Note: the training file is missing." in html
    assert "3 test in train" in html
    assert "Published: arXiv:2306.15006" in html
    assert "read there" in html


def test_baselines_alone_make_a_page_too():
    made = evaluation(0.6)
    (result,) = made.results.values()
    alone = TaskResult(**{**vars(result), "scores": result.scores[1:], "published": ()})
    page = Evaluation(**{**vars(made), "contenders": (), "results": {"mouse_0": alone}})
    assert "No model took part" in evaluation_page(page).html()


def test_baselines_that_did_not_run_are_named():
    html = evaluation_page(evaluation(0.6)).html()
    assert "majority, regression on positions, small CNN from scratch did not" in html
