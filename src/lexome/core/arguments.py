"""Files of arguments: YAML mappings whose keys are the parameters of a function."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lexome.core.errors import FormatError, UnknownName
from lexome.core.names import pick


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-4 is a number and not a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_arguments(path: str | Path, names: Iterable[str]) -> dict[str, Any]:
    """Read keyword arguments from a YAML file and check their names.

    Parameters
    ----------
    path
        A YAML file that holds one mapping from argument names to values.
    names
        The arguments that are known.

    Raises
    ------
    FormatError
        If the file is no YAML mapping.
    UnknownName
        If a key is not among `names`; the message suggests the nearest.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except UnicodeDecodeError:
        raise FormatError(path, "is not text. Expected a YAML file of arguments.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise FormatError(
            path,
            f"is not valid YAML: {problem}. Expected lines such as 'pooling: mean'.",
            line_1based=mark and mark.line + 1,
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise FormatError(
            path, f"holds a {type(values).__name__}. Expected lines such as 'pooling: mean'."
        )
    known = list(names)
    for key in values:
        try:
            pick("argument", str(key), known)
        except UnknownName as error:
            error.add_note(f"in {path}")
            raise
    return values
