"""Architectures compared: causal models of equal sizes on the same DNA, at several budgets.

After the comparison of Transformer++, Mamba, Hyena and StripedHyena in Nguyen et al. 2024,
doi:10.1126/science.ado9336, which trained some 300 models; this one is for a laptop. Every model
reads the same windows in the same order, letter by letter, and is asked for the same held-out
sequence. Sizes count the parameters of the layers: embeddings differ with the vocabularies (12 to
128 ids for the same four letters) and are left out, as by Kaplan et al. 2020, arXiv:2001.08361.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lexome.blocks.initialise import shapes_only
from lexome.catalog import families, load, new
from lexome.core import InputError, pick
from lexome.model import Model
from lexome.sequence import Interval
from lexome.tasks.markov import best_markov
from lexome.tasks.operations import TRAINING, operations_per_token
from lexome.tasks.power_law import PowerLaw, fit_power_law
from lexome.tasks.study_folder import claim_study, share_letters, write_study
from lexome.training.letters import Letters, encode_letters
from lexome.training.pretraining import Pretraining, pretrain
from lexome.training.runs import Run
from lexome.training.windows import split, subtracted

TOLERANCE = 0.03
"""How far the parameters of a model may be from what was asked, as a share."""

_HIGHEST_ORDER = 11  # of Markov models
_STEP = 4  # widths are multiples of it
_SHALLOWEST, _NARROWEST = 2, 16


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a family grows.

    Parameters
    ----------
    width_per_layer
        The ratio of width and depth to stay near.
    sizes
        Of a width, a depth and a length in tokens: the sizes of its configuration.
    """

    width_per_layer: float
    sizes: Callable[[int, int, int], Mapping[str, Any]]


