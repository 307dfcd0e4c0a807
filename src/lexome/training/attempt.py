"""One fine-tuning from begin to end: labelled parts in, a judged model in a folder out.

`finetune` makes one of it, or one for each fold and seed.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lexome import __version__
from lexome.catalog import load
from lexome.core import InputError
from lexome.core.precision import choose_precision
from lexome.inference.adapters import ADAPTERS, AdapterSettings, add_adapter
from lexome.inference.batching import token_budget
from lexome.inference.heads import (
    LABEL_LETTERS,
    OF_TOKENS,
    Head,
    HeadKind,
    authors_activation,
    letter_head,
)
from lexome.inference.letters import places_in_token
from lexome.inference.predictor import Pooling, Predictor
from lexome.inference.reading import advise, cutting, tokenizer_of
from lexome.model import Model
from lexome.tokenizers import CodonTokenizer
from lexome.training.baselines import Comparison, run_baselines
from lexome.training.labelled import Labelled, count_contradictions, count_shared
from lexome.training.metrics import measure
from lexome.training.outcome import FineTuning, flat_truth, read_outcome
from lexome.training.parts import readable_items
from lexome.training.schedules import Schedule
from lexome.training.targets import Target, labelled_rows
from lexome.training.tuning import CHECKPOINT, Examples, Steps, Tuner

Method = Literal["full", "head", "lora", "ia3", "prompt"]
HeadStart = Literal["solved", "random"]

_RATES = {  # ours: method -> highest learning rate by size of the backbone, from the largest down
    "full": ((50_000_000, 3e-5), (5_000_000, 1e-4), (0, 1e-3)),
    "lora": ((50_000_000, 2e-4), (5_000_000, 5e-4), (0, 3e-3)),
    "ia3": ((50_000_000, 3e-3), (5_000_000, 5e-3), (0, 1e-2)),
    "prompt": ((50_000_000, 3e-3), (5_000_000, 1e-2), (0, 3e-2)),
    "head": ((0, 1e-3),),
}
_GENTLE = 1e-4  # steps of a whole backbone larger than this undo a solved head, whose weights are
# large where features vary little: first training loss 1.22 instead of 0.54 on GUE's core promoters
_MANY_UNKNOWN = 0.05  # letters of which it is told
WARMUP = 0.06  # of the steps, as RoBERTa's fine-tuning (arXiv:1907.11692, appendix C)

_WHO = {
    "full": "fine-tuned",
    "head": "frozen with head",
    "lora": "LoRA",
    "ia3": "IA3",
    "prompt": "soft tokens",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all attempts of a fine-tuning share; the names are those of `finetune`'s arguments.

    Attributes
    ----------
    target
        What is predicted.
    warmup_steps
        Steps, or a share of them.
    chosen
        What of all this a search has chosen.
    """

    model: str | Path
    target: Target
    metric: str
    method: Method
    head: HeadKind
    head_start: HeadStart | None
    label_letters: str | None
    pooling: Pooling
    both_strands: bool
    max_unknown: float
    max_tokens: int | None
    overlap_tokens: int | None
    epochs: int
    max_steps: int | None
    batch_size: int
    learning_rate: float | None
    schedule: Schedule
    warmup_steps: int | float
    weight_decay: float
    dropout: float
    clip: float
    balance_classes: bool
    evaluate_every: int | None
    patience: int | None
    min_improvement: float
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_rank_stabilised: bool
    prompt_tokens: int
    baselines: tuple[str, ...]
    max_tokens_per_batch: int | None
    device: str
    precision: str
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_letters(self) -> bool:
        """Whether letters are predicted, not sequences."""
        return self.target.of_letters

    @property
    def takes_steps(self) -> bool:
        """Whether there is more to train than a head that is solved for."""
        solved = self.head == "linear" and self.head_start != "random" and not self.of_letters
        return self.method != "head" or not (solved or self.head == "letters")

    def rate(self, size: int) -> float:
        """Return the highest learning rate for a backbone of so many parameters."""
        if self.learning_rate is not None:
            return self.learning_rate
        return next(rate for least, rate in _RATES[self.method] if size >= least)

    def solves_head(self, size: int) -> bool:
        """Whether the head that is best on a backbone of so many parameters is the start."""
        if self.head in {*OF_TOKENS, "letters"}:
            return False
        if self.head_start is not None:
            return self.head_start == "solved"
        return self.method != "full" or self.rate(size) <= _GENTLE


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One fold and seed.

    Attributes
    ----------
    name
        ``fold-01-seed-0`` or the like, for people and folders; empty for the only one.
    folder
        Where its files go.
    parts
        ``train``, ``validation`` and, apart from these, what is judged.
    judged
        Name of that part.
    seed
        Of order, dropout and what starts from random numbers.
    held
        Numbers of the training sequences in its fold, 0-based; None without folds.
    """

    name: str
    folder: Path
    parts: Mapping[str, Labelled]
    judged: str
    seed: int
    held: NDArray[np.int64] | None = None


Say = Callable[[str], object]


def run_attempt(
    attempt: Attempt,
    plan: Plan,
    *,
    label_column: str,
    progress: bool,
    say: Say,
    known: FineTuning | None = None,
) -> FineTuning:
    """Fine-tune once, or take up what a kill has left, or read what is done.

    Parameters
    ----------
    attempt, plan
        What to do.
    label_column
        For messages.
    progress
        Whether to show progress bars.
    say
        Takes lines for people.
    known
        Another seed's outcome of the same parts, whose baselines are the same.
    """
    began = time.monotonic()
    done = read_outcome(attempt.folder)
    if done is not None:
        return done
    attempt.folder.mkdir(parents=True, exist_ok=True)
    target, parts, judged = plan.target, attempt.parts, attempt.judged
    network = load(plan.model, device=plan.device)
    size = sum(p.numel() for p in network.backbone.parameters())
    base = _base(network, plan.model)
    if plan.method in ADAPTERS:
        sizes = AdapterSettings(
            rank=plan.lora_rank,
            alpha=plan.lora_alpha,
            dropout=plan.lora_dropout,
            rank_stabilised=plan.lora_rank_stabilised,
            prompt_tokens=plan.prompt_tokens,
            seed=attempt.seed,
        )
        add_adapter(network, plan.method, sizes)
    predictor = _predictor(network, plan, base, seed=attempt.seed)
    truth = {name: target.encode(part) for name, part in parts.items()}
    if not target.classes:
        predictor.centre, predictor.scale = _centre_and_scale(flat_truth(target, truth["train"]))
    examples = {
        name: Examples(
            readable_items(
                part,
                network,
                predictor.cutting,
                plan.max_unknown,
                letters=plan.of_letters,
                content=plan.both_strands,
            ),
            truth[name],
        )
        for name, part in parts.items()
    }
    weights_C = _class_weights(truth["train"], plan)
    shared = count_shared(parts)
    cut = sum(len(item.pieces) > 1 for each in examples.values() for item in each.items)
    say(_announcement(parts, target, shared, cut, label_column))
    if remark := _unknown_letters(network, parts["train"], examples["train"]):
        say(remark)
    if isinstance(network.tokenizer, CodonTokenizer):
        width = network.tokenizer.preset.k
        broken = sum(len(r.sequence) % width > 0 for part in parts.values() for r in part.records)
        if broken:
            say(
                f"{broken:,} sequences are no multiple of {width} letters long: what is left at "
                "their end has no token"
            )
    tuner = Tuner(
        predictor,
        train=examples["train"],
        validation=examples["validation"],
        weights_C=weights_C,
        metric=plan.metric,
        budget=token_budget(network, plan.max_tokens_per_batch),
        say=say,
        folder=attempt.folder,
        progress=progress,
    )
    frozen = plan.method == "head"
    tuner.begin(solve=plan.solves_head(size), frozen=frozen and plan.takes_steps)
    rate = plan.rate(size) if plan.takes_steps else plan.learning_rate
    if plan.takes_steps:
        assert rate is not None, "there is one for every method"
        trained = sum(p.numel() for p in tuner.parameters(frozen=frozen).values())
        say(f"{trained:,} parameters to train, learning rate {rate:g}")
        tuner.fit(
            _steps(plan, rate),
            frozen=frozen,
            autocast=choose_precision(plan.precision, network.device).dtype,
            seed=attempt.seed,
        )
    outputs = tuner.outputs(examples[judged].items)
    scores = {f"{network.name}, {_WHO[plan.method]}": tuner.measured(outputs, truth[judged])}
    scores |= _baselines(attempt, plan, weights_C, truth, known)
    best = tuner.history[tuner.best]
    head_size = sum(p.numel() for p in predictor.head.parameters())
    result = FineTuning(
        model=attempt.folder / "model",
        task=target.task,
        classes=target.classes,
        columns=target.columns,
        metric=plan.metric,
        judged_on=judged,
        scores=scores,
        spread={},
        validation=best.validation,
        sizes={name: len(part) for name, part in parts.items()},
        shared=shared,
        parameters=sum(p.numel() for p in network.backbone.parameters()) + head_size,
        trained=sum(p.numel() for p in tuner.parameters(frozen=frozen).values()),
        best_epoch=best.epoch,
        history=tuple(tuner.history),
        seconds=round(time.monotonic() - began, 3),
        outputs=outputs,
        truth=flat_truth(target, truth[judged]),
        chosen=dict(plan.chosen),
        runs={},
    )
    predictor.facts = {
        "lexome": __version__,
        "family": network.family.name,
        "metric": plan.metric,
        "seed": attempt.seed,
        "epochs": result.best_epoch,
        "batch_size": plan.batch_size,
        "learning_rate": rate,
        "balance_classes": plan.balance_classes,
        "judged_on": judged,
        "scores": next(iter(scores.values())),
    }
    _save(predictor, result.model)
    result.write(attempt.folder, target, parts[judged])
    (attempt.folder / CHECKPOINT).unlink(missing_ok=True)
    return result


def _save(predictor: Predictor, folder: Path) -> None:
    """Write a model; a folder that a kill left half-written is replaced."""
    if folder.exists():
        shutil.rmtree(folder)
    predictor.save(folder)


def _base(network: Model, source: str | Path) -> dict[str, str | None]:
    here = Path(source).expanduser()
    return {
        "source": str(here.resolve() if here.exists() else source),
        "sha256": network.checkpoint_sha256(),
    }


def _steps(plan: Plan, rate: float) -> Steps:
    return Steps(
        epochs=plan.epochs,
        max_steps=plan.max_steps,
        batch_size=plan.batch_size,
        learning_rate=rate,
        schedule=plan.schedule,
        warmup_steps=plan.warmup_steps,
        weight_decay=plan.weight_decay,
        clip=plan.clip,
        dropout=plan.dropout,
        evaluate_every=plan.evaluate_every,
        patience=plan.patience,
        min_improvement=plan.min_improvement,
    )


def _baselines(
    attempt: Attempt,
    plan: Plan,
    weights_C: NDArray | None,
    truth: Mapping[str, Any],
    known: FineTuning | None,
) -> dict[str, dict[str, float]]:
    """Return the scores of what the model has to beat, the strongest named first."""
    if known is not None:
        return {who: dict(scores) for who, scores in list(known.scores.items())[1:]}
    parts, target = attempt.parts, plan.target
    by_sequence = weights_C is not None and not plan.of_letters
    made = run_baselines(
        plan.baselines,
        Comparison(
            target=target,
            train=parts["train"],
            validation=parts["validation"],
            judged=parts[attempt.judged],
            metric=plan.metric,
            seed=attempt.seed,
            weights=weights_C[truth["train"]] if by_sequence else None,  # type: ignore[index]
        ),
    )
    judged = flat_truth(target, truth[attempt.judged])
    return {each.name: measure(target.task, each.outputs, judged) for each in reversed(made)}


# --------------------------------------------------------------------------- before


def _predictor(
    network: Model, plan: Plan, base: Mapping[str, str | None], *, seed: int
) -> Predictor:
    """Put a fresh head on a model."""
    tokenizer = tokenizer_of(network)
    if tokenizer.item != "sequence":
        raise InputError(
            f"{network.family.title} reads {tokenizer.item}s, and this fine-tuning is for models "
            "of sequences. Choose one of those; `lexome models` lists them."
        )
    cut = cutting(network, plan.max_tokens, plan.overlap_tokens)
    assert cut.room is not None, "sequences are always cut somewhere"
    target = plan.target
    predictor = Predictor(
        model=network,
        head=Head(1, 1),
        task=target.task,
        classes=target.classes,
        columns=target.columns,
        pooling="token" if plan.of_letters or plan.head in OF_TOKENS else plan.pooling,
        piece_tokens=cut.room + len(tokenizer.prefix) + len(tokenizer.suffix),
        overlap_tokens=cut.overlap,
        both_strands=plan.both_strands,
        unlabelled=target.unlabelled,
        method=plan.method,
        base=base,
    )
    if plan.head == "letters":
        letters = plan.label_letters or LABEL_LETTERS.get(target.width, "")
        if len(letters) != target.width:
            raise InputError(
                f"label_letters are {plan.label_letters!r}, and there are {target.width} classes. "
                "Expected one letter for each of them, in the order of the classes."
            )
        predictor.head = letter_head(network, letters)
        return predictor
    how = predictor.how
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predictor.head = Head(
            len(how.parts) * how.width,
            target.width,
            kind=plan.head,
            hidden=2 * how.width if plan.head in OF_TOKENS else how.width,
            activation=authors_activation(network),
            places=places_in_token(tokenizer) if plan.of_letters else None,
        )
    return predictor


def _centre_and_scale(truth: NDArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    values_NT = truth.reshape(len(truth), -1)
    scale = np.nanstd(values_NT, 0)
    return tuple(np.nanmean(values_NT, 0).tolist()), tuple(np.where(scale > 0, scale, 1.0).tolist())


def _class_weights(truth: Any, plan: Plan) -> NDArray | None:
    """Return weights of the classes, whose mean over the examples is 1: all weigh the same."""
    if not plan.balance_classes:
        return None
    classes = flat_truth(plan.target, truth)
    counts = np.bincount(classes[classes >= 0], minlength=len(plan.target.classes))
    present = counts > 0
    return counts.sum() / (present.sum() * np.maximum(counts, 1)) * present


def _unknown_letters(network: Model, train: Labelled, examples: Examples) -> str:
    """Say how many training letters a model does not know, and what helps, if they are many."""
    unknown = sum(item.unknown for item in examples.items)
    share = unknown / max(1, sum(item.length for item in examples.items))
    if share < _MANY_UNKNOWN:
        return ""
    most = max(zip(examples.items, train.records, strict=True), key=lambda each: each[0].unknown)
    advice = advise(tokenizer_of(network), most[1].sequence)
    return f"{share:.0%} of the training letters are unknown to {network.name}. {advice}"


def _announcement(
    parts: Mapping[str, Labelled],
    target: Target,
    shared: Mapping[str, int],
    cut: int,
    label_column: str,
) -> str:
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    what = f"{target.task.replace('_', ' ')} of {label_column!r} ({target.reason})"
    lines = [f"{what}; sequences: {sizes}"]
    if target.classes:
        truth = flat_truth(target, target.encode(parts["train"]))
        counts = (
            truth.sum(0)
            if truth.ndim == 2
            else np.bincount(truth[truth >= 0], minlength=len(target.classes))
        )
        named = zip(target.classes, counts.tolist(), strict=True)
        shown = [f"{c} {n:,}" for c, n in named]
        more = f" and {len(shown) - 30} more" if len(shown) > 30 else ""
        lines.append("training classes: " + ", ".join(shown[:30]) + more)
    if target.task == "token_regression":
        known = labelled_rows(flat_truth(target, target.encode(parts["train"])))
        lines.append(f"{known.sum():,} of {len(known):,} training letters have a value")
    if contradicted := count_contradictions(parts["train"]):
        lines.append(f"{contradicted:,} training sequences have an equal one with another label")
    lines += [f"exact duplicates: {n:,} of {what}" for what, n in shared.items() if n]
    if cut:
        lines.append(f"{cut:,} sequences are cut into overlapping pieces, pooled together")
    return "\n".join(lines)
