"""Sequences with labels: read, checked, divided into training, validation and test."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lexome.core import FormatError, InputError, pick
from lexome.formats import SequenceRecord, read_sequences
from lexome.formats.sequences import SEQUENCE_SUFFIXES
from lexome.formats.streams import bare_suffix
from lexome.formats.table import find_column
from lexome.training.metrics import METRICS, Task

MOST_CLASSES = 30
"""Whole numbers that take more different values than this are taken for measurements."""

_MISSING = {"", "nan"}


@dataclass(frozen=True)
class Labelled:
    """Sequences of one file, or a part of it.

    Parameters
    ----------
    source
        Where they come from, for messages.
    records
        The sequences.
    labels
        One for each, as text.
    """

    source: str
    records: tuple[SequenceRecord, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.records)

    def part(self, indices: Iterable[int]) -> "Labelled":
        """Return those with these numbers, 0-based."""
        chosen = list(indices)
        return Labelled(
            self.source,
            tuple(self.records[i] for i in chosen),
            tuple(self.labels[i] for i in chosen),
        )

    def letters(self) -> list[str]:
        """Return the sequences in upper case, which is how they are compared."""
        return [record.sequence.upper() for record in self.records]


def read_labelled(
    path: str | Path,
    *,
    sequence_column: str = "sequence",
    label_column: str = "label",
    upper: bool = False,
) -> Labelled:
    """Read sequences with their labels.

    Parameters
    ----------
    path
        CSV, TSV or Parquet with a column of labels; or FASTA, whose headers hold ``label=...``
        (or another name, `label_column`) or end in ``|`` and the label.
    sequence_column, label_column
        Columns.
    upper
        Read all letters as upper case.

    Raises
    ------
    FormatError
        If there is no such column, or a label is missing.
    InputError
        If the format holds no labels.
    """
    kind = SEQUENCE_SUFFIXES.get(bare_suffix(path))
    if kind not in {"table", "FASTA"}:
        raise InputError(
            f"{path} holds no labels. Expected a table (.csv, .tsv, .parquet) with a column "
            f"{label_column!r}, or FASTA with {label_column}=... in its headers."
        )
    records: list[SequenceRecord] = []
    labels: list[str] = []
    for number_1based, record in enumerate(
        read_sequences(path, sequence_column=sequence_column, upper=upper, unique_names=False), 1
    ):
        if kind == "table":
            columns = list(record.fields)
            label = record.fields[columns[find_column(columns, label_column, "label_column", path)]]
        else:
            label = _in_header(record, label_column)
        label = label.strip()
        if label.casefold() in _MISSING:
            where = "its header" if kind == "FASTA" else f"the column {label_column!r}"
            raise FormatError(
                path,
                f"record {number_1based:,} (named {record.id!r}) has no label in {where}. Expected "
                "one for every sequence; add it or remove the record.",
            )
        records.append(record)
        labels.append(label)
    if not records:
        raise FormatError(path, "holds no sequences. Expected labelled ones; check the file.")
    return Labelled(str(path), tuple(records), tuple(labels))


def _in_header(record: SequenceRecord, name: str) -> str:
    header = f"{record.id} {record.description}"
    for word in header.replace("|", " ").split():
        key, equals, value = word.partition("=")
        if equals and key.casefold() == name.casefold():
            return value
    _, bar, last = header.strip().rpartition("|")
    return last if bar else ""


# --------------------------------------------------------------------------- what is predicted


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Parameters
    ----------
    task
        Classes or values.
    classes
        Labels in the order of their scores; none for values.
    reason
        How the task is known, for people.
    """

    task: Task
    classes: tuple[str, ...]
    reason: str

    def encode(self, data: Labelled) -> NDArray:
        """Return classes as int64 or values as float64.

        Raises
        ------
        InputError
            If a label is not one of the classes, or no finite number.
        """
        if self.task == "regression":
            return np.array([_number(data, i) for i in range(len(data))])
        number = {label: i for i, label in enumerate(self.classes)}
        strange = Counter(label for label in data.labels if label not in number)
        if strange:
            label, count = strange.most_common(1)[0]
            more = f" (and {len(strange) - 1} more such labels)" if len(strange) > 1 else ""
            raise InputError(
                f"{data.source} has the label {label!r} {count:,} times{more}, which no training "
                f"sequence has; those have {_listed(self.classes)}. Correct the labels, or add "
                "training sequences that have it."
            )
        return np.array([number[label] for label in data.labels], np.int64)


