import logging
import multiprocessing
import pickle
import random

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexome.core import FormatError, InputError, UnknownName
from lexome.formats import Genome, SequenceRecord, write_fasta
from lexome.formats.streams import BGZF_END

LETTERS = "".join(random.Random(0).choices("ACGTacgtN", k=200_000))
CONTIGS = {"chr1": LETTERS[:130_001], "chr2": LETTERS[130_001:], "chrM": "acgtACGT", "none": ""}


@pytest.fixture(params=["plain", "crlf", "bgzip", "gzip", "uneven"])
def genome_path(request, make_file):
    text = ""
    for number, (name, bases) in enumerate(CONTIGS.items()):
        step = 60 + number
        lines = [bases[i : i + step] for i in range(0, len(bases), step)]
        if request.param == "uneven" and len(lines) > 2:
            lines[1] += lines.pop(2)
        text += "\n".join((f">{name} some text", *lines, ""))
    if request.param == "crlf":
        text = text.replace("\n", "\r\n")
    suffix = {"bgzip": ".bgz", "gzip": ".gz"}.get(request.param, "")
    return make_file(f"genome.fa{suffix}", text)


def expected(name, start, end, pad="N"):
    bases = CONTIGS[name]
    return "".join(bases[i] if 0 <= i < len(bases) else pad for i in range(start, end))


def test_every_form_of_fasta_gives_the_same_bases(genome_path):
    genome = Genome(genome_path)
    assert genome.contigs == {name: len(bases) for name, bases in CONTIGS.items()}
    rng = random.Random(1)
    for _ in range(300):
        name = rng.choice(list(CONTIGS))
        start = rng.randrange(-100, len(CONTIGS[name]) + 100)
        end = start + rng.choice([0, 1, 59, 60, 61, 500])
        assert genome.fetch(name, start, end) == expected(name, start, end)
    assert genome.fetch("chr1", 0, 130_001) == CONTIGS["chr1"]
    assert genome.fetch("chr1", -2, 130_003, pad="-") == f"--{CONTIGS['chr1']}--"
    assert genome.fetch("chrM", -2, 99, pad="") == CONTIGS["chrM"]
    assert genome.fetch("none", -1, 1) == "NN"
    assert genome.fetch("chrM", 5, 3) == ""


def test_a_second_genome_uses_what_the_first_left(genome_path, caplog):
    Genome(genome_path)
    caplog.clear()
    assert Genome(genome_path).fetch("chrM", 0, 4) == "acgt"
    assert not caplog.records


def test_bases_equal_those_of_pysam(make_file):
    path = make_file("genome.fa", "")
    write_fasta(path, [SequenceRecord(n, s) for n, s in CONTIGS.items() if s], line_bp=71)
    genome = Genome(path)
    with pysam.FastaFile(str(path)) as theirs:
        for start in range(0, 129_000, 3701):
            assert genome.fetch("chr1", start, start + 500) == theirs.fetch(
                "chr1", start, start + 500
            )


def test_a_gzip_genome_is_unpacked_once_with_a_note(make_file, caplog):
    path = make_file("genome.fa.gz", ">a\nACGT\n")
    with caplog.at_level(logging.WARNING):
        assert Genome(path).fetch("a", 1, 3) == "CG"
    assert "it is gzip and not bgzip; unpacked to" in caplog.text


def test_a_changed_gzip_genome_is_unpacked_again(make_file):
    Genome(make_file("genome.fa.gz", ">a\nACGT\n"))
    assert Genome(make_file("genome.fa.gz", ">a\nTTTTT\n")).fetch("a", 0, 5) == "TTTTT"


def test_the_index_is_left_beside_the_genome(make_file):
    path = make_file("genome.fa", ">a\nACGT\n")
    Genome(path)
    assert path.with_name("genome.fa.fai").read_text() == "a\t4\t3\t4\t5\n"


