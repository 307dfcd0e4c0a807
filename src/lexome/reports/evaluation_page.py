"""The report of an evaluation: what everyone scored, how sure that is, and what is published."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lexome.core import InputError
from lexome.inference.predictor import OF_LETTERS
from lexome.reports.figures import WIDTH
from lexome.reports.page import Column, KeyNumber, Page
from lexome.reports.svg import (
    COLOURS,
    INK,
    MUTED,
    PAPER,
    RULE,
    Drawing,
    minus,
    round_scale,
    text_width,
)
from lexome.tasks.standings import BASELINE, MODEL, PUBLISHED, Evaluation, Score, TaskResult
from lexome.training.baselines import BASELINES, SERVING_LETTERS, STANDARD

METRIC_NAMES = {
    "mcc": "Matthews' correlation",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "auc": "area under the ROC curve",
    "macro_auc": "mean area under the ROC curve",
    "r2": "coefficient of determination",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
    "rmse": "root mean square error",
}

_MOST_PUBLISHED = 6
_MOST_CHARACTERS = 40  # of a published name
_GREY = "#9aa6b2"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A score to draw.

    Parameters
    ----------
    name
        Whose.
    kind
        ``model``, ``baseline`` or ``published``.
    value
        The score.
    low, high
        Ends of its interval, where there is one.
    """

    name: str
    kind: str
    value: float
    low: float | None = None
    high: float | None = None


def score_chart(bars: Sequence[Bar], *, value_label: str) -> str:
    """Draw scores as bars with their intervals, from the top: full, grey, or an outline.

    Parameters
    ----------
    bars
        In order. Models are blue, baselines grey, published scores outlines without interval.
    value_label
        What the scores are.
    """
    if not bars:
        raise InputError("a chart of scores was asked for without scores. Give at least one.")
    ends = [e for b in bars for e in (b.value, b.low, b.high) if e is not None and math.isfinite(e)]
    row, top = 27, 8
    left = min(350.0, 1.05 * max(text_width(b.name) for b in bars) + 14)
    right = WIDTH - 52
    scale = round_scale(min(0.0, *ends), max(0.05, *ends), left, right, snug=True)
    foot = top + row * len(bars)
    drawing = Drawing(WIDTH, foot + 44, f"{value_label}: bars with intervals")
    for tick, label in zip(scale.ticks, scale.labels, strict=True):
        drawing.line(scale(tick), top, scale(tick), foot, stroke=RULE)
        drawing.label(scale(tick), foot + 17, label, anchor="middle")
    for i, bar in enumerate(bars):
        y = top + row * i
        middle = y + row / 2
        x0, x1 = sorted((scale(0.0), scale(bar.value)))
        look = _look(bar.kind)
        drawing.add(
            "rect", x=x0, y=y + 5, width=x1 - x0, height=row - 10, rx=2, tip=_tip(bar), **look
        )
        end = x1
        if bar.low is not None and bar.high is not None and math.isfinite(bar.low + bar.high):
            low, high = scale(bar.low), scale(bar.high)
            for halo in (True, False):
                stroke = {"stroke": PAPER, "stroke_width": 4.2} if halo else {"stroke": INK}
                drawing.line(low, middle, high, middle, **stroke)
                for x in (low, high):
                    drawing.line(x, middle - 4, x, middle + 4, **stroke)
            end = max(end, high)
        drawing.label(
            left - 10,
            middle + 4.5,
            bar.name,
            anchor="end",
            fill=MUTED if bar.kind == PUBLISHED else INK,
        )
        drawing.label(end + 6, middle + 4.5, minus(f"{bar.value:.3f}"), fill=INK)
    drawing.line(scale(0.0), top, scale(0.0), foot, stroke=MUTED)
    drawing.label((left + right) / 2, foot + 37, value_label, anchor="middle")
    return drawing.svg()


