"""Models and honest baselines on the tasks of a suite, judged on the same test sequences.

What is done is kept in the folder of the evaluation, by what went into it, so that a stopped
evaluation goes on where it was, and a further model costs only itself.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexome import __version__
from lexome.catalog import load
from lexome.core import InputError, LexomeError, UnknownName, atomic_path, pick
from lexome.core.arguments import read_arguments
from lexome.inference.reading import known_thymine
from lexome.tasks.bootstrap import compare, interval, resampled
from lexome.tasks.standings import BASELINE, MODEL, Contender, Evaluation, Score, TaskResult
from lexome.tasks.suite_data import TaskData, find_task, load_task
from lexome.tasks.suites import Suite, SuiteTask
from lexome.training.baselines import STANDARD, Comparison, run_baselines
from lexome.training.finetuning import finetune
from lexome.training.labelled import Labelled, fold_indices
from lexome.training.metrics import measure
from lexome.training.outcome import read_outcome
from lexome.training.recipe import find_recipe
from lexome.training.targets import Target, decide_target, letters_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an evaluation does; the names are those of `evaluate`'s arguments."""

    suite: Suite
    contenders: tuple[Contender, ...]
    data: str | Path
    out: Path
    tasks: tuple[str, ...] | None = None
    baselines: tuple[str, ...] = STANDARD
    settings: Mapping[str, Any] = field(default_factory=dict)
    folds: int | None = None
    seeds: int = 1
    genome: str | Path | None = None
    max_train: int | None = None
    train_on_validation: bool = False
    device: str = "auto"
    precision: str | None = None


# --------------------------------------------------------------------------- who takes part


def contenders_of(models: Sequence[str | Path]) -> tuple[Contender, ...]:
    """Look at the models, and name them.

    Parameters
    ----------
    models
        Releases or folders, each also as ``NAME=FOLDER``; a folder named ``model`` is called
        after the one it lies in.

    Raises
    ------
    InputError
        If two have the same name.
    """
    found: dict[str, Contender] = {}
    for given in map(str, models):
        name, equals, source = given.partition("=")
        if not equals or Path(given).exists():
            name, source = "", given
        path = Path(source).expanduser()
        if not name and path.exists():
            path = path.resolve()
            name = path.parent.name if path.name == "model" else path.name
        name = name or source
        if name in found:
            raise InputError(
                f"two models are called {name!r}. Expected different names; write one of them as "
                f"NAME={source}."
            )
        network = load(source, device="cpu")
        found[name] = Contender(
            name=name,
            source=source,
            family=network.family.name,
            sha256=network.checkpoint_sha256(),
            thymine=known_thymine(network),
        )
    return tuple(found.values())


# --------------------------------------------------------------------------- running


