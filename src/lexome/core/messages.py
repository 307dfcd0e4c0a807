"""Lines for people, on standard error."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any


def teller(*, aloud: bool) -> Callable[[str], object]:
    """Return a function that prints a line on standard error, or that keeps quiet."""
    return partial(print, file=sys.stderr) if aloud else _silent


def counted(number: int, thing: str) -> str:
    """Say how many there are of something.

    Examples
    --------
    >>> counted(1, "record"), counted(1200, "record")
    ('1 record', '1,200 records')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def tab_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> str:
    r"""Return rows as a tab-separated table under the names of their columns; None is empty.

    Examples
    --------
    >>> tab_table([{"id": "a", "score": 0.5}, {"id": "b", "score": None}])
    'id\tscore\na\t0.5\nb\t'
    """
    names = names or list(dict.fromkeys(name for row in rows for name in row))
    cells = [["" if row.get(name) is None else str(row[name]) for name in names] for row in rows]
    return "\n".join("\t".join(line) for line in [names, *cells])


def _silent(_: str) -> None:
    return None