def _look(kind: str) -> dict[str, str]:
    if kind == PUBLISHED:
        return {"fill": PAPER, "stroke": _GREY, "stroke_dasharray": "4 3"}
    return {"fill": COLOURS[0] if kind == MODEL else "#b6c0cc"}


def _tip(bar: Bar) -> str:
    between = "" if bar.low is None else f", 95 % interval {bar.low:.3f} to {bar.high:.3f}"
    return f"{bar.name}: {bar.value:.3f}{between}"


def overview_chart(made: Evaluation) -> str:
    """Draw one line for each task: the models, the best baseline and the best published score."""
    results = list(made.results.values())
    apart = 9  # between the dots of two models
    row, top = 18 + apart * (1 + len(made.contenders)), 34
    # Widths are estimates: some fonts are a sixth wider.
    left = min(240.0, 1.18 * max(text_width(r.task.name) for r in results) + 16)
    right = WIDTH - 20
    values = [s.value for r in results for s in r.scores if math.isfinite(s.value)]
    values += [e for r in results for s in r.scores for e in (s.interval.low, s.interval.high)]
    values += [v for r in results for _, v, _ in r.published]
    values = [v for v in values if math.isfinite(v)]
    scale = round_scale(min(0.0, *values), max(0.05, *values), left, right, snug=True)
    foot = top + row * len(results)
    drawing = Drawing(WIDTH, foot + 52, "scores of all tasks")
    drawing.label((left + right) / 2, foot + 40, _score_label(made), anchor="middle")
    for tick, label in zip(scale.ticks, scale.labels, strict=True):
        drawing.line(scale(tick), top, scale(tick), foot, stroke=RULE)
        drawing.label(scale(tick), foot + 17, label, anchor="middle")
    colours = {c.name: COLOURS[i % len(COLOURS)] for i, c in enumerate(made.contenders)}
    x = left
    entries = [*colours, "best baseline"] + ["best published"] * any(r.published for r in results)
    for name in entries:
        _marker(drawing, x + 6, 13, name, colours, tip="")
        drawing.label(x + 18, 17.5, name)
        x += text_width(name) + 40
    for i, result in enumerate(results):
        y = top + row * (i + 0.5)
        drawing.line(left, y, right, y, stroke=RULE, stroke_dasharray="1 4")
        drawing.label(left - 10, y + 4.5, result.task.name, anchor="end", fill=INK)
        if result.published:
            model, value, _ = result.published[0]
            _marker(
                drawing, scale(value), y, "best published", colours, tip=f"{model}: {value:.3f}"
            )
        best = result.best_baseline()
        if best is not None:
            tip = f"{best.name}: {best.value:.3f}"
            _marker(drawing, scale(best.value), y, "best baseline", colours, tip=tip)
        models = {s.key: s for s in result.scores if s.kind == MODEL and math.isfinite(s.value)}
        for k, contender in enumerate(made.contenders):
            score = models.get(contender.name)
            if score is None:
                continue
            own = y + apart * (k - (len(made.contenders) - 1) / 2)
            if math.isfinite(score.interval.low + score.interval.high):
                low, high = scale(score.interval.low), scale(score.interval.high)
                drawing.line(low, own, high, own, stroke=colours[score.key], stroke_width=2)
            tip = f"{score.name}: {score.value:.3f}"
            _marker(drawing, scale(score.value), own, score.key, colours, tip=tip)
    return drawing.svg()


def _score_label(made: Evaluation) -> str:
    if len(made.metrics) == 1:
        return METRIC_NAMES.get(made.metrics[0], made.metrics[0])
    return "score, each task by its own metric"


def _marker(
    drawing: Drawing, x: float, y: float, who: str, colours: dict[str, str], *, tip: str
) -> None:
    """Draw a dot for a model, a grey diamond for a baseline, a ring for what is published."""
    if who in colours:
        drawing.add("circle", cx=x, cy=y, r=5, fill=colours[who], stroke=PAPER, tip=tip)
    elif who == "best published":
        drawing.add("circle", cx=x, cy=y, r=5, fill=PAPER, stroke=_GREY, stroke_width=1.6, tip=tip)
    else:
        points = f"{x - 6:.1f},{y:.1f} {x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f}"
        drawing.add("polygon", points=points, fill="#7b8794", stroke=PAPER, tip=tip)


