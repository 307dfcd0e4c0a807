import pytest

from lexome.core import FormatError
from lexome.formats import SequenceRecord, read_lines


def test_sequences_are_named_by_their_line(make_file):
    path = make_file("a.txt", "ACGT\r\n\n  acgN \nT")
    assert list(read_lines(path)) == [
        SequenceRecord("1", "ACGT"),
        SequenceRecord("3", "acgN"),
        SequenceRecord("4", "T"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (">a\nACGT\n", "line 1: .* This looks like FASTA"),
        ("ACGT\nACGT\t1.5\n", "line 2: .* This looks like a table"),
        ("ACGT\nACG TTT\n", "line 2: .* Remove the blanks"),
    ],
)
def test_other_formats_are_recognised(make_file, content, says):
    with pytest.raises(FormatError, match=says):
        list(read_lines(make_file("a.txt", content)))
