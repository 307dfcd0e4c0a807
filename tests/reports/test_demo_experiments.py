import numpy as np

from lexome.reports.demo_experiments import read_data
from lexome.sequence import Interval, reverse_complement
from lexome.tasks import ECOLI

HELD_OUT = Interval(ECOLI, 500_000, 560_000)
STOPS = {"TAA", "TAG", "TGA"}


def test_genes_are_long_open_frames_of_the_held_out_region(tmp_path):
    data = read_data(tmp_path, HELD_OUT, seed=0)
    assert len(data.region) == len(HELD_OUT)
    assert data.genes
    for gene in data.genes:
        text = data.region[gene.start : gene.end]
        sense = text if gene.strand == "+" else reverse_complement(text)
        assert data.sense(gene, 0, 30) == sense[:30]
        codons = [sense[i : i + 3] for i in range(0, len(sense) - 3, 3)]
        assert not STOPS & set(codons[:-1])


def test_the_genome_in_the_folder_is_the_bundled_one(tmp_path):
    from lexome.formats import Genome
    from lexome.tasks import ECOLI_LENGTH

    read_data(tmp_path, HELD_OUT, seed=0)
    assert Genome(tmp_path / "genome.fa").contigs == {ECOLI: ECOLI_LENGTH}
    bed = (tmp_path / "held_out.bed").read_text().split("\t")
    assert np.array_equal([int(bed[1]), int(bed[2])], [HELD_OUT.start, HELD_OUT.end])