# --------------------------------------------------------------------------- the page


def evaluation_page(made: Evaluation) -> Page:
    """Return the report of an evaluation."""
    results = list(made.results.values())
    page = Page(made.suite.title, _lead(made))
    page.numbers(*_key_numbers(made))
    if len(results) > 1:
        page.figure(
            overview_chart(made),
            "Each line is a task. Dots are the models fine-tuned here, with the interval that "
            "resampling the test sequences gives; the diamond is the best of the baselines, which "
            "had no pretraining; the ring is the best score published by others for the same "
            "metric, made with other settings and larger models.",
        )
    _means(page, made)
    ran = {s.key for r in results for s in r.scores if s.kind == BASELINE}
    whole = any(result.task.task not in OF_LETTERS for result in results)
    serving = STANDARD if whole else SERVING_LETTERS
    left_out = [_TITLES[key] for key in serving if key not in ran]
    page.heading("Verdicts")
    if left_out:
        page.text(
            f"Not all baselines ran ({', '.join(left_out)} did not), so that a verdict says less "
            "than it could."
        )
    _verdicts(page, made)
    for group in dict.fromkeys(result.task.group for result in results):
        for result in results:
            if result.task.group == group:
                _task(page, result)
    page.heading("How this was done")
    page.text(
        "Everyone was given the same training and validation sequences and judged on the same test "
        "sequences. The interval is the middle 95 % of 1,000 resampled test sets in which classes "
        "keep their numbers; it does not cover what another training run would give. A model beats "
        "a baseline, or loses to it, where the 95 % interval of their difference on the same "
        "resampled sets leaves out 0; otherwise they tie. The baseline it is held against is the "
        "one that did best on the test itself, which favours the baselines."
    )
    page.text(
        "Published scores were not made here. Where they were fine-tuned on larger training sets, "
        "or by another protocol, they are context and no contest; the notes of a task say where "
        "the data here differ."
    )
    for source in dict.fromkeys(
        f"{block.source} ({'read there' if block.known == 'read' else 'recalled, not read again'}"
        f"{'; ' + block.protocol if block.protocol else ''})"
        for result in results
        for _, _, block in result.published
    ):
        page.text(f"Published: {source}")
    return page


def _lead(made: Evaluation) -> str:
    of = len(made.suite.chosen(None))
    ran = f"{len(made.results)} of its {of} tasks" if made.missing else _tasks(len(made.results))
    who = ", ".join(c.name for c in made.contenders)
    models = f"{who} and" if who else "No model, and"
    about = f"{made.suite.about}. " if made.suite.about else ""
    return f"{about}{models} baselines without pretraining on {ran}, judged on the same sequences."


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"


def _key_numbers(made: Evaluation) -> list[KeyNumber]:
    numbers = [
        KeyNumber(
            value=str(len(made.results)),
            label=f"task{'s' * (len(made.results) != 1)} run",
            detail=f"{len(made.missing)} not in the data folder" if made.missing else "",
        )
    ]
    for contender in made.contenders[:3]:
        words = [
            s.verdict.word
            for r in made.results.values()
            for s in r.scores
            if s.kind == MODEL and s.key == contender.name and s.verdict
        ]
        wins, losses = words.count("beats"), words.count("loses to")
        if words:
            numbers.append(
                KeyNumber(
                    value=f"{wins} of {len(words)}",
                    label=f"tasks: {contender.name} beats the best baseline",
                    detail=f"ties {words.count('ties with')}, loses {losses}",
                    verdict="good" if wins > losses else "bad" if losses > wins else "",
                )
            )
    return numbers


