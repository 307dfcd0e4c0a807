import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import FormatError
from lexome.formats.fasta_index import Contig, build_index, index_text, read_index


def blocks_of(raw, step):
    return (raw[i : i + step] for i in range(0, len(raw), step))


@st.composite
def regular_fasta(draw):
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    text = ""
    for number in range(draw(st.integers(1, 5))):
        bases = draw(st.text(alphabet="ACGTn", max_size=30))
        width = draw(st.integers(1, 12))
        lines = [bases[i : i + width] for i in range(0, len(bases), width)]
        text += line_end.join((f">c{number} text", *lines, ""))
        text += line_end * draw(st.integers(0, 2))
    return text.removesuffix(line_end) if draw(st.booleans()) else text


@given(regular_fasta(), st.integers(1, 40))
def test_the_index_finds_every_base(text, step):
    raw = text.encode()
    index = build_index(blocks_of(raw, step), "x")
    assert index is not None
    for record in text.split(">")[1:]:
        header, _, body = record.partition("\n")
        bases = "".join(body.split())
        contig = index[header.split()[0]]
        assert contig.length == len(bases)
        for i, base in enumerate(bases):
            line, column = divmod(i, contig.line_bases)
            assert chr(raw[contig.offset + line * contig.line_bytes + column]) == base


@pytest.mark.parametrize(
    "text",
    [
        ">a x\nACGT\nACGT\nAC\n>b\nACG\n",
        ">a\r\nACGT\r\nAC\r\n>b\r\nACG\r\n",
        ">a\nACGT\n>c\nACG\nACG\nA",
    ],
)
def test_the_index_equals_that_of_samtools(make_file, text):
    path = make_file("a.fa", text)
    pysam.faidx(str(path))
    theirs = path.with_name("a.fa.fai")
    index = build_index(iter([text.encode()]), path)
    assert index is not None
    assert index_text(index) == theirs.read_text()
    assert read_index(theirs) == index


@pytest.mark.parametrize(
    "text",
    [
        ">a\nACGT\nAC\nACGT\n",
        ">a\nAC\nACGT\n",
        ">a\nACGT\n\nACGT\n",
        ">a\n\nACGT\n",
        ">a\nACGT\r\nACGT\nACGT\n",
    ],
)
@pytest.mark.parametrize("step", [1, 4, 100])
def test_lines_of_unequal_length_have_no_index(text, step):
    assert build_index(blocks_of(text.encode(), step), "x") is None


@pytest.mark.parametrize("step", [1, 3, 100])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\nACGT\n", "line 2: found"),
        (">a\nAC\n>\nAC\n", "line 3: a header without a name"),
        (">a\nAC\n>a\nAC\n", "line 3: the contig 'a' comes a second time"),
        (">a\nAC\n>a", "line 3: the contig 'a' comes a second time"),
        ("\n\n", "holds no record"),
        (">a\rACGT\r\n", "line 1: lines end in a bare CR"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, says, step):
    with pytest.raises(FormatError, match=says):
        build_index(blocks_of(text.encode(), step), "x")


def test_a_header_without_end_is_named():
    endless = (b">" + b"x" * 65536 for _ in range(1000))
    with pytest.raises(FormatError, match="line 1: a header line of more than one megabyte"):
        build_index(endless, "x")


@pytest.mark.parametrize(
    "text", ["", "a\t4\n", "a\t4\t3\t4\tx\n", "a\t4\t3\t4\t5\na\t4\t3\t4\t5\n"]
)
def test_a_file_that_is_no_index_is_not_taken_for_one(make_file, text):
    assert read_index(make_file("a.fai", text)) is None


def test_a_contig_prints_as_numbers():
    assert index_text({"a": Contig(4, 3, 4, 5)}) == "a\t4\t3\t4\t5\n"
