"""Benchmarks as data: what a suite's tasks are, where they lie, how they are judged and published.

A suite is a YAML file; those that come with the package lie in ``suites/``. It holds no code paths:
columns, files, splits, metrics, settings that were published, and published scores with their
source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lexome.core import FormatError, InputError, pick
from lexome.core.arguments import read_arguments
from lexome.training.metrics import METRICS, Task

BUNDLED = Path(__file__).parent / "suites"

PARTS = ("train", "validation", "test")
_FILES = {
    "train": ("train",),
    "validation": ("dev", "valid", "validation", "val"),
    "test": ("test",),
}
FORMS = ("table", "kmers", "signals")
KNOWN = ("read", "recalled")


@dataclass(frozen=True, kw_only=True)
class Published:
    """Scores that others published.

    Parameters
    ----------
    source
        Where they stand.
    known
        ``read`` there, or ``recalled`` from memory of it.
    metric
        What they are.
    protocol
        How they were made.
    scores
        {model: {task: score}}, as shares of 1.
    """

    source: str
    known: str
    metric: str
    protocol: str
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class SuiteTask:
    """One data set of a suite.

    Parameters
    ----------
    name, title, group
        What it is called, in files and to people, and what it belongs to.
    task
        What is predicted; None to see it from the labels.
    metric
        What decides and is reported.
    folders
        Where it lies below the data folder, in any of these.
    files
        Names without suffix of the files of each part, any of them.
    form
        ``table``: sequences in a column, or FASTA, or lists of intervals in one file for each
        class; ``kmers``: a column of sentences of overlapping words; ``signals``: lines of JSON
        with a sequence and, in one or several columns, lists of numbers for its letters from the
        first on: what ``token_regression`` predicts.
    sequence_columns, label_column
        Columns. Several of sequences are joined end to end; several of signals have commas between
        them.
    split_column, splits
        Where one table holds all parts: the column that tells them apart, and what it says for
        each. ``files`` then names that table for ``train``.
    skip_missing
        Whether sequences without a value are left out of a table; else they are an error.
    coding
        Whether sequences are read in codons from their first letter; those that are no multiple of
        3 letters long are then told of.
    classes
        How many there have to be; None if it is not known.
    length_bp
        Usual length.
    sizes
        Sequences of train, validation and test as published.
    recalled_sizes
        The same from memory of the publication.
    total
        Sequences of all parts together.
    test_fraction, validation_fraction
        Share of train that is held out where there is no such file.
    folds
        How often a model is trained, each time with another part of train as validation; 1 if
        once.
    plain_folds
        Draw folds as scikit-learn's KFold does, see `fold_indices`.
    seed
        Of what is held out, and of folds.
    optional
        Whether it runs only when it is named.
    hub
        Repository of data sets that holds it.
    settings
        {family: arguments of `finetune` that were published}; ``any`` for all families. A
        ``recipe`` among them is one of `finetune`, to which the others are added.
    """

    name: str
    title: str
    group: str
    task: Task | None
    metric: str
    folders: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    form: str
    sequence_columns: tuple[str, ...]
    label_column: str
    split_column: str | None
    splits: Mapping[str, tuple[str, ...]]
    skip_missing: bool
    coding: bool
    classes: int | None
    length_bp: int | None
    sizes: tuple[int, ...]
    recalled_sizes: tuple[int, ...]
    total: int | None
    test_fraction: float
    validation_fraction: float
    folds: int
    plain_folds: bool
    seed: int
    optional: bool
    hub: str | None
    settings: Mapping[str, Mapping[str, Any]]

    def settings_of(self, family: str) -> dict[str, Any]:
        """Return the published arguments of `finetune` for a family's models."""
        return {**self.settings.get("any", {}), **self.settings.get(family, {})}

    @property
    def files_wanted(self) -> str:
        """What the files are called that the task cannot do without."""
        needed = ["train"]
        if self.split_column is None and not self.test_fraction:
            needed.append("test")
        forms = ".jsonl" if self.form == "signals" else ".csv, .tsv, .parquet, .fna ..."
        return f"{' and '.join(self.files[part][0] for part in needed)} ({forms})"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark.

    Parameters
    ----------
    name, title, about
        What it is and whose.
    version
        Raised by every change that can move a score.
    tasks
        By name, in order.
    published
        Scores of others.
    path
        Its file.
    """

    name: str
    title: str
    about: str
    version: int
    tasks: Mapping[str, SuiteTask]
    published: tuple[Published, ...] = field(default=())
    path: Path

    def chosen(self, names: Sequence[str] | None) -> list[SuiteTask]:
        """Return the tasks with these names, or all that are not optional.

        Raises
        ------
        UnknownName
            If there is no such task.
        """
        if names is None:
            return [task for task in self.tasks.values() if not task.optional]
        return [self.tasks[pick(f"task of {self.name}", name, self.tasks)] for name in names]

    def published_scores(self, task: str) -> list[tuple[str, float, Published]]:
        """Return model, score and where it is from, of what is published for a task's metric."""
        metric = self.tasks[task].metric
        return [
            (model, scores[task], block)
            for block in self.published
            for model, scores in block.scores.items()
            if block.metric == metric and task in scores
        ]


