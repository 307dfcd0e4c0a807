import gzip
import hashlib

from lexome.tasks import ECOLI, ECOLI_HELD_OUT, ECOLI_LENGTH, bundled_genome


def test_bundled_genome_is_the_published_sequence():
    name, *lines = gzip.decompress(bundled_genome().read_bytes()).decode("ascii").splitlines()
    letters = "".join(lines)
    assert name.removeprefix(">").split()[0] == ECOLI
    assert len(letters) == ECOLI_LENGTH
    assert set(letters) == set("ACGT")


def test_provenance_states_the_checksum_of_the_file():
    digest = hashlib.sha256(bundled_genome().read_bytes()).hexdigest()
    provenance = bundled_genome().with_name("ecoli_NC_008253.txt").read_text("utf-8")
    assert digest in provenance
    assert "bowtie-examples" in provenance


def test_held_out_region_lies_inside_the_genome():
    assert 0 <= ECOLI_HELD_OUT.start < ECOLI_HELD_OUT.end <= ECOLI_LENGTH
    assert len(ECOLI_HELD_OUT) == 500_000