def run_suite(plan: Plan, say: Callable[[str], object], *, progress: bool = True) -> Evaluation:
    """Run what is not done yet, and judge everything.

    Parameters
    ----------
    plan
        What to do.
    say
        Takes lines for people.
    progress
        Whether fine-tuning shows progress bars.

    Raises
    ------
    InputError
        If a task that was named is not there, or none is.
    """
    began = time.monotonic()
    chosen = plan.suite.chosen(plan.tasks)
    folders = {task.name: find_task(task, plan.data) for task in chosen}
    missing = tuple(name for name, folder in folders.items() if folder is None)
    if missing and (plan.tasks is not None or len(missing) == len(chosen)):
        first = plan.suite.tasks[missing[0]]
        raise InputError(
            f"{plan.data} has no {', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''} of "
            f"{plan.suite.title}. Expected for {first.name} {first.files_wanted} in "
            f"{' or '.join(str(Path(plan.data) / folder) for folder in first.folders)}."
        )
    results = {}
    for number, task in enumerate(chosen, 1):
        folder = folders[task.name]
        if folder is None:
            continue
        say(f"task {number} of {len(chosen)}: {task.name}, {task.title}")
        data = load_task(
            task,
            folder,
            genome=plan.genome,
            train_on_validation=plan.train_on_validation,
            max_train=plan.max_train,
        )
        results[task.name] = _judge_task(plan, data, say, progress=progress)
    return Evaluation(
        suite=plan.suite,
        contenders=plan.contenders,
        results=results,
        missing=missing,
        out=plan.out,
        seconds=round(time.monotonic() - began, 3),
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Outputs of one training for the test sequences."""

    outputs: NDArray
    seconds: float
    name: str
    trained: int | None = None


def _judge_task(
    plan: Plan, data: TaskData, say: Callable[[str], object], *, progress: bool
) -> TaskResult:
    task = data.task
    target = decide_target(data.train, task.task)
    repeats = list(_repeats(plan, data, target))
    runs: dict[tuple[str, str], list[_Run]] = {}
    failures: dict[str, str] = {}
    for key in plan.baselines:
        say(f"  {task.name}: baseline {key}")
        made = _run_baseline(plan, data, target, repeats[0], key)
        if made is not None:
            runs[key, BASELINE] = [made]
    for contender in plan.contenders:
        try:
            runs[contender.name, MODEL] = [
                _run_model(plan, data, target, repeat, contender, say, progress=progress)
                for repeat in repeats
            ]
        except LexomeError as error:
            failures[contender.name] = str(error)
            say(f"  {contender.name} failed on {task.name}: {error}")
    notes = list(data.notes)
    if len(repeats) > 1 and plan.baselines:
        notes.append(f"models are means of {len(repeats)} runs, baselines of the first alone")
    seen = {*data.train.letters(), *data.validation.letters()}
    fresh = np.array([text not in seen for text in data.test.letters()])
    published = sorted(plan.suite.published_scores(task.name), key=lambda row: -row[1])
    return TaskResult(
        task=task,
        sizes={part: len(getattr(data, part)) for part in ("train", "validation", "test")},
        shared=data.shared,
        test_duplicates=int((~fresh).sum()),
        notes=tuple(notes),
        scores=_scores(data, target, runs, fresh),
        published=tuple(published),
        failures=failures,
    )


def _scores(
    data: TaskData,
    target: Target,
    runs: Mapping[tuple[str, str], Sequence[_Run]],
    fresh: NDArray[np.bool_],
) -> tuple[Score, ...]:
    """Score everyone on the same resampled test sets, best first, models against baselines.

    `fresh` marks the test sequences that no other part has.
    """
    metric, encoded = data.task.metric, target.encode(data.test)
    of_letters = target.of_letters
    truth = letters_of(encoded) if of_letters else encoded
    letters = [len(record.sequence) for record in data.test.records] if of_letters else None
    outputs = {"\0".join(who): [run.outputs for run in each] for who, each in runs.items()}
    drawn = resampled(target.task, metric, truth, outputs, letters=letters)
    if letters is not None:
        fresh = np.repeat(fresh, letters)
    scores, samples = [], {}
    for (key, kind), each in runs.items():
        measured = [measure(target.task, run.outputs, truth) for run in each]
        values = [m[metric] for m in measured]
        unshared = [
            measure(target.task, run.outputs[fresh], truth[fresh])[metric]
            if fresh.any()
            else math.nan
            for run in each
        ]
        samples[key, kind] = drawn["\0".join((key, kind))]
        scores.append(
            Score(
                key=key,
                name=each[0].name,
                kind=kind,
                value=float(np.mean(values)),
                interval=interval(samples[key, kind]),
                spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                unshared=float(np.mean(unshared)),
                metrics={name: float(np.mean([m[name] for m in measured])) for name in measured[0]},
                runs=len(each),
                seconds=round(sum(run.seconds for run in each), 3),
                trained=each[0].trained,
            )
        )
    lowest_first = metric in {"rmse", "log_loss"}
    scores.sort(key=lambda s: (math.isnan(s.value), s.value if lowest_first else -s.value))
    best = next((s for s in scores if s.kind == BASELINE), None)
    if best is None:
        return tuple(scores)
    other = best.value, samples[best.key, BASELINE]
    return tuple(
        replace(s, verdict=compare(metric, (s.value, samples[s.key, MODEL]), other, best.name))
        if s.kind == MODEL
        else s
        for s in scores
    )


# --------------------------------------------------------------------------- one training


@dataclass(frozen=True, kw_only=True)
class _Repeat:
    """Parts and seed of one training."""

    name: str
    train: Labelled
    validation: Labelled
    seed: int


def _repeats(plan: Plan, data: TaskData, target: Target) -> Iterator[_Repeat]:
    """Yield each seed, and each fold of training and validation together."""
    folds = plan.folds or data.task.folds
    for seed in range(plan.seeds):
        if folds == 1:
            yield _Repeat(
                name=f"seed-{seed}", train=data.train, validation=data.validation, seed=seed
            )
            continue
        pool = replace(
            data.train,
            records=data.train.records + data.validation.records,
            labels=data.train.labels + data.validation.labels,
        )
        drawn = fold_indices(
            pool,
            folds,
            seed=data.task.seed,
            by_class=target.task == "classification",
            plain=data.task.plain_folds,
        )
        for fold, held in enumerate(drawn):
            out = set(held.tolist())
            yield _Repeat(
                name=f"seed-{seed}-fold-{fold:02d}",
                train=pool.part(i for i in range(len(pool)) if i not in out),
                validation=pool.part(held.tolist()),
                seed=seed,
            )


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _content(*parts: Labelled) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for text, label in zip(part.letters(), part.labels, strict=True):
            digest.update(f"{text}\t{label}\n".encode())
    return digest.hexdigest()


def _run_baseline(
    plan: Plan, data: TaskData, target: Target, repeat: _Repeat, key: str
) -> _Run | None:
    """Return what a baseline predicts, from the folder if it is there; None if it has no answer."""
    content = _content(repeat.train, repeat.validation, data.test)
    name = f"{key}-{_digest(__version__, content, data.task.metric, repeat.seed)}.npz"
    path = plan.out / "runs" / data.task.name / name
    if not path.is_file():
        made = run_baselines(
            [key],
            Comparison(
                target=target,
                train=repeat.train,
                validation=repeat.validation,
                judged=data.test,
                metric=data.task.metric,
                seed=repeat.seed,
            ),
        )
        if not made:
            return None
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream, outputs=made[0].outputs, name=made[0].name, seconds=made[0].seconds
            )
    with np.load(path) as kept:
        return _Run(outputs=kept["outputs"], seconds=float(kept["seconds"]), name=str(kept["name"]))


def _run_model(
    plan: Plan,
    data: TaskData,
    target: Target,
    repeat: _Repeat,
    contender: Contender,
    say: Callable[[str], object],
    *,
    progress: bool,
) -> _Run:
    """Fine-tune a model, or read what came out when it was."""
    task = data.task
    settings = {**settings_for(plan, task, contender.family), "task": target.task}
    train, validation, test = (
        part.spelt(contender.thymine) for part in (repeat.train, repeat.validation, data.test)
    )
    content = _content(train, validation, test)
    key = _digest(__version__, contender.sha256, content, settings, repeat.seed)
    folder = plan.out / "runs" / task.name / f"{_slug(contender.name)}-{repeat.name}-{key}"
    done = read_outcome(folder)
    if done is None:
        say(f"  {task.name}: {contender.name}, {repeat.name}")
        done = finetune(
            model=contender.source,
            train=train,
            validation=validation,
            test=test,
            out=folder,
            seed=repeat.seed,
            baselines=(),
            device=plan.device,
            progress=progress,
            **settings,
        )
    method = str(settings.get("method", "full"))
    return _Run(
        outputs=done.outputs,
        seconds=done.seconds,
        name=f"{contender.name}, {_METHODS.get(method, method)}",
        trained=done.trained,
    )


_METHODS = {
    "full": "fine-tuned",
    "head": "frozen with head",
    "lora": "LoRA",
    "ia3": "IA3",
    "prompt": "soft tokens",
}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)


def settings_for(plan: Plan, task: SuiteTask, family: str) -> dict[str, Any]:
    """Return the arguments of `finetune` for a family's models on a task.

    What was published comes first, then what the evaluation was given; folds and seeds are the
    evaluation's own.
    """
    published = task.settings_of(family)
    recipe = published.pop("recipe", None)
    made: dict[str, Any] = {"metric": task.metric, "precision": "float32"}
    if recipe is not None:
        made |= read_recipe(recipe)
    made |= {**published, **plan.settings}
    if made.get("search") and "search" not in plan.settings:  # what is given is not chosen
        left = {k: v for k, v in made["search"].items() if k not in plan.settings}
        made["search"] = left or None
    if plan.precision is not None:
        made["precision"] = plan.precision
    return {name: value for name, value in made.items() if name not in OWN}


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Return the arguments of a recipe of `finetune`, one that is bundled or a file."""
    return read_arguments(find_recipe(recipe, "finetune"), signature(finetune).parameters)


OWN = (
    *("recipe", "model", "train", "validation", "test", "out", "task", "baselines", "folds"),
    *("plain_folds", "seed", "seeds", "device", "resume", "overwrite", "progress"),
    *("validation_fraction", "test_fraction", "sequence_column", "label_column"),
)
"""Arguments of `finetune` that an evaluation decides itself."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that `finetune` does not take, or that the evaluation decides itself.

    Raises
    ------
    UnknownName
        With what is strange.
    """
    known = set(signature(finetune).parameters) - set(OWN)
    for name in settings:
        if name in OWN:
            raise UnknownName(
                f"settings has {name!r}, which the evaluation decides itself. Leave it out."
            )
        pick("setting of finetune", name, known)
