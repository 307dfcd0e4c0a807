"""Functions that hand most of their arguments on: one signature and one text for both."""

import inspect
import re
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, TypeVar

Result = TypeVar("Result")

_ENTRY = re.compile(r"^(?P<names>\S.*)\n(?P<text>(?:(?:[ ]+.*)?\n)*)", re.MULTILINE)
_PARAMETERS = re.compile(r"(?<=\nParameters\n----------\n).*?(?=\n\w[\w ]*\n---|\Z)", re.DOTALL)


def takes_options_of(
    source: Callable[..., object], *, but: Collection[str] = ()
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Let the ``**options`` of a function be the keyword-only arguments of another one.

    The function gets all of them at each call, with the other one's defaults. They stand in its
    signature, and their texts in its docstring in the place of the entry ``**options``.

    Parameters
    ----------
    source
        The function that the options are handed to.
    but
        Arguments of `source` that are no options. Those that the function has itself are none
        either.

    Examples
    --------
    >>> def score(text, *, layer=-1, upper=False):
    ...     '''Score a text.
    ...
    ...     Parameters
    ...     ----------
    ...     layer, upper
    ...         How it is read.
    ...     '''
    >>> @takes_options_of(score, but={"layer"})
    ... def draw(text, *, out, **options):
    ...     '''Draw the scores of a text.
    ...
    ...     Parameters
    ...     ----------
    ...     out
    ...         The file.
    ...     **options
    ...         As for `score`.
    ...     '''
    ...     return out, options
    >>> inspect.signature(draw)
    <Signature (text, *, out, upper=False)>
    >>> draw("ACGT", out="a.svg")
    ('a.svg', {'upper': False})
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        own = inspect.signature(function)
        kept = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        options = [
            each
            for name, each in inspect.signature(source).parameters.items()
            if each.kind is each.KEYWORD_ONLY and name not in {*own.parameters, *but}
        ]
        whole = own.replace(parameters=[*kept, *options])
        defaults = {each.name: each.default for each in options if each.default is not each.empty}

        @wraps(function)
        def with_options(*args: Any, **given: Any) -> Result:
            whole.bind(*args, **given)  # a TypeError names what is missing or unknown
            return function(*args, **{**defaults, **given})

        with_options.__signature__ = whole  # pyright: ignore[reportAttributeAccessIssue]
        with_options.__doc__ = _with_texts(function, source, [each.name for each in options])
        return with_options

    return decorate


def _with_texts(
    function: Callable[..., object], source: Callable[..., object], names: Collection[str]
) -> str:
    """Return a function's docstring with the entries of another's that hold `names`."""
    entries = []
    for entry in _ENTRY.finditer(_parameters(source)):
        shown = [name for name in entry["names"].split(", ") if name in names]
        if shown:
            entries.append(f"{', '.join(shown)}\n{entry['text'].rstrip()}\n")
    text = inspect.getdoc(function) or ""
    return re.sub(r"^\*\*options\n(?:[ ]+.*\n?)*", lambda _: "".join(entries), text, flags=re.M)


def _parameters(function: Callable[..., object]) -> str:
    found = _PARAMETERS.search(inspect.getdoc(function) or "")
    return found[0] + "\n" if found else ""
