import gzip
import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexome.core import FormatError, InputError
from lexome.formats import VariantRecord, read_variants
from lexome.sequence import Variant

HEADER = (
    "##fileformat=VCFv4.2\n"
    "##contig=<ID=chr1,length=1000>\n"
    "##contig=<assembly=b37,ID=chr2,length=500>\n"
    "##contig=<ID=chr3>\n"
    '##INFO=<ID=AF,Number=A,Type=Float,Description="frequency, <ID=x,length=3>">\n'
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tone\ttwo\n"
)
ROWS = (
    "chr1\t10\trs1\tA\tC,G\t9.5\tPASS\tAF=0.1,0.2\tGT\t0/1\t1|2\n"
    "chr1\t20\t.\tAC\tA\t.\t.\t.\tGT\t./.\t0/0\n"
    "chr2\t1\tsv\tT\t<DEL>\t.\t.\t.\tGT\t0/1\t0/1\n"
    "chr2\t2\tnone\tT\t.\t.\t.\t.\tGT\t0/0\t0/0\n"
    "chr2\t3\tspanned\tt\t*\t.\t.\t.\tGT\t0/1\t0/1\n"
)


def facts(records):
    return [(r.contig, r.position, r.id, r.ref, r.alts) for r in records]


def as_bcf(path):
    bcf = path.with_suffix(".bcf")
    pysam.bcftools.view("-Ob", "-o", str(bcf), str(path), catch_stdout=False)
    return bcf


EXPECTED = [
    ("chr1", 9, "rs1", "A", ("C", "G")),
    ("chr1", 19, "", "AC", ("A",)),
    ("chr2", 0, "sv", "T", ("<DEL>",)),
    ("chr2", 1, "none", "T", ()),
    ("chr2", 2, "spanned", "t", ("*",)),
]


@pytest.mark.parametrize("name", ["a.vcf", "a.vcf.gz", "a.vcf.bgz"])
def test_rows_come_in_order_with_their_line(make_file, name):
    reader = read_variants(make_file(name, HEADER + ROWS))
    assert facts(reader) == EXPECTED
    assert [r.source for r in reader] == ROWS.splitlines()
    assert [r.row_number_1based for r in reader] == [1, 2, 3, 4, 5]
    assert not any(r.problem for r in reader)


def test_bcf_gives_the_same_rows(make_file):
    bcf = as_bcf(make_file("a.vcf", HEADER + ROWS))
    reader = read_variants(bcf)
    assert facts(reader) == facts(reader) == EXPECTED
    assert reader.samples == ("one", "two")
    assert reader.contig_lengths == {"chr1": 1000, "chr2": 500}


def test_the_header_says_samples_and_contig_lengths(make_file):
    reader = read_variants(make_file("a.vcf", HEADER + ROWS))
    assert reader.samples == ("one", "two")
    assert reader.contig_lengths == {"chr1": 1000, "chr2": 500}
    assert reader.header == tuple(HEADER.splitlines())


def test_a_header_without_contigs_or_rows_is_enough(make_file):
    reader = read_variants(make_file("a.vcf", "#CHROM\tPOS\tID\tREF\tALT\r\nx\t5\t.\tA\tC\r\n"))
    assert facts(reader) == [("x", 4, "", "A", ("C",))]
    assert reader.samples == ()
    assert list(read_variants(make_file("b.vcf", HEADER))) == []


