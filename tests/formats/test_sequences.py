import contextlib
import gzip
import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexome.core import FormatError, InputError, UnknownName
from lexome.formats import Genome, SequenceRecord, read_sequences

SUFFIXES = {"FASTA": ".fa", "FASTQ": ".fq", "lines": ".txt", "tsv": ".tsv", "csv": ".csv"}
CONTENT = {
    "FASTA": ">a\nacGT\n",
    "FASTQ": "@a\nacGT\n+\nIIII\n",
    "lines": "acGT\n",
    "tsv": "id\tsequence\na\tacGT\n",
    "csv": "id,sequence\na,acGT\n",
}


@pytest.fixture
def genome_path(make_file):
    return make_file("genome.fa", ">chr1\nAACCGGTT\nAACCGGTT\n")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.fa", "FASTA"),
        ("a.FASTA", "FASTA"),
        ("a.fna.gz", "FASTA"),
        ("a.fa.bgz", "FASTA"),
        ("a.fq", "FASTQ"),
        ("a.fastq.gz", "FASTQ"),
        ("a.txt", "lines"),
        ("a.tsv", "tsv"),
        ("a.tsv.gz", "tsv"),
        ("a.csv", "csv"),
        ("a.seqs", "FASTA"),
        ("reads", "FASTQ"),
    ],
)
def test_the_format_is_told_by_suffix_and_else_by_content(make_file, name, kind):
    (record,) = read_sequences(make_file(name, CONTENT[kind]))
    assert record.sequence == "acGT"


@pytest.mark.parametrize("kind", CONTENT)
def test_the_format_of_stdin_is_told_by_content(monkeypatch, kind):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CONTENT[kind].encode())))
    (record,) = read_sequences("-", upper=True)
    assert record.sequence == "ACGT"


def test_intervals_on_stdin_are_recognised(monkeypatch, genome_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"chr1\t1\t4\n")))
    assert [r.sequence for r in read_sequences("-", genome=genome_path)] == ["ACC"]


def test_parquet_is_read(tmp_path):
    pq.write_table(pa.table({"dna": ["ACGT"], "name": ["x"]}), tmp_path / "a.parquet")
    (record,) = read_sequences(tmp_path / "a.parquet", sequence_column="dna", id_column="name")
    assert record == SequenceRecord("x", "ACGT")


def test_intervals_take_their_bases_from_the_genome(make_file, genome_path, capsys):
    bed = make_file("a.bed", "1\t2\t6\tpeak\t0\t-\nchr1\t14\t18\n")
    first, second = read_sequences(bed, genome=Genome(genome_path))
    place = {"contig": "1", "start": "2", "end": "6", "name": "peak", "strand": "-"}
    assert first == SequenceRecord("1:2-6(-)", "CCGG", fields=place)
    assert (second.id, second.sequence) == ("chr1:14-18(+)", "TTNN")
    told = capsys.readouterr().err
    assert "chr1:14-18(+) in" in told
    assert "ends behind chr1, which has 16 letters; N stands there" in told


def test_an_interval_behind_its_contig_is_an_error(make_file, genome_path):
    records = read_sequences(make_file("a.bed", "chr1\t0\t4\nchr1\t16\t20\n"), genome=genome_path)
    next(records)
    with pytest.raises(
        InputError, match=r"chr1:16-20\(\+\) in .*a\.bed begins behind the end of chr1"
    ):
        next(records)


def test_intervals_without_a_genome_say_what_is_missing(make_file):
    with pytest.raises(InputError, match=r"a\.bed holds intervals and no bases.*genome=FASTA"):
        read_sequences(make_file("a.bed", "chr1\t0\t5\n"))


def test_an_interval_on_an_unknown_contig_is_named(make_file, genome_path):
    records = read_sequences(make_file("a.bed", "chr9\t0\t5\n"), genome=genome_path)
    with pytest.raises(UnknownName, match="no contig 'chr9'") as caught:
        next(records)
    assert "chr9:0-5(+)" in caught.value.__notes__[0]


