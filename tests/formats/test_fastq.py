import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import FormatError
from lexome.formats import SequenceRecord, read_fastq
from lexome.formats.fastq import parse_fastq


@given(st.lists(st.text(alphabet="ACGTN", max_size=12), min_size=1), st.data())
def test_reads_do_not_depend_on_blocks_or_line_ends(sequences, data):
    qualities = [data.draw(st.text("!@I~+", min_size=n, max_size=n)) for n in map(len, sequences)]
    reads = [
        SequenceRecord(f"r{i}", s, "", q)
        for i, (s, q) in enumerate(zip(sequences, qualities, strict=True))
    ]
    line_end = data.draw(st.sampled_from(["\n", "\r\n"]))
    text = "".join(line_end.join((f"@{r.id}", r.sequence, "+", r.quality or "", "")) for r in reads)
    if data.draw(st.booleans()) and reads[-1].sequence:
        text = text.rstrip("\r\n")
    raw = text.encode()
    step = data.draw(st.integers(1, 30))
    blocks = (raw[i : i + step] for i in range(0, len(raw), step))
    assert list(parse_fastq(blocks, "x")) == reads


def test_descriptions_and_a_repeated_header_after_plus_are_read(make_file):
    path = make_file("a.fq.gz", "@r1 1:N:0:ACGT\nACGT\n+r1 1:N:0:ACGT\n@III\n\n")
    assert list(read_fastq(path)) == [SequenceRecord("r1", "ACGT", "1:N:0:ACGT", "@III")]


def test_an_empty_read_at_the_very_end_is_kept(make_file):
    path = make_file("a.fq", "@r1\nA\n+\nI\n@r2\n\n+")
    assert [r.sequence for r in read_fastq(path)] == ["A", ""]


def test_mates_may_share_a_name(make_file):
    path = make_file("a.fq", "@r1 1:N:0\nA\n+\nI\n@r1 2:N:0\nC\n+\nI\n")
    assert [r.sequence for r in read_fastq(path)] == ["A", "C"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (">r1\nACGT\n", "line 1: found '>r1' .* This looks like FASTA"),
        ("@r1\nA\n+\nI\nA\n", "line 5: found 'A' .* Reads must take four lines"),
        ("@r1\nAC\nGT\n+\nIIII\n", "line 3: found 'GT' where the '\\+' line should be"),
        ("@r1\nACGT\n+\n", "line 1: the file ends in the middle of a read"),
        ("@r1\nA\n+\nI\n@r2\nACGT", "line 5: the file ends in the middle of a read"),
        ("@r1\nACGT\n+\nIII\n", "line 4: read 'r1' has 4 bases and 3 quality letters"),
        ("@r1\nAC.T\n+\nIIII\n", "line 2: read 'r1' has '.' where letter 3"),
        ("@r1\nA\n+\nI\n@r1\nA\n+\nI\n", "line 5: the name 'r1' comes a second time"),
        ("@r1 1:N\nA\n+\nI\n@r1 1:N\nA\n+\nI\n", "line 5: the name 'r1 1' comes a second time"),
        ("@\nA\n+\nI\n", "line 1: a read without a name"),
        ("\n \n", "only blank lines"),
        ("", "the file is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(make_file, content, says):
    with pytest.raises(FormatError, match=rf"a\.fq(, |: |: holds ){says}"):
        list(read_fastq(make_file("a.fq", content)))
