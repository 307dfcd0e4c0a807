import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import InputError
from lexome.sequence import Variant, alternative_window, centre_window

DNA_TEXT = st.text(alphabet="ACGT", min_size=1, max_size=40)


class Toy:
    def __init__(self, text):
        self.text = text

    def fetch(self, contig, start, end, *, pad="N"):
        return "".join(
            self.text[i] if 0 <= i < len(self.text) else pad for i in range(start, max(start, end))
        )


@given(DNA_TEXT, st.integers(0, 39), st.integers(1, 60))
def test_the_position_stands_at_half_the_window(text, position, window_bp):
    position %= len(text)
    window = centre_window(Toy(text), "c", position, window_bp)
    assert len(window) == window_bp
    assert window[window_bp // 2] == text[position]
    start = position - window_bp // 2
    expected = "".join(
        text[i] if 0 <= i < len(text) else "N" for i in range(start, start + window_bp)
    )
    assert window == expected


def test_a_window_holds_n_outside_the_contig():
    assert centre_window(Toy("ACGT"), "c", 0, 4) == "NNAC"
    assert centre_window(Toy("ACGT"), "c", 3, 5) == "CGTNN"


def test_a_substitution_changes_no_flank():
    genome = Toy("AACCGGTT")
    assert alternative_window(genome, Variant("c", 4, "", "G", "T"), 6) == "ACCTGT"
    assert alternative_window(genome, Variant("c", 4, "", "GG", "TA"), 6) == "ACCTAT"


def test_an_insertion_is_paid_for_on_both_sides_and_the_right_pays_an_odd_base():
    genome = Toy("AACCGGTTAACCGGTT")
    assert centre_window(genome, "c", 8, 8) == "GGTTAACC"
    assert alternative_window(genome, Variant("c", 8, "", "A", "ATT"), 8) == "GTTATTAC"
    assert alternative_window(genome, Variant("c", 8, "", "A", "AT"), 8) == "GGTTATAC"


def test_a_deletion_is_refilled_on_both_sides():
    genome = Toy("AACCGGTTAACCGGTT")
    assert alternative_window(genome, Variant("c", 8, "", "AAC", "A"), 8) == "CGGTTACG"


@given(DNA_TEXT, st.data())
def test_the_alternative_window_is_a_stretch_of_the_alternative_contig(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    ref = text[start : start + data.draw(st.integers(1, 12))]
    alt = data.draw(st.text(alphabet="ACGT", min_size=1, max_size=12))
    window_bp = data.draw(st.integers(len(alt), 50))
    window = alternative_window(Toy(text), Variant("c", start, "", ref, alt), window_bp)
    changed = "N" * 60 + text[:start] + alt + text[start + len(ref) :] + "N" * 60
    assert len(window) == window_bp
    assert window in changed
    assert alt in window


def test_a_deletion_wider_than_the_window_is_refilled_as_if_it_filled_the_right_half():
    genome = Toy("AACCGGTT" * 10)
    variant = Variant("c", 20, "", genome.text[20:52], genome.text[20])
    expected = genome.text[15:20] + genome.text[20] + genome.text[52:54]
    assert alternative_window(genome, variant, 8) == expected


def test_an_allele_longer_than_the_window_is_refused():
    with pytest.raises(InputError, match="more than the window of 4"):
        alternative_window(Toy("ACGT"), Variant("c", 1, "", "C", "CCCCC"), 4)


@pytest.mark.parametrize("window_bp", [0, -3])
def test_a_window_without_bases_is_refused(window_bp):
    with pytest.raises(InputError, match="at least 1 bp"):
        centre_window(Toy("ACGT"), "c", 1, window_bp)