def test_lists_hold_sequences_pairs_or_records_as_they_are():
    source = ["AC[MASK]T", ("x", ""), SequenceRecord("y", "acgt", "text")]
    assert list(read_sequences(source)) == [
        SequenceRecord("1", "AC[MASK]T"),
        SequenceRecord("x", ""),
        SequenceRecord("y", "acgt", "text"),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.fa", ">x\nA\n>x"),
        ("a.fq", "@x\nA\n+\nI\n@x\n\n+\n\n"),
        ("a.csv", "id,sequence\nx,A\nx,\n"),
        ("", [("x", "A"), ("x", "")]),
    ],
)
def test_names_may_repeat_where_that_is_asked_for(make_file, name, content):
    source = make_file(name, content) if name else content
    records = list(read_sequences(source, unique_names=False))
    assert [(r.id, r.sequence) for r in records] == [("x", "A"), ("x", "")]
    with pytest.raises(InputError, match=r"'x' (comes a second time|again)"):
        list(read_sequences(source))


def test_a_generator_is_read_as_it_goes():
    def endless():
        while True:
            yield f"s{next(numbers)}", "ACGT"

    numbers = iter(range(10**9))
    assert next(read_sequences(endless())).id == "s0"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([1], "item 1 of the sequences is 1. Expected a string"),
        (["A", ("x", 3)], r"item 2 of the sequences is \('x', 3\)"),
        ([("x", "A"), ("x", "C")], "item 2 of the sequences has the name 'x' again"),
    ],
)
def test_other_items_of_a_list_are_named(source, says):
    with pytest.raises(InputError, match=says):
        list(read_sequences(source))


def test_a_file_that_is_not_there_is_named_at_once(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*a\.fa"):
        read_sequences(tmp_path / "a.fa")


def test_a_sequence_in_the_place_of_a_file_is_met_with_advice():
    with pytest.raises(InputError, match="no file ACGT") as caught:
        read_sequences("ACGT")
    assert caught.value.__notes__ == [
        "To give sequences themselves, pass a list of them, or write them to - (stdin)."
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.vcf.gz", "It holds variants"),
        ("a.bam", "samtools fastq"),
        ("a.gff3", "features, not sequences"),
        ("a.h5ad", "It holds cells"),
        ("a.xyz", "a suffix that says no format, and its content looks like none"),
    ],
)
def test_formats_without_sequences_say_what_to_do(make_file, name, says):
    with pytest.raises(InputError, match=says):
        read_sequences(make_file(name, "ACGT\n"))


def test_a_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read_sequences(tmp_path)


def test_an_empty_file_of_unknown_suffix_is_named(make_file):
    with pytest.raises(FormatError, match="the file is empty"):
        read_sequences(make_file("reads", ""))


@settings(max_examples=200)
@given(st.sampled_from(sorted(CONTENT)), st.binary(max_size=12), st.integers(0, 30), st.booleans())
def test_damage_gives_records_or_a_named_fault(tmp_path_factory, kind, damage, at, squeeze):
    whole = CONTENT[kind].encode()
    data = gzip.compress(whole) if squeeze else whole
    path = tmp_path_factory.mktemp("damaged") / f"a{SUFFIXES[kind]}"
    path.write_bytes(data[:at] + damage + data[at + len(damage) // 2 :])
    with contextlib.suppress(FormatError):
        assert all(isinstance(record, SequenceRecord) for record in read_sequences(path))


def test_a_mapping_gives_names_and_sequences():
    found = list(read_sequences({"a": "ACGT", "b": "GG"}))
    assert [(record.id, record.sequence) for record in found] == [("a", "ACGT"), ("b", "GG")]


def test_a_data_frame_is_refused_since_it_hands_out_names_of_columns():
    class Frame(list):
        columns = ("id", "sequence")

    with pytest.raises(InputError, match=r"a Frame with the columns 'id', 'sequence'.*pass zip"):
        list(read_sequences(Frame(["id", "sequence"])))
