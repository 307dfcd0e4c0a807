"""What changes during a run: the learning rate, and the length and number of windows in a step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lexome.core import InputError, pick

Schedule = Literal["constant", "linear", "cosine"]

SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "cosine")


def learning_rate_factor(
    step: int,
    *,
    schedule: Schedule,
    steps: int,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    final_rate: float = 0.0,
) -> float:
    """Return the learning rate of a step as a share of the highest one.

    It rises linearly over the warm-up, stays, and falls over the last `decay_steps` to
    `final_rate`, along a line or half a cosine.

    Parameters
    ----------
    step
        0-based.
    schedule
        How it falls; ``"constant"`` does not.
    steps
        All steps of the run.
    warmup_steps
        Steps of the rise; the first has a share of 1 / (warmup_steps + 1).
    decay_steps
        Steps of the fall; None for all after the warm-up.
    final_rate
        Share that is reached after the last step.

    Examples
    --------
    >>> rates = [learning_rate_factor(s, schedule="linear", steps=8, warmup_steps=3,
    ...                               decay_steps=4) for s in range(8)]
    >>> rates
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    falling = steps - warmup_steps if decay_steps is None else decay_steps
    done = (step - (steps - falling)) / max(falling, 1)
    if schedule == "constant" or done <= 0:
        return 1.0
    left = 1 - min(done, 1.0)
    if schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return final_rate + (1 - final_rate) * left


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps that have windows of the same length.

    Parameters
    ----------
    first, last
        Steps, 0-based half-open.
    length
        Length of a window, in the unit of the run.
    batch
        Windows in a step, over all processes.
    """

    first: int
    last: int
    length: int
    batch: int


def plan_stages(
    warmup: Sequence[Mapping[str, int]], *, steps: int, length: int, batch: int, parts: int
) -> tuple[Stage, ...]:
    """Lay the stages of a length warm-up one after the other, full length for the rest.

    Parameters
    ----------
    warmup
        Stages with ``steps``, ``length`` and, if it differs from `batch`, ``batch``.
    steps, length, batch
        Of the whole run and of its last stage.
    parts
        Into how many micro-batches a step is cut, over all processes.

    Raises
    ------
    UnknownName
        If a stage has another key.
    InputError
        If a number is missing or makes no sense.

    Examples
    --------
    >>> plan = plan_stages([{"steps": 10, "length": 64}], steps=100, length=512, batch=8, parts=2)
    >>> [(s.first, s.last, s.length) for s in plan]
    [(0, 10, 64), (10, 100, 512)]
    """
    stages: list[Stage] = []
    first = 0
    for number, each in enumerate(warmup, 1):
        for key in each:
            pick("setting of a length_warmup stage", key, ("steps", "length", "batch"))
        if not {"steps", "length"} <= set(each):
            raise InputError(
                f"stage {number} of length_warmup has {', '.join(each) or 'nothing'}. Expected "
                "steps and length, e.g. {steps: 500, length: 1024}."
            )
        last = first + each["steps"]
        stages.append(
            Stage(first=first, last=last, length=each["length"], batch=each.get("batch", batch))
        )
        first = last
    stages.append(Stage(first=first, last=steps, length=length, batch=batch))
    for stage in stages:
        if not (0 <= stage.first < stage.last and 0 < stage.length <= length and stage.batch > 0):
            raise InputError(
                f"length_warmup has a stage from step {stage.first} to {stage.last} with length "
                f"{stage.length}. Expected stages of at least one step, all of them together "
                f"shorter than the {steps} steps of the run, and lengths of 1 to {length}."
            )
        if stage.batch % parts:
            raise InputError(
                f"a step of {stage.batch} windows cannot be cut into {parts} equal parts "
                "(accumulate x processes). Give a batch size that is a multiple of it."
            )
    return tuple(stages)