def _gated(width: int) -> int:
    """Return the width of a gated MLP that has as many weights as one of 4 D: 8 D / 3."""
    return -(-8 * width // 24) * 8


def _heads(width: int) -> int:
    """Return as many heads, a power of two, as can be at least 16 wide and turn pairs."""
    return max(h for h in (1, 2, 4, 8, 16, 32) if not width % (2 * h) and width >= 16 * h)


SHAPES: Mapping[str, Shape] = {
    "transformer_plus": Shape(
        width_per_layer=24,
        sizes=lambda width, depth, length: {
            "width": width,
            "depth": depth,
            "heads": _heads(width),
            "mlp_width": _gated(width),
            "positions": length,
        },
    ),
    "mamba": Shape(  # two layers take the place of attention and MLP
        width_per_layer=12,
        sizes=lambda width, depth, length: {"width": width, "depth": depth},
    ),
    "hyenadna": Shape(
        width_per_layer=24,
        sizes=lambda width, depth, length: {
            "width": width,
            "depth": depth,
            "mlp_width": 4 * width,
            "filter_width": min(64, width),  # at 64, filters alone fill a small model
            "length": length,
            "dropout": 0.0,
        },
    ),
    "evo": Shape(
        width_per_layer=24,
        sizes=lambda width, depth, length: {
            "width": width,
            "depth": depth,
            "heads": _heads(width),
            "mlp_width": _gated(width),
            "vocab_size": 128,  # ASCII: fewer bytes to learn that never come
            "attention_layers": ",".join(map(str, range(depth // 2, depth, 8))),
        },
    ),
}
"""The families that are compared; in Evo one layer of eight attends, the first in the middle."""


@dataclass(frozen=True, kw_only=True)
class ScalingPlan:
    """What is compared; `scaling` explains each.

    `pretraining` are further arguments of `pretrain`.
    """

    fasta: tuple[str, ...]
    out: Path
    validation: tuple[str | Interval, ...]
    regions: str | None = None
    families: tuple[str, ...] = tuple(SHAPES)
    parameters: tuple[int, ...] = (40_000, 120_000)
    tokens: tuple[int, ...] = (500_000, 1_000_000)
    learning_rates: tuple[float, ...] = (3e-3,)
    rate_from_smallest: bool = False
    length_bp: int = 512
    batch_size: int = 16
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ScalingResult:
    """What one training gave.

    Attributes
    ----------
    family, title
        What was trained.
    size
        Parameters that were asked for.
    parameters, all_parameters
        Of the layers; and with embeddings, final norm and scores.
    width, depth
        Its shape.
    tokens
        Trained on: letters.
    learning_rate
        The highest.
    operations_per_token
        Of a forward pass, by the formulas of `lexome.tasks.operations`.
    operations
        Of the training.
    bits_per_base, bits_per_base_error
        Surprise per letter of what was held out, and its standard error over windows.
    seconds
        Of the training on this machine.
    """

    family: str
    title: str
    size: int
    parameters: int
    all_parameters: int
    width: int
    depth: int
    tokens: int
    learning_rate: float
    operations_per_token: float
    operations: float
    bits_per_base: float
    bits_per_base_error: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What came out.

    Attributes
    ----------
    out
        Folder with ``scaling.json``, ``scaling.tsv`` and a folder for each training.
    results
        One for each training.
    training_bases
        Letters that could be learnt from.
    held_out_windows
        Windows that `bits_per_base` was measured on.
    markov
        Bits per base of interpolated Markov models of the same training letters on all that is
        held out, by their order.
    seconds
        Of everything, this time.
    """

    out: Path
    results: tuple[ScalingResult, ...]
    training_bases: int
    held_out_windows: int
    markov: Mapping[int, float]
    seconds: float

    @property
    def markov_order(self) -> int:
        """The order of the best Markov model."""
        return min(self.markov, key=lambda order: self.markov[order])

    @property
    def markov_bits_per_base(self) -> float:
        """Bits per base of the best Markov model."""
        return self.markov[self.markov_order]

    @property
    def laws(self) -> dict[str, PowerLaw]:
        """Bits per base over operations of each title, where its `front` allows a fit."""
        fits = {}
        for title in dict.fromkeys(r.title for r in self.best):
            front = self.front(title)
            fits[title] = fit_power_law(
                [r.operations for r in front], [r.bits_per_base for r in front]
            )
        return {title: law for title, law in fits.items() if law is not None}

    def front(self, title: str) -> list[ScalingResult]:
        """Return what is better than all that is cheaper of the same family, cheapest first."""
        kept: list[ScalingResult] = []
        for each in sorted(self.best, key=lambda r: r.operations):
            if each.title == title and (not kept or each.bits_per_base < kept[-1].bits_per_base):
                kept.append(each)
        return kept

    @property
    def best(self) -> tuple[ScalingResult, ...]:
        """Of each family, size and budget, the training with the best learning rate."""
        found: dict[tuple[str, int, int], ScalingResult] = {}
        for each in self.results:
            key = each.family, each.size, each.tokens
            if key not in found or each.bits_per_base < found[key].bits_per_base:
                found[key] = each
        return tuple(found.values())

    def __str__(self) -> str:
        rows = [["model", "parameters", "shape", "tokens", "rate", "operations", "bits/base", "±"]]
        for r in self.best:
            error = "-" if r.bits_per_base_error is None else f"{r.bits_per_base_error:.4f}"
            row = [r.title, f"{r.parameters:,}", f"{r.depth} x {r.width}", f"{r.tokens:,}"]
            row += [f"{r.learning_rate:g}", f"{r.operations:.3g}", f"{r.bits_per_base:.4f}", error]
            rows.append(row)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        lines.append(f"Markov model of order {self.markov_order}: {self.markov_bits_per_base:.4f}")
        return "\n".join([*lines, f"all in {self.out}"])


def solve_shape(family: str, parameters: int, length: int) -> dict[str, Any]:
    """Find the sizes at which a family's layers have so many parameters.

    Of the shapes within `TOLERANCE`, the one whose width stands to its depth most nearly as the
    family's `Shape` says; the width of MLPs evens out what is left.

    Parameters
    ----------
    family
        One of `SHAPES`.
    parameters
        Of the layers.
    length
        Of a window, in tokens.

    Raises
    ------
    InputError
        If there is no such shape.
    """
    shape = SHAPES[pick("family that can be compared", family, SHAPES)]
    best: tuple[float, dict[str, Any]] | None = None
    nearest = math.inf
    likely = (parameters / shape.width_per_layer**2 / 12) ** (1 / 3)  # about 12 D^2 in a layer
    for depth in range(max(_SHALLOWEST, int(likely / 2)), int(2 * likely) + 3):
        for width in _widths(family, parameters, depth, length):
            sizes = _fitted(family, shape.sizes(width, depth, length), parameters)
            off = abs(_count(family, sizes) / parameters - 1)
            nearest = min(nearest, off)
            skew = abs(math.log(width / depth / shape.width_per_layer))
            if off <= TOLERANCE and (best is None or skew < best[0]):
                best = skew, sizes
    if best is None:
        raise InputError(
            f"no {families()[family].title} has within {TOLERANCE:.0%} of {parameters:,} "
            f"parameters in its layers; the nearest is {nearest:.0%} off. Choose another number, "
            "at least some 20,000."
        )
    return best[1]


def _widths(family: str, parameters: int, depth: int, length: int) -> set[int]:
    """Return widths about the one that gives so many parameters, which grow with its square."""
    width = (parameters / depth / 12) ** 0.5
    for _ in range(3):
        known = max(_NARROWEST, round(width / _STEP) * _STEP)
        count = _count(family, SHAPES[family].sizes(known, depth, length))
        width = known * (parameters / count) ** 0.5
    low = int(width / _STEP) * _STEP
    return {max(_NARROWEST, low), max(_NARROWEST, low + _STEP)}


def _fitted(family: str, sizes: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    """Let the MLPs, where there are some, take up what is missing or too much, up to a quarter."""
    usual = sizes.get("mlp_width")
    if usual is None:
        return dict(sizes)
    missing = parameters - _count(family, sizes)
    each = _count(family, {**sizes, "mlp_width": usual + _STEP}) - (parameters - missing)
    most = usual // (4 * _STEP)
    steps = max(-most, min(most, round(missing / each)))
    return {**sizes, "mlp_width": usual + _STEP * steps}


def _count(family: str, sizes: Mapping[str, Any]) -> int:
    return layer_parameters(_skeleton(family, sizes))


def _skeleton(family: str, sizes: Mapping[str, Any]) -> Model:
    with shapes_only():
        return new(family, **sizes)


def layer_parameters(model: Model) -> int:
    """Count the parameters of a model's layers, without embeddings and scores."""
    return sum(p.numel() for p in model.backbone.layers.parameters())


def run_scaling(
    plan: ScalingPlan, say: Callable[[str], object], *, progress: bool = True
) -> Scaling:
    """Train every family at every size, budget and learning rate, and measure.

    What was done before in the same folder is not done again, and stands in the results even if
    this plan does not name it; a training that was killed goes on.

    Parameters
    ----------
    plan
        What to compare.
    say
        Takes a line for people now and then.
    progress
        Whether trainings draw bars on standard error.

    Raises
    ------
    InputError
        If the plan contradicts itself, a family has no model of a size, or the folder holds
        another study.
    """
    began = time.monotonic()
    _check(plan)
    solved = {  # for all of them before the first training
        (family, size): solve_shape(family, size, plan.length_bp)
        for size in sorted(plan.parameters)
        for family in plan.families
    }
    claim_study(plan, may_change=_MAY_CHANGE)
    letters = encode_letters(plan.fasta, plan.out / "cache")
    parts = split(letters, regions=plan.regions, validation=plan.validation)
    training = subtracted(parts.training, parts.held_out)
    if not len(parts.held_out):
        raise InputError(
            "validation names nothing to hold out. Expected contigs, regions or a BED file: models "
            "are compared on sequence that none of them was trained on."
        )
    say("fitting Markov models")
    bases = int((training[:, 1] - training[:, 0]).sum())
    # A context of more letters than that would occur less than once.
    orders = range(min(_HIGHEST_ORDER, int(math.log(max(4, bases), 4))) + 1)
    markov = best_markov(
        _texts(letters, training),
        _texts(letters, parts.held_out),
        orders,
        both_strands=bool(plan.pretraining.get("both_strands", True)),
    )
    results: list[ScalingResult] = []
    study: Scaling | None = None
    for family, size, tokens, rate in chain(_jobs(plan, results), _done_before(plan, results)):
        say(f"{families()[family].title}, {size:,} parameters, {tokens:,} tokens, rate {rate:g}")
        folder = plan.out / family / str(size) / f"{tokens}-{rate:g}"
        sizes = solved.get((family, size)) or solve_shape(family, size, plan.length_bp)
        run = _train(plan, folder, family, sizes, tokens, rate, progress=progress)
        results.append(_result(plan, run, family, size, rate))
        study = Scaling(
            out=plan.out,
            results=tuple(results),
            training_bases=bases,
            held_out_windows=len(np.load(run.model.parent / "windows" / "last.npy")),
            markov=markov.bits_per_base,
            seconds=round(time.monotonic() - began, 3),
        )
        write_study(study, results, "scaling")
    assert study is not None, "checked: there is something to train"
    return study


_OWN = {  # arguments of `pretrain` that the study itself gives
    *("recipe", "model", "tokenizer", "fasta", "out", "family", "regions", "validation", "sizes"),
    *("length_bp", "length_tokens", "special_tokens", "steps", "batch_size", "learning_rate"),
    *("warmup_steps", "length_warmup", "seed", "progress", "resume"),
}
_WARM_UP = 0.05  # share of the steps
_MAY_CHANGE = {"families", "parameters", "tokens", "learning_rates", "rate_from_smallest"}


def _check(plan: ScalingPlan) -> None:
    for name in ("families", "parameters", "tokens", "learning_rates"):
        values = getattr(plan, name)
        if not values or len(set(values)) < len(values):
            raise InputError(f"{name} are {list(values)}. Expected different ones, at least one.")
    for name in plan.families:
        pick("family that can be compared", name, SHAPES)
    for name in ("parameters", "tokens"):
        if any(type(value) is not int or value < 1 for value in getattr(plan, name)):
            raise InputError(
                f"{name} are {list(getattr(plan, name))}. Expected whole numbers above 0."
            )
    least = plan.length_bp * plan.batch_size
    if min(plan.tokens) < least:
        raise InputError(
            f"tokens are {list(plan.tokens)}, but a step of {plan.batch_size} windows of "
            f"{plan.length_bp:,} letters has {least:,}. Give at least as many, or shorter steps."
        )
    known = [name for name in inspect.signature(pretrain).parameters if name not in _OWN]
    for name in plan.pretraining:
        pick("setting of pretraining", name, known)


def _jobs(
    plan: ScalingPlan, results: Sequence[ScalingResult]
) -> Iterator[tuple[str, int, int, float]]:
    """Yield family, size asked for, tokens and learning rate; small and short ones first.

    `results` grows with what was yielded; with `rate_from_smallest`, larger budgets wait for it.
    """
    for size in sorted(plan.parameters):
        for tokens in sorted(plan.tokens):
            for family in plan.families:
                rates: tuple[float, ...] = plan.learning_rates
                if plan.rate_from_smallest and tokens > min(plan.tokens):
                    first = [r for r in results if (r.family, r.size) == (family, size)]
                    best = min(first, key=lambda r: r.bits_per_base).learning_rate
                    lower = [rate for rate in rates if rate < best]
                    rates = (best, *([max(lower)] if lower else []))
                for rate in rates:
                    yield family, size, tokens, rate


def _done_before(
    plan: ScalingPlan, results: Sequence[ScalingResult]
) -> Iterator[tuple[str, int, int, float]]:
    """Yield what earlier calls have trained to the end in the same folder, and this one not."""
    step = plan.batch_size * plan.length_bp
    trained = {(r.family, r.size, r.tokens, r.learning_rate) for r in results}
    for folder in sorted(plan.out.glob("*/*/*-*")):
        run = Run(folder)
        if run.result() is not None:
            family, size = folder.parts[-3], int(folder.parts[-2])
            tokens, rate = int(folder.name.partition("-")[0]), run.asked()["learning_rate"]
            if (family, size, tokens // step * step, rate) not in trained:
                yield family, size, tokens, rate


def _texts(letters: Letters, spans: np.ndarray) -> Iterator[str]:
    for start, end in spans.tolist():
        yield letters.text(start, end - start)


def _train(
    plan: ScalingPlan,
    folder: Path,
    family: str,
    sizes: Mapping[str, Any],
    tokens: int,
    rate: float,
    *,
    progress: bool,
) -> Pretraining:
    share_letters(folder, plan.out / "cache")
    steps = tokens // (plan.batch_size * plan.length_bp)
    return pretrain(
        fasta=plan.fasta,
        out=folder,
        family=family,
        sizes=sizes,
        regions=plan.regions,
        validation=plan.validation,
        length_bp=plan.length_bp,
        special_tokens=False,  # only some families have them
        steps=steps,
        batch_size=plan.batch_size,
        learning_rate=rate,
        warmup_steps=round(_WARM_UP * steps),
        seed=plan.seed,
        progress=progress,
        **plan.pretraining,
    )


def _result(
    plan: ScalingPlan, run: Pretraining, family: str, size: int, rate: float
) -> ScalingResult:
    model = load(run.model, device="cpu")
    each = operations_per_token(model, plan.length_bp, plan.batch_size)
    tokens = run.steps * plan.batch_size * plan.length_bp
    assert run.validation_bits_per_base is not None, "something is held out"
    return ScalingResult(
        family=family,
        title=model.family.title,
        size=size,
        parameters=layer_parameters(model),
        all_parameters=run.parameters,
        width=model.config.width,
        depth=model.config.depth,
        tokens=tokens,
        learning_rate=rate,
        operations_per_token=each,
        operations=TRAINING * each * tokens,
        bits_per_base=run.validation_bits_per_base,
        bits_per_base_error=run.validation_bits_per_base_error,
        seconds=run.seconds,
    )
