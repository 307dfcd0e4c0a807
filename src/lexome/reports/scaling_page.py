"""`lexome scaling`: compare architectures at equal sizes, and show what came out on a page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lexome.core import InputError, atomic_path
from lexome.core.messages import teller
from lexome.reports.figures import Line, Mark, line_chart
from lexome.reports.page import Column, KeyNumber, Page
from lexome.reports.svg import power_label
from lexome.sequence import Interval
from lexome.tasks.scaling import SHAPES, Scaling, ScalingPlan, ScalingResult, run_scaling
from lexome.training.recipe import takes_recipe

Settings = Mapping[str, bool | int | float | str | Sequence[int | float | str]]


@takes_recipe("scaling")
def scaling(
    recipe: str | Path | None = None,
    *,
    fasta: Sequence[str | Path] = (),
    out: str | Path | None = None,
    validation: Sequence[str | Interval] = (),
    regions: str | Path | None = None,
    families: Sequence[str] = tuple(SHAPES),
    parameters: Sequence[int] = (30_000, 100_000),
    tokens: Sequence[int] = (500_000, 1_000_000),
    learning_rates: Sequence[float] = (3e-3,),
    rate_from_smallest: bool = False,
    length_bp: int = 512,
    batch_size: int = 16,
    pretraining: Settings | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Scaling:
    """Compare architectures of equal sizes on your own FASTA: surprise against compute.

    Transformer++, Mamba, Hyena and StripedHyena are made with equally many parameters and trained
    on the same windows, letter by letter, each budget from the start with its own schedule. A
    comparison that was stopped goes on when the same call is made again, and families, sizes,
    budgets and learning rates can be added to one.

    Parameters
    ----------
    recipe
        A YAML file with any of the arguments below, or the name of one that comes with lexome:
        ``scaling-small``. Arguments given beside it win.
    fasta
        Genomes: FASTA files, plain, gzip or bgzip.
    out
        Folder of the comparison. Gets ``report.html``, its first figure as ``scaling.svg``,
        ``scaling.json``, ``scaling.tsv`` and a folder for each training,
        ``FAMILY/PARAMETERS/TOKENS-RATE``, as of `lexome pretrain`.
    validation
        What to hold out: contigs, regions (``chr5:1000-2000``, 0-based half-open), or BED files.
    regions
        BED of the regions to learn from; everything by default.
    families
        Of ``transformer_plus``, ``mamba``, ``hyenadna`` and ``evo``.
    parameters
        Sizes: parameters of the layers, without embeddings. Models have them within 3 %.
    tokens
        Budgets: letters to train on, rounded down to whole steps.
    learning_rates
        Every model is trained at each; the best on what is held out stands for it.
    rate_from_smallest
        Whether all learning rates are tried with the smallest budget only, and each model is
        trained with the larger ones at the rate that was best for it there and at the next lower
        one, since long trainings bear less.
    length_bp
        Letters of a window.
    batch_size
        Windows in a step.
    pretraining
        Further arguments of `lexome pretrain`.
    seed
        Of weights and windows.
    progress
        Whether to tell on standard error what is going on.

    Returns
    -------
    The table of what was measured, and the folder.

    Raises
    ------
    InputError
        If arguments are missing or contradict each other, the folder holds another comparison, or
        a family has no model of a size.
    """
    if not fasta or out is None or not validation:
        missing = "fasta" if not fasta else "out" if out is None else "validation"
        raise InputError(
            f"{missing} is missing. Expected genomes, a folder and what to hold out: "
            "scaling(fasta=['genome.fa'], validation=['chr4'], out='scaling')."
        )
    files = [fasta] if isinstance(fasta, str | Path) else fasta
    held_out = [validation] if isinstance(validation, str | Interval) else validation
    plan = ScalingPlan(
        fasta=tuple(map(str, files)),
        out=Path(out),
        validation=tuple(held_out),
        regions=None if regions is None else str(regions),
        families=tuple(families),
        parameters=tuple(parameters),
        tokens=tuple(tokens),
        learning_rates=tuple(learning_rates),
        rate_from_smallest=rate_from_smallest,
        length_bp=length_bp,
        batch_size=batch_size,
        pretraining=dict(pretraining or {}),
        seed=seed,
    )
    say = teller(aloud=progress)
    study = run_scaling(plan, say, progress=progress)
    page, facts = scaling_page(plan, study)
    page.write(plan.out / "report.html", facts)
    with atomic_path(plan.out / "scaling.svg") as temporary:
        temporary.write_text(compute_chart(study), encoding="utf-8")
    return study


def scaling_page(plan: ScalingPlan, study: Scaling) -> tuple[Page, dict[str, str]]:
    """Return the report of a comparison and what its numbers come from."""
    best = study.best
    least = min(best, key=lambda r: r.bits_per_base)
    titles = _titles(study)
    page = Page(
        "Which architecture learns DNA best?",
        f"{', '.join(titles)}: models with equally many parameters in their layers, trained on the "
        f"same windows of {study.training_bases:,} bases and compared on sequence that none of "
        "them was trained on.",
    )
    gap = study.markov_bits_per_base - least.bits_per_base
    side = "less" if gap > 0 else "more"
    page.numbers(
        KeyNumber(
            value=f"{least.bits_per_base:.4f}",
            label=f"bits per base: the least, {least.title}",
            detail=f"{least.parameters:,} parameters, {least.tokens:,} letters",
        ),
        KeyNumber(
            value=f"{study.markov_bits_per_base:.4f}",
            label=f"bits per base of a Markov model of order {study.markov_order}",
            detail=f"the best model has {abs(gap):.4f} {side}",
            verdict="good" if gap > 0 else "bad",
        ),
    )
    dotted = " Dotted: power laws fitted to it." if study.laws else ""
    page.figure(
        compute_chart(study),
        "Surprise of held-out sequence against compute; lower is better. Thick: the best model "
        f"of a family that so many operations buy.{dotted} Pale: one size at growing budgets.",
    )
    _laws(page, study)
    page.heading("Size by size")
    _by_size(page, study)
    page.heading("How to read this")
    page.text(
        "Operations are counted by formula and not measured: two for a multiplication and an "
        "addition, three forward passes for an update. Matrices, attention, short and long "
        "convolutions (by FFT) and state spaces are counted, norms and activations are not. How "
        "long a training took says more about this machine and these implementations."
    )
    page.text(
        "Parameters are those of the layers: the tables of tokens differ between families, though "
        "all of them read the same four letters. One seed each: repeat the comparison with others "
        "before taking small differences for real. What is best at these sizes need not be so at "
        "others, nor at learning rates that were not tried."
    )
    page.heading("Every training")
    if len(plan.learning_rates) > 1:
        rates = ", ".join(f"{rate:g}" for rate in sorted(plan.learning_rates))
        how = (
            f"Each model was trained with the smallest budget at learning rates of {rates}, and "
            "with the larger ones at the rate that was best for it there and the next lower one"
            if plan.rate_from_smallest
            else f"Each model was trained at learning rates of {rates}"
        )
        page.text(
            f"{how}. Shown is the one that was best on what is held out; scaling.tsv has them all."
        )
    _trainings(page, best)
    facts = {
        "sequence": ", ".join(Path(each).name for each in plan.fasta),
        "held out": f"{', '.join(map(str, plan.validation))} ({study.held_out_windows:,} windows "
        f"of {plan.length_bp:,} bases; the Markov models are judged on all of it)",
        "steps": f"of {plan.batch_size} windows; "
        + ", ".join(f"{name} {value}" for name, value in plan.pretraining.items()),
        "learning rates": ", ".join(f"{rate:g}" for rate in plan.learning_rates),
        "seed": str(plan.seed),
    }
    return page, facts


def _titles(study: Scaling) -> list[str]:
    return list(dict.fromkeys(r.title for r in study.best))


_MARKOV_ORDERS = (2, 5, 8)  # shown where they lie among the models, and the best in any case
_APART = 0.08  # of the range of the models: room for a name between two


def _markov_marks(study: Scaling) -> list[Mark]:
    bits = [r.bits_per_base for r in study.best]
    shown = {study.markov_order: study.markov_bits_per_base}
    for order in _MARKOV_ORDERS:
        value = study.markov.get(order, math.inf)
        room = min(abs(value - other) for other in shown.values())
        if min(bits) < value < max(bits) and room > _APART * (max(bits) - min(bits)):
            shown[order] = value
    return [Mark(name=f"Markov, order {n}: {value:.4f}", value=value) for n, value in shown.items()]


def compute_chart(study: Scaling) -> str:
    """Draw bits per base over compute: the best of each family, laws and Markov models, as SVG."""
    lines = []
    for title in _titles(study):
        front = study.front(title)
        lines.append(
            Line(
                name=title,
                x=[r.operations for r in front],
                y=[r.bits_per_base for r in front],
                points=True,
            )
        )
    for title, law in study.laws.items():
        x = np.geomspace(law.least, law.greatest, 40)
        lines.append(Line(name="", x=x, y=[law(each) for each in x], of=title))
    for title in _titles(study):
        for size in dict.fromkeys(r.size for r in study.best):
            one = [r for r in study.best if r.title == title and r.size == size]
            one.sort(key=lambda r: r.operations)
            if len(one) > 1:
                x, y = [r.operations for r in one], [r.bits_per_base for r in one]
                lines.append(Line(name="", x=x, y=y, faint=True, points=True, of=title))
    return line_chart(
        lines,
        x_label="operations of the training",
        y_label="bits per base",
        marks=_markov_marks(study),
        height=420,
        log_x=True,
    )


def _laws(page: Page, study: Scaling) -> None:
    laws = study.laws
    if not laws:
        return
    common = float(f"{min(law.greatest for law in laws.values()):.2g}")
    ordered = sorted(laws.items(), key=lambda each: each[1](common))
    page.table(
        [
            Column(name="model", values=[title for title, _ in ordered]),
            Column(
                name=f"bits per base at {power_label(math.log10(common))} operations",
                values=[law(common) for _, law in ordered],
                format=".4f",
            ),
            Column(name="exponent", values=[law.exponent for _, law in ordered], format=".4f"),
            Column(
                name="% saved by ten times the compute",
                values=[100 * (1 - 10**-law.exponent) for _, law in ordered],
                format=".1f",
            ),
            Column(
                name="variance explained",
                values=[law.explained for _, law in ordered],
                format=".3f",
            ),
        ],
        caption="Power laws: bits per base = scale × operations^−exponent, by least squares "
        "between logarithms over the points of the thick lines. They know of no floor and say "
        "nothing beyond the range that was measured.",
    )


_MOST_BUDGETS = 4  # columns that there is room for


def _by_size(page: Page, study: Scaling) -> None:
    best = study.best
    budgets = sorted({r.tokens for r in best})[-_MOST_BUDGETS:]
    found = {(r.title, r.size, r.tokens): r.bits_per_base for r in best}
    # In the order of how good they are at the longest budget, within a size.
    models = {(r.title, r.size): r for r in sorted(best, key=lambda r: (r.size, r.bits_per_base))}
    rows = sorted(
        models.values(), key=lambda r: (r.size, min(_of_model(best, r), default=0.0), r.title)
    )
    page.table(
        [
            Column(name="model", values=[r.title for r in rows]),
            Column(name="parameters", values=[r.parameters for r in rows], format=",d"),
            Column(
                name="layers × width",
                values=[f"{r.depth}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{r.width}" for r in rows],
            ),
            Column(
                name="operations per letter",
                values=[r.operations_per_token for r in rows],
                format=",.0f",
            ),
            *(
                Column(
                    name=f"{budget:,} letters",
                    values=[found.get((r.title, r.size, budget)) for r in rows],
                    format=".4f",
                )
                for budget in budgets
            ),
        ],
        caption="Bits per base, the best of a size first. Operations are those of a forward pass.",
    )
    if len({r.size for r in best}) < 2:
        return
    by_size = []
    for title in _titles(study):
        some = [r for r in best if r.title == title and r.tokens == budgets[-1]]
        some.sort(key=lambda r: r.parameters)
        x, y = [r.parameters for r in some], [r.bits_per_base for r in some]
        by_size.append(Line(name=title, x=x, y=y, points=True))
    page.figure(
        line_chart(
            by_size,
            x_label="parameters of the layers",
            y_label="bits per base",
            height=300,
            log_x=True,
        ),
        f"The same against size, at the longest budget: {budgets[-1]:,} letters.",
    )


def _of_model(best: Sequence[ScalingResult], model: ScalingResult) -> list[float]:
    return [r.bits_per_base for r in best if (r.title, r.size) == (model.title, model.size)]


def _trainings(page: Page, best: Sequence[ScalingResult]) -> None:
    errors = [r.bits_per_base_error for r in best]
    power = 3 * math.floor(math.log10(min(r.operations for r in best)) / 3)
    page.table(
        [
            Column(name="model", values=[r.title for r in best]),
            Column(name="parameters", values=[r.parameters for r in best], format=",d"),
            Column(name="letters", values=[r.tokens for r in best], format=",d"),
            Column(name="rate", values=[r.learning_rate for r in best], format="g"),
            Column(
                name=f"{power_label(power)} operations",
                values=[r.operations / 10**power for r in best],
                format=",.0f",
            ),
            Column(name="seconds", values=[r.seconds for r in best], format=",.0f"),
            Column(name="bits per base", values=[r.bits_per_base for r in best], format=".4f"),
            Column(name="±", values=errors, format=".4f"),
        ],
        caption="± is the standard error over held-out windows.",
    )