def _means(page: Page, made: Evaluation) -> None:
    for metric in made.metrics:
        rows = made.means(metric)
        count = sum(r.task.metric == metric for r in made.results.values())
        if count < 2 or not rows:
            continue
        named = {key: f"baseline: {_TITLES.get(key, key)}" for key in BASELINES}
        page.table(
            [
                Column(
                    name="who",
                    values=[named.get(n, n) if kind == BASELINE else n for n, kind, *_ in rows],
                ),
                Column(
                    name="where",
                    values=[PUBLISHED if kind == PUBLISHED else "here" for _, kind, *_ in rows],
                ),
                Column(
                    name=f"mean {METRIC_NAMES.get(metric, metric)}",
                    values=[value for _, _, value, _ in rows],
                    format=".3f",
                ),
            ],
            caption=f"Means over the {count} tasks that were run and are judged by this metric; "
            "only those who have a score on each of them.",
        )


_TITLES = {
    "majority": "majority",
    "kmer": "regression on words",
    "position": "regression on positions",
    "cnn": "small CNN from scratch",
    "codon": "regression on codons",
}


def _verdicts(page: Page, made: Evaluation) -> None:
    rows = [(r, s) for r in made.results.values() for s in r.scores if s.kind == MODEL]
    if not rows:
        page.text("No model took part: these are the baselines that a model has to beat.")
        return
    duplicates = any(r.test_duplicates for r in made.results.values())
    columns = [
        Column(name="task", values=[r.task.name for r, _ in rows]),
        Column(name="model", values=[s.name for _, s in rows]),
        Column(name="score", values=[_with_interval(s) for _, s in rows]),
        Column(name="verdict", values=[_verdict(s) for _, s in rows]),
    ]
    if duplicates:
        columns.append(
            Column(name="without duplicates", values=[s.unshared for _, s in rows], format=".3f")
        )
    page.table(columns, caption="Scores with 95 % intervals, beside the best baseline of the task.")


def _with_interval(score: Score) -> str:
    spread = "" if score.spread is None else f" ± {score.spread:.3f} over {score.runs} runs"
    return f"{minus(f'{score.value:.3f}')} ({score.interval}){spread}"


def _verdict(score: Score) -> str:
    if score.verdict is None:
        return ""
    difference = minus(f"{score.verdict.difference:+.3f}")
    return f"{score.verdict.word} {score.verdict.against} ({difference})"


def _task(page: Page, result: TaskResult) -> None:
    task = result.task
    page.heading(f"{task.name}: {task.title}")
    bars = [
        Bar(name=s.name, kind=s.kind, value=s.value, low=s.interval.low, high=s.interval.high)
        for s in result.scores
        if math.isfinite(s.value)
    ]
    best = {}
    for model, value, _ in result.published:
        best.setdefault(model, value)
    shown = list(best.items())[:_MOST_PUBLISHED]
    bars += [Bar(name=_short(m), kind=PUBLISHED, value=v) for m, v in shown]
    parts = ", ".join(f"{n:,} {part}" for part, n in result.sizes.items())
    shared = [f"{n:,} {what}" for what, n in result.shared.items() if n]
    texts = ["Blue: fine-tuned here. Grey: baselines."] if MODEL in {b.kind for b in bars} else []
    texts += ["Outlines: published by others."] if shown else []
    texts.append(f"Sequences: {parts}.")
    texts.append(
        f"Exact duplicates: {', '.join(shared)}."
        if shared
        else "No exact duplicates between parts."
    )
    texts += [f"Note: {note}." for note in result.notes]
    texts += [f"{model} could not be judged: {why}" for model, why in result.failures.items()]
    if len(best) > len(shown):
        texts.append(f"{len(best) - len(shown)} lower published scores are in results.tsv.")
    page.figure(
        score_chart(bars, value_label=METRIC_NAMES.get(task.metric, task.metric)), " ".join(texts)
    )


def _short(name: str) -> str:
    return name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…"
