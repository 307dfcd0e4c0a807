"""The examples in docstrings run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import lexome

SOURCE = Path(lexome.__file__).parent
MODULES = [
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_what_they_show(module: str):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(import_module(module), optionflags=options)
    assert result.attempted > 0
    assert result.failed == 0, "the difference is in the captured output"
