"""Sequences with labels: read, checked, divided into training, validation and test."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lexome.core import FormatError, InputError, UnknownName
from lexome.formats import SequenceRecord, read_sequences
from lexome.formats.sequences import SEQUENCE_SUFFIXES
from lexome.formats.streams import bare_suffix
from lexome.formats.table import find_column

Label = str | tuple[str, ...]
"""What a record's cell says; of several columns, one cell each."""

_MISSING = {"", "nan", "na", "null", "none"}


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
        One for each, as text; a tuple where there are several columns of labels.
    columns
        Names of those columns.
    """

    source: str
    records: tuple[SequenceRecord, ...]
    labels: tuple[Label, ...]
    columns: tuple[str, ...] = ("label",)

    def __post_init__(self):
        """Refuse labels that do not belong to the records."""
        if len(self.records) != len(self.labels):
            raise InputError(
                f"{self.source} has {len(self.records):,} sequences and {len(self.labels):,} "
                "labels. Expected one label for each sequence."
            )

    def __len__(self) -> int:
        return len(self.records)

    def part(self, indices: Iterable[int]) -> "Labelled":
        """Return those with these numbers, 0-based."""
        chosen = list(indices)
        return replace(
            self,
            records=tuple(self.records[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
        )

    def spelt(self, thymine: str | None) -> "Labelled":
        """Return the same with this letter for T and U, in their case; None leaves them."""
        if thymine is None:
            return self
        table = str.maketrans("TUtu", thymine.upper() * 2 + thymine.lower() * 2)
        changed = (replace(r, sequence=r.sequence.translate(table)) for r in self.records)
        return replace(self, records=tuple(changed))

    def letters(self) -> list[str]:
        """Return the sequences in upper case, which is how they are compared."""
        return [record.sequence.upper() for record in self.records]


def read_labelled(
    path: str | Path,
    *,
    sequence_column: str = "sequence",
    label_column: str | Sequence[str] = "label",
    upper: bool = False,
) -> Labelled:
    """Read sequences with their labels.

    Parameters
    ----------
    path
        CSV, TSV or Parquet with a column of labels; or FASTA, whose headers hold ``label=...``
        (or another name, `label_column`) or end in ``|`` and the label.
    sequence_column, label_column
        Columns. Several columns of labels are a list, or one text with commas between them.
    upper
        Read all letters as upper case.

    Raises
    ------
    FormatError
        If there is no such column, or a label is missing.
    InputError
        If the format holds no labels.
    """
    if not isinstance(path, str | Path):
        raise InputError(
            f"labelled sequences were given as a {type(path).__name__}. Expected the name of "
            "a file; write them as .csv or .parquet (of a data frame: frame.to_csv('train.csv'))."
        )
    shown = label_column if isinstance(label_column, str) else ",".join(label_column)
    kind = SEQUENCE_SUFFIXES.get(bare_suffix(path))
    if kind not in {"table", "FASTA"}:
        raise InputError(
            f"{path} holds no labels. Expected a table (.csv, .tsv, .parquet) with a column "
            f"{shown!r}, or FASTA with {shown}=... in its headers."
        )
    records: list[SequenceRecord] = []
    labels: list[Label] = []
    names: tuple[str, ...] = ()
    for number_1based, record in enumerate(
        read_sequences(path, sequence_column=sequence_column, upper=upper, unique_names=False), 1
    ):
        if kind == "table":
            if not names:
                names = _label_columns(list(record.fields), label_column, path)
            cells = tuple(record.fields[name].strip() for name in names)
        else:
            names = _split_names(label_column)
            cells = tuple(_in_header(record, name, alone=len(names) == 1) for name in names)
        for name, cell in zip(names, cells, strict=True):
            if cell.casefold() in _MISSING:
                where = f"the column {name!r}"
                if kind == "FASTA":
                    where = "its header" if len(names) == 1 else f"its header ({name}=...)"
                raise FormatError(
                    path,
                    f"record {number_1based:,} (named {record.id!r}) has no label in {where}. "
                    "Expected one for every sequence; add it or remove the record. A sequence that "
                    "has none of several labels gets '-'.",
                )
        records.append(record)
        labels.append(cells if len(names) > 1 else cells[0])
    if not records:
        raise FormatError(path, "holds no sequences. Expected labelled ones; check the file.")
    return Labelled(str(path), tuple(records), tuple(labels), names)


def _split_names(given: str | Sequence[str]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    names = tuple(name.strip() for name in names)
    if not names or not all(names):
        raise InputError(f"label_column is {given!r}. Expected a column's name, or several.")
    return names


def _label_columns(
    columns: Sequence[str], given: str | Sequence[str], path: str | Path
) -> tuple[str, ...]:
    """Return the columns as the table spells them; a name may itself have a comma."""
    whole = [given] if isinstance(given, str) else list(given)
    try:
        found = [columns[find_column(columns, each, "label_column", path)] for each in whole]
    except FormatError:
        if not isinstance(given, str) or "," not in given:
            raise
        names = _split_names(given)
        found = [columns[find_column(columns, each, "label_column", path)] for each in names]
    if len(set(found)) < len(found):
        raise UnknownName(f"label_column names {found} more than once. Name each column once.")
    return tuple(found)


def _in_header(record: SequenceRecord, name: str, *, alone: bool) -> str:
    header = f"{record.id} {record.description}"
    for word in header.replace("|", " ").split():
        key, equals, value = word.partition("=")
        if equals and key.casefold() == name.casefold():
            return value.strip()
    _, bar, last = header.strip().rpartition("|")
    return last.strip() if bar and alone else ""


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
    strata: dict[Label, list[list[int]]] = {}
    for members in _equal(data):
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


def fold_indices(
    data: Labelled, folds: int, *, seed: int, by_class: bool, plain: bool = False
) -> list[NDArray[np.int64]]:
    """Divide sequences into folds of about the same size, each held out once.

    Parameters
    ----------
    data
        The sequences.
    folds
        How many.
    seed
        Decides the draw.
    by_class
        Whether classes are spread evenly over the folds.
    plain
        Draw as scikit-learn's ``KFold(folds, shuffle=True, random_state=seed)`` does, which
        published results used: equal sequences may come apart, and classes are not looked at.

    Returns
    -------
    Sorted 0-based numbers of the held-out sequences of each fold.

    Raises
    ------
    InputError
        If there are fewer different sequences (of a class) than folds.
    """
    if plain:
        if len(data) < folds:
            raise InputError(_too_few(data, len(data), folds, ""))
        order = np.arange(len(data))
        np.random.RandomState(seed).shuffle(order)  # what scikit-learn draws with
        return [np.sort(part) for part in np.array_split(order, folds)]
    strata: dict[Label, list[list[int]]] = {}
    for members in _equal(data):
        strata.setdefault(data.labels[members[0]] if by_class else "", []).append(members)
    generator = np.random.default_rng(seed)
    held: list[list[int]] = [[] for _ in range(folds)]
    following = 0
    for label in sorted(strata):
        stratum = strata[label]
        if len(stratum) < folds:
            raise InputError(
                _too_few(data, len(stratum), folds, f" of the class {label!r}" if by_class else "")
            )
        for g in generator.permutation(len(stratum)):
            held[following % folds] += stratum[g]
            following += 1
    return [np.sort(np.array(each, np.int64)) for each in held]


def _too_few(data: Labelled, count: int, folds: int, which: str) -> str:
    return (
        f"{data.source} has {count:,} different sequences{which}, which cannot be spread over "
        f"{folds} folds. Expected at least one for each fold; give fewer folds."
    )


def _equal(data: Labelled) -> list[list[int]]:
    """Return the numbers of equal sequences together, case ignored."""
    groups: dict[str, list[int]] = {}
    for i, letters in enumerate(data.letters()):
        groups.setdefault(letters, []).append(i)
    return list(groups.values())


def count_contradictions(data: Labelled) -> int:
    """Count the sequences that an equal one with another label contradicts, case ignored."""
    groups = [g for g in _equal(data) if len({data.labels[i] for i in g}) > 1]
    return sum(map(len, groups))


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
