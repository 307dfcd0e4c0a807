"""`lexome probe`: the probes of every layer, with a figure of score by layer and a report."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from lexome.core import MissingExtra
from lexome.reports.figures import Line, Mark, line_chart
from lexome.reports.page import Column, KeyNumber, Page
from lexome.reports.png import write_figure
from lexome.training.metrics import METRICS, SHOWN
from lexome.training.probe_results import Probe, Probing
from lexome.training.probing import probe_layers

_CONSTANT = {"majority", "mean", "frequency"}  # baselines that know nothing of the sequence


@wraps(probe_layers)
def probe(*args: Any, **kwargs: Any) -> Probing:
    """Do what `probe_layers` does, then draw and report it in the same folder."""
    result = probe_layers(*args, **kwargs)
    write_report(result)
    return result


probe.__name__ = probe.__qualname__ = "probe"


def write_report(result: Probing) -> None:
    """Write ``layers.svg``, ``layers.png`` and ``report.html`` beside the results.

    Without Pillow, which draws the PNG, standard error says so and the rest is written.

    Parameters
    ----------
    result
        What `probe_layers` found.
    """
    figure = layer_figure(result)
    write_figure(result.folder / "layers.svg", figure)
    page, sources = probe_page(result, figure)
    page.write(result.folder / "report.html", sources)
    try:
        write_figure(result.folder / "layers.png", figure)
    except MissingExtra as error:
        print(f"no layers.png: {error}", file=sys.stderr)


def layer_figure(result: Probing) -> str:
    """Draw the score of each pooling by layer, as SVG, and baselines as dashed lines.

    Parameters
    ----------
    result
        What `probe_layers` found.
    """
    poolings = sorted({probe.pooling for probe in result.probes})
    by_layer = sorted(result.probes, key=lambda probe: probe.layer)
    lines = []
    for pooling in poolings:
        probes = [probe for probe in by_layer if probe.pooling == pooling]
        lines.append(
            Line(
                name=pooling,
                x=[probe.layer for probe in probes],
                y=[probe.scores[result.metric] for probe in probes],
                points=True,
            )
        )
    marks = [
        Mark(name=name, value=scores[result.metric])
        for name, scores in result.baselines.items()
        if name not in _CONSTANT and scores[result.metric] == scores[result.metric]
    ]
    return line_chart(
        lines,
        x_label=f"layer (0 embedding, {result.depth} final state)",
        y_label=f"{result.metric} on {result.judged_on}",
        marks=marks,
    )


def probe_page(result: Probing, figure: str) -> tuple[Page, dict[str, str]]:
    """Return the report and what its numbers come from.

    Parameters
    ----------
    result
        What `probe_layers` found.
    figure
        Its score by layer.
    """
    best, last, metric = result.best, result.last, result.metric
    kind = "linear probes" if result.head == "linear" else "small networks"
    page = Page(
        f"What the layers of {result.model} know",
        f"The model is frozen; {kind} of {result.task} read its vectors, one for each layer and "
        f"pooling. They are ranked on validation and judged on {result.judged_on}.",
    )
    page.numbers(
        KeyNumber(
            value=_number(best, metric),
            label=f"{metric}, best probe on validation",
            detail=f"layer {result.layer_name(best.layer)}, {best.pooling}",
        ),
        KeyNumber(
            value=_number(last, metric),
            label=f"{metric}, last layer",
            detail=f"layer {result.layer_name(last.layer)}, {last.pooling}",
        ),
        *(
            KeyNumber(
                value=f"{scores[metric]:.3f}",
                label=f"{metric}, without a model",
                detail=name,
                verdict="bad" if scores[metric] > best.scores[metric] else "",
            )
            for name, scores in result.baselines.items()
            if name not in _CONSTANT
        ),
    )
    page.figure(
        figure,
        f"Score by layer. Layer 0 is the embedding, layer {result.depth} the final state. Dashed: "
        "what needs no model.",
    )
    page.text(result.verdict()[:1].upper() + result.verdict()[1:] + ".")
    if result.judged_on == "validation":
        page.text(
            "There is no test: the same sequences chose the probes and judge them, so that these "
            "scores are too good."
        )
    for what, count in result.shared.items():
        if count:
            page.text(f"{count:,} sequences of {what.replace(' in ', ' are in ')} too.")
    page.heading("All probes")
    page.table(
        _columns(result),
        caption="Best on validation first. ± is the standard deviation over seeds."
        if result.probes[0].runs > 1
        else "Best on validation first.",
        chosen_row=0,
    )
    sources = {str(name): str(value) for name, value in result.made.items()}
    sizes = ", ".join(f"{count:,} {name}" for name, count in result.sizes.items())
    return page, {**sources, "sequences": sizes, "task": result.task, "metric": metric}


def _number(probe: Probe, metric: str) -> str:
    spread = f" ± {probe.spread[metric]:.3f}" if probe.runs > 1 else ""
    return f"{probe.scores[metric]:.3f}{spread}"


def _together(text: str) -> str:
    """Keep a cell on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _columns(result: Probing) -> list[Column]:
    names = METRICS[result.task][:SHOWN]
    bare = [(name, scores) for name, scores in result.baselines.items()]
    blank = [None] * len(bare)

    def of(take: Callable[[Probe], object], without: list[Any]) -> list[object]:
        return [*(take(probe) for probe in result.probes), *without]

    columns = [
        Column(
            name="layer",
            values=of(
                lambda p: _together(result.layer_name(p.layer)), [_together("no model")] * len(bare)
            ),
        ),
        Column(name="pooling", values=of(lambda p: p.pooling, [name for name, _ in bare])),
    ]
    if result.judged_on != "validation":  # else it would stand there twice
        columns.append(
            Column(
                name=f"validation {result.metric}",
                values=of(lambda p: p.validation[result.metric], blank),
                format=".3f",
            )
        )
    columns += [
        Column(
            name=f"{result.judged_on} {name}",
            values=of(lambda p, n=name: p.scores[n], [scores[name] for _, scores in bare]),
            format=".3f",
        )
        for name in names
    ]
    if result.probes[0].runs > 1:
        columns.append(
            Column(
                name=f"± {result.metric}",
                values=of(lambda p: p.spread[result.metric], blank),
                format=".3f",
            )
        )
    return columns