def test_stdin_is_read_once(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((HEADER + ROWS).encode())))
    reader = read_variants("-")
    assert reader.samples == ("one", "two")
    assert facts(reader) == EXPECTED
    with pytest.raises(InputError, match="stdin was read once"):
        iter(reader)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("chr1 10 . A C", "1 columns separated by tabs"),
        ("chr1\t10\t.\tA", "4 columns"),
        ("chr1\tten\t.\tA\tC\t.\t.\t.", "position 'ten' is not a whole number"),
        ("chr1\t-3\t.\tA\tC\t.\t.\t.", "position '-3'"),
        ("chr1\t0\t.\tA\tC\t.\t.\t.", "position 0 lies before the first base"),
        ("\t10\t.\tA\tC\t.\t.\t.", "no contig"),
        ("chr1\t10\t.\t\tC\t.\t.\t.", "no REF"),
        ("chr1\t10\t.\tA\t\t.\t.\t.", "no ALT"),
        ("chr1\t10\t.\tA\tC,,G\t.\t.\t.", "an empty allele"),
        ("\x07\x01", "1 columns"),
    ],
)
def test_an_odd_row_becomes_a_record_with_a_problem(make_file, row, problem):
    reader = read_variants(make_file("a.vcf", f"{HEADER}{row}\nchr1\t10\t.\tA\tC\t.\t.\t.\n"))
    odd, sound = reader
    assert problem in odd.problem
    assert odd.source == row
    assert odd.variants() == ()
    assert sound.variants() == (Variant("chr1", 9, "", "A", "C"),)


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=30), max_size=8))
def test_no_row_is_lost_or_fatal(tmp_path_factory, rows):
    lines = [" ".join(row.split("\n")).replace("\r", " ") for row in rows]
    path = tmp_path_factory.mktemp("vcf") / "a.vcf"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines), "utf-8", newline="")
    records = list(read_variants(path))
    assert [r.source for r in records] == [x for x in lines if x and not x.isspace()]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("1\tx\tx\tT\tC\n", r"line 1: .* missing, '1\\tx.* add it, or give a table"),
        ("##fileformat=VCFv4.2\nchr1\t5\t.\tA\tC\n", "line 2: the line of column names is missing"),
        ("##fileformat=VCFv4.2\n", "line 1: the line of column names is missing"),
        ("#CHROM POS ID REF ALT\n", r"line 1: .*with tabs between them"),
        ("\x00\x01", "this is not text"),
    ],
)
def test_a_file_without_its_header_is_named(make_file, content, says):
    with pytest.raises(FormatError, match=rf"a\.vcf[:,] .*{says}|a\.vcf, {says}"):
        read_variants(make_file("a.vcf", content))


def test_rows_alone_are_a_vcf_too(make_file):
    reader = read_variants(make_file("a.vcf", "1\t1180851\tx\tT\tC\n1\t1180852\ty\tG\tA,C\n"))
    for _ in range(2):
        assert [(r.position, r.id, r.ref, r.alts) for r in reader] == [
            (1180850, "x", "T", ("C",)),
            (1180851, "y", "G", ("A", "C")),
        ]
    assert reader.samples == ()


@pytest.mark.slow
def test_every_row_of_published_files_is_read(data):
    for name, rows, alleles in (
        ("gpn_example", 2000, 2000),
        ("1000g_chr20_1Mb", 28998, 29144),
        ("exac_small", 148, 148),
    ):
        records = list(read_variants(data / f"variants/{name}.vcf.gz"))
        assert not [r for r in records if r.problem]
        assert (len(records), sum(len(r.alts) for r in records)) == (rows, alleles)


def test_a_truncated_vcf_raises_after_its_sound_part(make_file):
    rows = "".join(f"chr1\t{i}\t.\tA\tC\t.\t.\t.\n" for i in range(1, 90_000))
    path = make_file("a.vcf.gz", gzip.compress((HEADER + rows).encode(), 1))
    path.write_bytes(gzip.compress((HEADER + rows).encode(), 1)[:-100])
    records = iter(read_variants(path))
    assert next(records).position == 0
    with pytest.raises(FormatError, match="cut off"):
        list(records)


def test_a_file_that_is_no_bcf_is_named(make_file):
    with pytest.raises(FormatError, match=r"a\.bcf: cannot be opened as BCF"):
        read_variants(make_file("a.bcf", "rubbish\n"))


def test_a_truncated_bcf_is_named(make_file):
    rows = "".join(f"chr1\t{i}\t.\tA\tC\t.\t.\t.\tGT\t0/1\t0/1\n" for i in range(1, 900))
    bcf = as_bcf(make_file("a.vcf", HEADER + rows))
    bcf.write_bytes(bcf.read_bytes()[:-400])
    with pytest.raises(FormatError, match=r"a\.bcf: "):
        list(read_variants(bcf))


