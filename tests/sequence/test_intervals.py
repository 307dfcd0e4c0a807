import pytest

from lexome.core import InputError
from lexome.sequence import Interval


def test_an_interval_counts_its_bases():
    assert len(Interval("chr1", 5, 9)) == 4
    assert len(Interval("chr1", 5, 5)) == 0


def test_an_interval_prints_its_place_and_strand():
    assert str(Interval("chr1", 5, 9, strand="-")) == "chr1:5-9(-)"


def test_an_interval_that_ends_before_it_starts_is_refused():
    with pytest.raises(InputError, match=r"chr1:9-5 ends before it starts"):
        Interval("chr1", 9, 5)


def test_a_strand_outside_the_three_signs_is_refused():
    with pytest.raises(InputError, match="strand 'forward'"):
        Interval("chr1", 5, 9, strand="forward")
