import math

import pysam
import pytest

from lexome.core import InputError
from lexome.formats import InfoField, VcfWriter, read_variants

HEADER = (
    "##fileformat=VCFv4.2\n"
    "##contig=<ID=chr1,length=1000>\n"
    '##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">\n'
    '##INFO=<ID=SCORE,Number=1,Type=String,Description="an older one">\n'
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tone\n"
)
ROWS = (
    "chr1\t10\trs1\tA\tC,G\t9.5\tPASS\tAF=0.1,0.2;SCORE=old\tGT\t0/1\n"
    "chr1\t20\t.\tAC\tA\t.\t.\t.\tGT\t./.\n"
    "chr1\t30\tsv\tT\t<DEL>\t.\t.\tSCORE=old\tGT\t0/1\n"
)
FIELDS = [("SCORE", "A", "Float", 'log odds, "alt" minus ref'), ("STATUS", "A", "String", "s")]


def write(reader, out, values=None, **options):
    with VcfWriter(out, reader, FIELDS, **options) as writer:
        for record in reader:
            scores = [0.123456789] * len(record.alts)
            statuses = ["ok"] * len(record.alts)
            added = {"SCORE": scores, "STATUS": statuses} if values is None else values
            writer.write(record, added)


def test_rows_and_header_are_kept_and_fields_added(make_file, tmp_path):
    reader = read_variants(make_file("a.vcf", HEADER + ROWS))
    write(reader, tmp_path / "out.vcf", meta=["lexome_release=toy"])
    lines = (tmp_path / "out.vcf").read_text().splitlines()
    old = HEADER.splitlines()
    assert lines[:8] == [
        *old[:3],
        old[4],
        "##lexome_release=toy",
        '##INFO=<ID=SCORE,Number=A,Type=Float,Description="log odds, \\"alt\\" minus ref">',
        '##INFO=<ID=STATUS,Number=A,Type=String,Description="s">',
        old[5],
    ]
    assert lines[8:] == [
        ROWS.splitlines()[0].replace("SCORE=old", "SCORE=0.123457,0.123457;STATUS=ok,ok"),
        ROWS.splitlines()[1].replace("\t.\tGT", "\tSCORE=0.123457;STATUS=ok\tGT"),
        ROWS.splitlines()[2].replace("SCORE=old", "SCORE=0.123457;STATUS=ok"),
    ]


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_every_form_is_read_by_htslib_with_values_per_allele(make_file, tmp_path, name):
    reader = read_variants(make_file("a.vcf", HEADER + ROWS))
    write(reader, tmp_path / name)
    with pysam.VariantFile(str(tmp_path / name)) as rows:
        found = list(rows)
    assert [r.pos for r in found] == [10, 20, 30]
    assert found[0].info["SCORE"] == pytest.approx((0.123457, 0.123457))
    assert found[0].samples["one"]["GT"] == (0, 1)


def test_sorted_rows_are_indexed(make_file, tmp_path):
    reader = read_variants(make_file("a.vcf", HEADER + ROWS))
    write(reader, tmp_path / "out.vcf.gz")
    with pysam.TabixFile(str(tmp_path / "out.vcf.gz")) as tabix:
        assert len(list(tabix.fetch("chr1", 15, 25))) == 1


def test_a_contig_too_long_for_tabix_gets_the_other_index(make_file, tmp_path):
    row = "chr1\t600000000\t.\tA\tC\t.\t.\t.\n"
    reader = read_variants(
        make_file("a.vcf", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + row)
    )
    write(reader, tmp_path / "out.vcf.gz")
    assert (tmp_path / "out.vcf.gz.csi").exists()


@pytest.mark.parametrize(
    "rows",
    [
        "chr1\t20\t.\tA\tC\t.\t.\t.\nchr1\t10\t.\tA\tC\t.\t.\t.\n",
        "a\t1\t.\tA\tC\t.\t.\t.\nb\t1\t.\tA\tC\t.\t.\t.\na\t2\t.\tA\tC\t.\t.\t.\n",
        "chr1\tx\t.\tA\tC\t.\t.\t.\n",
    ],
)
def test_rows_out_of_order_are_written_without_an_index(make_file, tmp_path, rows):
    reader = read_variants(make_file("a.vcf", HEADER + rows))
    (tmp_path / "out.vcf.gz.tbi").write_bytes(b"of an older file")
    write(reader, tmp_path / "out.vcf.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.vcf", "out.vcf.gz"]
    assert len(list(read_variants(tmp_path / "out.vcf.gz"))) == rows.count("\n")


