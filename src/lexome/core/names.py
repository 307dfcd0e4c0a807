"""Names that users type: suggestions for a misspelt one."""

from collections.abc import Iterable
from difflib import get_close_matches

from lexome.core.errors import UnknownName


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` known names that look like `name`, best first.

    Examples
    --------
    >>> nearest("dnabert-2-117m", ["dnabert2-117m", "gpn-brassicales"])
    ['dnabert2-117m']
    """
    by_lower = {k.lower(): k for k in known}
    return [by_lower[m] for m in get_close_matches(name.lower(), by_lower, count, cutoff=0.5)]


def pick(kind: str, name: str, known: Iterable[str], *, listing: str = "") -> str:
    """Return `name` if it is known, else raise with the nearest names.

    Parameters
    ----------
    kind
        What the name stands for, as the message should call it ("release", "pooling").
    name
        The name as typed.
    known
        All valid names.
    listing
        Where the user can see all of them, e.g. a command; empty to list them in the message.

    Raises
    ------
    UnknownName
        If `name` is not among `known`.
    """
    known = list(known)
    if name in known:
        return name
    close = nearest(name, known)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    where = listing or f"Known: {', '.join(sorted(known))}."
    raise UnknownName(f"no {kind} named {name!r}.{hint} {where}".rstrip())