def suites() -> tuple[str, ...]:
    """Return the names of the suites that come with the package."""
    return tuple(path.stem for path in sorted(BUNDLED.glob("*.yaml")))


def read_suite(suite: str | Path) -> Suite:
    """Read a suite.

    Parameters
    ----------
    suite
        One of :func:`suites`, or the path of a YAML file in the same form.

    Raises
    ------
    UnknownName
        If there is no such suite, or the file has a key that none has.
    InputError
        If there is no such file.
    FormatError
        If a value is not of the kind that its key takes; the message says where.
    """
    path = Path(suite)
    if not path.is_file():
        if path.suffix in {".yaml", ".yml"} or "/" in str(suite):
            raise InputError(f"there is no file {path}. Expected a suite in YAML.")
        path = BUNDLED / f"{pick('suite', str(suite), suites())}.yaml"
    values = read_arguments(path, _SUITE)
    take = partial(_take, path, "", values)
    defaults = take("defaults", dict, {})
    hub = take("hub", str, None)
    tasks = {
        str(name): _task(path, str(name), given, defaults, hub)
        for name, given in take("tasks", dict).items()
    }
    if not tasks:
        raise FormatError(path, "has no tasks. Expected at least one under `tasks:`.")
    published = tuple(
        _published(path, f"published[{i}]", block, tasks, defaults.get("metric"))
        for i, block in enumerate(take("published", list, []))
    )
    return Suite(
        name=path.stem,
        title=take("title", str, path.stem),
        about=take("about", str, ""),
        version=take("version", int, 1),
        tasks=tasks,
        published=published,
        path=path,
    )


_SUITE = ("title", "version", "about", "hub", "defaults", "tasks", "published")
_TASK = (
    *("title", "group", "task", "metric", "folders", "files", "form", "sequence_columns"),
    *(
        "label_column",
        "split_column",
        "splits",
        "skip_missing",
        "coding",
        "classes",
        "length_bp",
        "sizes",
        "recalled_sizes",
        "total",
        "test_fraction",
    ),
    *("validation_fraction", "folds", "plain_folds", "seed", "optional", "hub", "settings"),
)
_PUBLISHED = ("source", "known", "metric", "protocol", "scores")
_MUST = object()