def decide_target(train: Labelled, task: str | None) -> Target:
    """Say what the labels of the training sequences are.

    Parameters
    ----------
    train
        The training sequences.
    task
        ``"classification"``, ``"regression"``, or None to guess: words and whole numbers of at
        most `MOST_CLASSES` different values are classes, other numbers are values.

    Raises
    ------
    InputError
        If there is nothing to tell apart.
    """
    values = Counter(train.labels)
    if task is None:
        whole = all(map(_is_whole, values))
        numeric = whole or all(map(_is_number, values))
        task = "regression" if numeric and not (whole and len(values) <= MOST_CLASSES) else None
        reason = "guessed from its numbers"
        if task is None:
            task = "classification"
            reason = f"guessed from its {len(values):,} different labels"
    else:
        pick("task", task, METRICS)
        reason = "as asked"
    if task == "regression":
        target = Target("regression", (), reason)
        if len(set(target.encode(train).tolist())) == 1:
            raise InputError(
                f"all {len(train):,} training sequences of {train.source} have the value "
                f"{train.labels[0]}. Expected values that differ; check label_column."
            )
        return target
    if len(values) == 1:
        raise InputError(
            f"all {len(train):,} training sequences of {train.source} have the label "
            f"{train.labels[0]!r}. Expected at least two classes; check label_column, or whether "
            "the file is sorted and was cut."
        )
    if len(values) > len(train) / 2:
        raise InputError(
            f"the {len(train):,} training sequences of {train.source} have {len(values):,} "
            f"different labels, such as {_listed(list(values)[:3])}. Expected several sequences "
            "of each class; check label_column, or give task='regression' for numbers."
        )
    classes = sorted(values, key=float) if all(map(_is_whole, values)) else sorted(values)
    return Target("classification", tuple(classes), reason)


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(data: Labelled, index: int) -> float:
    text = data.labels[index]
    value = float(text) if _is_number(text) else math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{data.source}: record {index + 1:,} (named {data.records[index].id!r}) has the value "
            f"{text!r}. Expected a finite number for regression; correct or remove it, or give "
            "task='classification'."
        )
    return value


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:6]))
    return shown + (f" and {len(labels) - 6} more" if len(labels) > 6 else "")


# --------------------------------------------------------------------------- parts


def hold_out(
    data: Labelled, share: float, *, seed: int, by_class: bool
) -> tuple[Labelled, Labelled]:
    """Divide sequences at random into what is kept and what is held out.

    Equal sequences stay together.

    Parameters
    ----------
    data
        The sequences.
    share
        What part of the different sequences is held out, at least one (of each class).
    seed
        Decides the draw.
    by_class
        Whether the same share of each class is held out.

    Raises
    ------
    InputError
        If nothing would be left.
    """
    groups: dict[str, list[int]] = {}
    for i, letters in enumerate(data.letters()):
        groups.setdefault(letters, []).append(i)
    strata: dict[str, list[list[int]]] = {}
    for members in groups.values():
        strata.setdefault(data.labels[members[0]] if by_class else "", []).append(members)
    generator = np.random.default_rng(seed)
    held: list[int] = []
    for label in sorted(strata):
        stratum = strata[label]
        count = max(1, round(share * len(stratum)))
        if count >= len(stratum):
            which = f"of the class {label!r} " if by_class else ""
            raise InputError(
                f"{data.source} has {len(stratum):,} different sequences {which}, of which "
                f"{count:,} would be held out, so that none is left to train on. Expected more "
                "sequences; give more, or files for validation and test."
            )
        for g in generator.permutation(len(stratum))[:count]:
            held += stratum[g]
    out = set(held)
    return data.part(i for i in range(len(data)) if i not in out), data.part(sorted(out))


def count_shared(parts: Mapping[str, Labelled]) -> dict[str, int]:
    """Count the sequences of a part that another part before it has too, letter by letter.

    Returns
    -------
    ``{"test in train": 16, ...}``, in sequences of the part named first, case ignored.
    """
    letters = {name: part.letters() for name, part in parts.items()}
    names = list(parts)
    return {
        f"{later} in {earlier}": sum(map(set(letters[earlier]).__contains__, letters[later]))
        for i, later in enumerate(names)
        for earlier in names[:i]
    }
