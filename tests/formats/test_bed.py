import pytest

from lexome.core import FormatError
from lexome.formats import read_bed
from lexome.sequence import Interval


def test_columns_three_to_six_and_more_are_read(make_file):
    path = make_file(
        "a.bed.gz",
        "track name=x\nbrowser position chr1\n# comment\n\n"
        "chr1\t0\t5\n"
        "chr1\t5\t9\tpeak 1\r\n"
        "chr2\t1\t1\t.\t0\t-\t1\t1\n"
        "chr 3\t7\t8\tx\t0\t.\n",
    )
    assert list(read_bed(path)) == [
        Interval("chr1", 0, 5),
        Interval("chr1", 5, 9, "peak 1"),
        Interval("chr2", 1, 1, "", "-"),
        Interval("chr 3", 7, 8, "x", "."),
    ]


def test_blanks_may_separate_columns(make_file):
    assert list(read_bed(make_file("a.bed", "chr1 3   9 x"))) == [Interval("chr1", 3, 9, "x")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("chr1\t5", r"2 columns \('chr1\\t5'\)"),
        ("ACGT", "1 column "),
        (
            "chrom\tstart\tend",
            "start 'start' and end 'end'.* put '#' before a line of column names",
        ),
        ("chr1\t1,000\t2,000", "start '1,000' .* without thousands separators"),
        ("chr1\t-5\t10", "start '-5'"),
        ("chr1\t9\t5", "the interval ends at 5, before its start 9"),
        ("chr1\t1\t5\tx\t0\tplus", "strand 'plus' in the sixth column"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(make_file, line, says):
    with pytest.raises(FormatError, match=rf"a\.bed, line 2: {says}"):
        list(read_bed(make_file("a.bed", f"chr1\t0\t5\n{line}\n")))