def _task(
    path: Path, name: str, given: object, defaults: Mapping[str, Any], hub: str | None
) -> SuiteTask:
    place = f"tasks: {name}: "
    _check_mapping(path, place, {} if given is None else given, _TASK)
    _check_mapping(path, "defaults: ", defaults, _TASK)
    own: Mapping[str, Any] = given or {}  # type: ignore[assignment]
    values = {**defaults, **own}
    take = partial(_take, path, place, values)
    families: dict[str, dict[str, Any]] = {}
    for given_settings in (defaults.get("settings") or {}, own.get("settings") or {}):
        _check_mapping(path, f"{place}settings: ", given_settings, None)
        for family, settings in given_settings.items():
            _check_mapping(path, f"{place}settings: {family}: ", settings, None)
            families[family] = {**families.get(family, {}), **settings}
    files = {
        **_FILES,
        **{part: _texts(path, place, "files", n) for part, n in take("files", dict, {}).items()},
    }
    _check_mapping(path, f"{place}files: ", files, PARTS)
    splits = {p: _texts(path, place, "splits", n) for p, n in take("splits", dict, {}).items()}
    _check_mapping(path, f"{place}splits: ", splits, PARTS)
    kind = take("task", str, None)
    if kind is not None:
        pick(f"task in {path}, {place.rstrip(': ')}", kind, METRICS)
    metric = take("metric", str)
    known = METRICS[kind] if kind else {m for names in METRICS.values() for m in names}
    pick(f"metric in {path}, {place.rstrip(': ')}", metric, known)
    form = pick(f"form in {path}, {place.rstrip(': ')}", take("form", str, "table"), FORMS)
    sizes = {key: take(key, list, []) for key in ("sizes", "recalled_sizes")}
    for key, numbers in sizes.items():
        if numbers and (len(numbers) != len(PARTS) or not all(type(n) is int for n in numbers)):
            raise FormatError(
                path, f"{place}{key} is {numbers}. Expected three whole numbers, of {PARTS}."
            )
    shares = {key: take(key, float, default) for key, default in _SHARES.items()}
    for key, share in shares.items():
        if not 0 <= share < 1:
            raise FormatError(path, f"{place}{key} is {share}. Expected a share from 0 to below 1.")
    folds = take("folds", int, 1)
    if folds < 1:
        raise FormatError(path, f"{place}folds is {folds}. Expected a whole number from 1 up.")
    return SuiteTask(
        name=name,
        title=take("title", str, name),
        group=take("group", str, ""),
        task=kind,  # type: ignore[arg-type]
        metric=metric,
        folders=_texts(path, place, "folders", values.get("folders", [name])),
        files=files,
        form=form,
        sequence_columns=_texts(
            path, place, "sequence_columns", values.get("sequence_columns", ["sequence"])
        ),
        label_column=take("label_column", str, "label"),
        split_column=take("split_column", str, None),
        splits={**_FILES, **splits},
        skip_missing=take("skip_missing", bool, False),
        coding=take("coding", bool, False),
        classes=take("classes", int, None),
        length_bp=take("length_bp", int, None),
        sizes=tuple(sizes["sizes"]),
        recalled_sizes=tuple(sizes["recalled_sizes"]),
        total=take("total", int, None),
        folds=folds,
        plain_folds=take("plain_folds", bool, False),
        seed=take("seed", int, 0),
        optional=take("optional", bool, False),
        hub=take("hub", str, None) if "hub" in values else hub,
        settings=families,
        **shares,
    )


_SHARES = {"test_fraction": 0.0, "validation_fraction": 0.1}


def _published(
    path: Path, place: str, block: object, tasks: Mapping[str, SuiteTask], metric: str | None
) -> Published:
    _check_mapping(path, f"{place}: ", block, _PUBLISHED)
    take = partial(_take, path, f"{place}: ", block)
    scores: dict[str, dict[str, float]] = {}
    for model, given in take("scores", dict).items():
        _check_mapping(path, f"{place}: scores: {model}: ", given, tasks)
        for task, score in given.items():
            if type(score) not in (int, float) or not -1 <= score <= 1:
                raise FormatError(
                    path,
                    f"{place}: the score of {model} on {task} is {score!r}. Expected a number "
                    "from -1 to 1; write 78.3 % as 0.783.",
                )
        scores[str(model)] = {task: float(score) for task, score in given.items()}
    return Published(
        source=take("source", str),
        known=pick(f"way to know in {path}, {place}", take("known", str), KNOWN),
        metric=take("metric", str, metric),
        protocol=take("protocol", str, ""),
        scores=scores,
    )


def _check_mapping(
    path: Path, place: str, value: object, keys: Sequence[str] | Mapping | None
) -> None:
    if not isinstance(value, Mapping):
        raise FormatError(
            path, f"{place.rstrip(': ')} is {value!r:.60}. Expected lines such as 'key: value'."
        )
    for key in value if keys is not None else ():
        pick(f"key in {path}, {place.rstrip(': ')},", str(key), keys or ())


def _take(path: Path, place: str, values: Any, key: str, kind: type, default: Any = _MUST) -> Any:
    """Return a value of the kind that it has to be, or what stands for a missing one."""
    value = values.get(key, default)
    if value is _MUST:
        raise FormatError(path, f"{place}{key} is missing. Expected {_KINDS[kind]}; add it.")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind and value is not default and value is not None:
        raise FormatError(path, f"{place}{key} is {value!r:.60}. Expected {_KINDS[kind]}.")
    return value


def _texts(path: Path, place: str, key: str, value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not listed or not all(type(v) is str for v in listed):
        raise FormatError(path, f"{place}{key} is {value!r:.60}. Expected a list of texts.")
    return tuple(listed)


_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}
