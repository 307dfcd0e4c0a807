import pytest

from lexome.core import FormatError
from lexome.formats.letters import check_letters


@pytest.mark.parametrize("sequence", ["", "ACGTacgtNRYUX"])
def test_letters_pass(sequence):
    check_letters(sequence, "the sequence", "x", 1)


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ("AC-T", "'-' where letter 3 should be. It is the gap"),
        ("ACG*", "'\\*' where letter 4 should be. It is a stop"),
        ("1 ACGT", "'1' where letter 1 should be. Digits come with GenBank"),
        ("ACG TTT", "' ' where letter 4 should be. Remove the blanks"),
        ("ACGT CGTA GTAA", "' ' where letter 5 should be. These look like overlapping k-mers"),
        (">seq", "'>' where letter 1 should be. This looks like FASTA"),
        ("ACGT,1", "',' where letter 5 should be. This looks like a table"),
        ("ACÄ", "'Ä' where letter 3 should be. Expected letters only"),
    ],
)
def test_other_characters_are_named_with_their_place_and_what_to_do(sequence, says):
    with pytest.raises(FormatError, match=f"x, line 7: the sequence has {says}"):
        check_letters(sequence, "the sequence", "x", 7)
