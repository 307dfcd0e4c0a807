"""Recipes: YAML files that hold keyword arguments of one function and nothing else."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lexome.core import InputError, UnknownName, pick
from lexome.core.arguments import read_arguments

_P = ParamSpec("_P")
_R = TypeVar("_R")

BUNDLED = Path(__file__).parent / "recipes"


def bundled_recipes(command: str) -> dict[str, Path]:
    """Return the recipes of a command that come with the package, by name."""
    found = {}
    for path in sorted(BUNDLED.glob("*.yaml")):
        with path.open(encoding="utf-8") as stream:
            if stream.readline().strip() == f"# lexome {command}":
                found[path.stem] = path
    return found


def takes_recipe(command: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a function take its keyword arguments from a recipe.

    The function's first parameter is `recipe`: the name of a bundled recipe of `command`, or a
    path. What the recipe holds is passed on; arguments that the caller gives win over it, of
    mappings key by key.
    """

    def wrap(function: Callable[_P, _R]) -> Callable[_P, _R]:
        names = list(inspect.signature(function).parameters)[1:]

        @wraps(function)
        def with_recipe(*args: _P.args, **given: _P.kwargs) -> _R:
            bound = inspect.signature(function).bind_partial(*args, **given).arguments
            recipe: Any = bound.pop("recipe", None)
            if recipe is None:
                return function(*args, **given)
            values = read_arguments(find_recipe(recipe, command), names)
            for name, value in bound.items():
                both = isinstance(value, Mapping) and isinstance(values.get(name), Mapping)
                values[name] = {**values[name], **value} if both else value
            return function(recipe, **values)  # type: ignore[arg-type]

        return with_recipe

    return wrap


def find_recipe(recipe: str | Path, command: str) -> Path:
    """Return the file of a recipe.

    Raises
    ------
    InputError
        If a path was given and there is no such file.
    UnknownName
        If there is no bundled recipe of this name.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"} or "/" in str(recipe):
        raise InputError(f"there is no file {path}. Expected a YAML file of arguments.")
    bundled = bundled_recipes(command)
    if not bundled:
        raise UnknownName(
            f"there is no file {path}, and no recipes come with `lexome {command}`. Expected a "
            "YAML file of arguments; a model is named with --model."
        )
    return bundled[pick("recipe", str(recipe), bundled)]
