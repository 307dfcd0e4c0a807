"""Choosing settings of a fine-tuning on validation, before anything else is judged."""

import itertools
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lexome.core import InputError, pick
from lexome.core.json_files import write_json
from lexome.training.attempt import Attempt, Plan, Say, run_attempt
from lexome.training.metrics import goodness
from lexome.training.outcome import told

SEARCH = "search"

_SEARCHED = (
    *("learning_rate", "batch_size", "epochs", "max_steps", "weight_decay", "dropout", "clip"),
    *("schedule", "warmup_steps", "warmup_fraction", "method", "head", "head_start", "pooling"),
    *("balance_classes", "both_strands", "lora_rank", "lora_alpha", "lora_dropout"),
    *("lora_rank_stabilised", "prompt_tokens"),
)
"""Arguments of `finetune` that can be chosen."""

Values = Mapping[str, Any]


def combinations(search: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of what is given to choose from, the last name changing fastest.

    Parameters
    ----------
    search
        {argument: values}.

    Raises
    ------
    InputError
        If an argument has no list of different values.
    UnknownName
        If it is none that can be chosen.

    Examples
    --------
    >>> combinations({"learning_rate": [1e-4, 1e-3], "batch_size": [8]})
    [{'learning_rate': 0.0001, 'batch_size': 8}, {'learning_rate': 0.001, 'batch_size': 8}]
    """
    for name, values in search.items():
        pick("argument to search", name, _SEARCHED)
        listed = isinstance(values, Sequence) and not isinstance(values, str)
        if not listed or not values or len({json.dumps(v) for v in values}) < len(values):
            raise InputError(
                f"search has {values!r} for {name}. Expected a list of different values, such as "
                "{'learning_rate': [1e-4, 1e-3]}."
            )
    return [dict(zip(search, each, strict=True)) for each in itertools.product(*search.values())]


def choose(
    candidates: Sequence[Values],
    plan_of: Callable[[Values], Plan],
    attempt: Attempt,
    folder: Path,
    *,
    label_column: str,
    progress: bool,
    say: Say,
) -> Plan:
    """Train once with each combination and return the plan of the one that validates best.

    Only the training and validation sequences of `attempt` are looked at. Of equal scores, the
    first wins. Each training has a folder below ``search/``, without its model, and what is done
    already is not done again; ``search/candidates.json`` holds the scores.

    Parameters
    ----------
    candidates
        Of `combinations`.
    plan_of
        Makes a plan of one of them.
    attempt
        Whose parts and seed are taken.
    folder
        The run's.
    label_column, progress, say
        As for `run_attempt`.
    """
    plans = [plan_of(values) for values in candidates]  # all are checked before the first trains
    parts = {name: attempt.parts[name] for name in ("train", "validation")}
    scores = []
    for number_1based, (values, plan) in enumerate(zip(candidates, plans, strict=True), 1):
        say(f"choice {number_1based} of {len(plans)}: {told(values)}")
        place = folder / SEARCH / f"{number_1based:03d}"
        each = replace(attempt, folder=place, parts=parts, judged="validation")
        made = run_attempt(
            each, replace(plan, baselines=()), label_column=label_column, progress=progress, say=say
        )
        shutil.rmtree(made.model, ignore_errors=True)
        scores.append(made.validation[plan.metric])
        say(f"{plan.metric} {scores[-1]:.4f} on validation")
    rows = [
        {**values, "validation": {plan.metric: None if math.isnan(score) else score}}
        for values, plan, score in zip(candidates, plans, scores, strict=True)
    ]
    write_json(folder / SEARCH / "candidates.json", rows)
    best = max(range(len(plans)), key=lambda i: goodness(plans[i].metric, scores[i]))
    say(f"chosen: {told(candidates[best])}")
    return replace(plans[best], chosen=candidates[best])
