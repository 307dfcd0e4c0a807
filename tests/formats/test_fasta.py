import gzip
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexome.core import FormatError
from lexome.formats import SequenceRecord, read_fasta, write_fasta
from lexome.formats.fasta import fasta_text, parse_fasta

NAMES = st.lists(st.from_regex(r"[!-~]{1,12}", fullmatch=True), min_size=1, unique=True)
LETTERS = st.text(alphabet="ACGTNacgtnRYU", max_size=40)


def pairs(records):
    return [(r.id, r.sequence) for r in records]


@given(NAMES, st.data())
def test_records_do_not_depend_on_lines_blocks_or_line_ends(names, data):
    records = [
        SequenceRecord(name, data.draw(LETTERS), data.draw(st.sampled_from(["", "a b >c"])))
        for name in names
    ]
    line_end = data.draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    width = data.draw(st.integers(1, 50))
    text = "".join(fasta_text(r, width) for r in records)
    text = text.replace("\n", line_end)
    if data.draw(st.booleans()):
        text = text.rstrip()
    raw = text.encode()
    step = data.draw(st.integers(1, 30))
    blocks = (raw[i : i + step] for i in range(0, len(raw), step))
    assert list(parse_fasta(blocks, "x")) == records


def test_case_and_ambiguity_letters_are_kept(make_file):
    path = make_file("a.fa", ">a first one\nACgtNry\nUUX\n")
    assert list(read_fasta(path)) == [SequenceRecord("a", "ACgtNryUUX", "first one")]


@pytest.mark.parametrize("name", ["a.fa", "a.fa.gz", "a.fa.bgz"])
def test_compressed_files_are_read(make_file, name):
    assert pairs(read_fasta(make_file(name, ">a\nAC\n>b\nGT\n"))) == [("a", "AC"), ("b", "GT")]


def test_a_record_without_sequence_comes_out_with_an_empty_one(make_file):
    path = make_file("a.fa", ">a\n>b\n\n>c\nAC\n>d")
    assert pairs(read_fasta(path)) == [("a", ""), ("b", ""), ("c", "AC"), ("d", "")]


def test_blank_lines_before_and_within_are_passed_over(make_file):
    path = make_file("a.fa", "\n\n>a\nAC\n\nGT\n\n>b\nTT")
    assert pairs(read_fasta(path)) == [("a", "ACGT"), ("b", "TT")]


def test_a_header_that_is_not_utf_8_is_read_as_latin_1(make_file):
    path = make_file("a.fa", ">a Müller\nAC\n".encode("latin-1"))
    assert next(read_fasta(path)).description == "Müller"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("ACGT\nACGT\n", r"line 1: found 'ACGT' .* one sequence a line, name it \.txt"),
        ("@r1\nACGT\n+\nIIII\n", r"line 1: found '@r1' .* This looks like FASTQ"),
        ("\n\nchr1\t5\n", r"line 3: found 'chr1\\t5' .* Check that the file is FASTA"),
        ("\n\n\n", "only blank lines"),
        (">\nACGT\n", "line 1: a header without a name"),
        (">a\nAC\n> \nGT\n", "line 3: a header without a name"),
        (">a\nAC\n>a again\nGT\n", "line 3: the name 'a' comes a second time"),
        (">a\nAC\n>b\nGT\n>a", "line 5: the name 'a' comes a second time"),
        (">a\nAC\nG1T\n", "line 3: record 'a' has '1' where letter 4 of its sequence"),
        (">a\nAC GT\n", "line 2: record 'a' has ' ' where letter 3"),
        (">a\nACGT \n", "line 2: record 'a' has ' ' where letter 5"),
        (">a\nAC\nGT>b\nTT\n", "line 3: record 'a' has '>' where letter 5 .* A line end seems"),
        (">a\n>b\n\nACGT*\n", r"line 4: record 'b' has '\*' where letter 5"),
        (">a\r\nAC\r\nA-T\r\n", "line 3: record 'a' has '-' where letter 4 .* gap of an alignment"),
        (">a\rACGT\r>b\rACGT", "line 1: lines end in a bare CR"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(make_file, content, says):
    with pytest.raises(FormatError, match=rf"a\.fa(, |: |: holds ){says}"):
        list(read_fasta(make_file("a.fa", content)))


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_the_line_of_an_odd_letter_does_not_depend_on_blocks(step):
    raw = b">a\nACGT\nACGT\n>b\nAC\nACGT7\n"
    blocks = (raw[i : i + step] for i in range(0, len(raw), step))
    with pytest.raises(FormatError, match="x, line 6: record 'b' has '7' where letter 7 of"):
        list(parse_fasta(blocks, "x"))


def test_a_header_without_end_is_named_before_it_fills_the_memory():
    endless = (b">" + b"x" * 65536 for _ in range(1000))
    with pytest.raises(FormatError, match="line 1: a header line of more than one megabyte"):
        list(parse_fasta(endless, "x"))


def test_records_before_a_fault_still_come_out(make_file):
    records = read_fasta(make_file("a.fa", ">a\nAC\n>b\nA?\n"))
    assert next(records).id == "a"
    with pytest.raises(FormatError):
        next(records)


def test_a_truncated_gzip_file_raises_after_its_sound_part(make_file):
    whole = gzip.compress("".join(f">r{i}\nACGT\n" for i in range(40_000)).encode(), 1)
    records = read_fasta(make_file("a.bin", whole[:-2000]))
    assert next(records).id == "r0"
    with pytest.raises(FormatError, match="cut off"):
        list(records)


@pytest.mark.parametrize("line_bp", [60, 0])
def test_a_large_record_needs_little_more_than_twice_its_size(tmp_path, line_bp):
    bases = 24_000_000
    path = tmp_path / "a.fa"
    write_fasta(path, [SequenceRecord("a", "ACGTTGCAAN" * (bases // 10))], line_bp=line_bp)
    tracemalloc.start()
    (record,) = read_fasta(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(record.sequence) == bases
    assert peak < 2.2 * bases + 4e6


def test_many_records_need_no_more_memory_than_a_few(make_file):
    path = make_file("a.fa", "".join(f">r{i}\n{'ACGT' * 100}\n" for i in range(8_000)))
    tracemalloc.start()
    count = sum(1 for _ in read_fasta(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 8_000
    assert peak < 16e6


@settings(max_examples=30)
@given(NAMES, st.data())
def test_what_is_written_is_read_back(tmp_path_factory, names, data):
    records = [SequenceRecord(n, data.draw(LETTERS), "some text") for n in names]
    path = tmp_path_factory.mktemp("fasta") / data.draw(st.sampled_from(["a.fa", "a.fa.gz"]))
    assert write_fasta(path, records, line_bp=data.draw(st.integers(0, 9))) == len(records)
    assert list(read_fasta(path)) == records
