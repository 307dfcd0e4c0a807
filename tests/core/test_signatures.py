"""A function that hands arguments on has the other's parameters, defaults and texts."""

import inspect

import pytest

from lexome.core.signatures import takes_options_of


def scores(text: str, *, out: str = "", layer: int = -1, upper: bool = False, seed: int) -> str:
    """Score a text.

    Parameters
    ----------
    text
        What is read.
    out
        Where scores go.
    layer, upper
        How it is read,
        in two lines.

    seed
        Of what is drawn.

    Returns
    -------
    The scores.
    """
    return f"{text} {out} {layer} {upper} {seed}"


@takes_options_of(scores, but={"layer"})
def page(text: str, *, out: str, **options: object) -> str:
    """Show the scores of a text.

    Parameters
    ----------
    text
        What is shown.
    out
        The page.
    **options
        As for `scores`.

    Returns
    -------
    The page.
    """
    return scores(text, out=out, **options)  # pyright: ignore[reportArgumentType]


def test_the_signature_has_what_is_handed_on():
    shown = str(inspect.signature(page))
    assert shown == "(text: str, *, out: str, upper: bool = False, seed: int) -> str"
    assert page.__name__ == "page"


def test_defaults_are_those_of_the_other_function():
    assert page("ACGT", out="a.html", seed=1) == "ACGT a.html -1 False 1"
    assert page("ACGT", out="a.html", seed=1, upper=True) == "ACGT a.html -1 True 1"


@pytest.mark.parametrize(
    ("given", "message"),
    [({"layer": 1, "seed": 1}, "'layer'"), ({"wrong": 1, "seed": 1}, "'wrong'"), ({}, "'seed'")],
)
def test_what_is_unknown_or_missing_is_an_error(given, message):
    with pytest.raises(TypeError, match=message):
        page("ACGT", out="a.html", **given)


def test_texts_stand_where_the_options_stood():
    assert inspect.getdoc(page) == (
        "Show the scores of a text.\n\nParameters\n----------\ntext\n    What is shown.\nout\n"
        "    The page.\nupper\n    How it is read,\n    in two lines.\nseed\n"
        "    Of what is drawn.\n\nReturns\n-------\nThe page."
    )
