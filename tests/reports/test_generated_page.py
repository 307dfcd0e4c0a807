import csv
import json

import numpy as np
import pytest

from lexome.core import InputError
from lexome.formats import SequenceRecord, read_fasta, write_fasta
from lexome.reports.generated_page import quality
from lexome.tasks import bundled_genome


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Some of a bacterial genome as reference, other parts and random letters as generated."""
    folder = tmp_path_factory.mktemp("quality")
    text = next(read_fasta(bundled_genome())).sequence
    write_fasta(folder / "genome.fa", [SequenceRecord("c", text[:120_000])])
    rng = np.random.default_rng(0)
    made = [text[200_000:206_000], "".join(rng.choice(list("ACGT"), 6_000))]
    records = [SequenceRecord(f"g{i}", each) for i, each in enumerate(made)]
    write_fasta(folder / "made.fa", [*records, SequenceRecord("empty", "")])
    return folder


def test_a_report_has_page_table_proteins_and_numbers(files, tmp_path):
    found = quality(files / "made.fa", reference=files / "genome.fa", out=tmp_path / "report")
    table = (tmp_path / "report/sequences.tsv").read_text().splitlines()
    rows = list(csv.DictReader(table, delimiter="\t"))
    assert [row["id"] for row in rows] == ["g0", "g1", "empty"]
    assert float(rows[0]["coding"]) > 0.5 > float(rows[1]["coding"])
    assert rows[2]["gc"] == ""
    proteins = list(read_fasta(tmp_path / "report/proteins.fa"))
    assert len(proteins) == sum(int(row["genes"]) for row in rows)
    assert proteins[0].id == "g0_1"
    told = json.loads((tmp_path / "report/summary.json").read_text())
    assert told["groups"]["generated"]["sequences"] == 3
    assert len(told["divergence_bits"]["reference"]) == 6
    page = (tmp_path / "report/report.html").read_text()
    assert "Markov, order 5" in page
    assert "nan" not in page
    *table, place = str(found).splitlines()
    assert place.endswith("report.html")
    assert table[0].split() == ["generated", "reference", "Markov,", "order", "5"]
    assert table[1].split() == ["sequences", "3", "2", "2"]  # none for the empty one
    assert len(set(map(len, table))) == 1  # columns stand below each other


def test_without_a_reference_nothing_is_compared(files, tmp_path):
    found = quality(files / "made.fa", out=tmp_path, genes="frames")
    assert "distance" not in str(found)
    page = (tmp_path / "report.html").read_text()
    assert "no reference was given" in page
    assert "divergence" not in page


def test_a_report_is_not_replaced_unasked(files, tmp_path):
    quality(files / "made.fa", out=tmp_path, genes="frames")
    with pytest.raises(InputError, match="holds a report already"):
        quality(files / "made.fa", out=tmp_path)
    quality(files / "made.fa", out=tmp_path, genes="frames", overwrite=True)
