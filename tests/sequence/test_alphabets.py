import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.sequence import COMPLEMENT, count_letters, reverse_complement

IUPAC_BOTH_CASES = "".join(set(COMPLEMENT) - {"U"})
IUPAC_BOTH_CASES += IUPAC_BOTH_CASES.lower()


@given(st.text(alphabet=IUPAC_BOTH_CASES))
def test_reverse_complement_twice_is_the_identity_on_dna(sequence):
    assert reverse_complement(reverse_complement(sequence)) == sequence


@given(st.text(alphabet="ACGUNacgun"))
def test_reverse_complement_of_rna_keeps_u_and_case(sequence):
    other = reverse_complement(sequence)
    assert [c.isupper() for c in other] == [c.isupper() for c in reversed(sequence)]
    if "U" in sequence.upper():
        assert "T" not in other.upper()


def test_every_ambiguity_letter_complements_to_the_letter_of_the_complementary_set():
    sets = dict(
        zip(
            "ACGTRYSWKMBDHVN",
            [
                "A",
                "C",
                "G",
                "T",
                "AG",
                "CT",
                "CG",
                "AT",
                "GT",
                "AC",
                "CGT",
                "AGT",
                "ACT",
                "ACG",
                "ACGT",
            ],
            strict=True,
        )
    )
    for letter, bases in sets.items():
        assert set(sets[COMPLEMENT[letter]]) == {COMPLEMENT[b] for b in bases}


def test_letters_without_a_complement_are_reversed_only():
    assert reverse_complement("A-C*") == "*G-T"


def test_mixed_u_and_t_is_read_as_dna():
    assert reverse_complement("AUT") == "AAT"


def test_letters_outside_ascii_are_refused():
    with pytest.raises(UnicodeEncodeError):
        reverse_complement("ACÄ")


@given(st.text(), st.text(alphabet=string.ascii_letters, max_size=8))
def test_letter_counts_add_up_and_equal_a_plain_loop(sequence, known):
    count = count_letters(sequence, known)
    assert count.known == sum(c in known for c in sequence)
    assert count.known + count.unknown == len(sequence)
    assert set(count.examples) == set(sequence) - set(known)


def test_unknown_share_of_nothing_is_zero():
    assert count_letters("", "ACGT").unknown_share == 0.0
    assert count_letters("ACNN", "ACGT").unknown_share == 0.5