@pytest.mark.parametrize(
    "columns",
    [
        "chrom\tpos\tref\talt",
        "CHROM\tPOS\tREF\tALT",
        "chr\tposition\treference\talternate",
        "Chromosome\tBP\tREF_allele\tALT_allele",
    ],
)
def test_columns_of_tables_go_by_many_names(make_file, columns):
    path = make_file("a.tsv.gz", f"#{columns}\trsid\n1\t100\tA\tC,G\trs1\n")
    (record,) = read_variants(path)
    assert (record.contig, record.position, record.id) == ("1", 99, "rs1")
    assert record.alts == ("C", "G")
    names = [*columns.split("\t"), "rsid"]
    assert record.source == dict(zip(names, ["1", "100", "A", "C,G", "rs1"], strict=True))


def test_one_column_of_words_is_enough(make_file):
    path = make_file("a.csv", "slope,variant_id\n0.1,chr1_100_A_C_b38\n0.2,nonsense\n")
    first, second = read_variants(path)
    assert first.variants() == (Variant("chr1", 99, "chr1_100_A_C_b38", "A", "C"),)
    assert "'nonsense' is not a variant" in second.problem
    assert second.source == {"slope": "0.2", "variant_id": "nonsense"}


def test_parquet_tables_are_read(tmp_path):
    table = pa.table({"chrom": ["1"], "pos": [100.0], "ref": ["A"], "alt": ["T"], "label": [True]})
    pq.write_table(table, tmp_path / "a.parquet")
    (record,) = read_variants(tmp_path / "a.parquet")
    assert record.variants() == (Variant("1", 99, "", "A", "T"),)


def test_a_dash_in_a_table_is_a_deletion(make_file):
    (record,) = read_variants(make_file("a.csv", "chrom,pos,ref,alt\n1,7,A,-\n"))
    (variant,) = record.variants()
    assert (record.alts, variant.alt, variant.kind) == (("-",), "", "deletion")


def test_an_odd_row_of_a_table_becomes_a_record_with_a_problem(make_file):
    path = make_file("a.csv", "chrom,pos,ref,alt\n1,7,A\n1,x,A,C\n1,7,A,C,9\n1,7,A,C\n")
    short, odd, long, sound = read_variants(path)
    assert "3 cells, expected 4: 1, 7, A" in short.problem
    assert short.source == {"chrom": "1", "pos": "7", "ref": "A", "alt": ""}
    assert "position 'x'" in odd.problem
    assert "5 cells" in long.problem
    assert not sound.problem
    assert sound.row_number_1based == 4


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("chrom,pos,ref", r"no column for the alt \(alt, alternate"),
        ("chrom,pos_hg19,ref,alt", "no column for the position .* Rename 'pos_hg19'"),
        ("gene,score", "Expected chrom, pos"),
    ],
)
def test_a_table_without_its_columns_is_named(make_file, columns, says):
    with pytest.raises(FormatError, match=says):
        read_variants(make_file("a.csv", f"{columns}\n1,2,3,4\n"))


def test_words_and_variants_come_from_python_and_from_text_files(make_file):
    variant = Variant("chr2", 5, "v", "A", "G")
    first, second = read_variants(["chr1:100:A>C", variant])
    assert first.source == {"variant": "chr1:100:A>C"}
    assert second == VariantRecord("chr2", 5, "v", "A", ("G",), 2, {"variant": "chr2:6:A>G"})
    path = make_file("a.txt", "chr1:100:A>C\n\nchr1-101-A-C\n")
    assert [r.position for r in read_variants(path)] == [99, 100]


def test_an_unknown_suffix_is_named(make_file):
    with pytest.raises(InputError, match=r"Expected one of: \.vcf, \.bcf"):
        read_variants(make_file("a.maf", "x"))


def test_a_data_frame_is_refused_since_it_hands_out_names_of_columns():
    class Frame(list):
        columns = ("chrom", "pos")

    with pytest.raises(InputError, match=r"with the columns 'chrom', 'pos'.*chr22:1024:A>C"):
        read_variants(Frame(["chrom", "pos"]))