def test_a_malformed_row_is_kept_with_its_fields(make_file, tmp_path):
    reader = read_variants(
        make_file("a.vcf", HEADER + "chr1\tx\nchr1\ty\t.\tA\tC\t.\t.\tAF=1\tGT\t0\n")
    )
    write(reader, tmp_path / "out.vcf", {"STATUS": "malformed"})
    lines = (tmp_path / "out.vcf").read_text().splitlines()[-2:]
    assert lines == [
        "chr1\tx\t.\t.\t.\t.\t.\tSTATUS=malformed",
        "chr1\ty\t.\tA\tC\t.\t.\tAF=1;STATUS=malformed\tGT\t0",
    ]
    with pytest.raises(InputError, match=r"row 1 is malformed .* write \.vcf\.gz instead"):
        write(reader, tmp_path / "out.bcf")


def test_bytes_that_are_not_utf_8_come_out_as_they_were(make_file, tmp_path):
    row = b"chr1\t10\t.\tA\tC\t.\t.\tNOTE=M\xfcller\tGT\t0\n"
    reader = read_variants(make_file("a.vcf", HEADER.encode() + row))
    write(reader, tmp_path / "out.vcf", {})
    assert (tmp_path / "out.vcf").read_bytes().endswith(row)


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_contigs_that_the_header_lacks_do_no_harm(make_file, tmp_path, name):
    rows = "z\t10\t.\tA\tC\t.\t.\t.\tGT\t0/1\n"
    write(read_variants(make_file("a.vcf", HEADER + rows)), tmp_path / name)
    assert [r.contig for r in read_variants(tmp_path / name)] == ["z"]


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_tables_and_words_become_vcf(make_file, tmp_path, name):
    path = make_file("a.csv", "chrom,pos,ref,alt,rsid\nchr1,10,A,C,rs1; x\nchr1,20,A,G,\n")
    reader = read_variants(path)
    write(reader, tmp_path / name, contig_lengths={"chr1": 1000})
    found = read_variants(tmp_path / name)
    assert found.contig_lengths == {"chr1": 1000}
    assert [(r.position, r.id, r.alts) for r in found] == [(9, "rs1_x", ("C",)), (19, "", ("G",))]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (("X", "A", "Float", ""), [1.0, None, math.nan], "X=1,.,."),
        (("X", "1", "Integer", ""), 3, "X=3"),
        (("X", "1", "String", ""), "a;b=c,d e%", "X=a%3Bb%3Dc%2Cd_e%25"),
        (("X", ".", "String", ""), ["a", ""], "X=a,."),
        (("X", "0", "Flag", ""), True, "X"),
        (("X", "0", "Flag", ""), False, "."),
    ],
)
def test_values_are_written_as_the_format_wants(tmp_path, field, value, text):
    reader = read_variants(["chr1:100:A>C"])
    with VcfWriter(tmp_path / "out.vcf", reader, [InfoField(*field)]) as writer:
        for record in reader:
            writer.write(record, {"X": value})
    assert (tmp_path / "out.vcf").read_text().splitlines()[-1].split("\t")[7] == text


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    reader = read_variants(["chr1:100:A>C"])

    def interrupted():
        with VcfWriter(tmp_path / name, reader) as writer:
            writer.write(next(iter(reader)), {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


def test_fields_that_bcf_cannot_hold_are_named(make_file, tmp_path):
    rows = "chr1\t10\t.\tA\tC\t.\t.\t.\tGT:XX\t0/1:5\n"
    with pytest.raises(InputError, match=r"cannot be written as BCF.*write \.vcf\.gz instead"):
        write(read_variants(make_file("a.vcf", HEADER + rows)), tmp_path / "out.bcf")
    assert not (tmp_path / "out.bcf").exists()


def test_another_suffix_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"Expected \.vcf, \.vcf\.gz or \.bcf"):
        VcfWriter(tmp_path / "out.tsv", read_variants(["chr1:100:A>C"]))