def test_a_folder_that_cannot_be_written_keeps_the_index_in_the_cache(
    make_file, monkeypatch, cache_home
):
    path = make_file("genome.fa", ">a\nACGT\n")
    path.with_name("genome.fa.fai").mkdir()  # what stands in the way of the index
    assert Genome(path).fetch("a", 0, 4) == "ACGT"
    (cached,) = (cache_home / "lexome" / "genomes").glob("*.fai")
    cached.write_text(cached.read_text())
    before = cached.stat().st_mtime_ns
    assert Genome(path).fetch("a", 0, 4) == "ACGT"
    assert cached.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "stale",
    ["a\t3\t3\t4\t5\n", "b\t4\t3\t4\t5\n", "a\t4\t2\t4\t5\n", "a\t40\t3\t4\t5\n", "rubbish\n"],
)
def test_an_index_that_does_not_fit_is_made_anew(make_file, stale, caplog):
    path = make_file("genome.fa", ">a\nACGT\n")
    make_file("genome.fa.fai", stale)
    assert Genome(path).fetch("a", 0, 4) == "ACGT"
    assert "does not fit genome.fa; made anew" in caplog.text
    assert path.with_name("genome.fa.fai").read_text() == "a\t4\t3\t4\t5\n"


@pytest.mark.parametrize(
    ("contigs", "name", "expected"),
    [
        (["chr1", "chrM"], "1", "chr1"),
        (["chr1", "chrM"], "MT", "chrM"),
        (["chr1", "chrM"], "chrMT", "chrM"),
        (["1", "MT"], "chr1", "1"),
        (["1", "MT"], "chrM", "MT"),
        (["Chr1"], "chr1", "Chr1"),
        (["Chr1"], "1", "Chr1"),
        (["chrX"], "chrx", "chrX"),
        (["1", "chr1"], "chr1", "chr1"),
        (["1", "chr1"], "CHR1", None),
        (["chr1"], "2", None),
        (["NC_000913.3"], "NC_000913.3", "NC_000913.3"),
    ],
)
def test_names_are_harmonised_both_ways_where_that_is_clear(make_file, contigs, name, expected):
    genome = Genome(make_file("genome.fa", "".join(f">{c}\nACGT\n" for c in contigs)))
    assert genome.resolve(name) == expected
    assert genome.has(name) == (expected is not None)
    if expected is not None:
        assert genome.fetch(name, 0, 4) == "ACGT"


def test_a_contig_that_is_not_there_is_named_with_its_neighbours(make_file):
    genome = Genome(make_file("genome.fa", ">scaffold_1\nACGT\n>scaffold_2\nACGT\n"))
    with pytest.raises(UnknownName, match=r"has no contig 'scaffold_3' .* such as scaffold_"):
        genome.fetch("scaffold_3", 0, 4)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on
@pytest.mark.parametrize("name", ["genome.fa", "genome.fa.bgz"])
def test_a_genome_goes_to_other_processes(make_file, name):
    genome = Genome(make_file(name, ">a\n" + "ACGT\n" * 20_000))
    assert pickle.loads(pickle.dumps(genome)).fetch("a", 1, 5) == "CGTA"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.starmap(genome.fetch, [("a", i, i + 4) for i in range(0, 80_000, 997)])
    assert found == [("ACGT" * 2)[i % 4 : i % 4 + 4] for i in range(0, 80_000, 997)]


def test_a_cut_off_bgzip_genome_is_named_also_if_it_has_an_index(make_file):
    path = make_file("genome.fa.bgz", ">a\n" + LETTERS + "\n")
    Genome(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:70_000])
    with pytest.raises(FormatError, match="bgzip"):
        Genome(path)
    path.write_bytes(whole.removesuffix(BGZF_END)[:-200])
    with pytest.raises(FormatError, match="cut off"):
        Genome(path)


def test_a_damaged_bgzip_block_is_named_when_it_is_read(make_file):
    path = make_file("genome.fa.bgz", ">a\n" + LETTERS + "\n")
    Genome(path)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 100] = bytes(100)
    path.write_bytes(damaged)
    genome = Genome(path)
    with pytest.raises(FormatError, match=r"bgzip block at byte [\d,]+ is damaged"):
        genome.fetch("a", 0, 200_000)


@pytest.mark.parametrize("content", ["ACGT\n", "", "\x00\x01\x02"])
def test_a_file_that_is_no_fasta_is_named_also_if_it_has_an_index(make_file, content):
    make_file("genome.fa.fai", "a\t4\t3\t4\t5\n")
    with pytest.raises(FormatError, match=r"genome\.fa"):
        Genome(make_file("genome.fa", content))


def test_a_missing_genome_is_named(tmp_path):
    with pytest.raises(InputError, match="no file"):
        Genome(tmp_path / "genome.fa")


@settings(max_examples=30)
@given(st.integers(-20, 60), st.integers(0, 80))
def test_a_fetch_is_as_long_as_asked(tmp_path_factory, start, length):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text(">a\n" + "ACGTTGCA\n" * 4)
    assert len(Genome(path).fetch("a", start, start + length)) == length
