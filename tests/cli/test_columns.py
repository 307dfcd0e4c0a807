"""Help is aligned, wrapped at the width of the terminal, and free of drawing characters."""

from typing import Literal

import pytest

from lexome.cli.arguments import bind
from lexome.cli.columns import prose


def embed(
    source: str,
    *,
    pooling: Literal["mean", "max"] = "mean",
    a_name_that_is_longer_than_its_column: int = 3,
    both_strands: bool = True,
    quick: bool = False,
    progress: bool | None = None,
    low: float,
    high: float = 0.5,
) -> None:
    """Embed sequences.

    A paragraph that is
    wrapped in the source, with ``code`` of :func:`lexome.embed`:

    - one thing
    - another

    Parameters
    ----------
    source
        A file. The `suffix` tells its format, and this sentence goes on for so long that it has to
        be wrapped.
    pooling
        How.
    a_name_that_is_longer_than_its_column
        Count.
    both_strands
        Average.
    quick
        Hurry.
    progress
        Bar.
    low, high
        Bounds.

    Returns
    -------
    Nothing a shell user needs to know.
    """


HELP = """\
Usage: lexome embed SOURCE --low LOW [OPTIONS]

Embed sequences.

A paragraph that is wrapped in the source, with code of lexome.embed:

- one thing
- another

Arguments
  SOURCE, --source              A file. The suffix tells its format, and this
                                sentence goes on for so long that it has to be
                                wrapped.

Options
  --pooling WORD                How. [one of mean, max; default mean]
  --a-name-that-is-longer-than-its-column INT
                                Count. [default 3]
  --[no-]both-strands           Average.
  --quick                       Hurry.
  --[no-]progress               Bar.
  --low FLOAT                   Bounds. [required]
  --high FLOAT                  Bounds. [default 0.5]
  --config PATH                 YAML file with any of these arguments; flags win
                                over it.

"""


def test_help_stands_in_two_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    bind(embed, ["--help"], "lexome embed")
    assert capsys.readouterr().out == HELP


@pytest.mark.parametrize("columns", ["50", "200"])
def test_no_line_is_wider_than_the_terminal_or_than_reads_well(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    bind(embed, ["--help"], "lexome embed")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= min(int(columns), 100)


def test_prose_ends_where_the_sections_begin():
    text = "Do it.\n\nWith care\nand ``love``.\n\nReturns\n-------\nNothing."
    assert prose(text) == "Do it.\n\nWith care and love."
    assert prose("") == ""
