"""Misspelt names get the nearest known ones."""

import pytest

from lexome.core import UnknownName, nearest, pick

KNOWN = ["dnabert2-117m", "gpn-brassicales", "hyenadna-tiny-1k"]


def test_a_known_name_is_returned_as_it_is():
    assert pick("release", "gpn-brassicales", KNOWN) == "gpn-brassicales"


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownName) as caught:
        pick("release", "dnabert-2-117m", KNOWN, listing="`lexome models` lists all of them.")
    assert str(caught.value) == (
        "no release named 'dnabert-2-117m'. Did you mean 'dnabert2-117m'? "
        "`lexome models` lists all of them."
    )


def test_without_a_listing_all_names_are_shown_in_order():
    with pytest.raises(UnknownName, match=r"no pooling named 'zzzz'\. Known: max, mean\.$"):
        pick("pooling", "zzzz", ["mean", "max"])


def test_names_are_compared_without_case_and_given_in_their_own():
    assert nearest("GRCH38", ["GRCh38", "GRCh37"])[0] == "GRCh38"


def test_a_name_like_no_other_has_no_neighbours():
    assert nearest("xyz", KNOWN) == []
