import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lexome.tasks.essentiality as module
from lexome.catalog import load, new, releases
from lexome.core import FormatError, InputError
from lexome.formats import Genome, SequenceRecord, read_table, write_fasta
from lexome.formats.gff import read_coding_sequences
from lexome.inference.likelihood import score_sequences
from lexome.sequence import reverse_complement
from lexome.tasks.essentiality import STOPS, essentiality

DATA = Path(__file__).parents[3] / "shared" / "data" / "genomes"


def bases(count, seed=0):
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), count))


@pytest.fixture(scope="module")
def model():
    return new("hyenadna", width=16, mlp_width=32, depth=2, length=402).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A genome with a gene on each strand, one of two parts, and one near each end."""
    folder = tmp_path_factory.mktemp("genes")
    text = bases(3000)
    write_fasta(folder / "genome.fa", [SequenceRecord("c", text)])
    places = [
        ("a", 1000, 1090, "+"),
        ("b", 1500, 1590, "-"),
        ("c", 2000, 2006, "+"),
        ("c", 2100, 2160, "+"),
        ("d", 10, 70, "+"),
        ("e", 2940, 3000, "+"),
    ]
    lines = [
        f"c\tx\tCDS\t{start + 1}\t{end}\t.\t{strand}\t0\tID={id};gene=gene{id}\n"
        for id, start, end, strand in places
    ]
    lines.append("elsewhere\tx\tCDS\t1\t90\t.\t+\t0\tID=f\n")
    (folder / "genes.gff").write_text("".join(lines))
    return folder


def windows(files, id, window_bp=200, circular=False, offset_bp=12):
    genes = {gene.id: gene for gene in read_coding_sequences(files / "genes.gff")}
    source = module._Bases(genome=Genome(files / "genome.fa"), circular=circular)
    change = module._Change(window_bp=window_bp, stops=STOPS, offset_bp=offset_bp)
    return module._windows(source, genes[id], change)


def test_windows_are_in_the_genes_direction_and_equally_long(files):
    text = bases(3000)
    found = windows(files, "a").letters
    assert found["wild_type"] == text[945:1145]
    assert found["stops"] == (text[945:1012] + STOPS + text[1012:])[:200]
    assert found["deletion"] == text[945:1000] + text[1090:1235]
    found = windows(files, "b").letters
    turned = reverse_complement(text)  # the gene begins at 3000 - 1590
    assert found["wild_type"] == turned[1355:1555]
    assert found["stops"] == (turned[1355:1422] + STOPS + turned[1422:])[:200]
    assert found["deletion"] == turned[1355:1410] + turned[1500:1645]


def test_stops_come_behind_the_first_bases_that_are_translated(files):
    text = bases(3000)
    # The first part has 6 bases, so the 13th stands 6 behind the second part's beginning.
    assert (STOPS + text[2106:2116]) in windows(files, "c", 400).letters["stops"]


def test_near_the_ends_of_a_contig_windows_keep_their_length(files):
    text = bases(3000)
    assert windows(files, "d").letters["wild_type"] == text[:200]
    assert windows(files, "e").letters["wild_type"] == text[2800:]
    assert windows(files, "e").letters["deletion"] == text[2800:2940]
    around = windows(files, "e", circular=True).letters
    assert around["wild_type"] == text[2870:] + text[:70]
    assert around["deletion"] == text[2870:2940] + text[:130]


def test_scores_are_differences_of_whole_windows(model, files):
    found = essentiality(model, gff=files / "genes.gff", fasta=files / "genome.fa", window_bp=200)
    rows = {row["id"]: row for row in found.rows}
    texts = windows(files, "b").letters
    scores = score_sequences(model, list(texts.values())).column("loglik_per_base")
    np.testing.assert_allclose([rows["b"][kind] for kind in texts], scores, rtol=1e-5)
    assert rows["b"]["stops_delta"] == pytest.approx(scores[1] - scores[0], rel=1e-4)
    assert rows["f"]["status"] == "unknown contig"
    assert rows["f"]["rank"] is None
    ordered = sorted((row for row in found.rows if row["rank"]), key=lambda row: row["rank"])
    deltas = [row["stops_delta"] for row in ordered]
    assert deltas == sorted(deltas)
    assert [row["rank"] for row in ordered] == [1, 2, 3, 4, 5]
    assert "nats per base" in str(found)


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("case", ["mamba/mamba2_hf", "mamba/mamba1_statespaces", "evo/sh_8k_like"])
def test_a_shared_beginning_run_once_gives_the_scores_of_whole_windows(
    files, fixtures, case, circular, monkeypatch
):
    stateful = load(fixtures / case, device="cpu")
    settings = {"gff": files / "genes.gff", "fasta": files / "genome.fa", "circular": circular}
    seen = []
    forward = stateful.backbone.forward

    def watched(**inputs):
        seen.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(stateful.backbone, "forward", watched)
    for window_bp in (200, 4096):  # the latter holds the whole contig
        seen.clear()
        found = essentiality(stateful, window_bp=window_bp, **settings).rows
        shared = sum(seen)
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(module, "carries_state", lambda model: False)
            whole = essentiality(stateful, window_bp=window_bp, **settings).rows
        assert shared < 0.9 * sum(seen)
        scores = {"wild_type", "stops", "deletion", "stops_delta", "deletion_delta"}
        for one, other in zip(found, whole, strict=True):
            assert one.keys() == other.keys() > scores
            for name in one.keys() - {"rank"}:
                wanted = pytest.approx(other[name], abs=1e-5) if name in scores else other[name]
                assert one[name] == wanted, name


def test_a_gene_that_the_model_expects_is_missed(files):
    # A model that knows nothing of the gene scores stops like any other letters: near zero.
    model = new("hyenadna", width=16, mlp_width=32, depth=1, length=402).eval()
    found = essentiality(model, gff=files / "genes.gff", fasta=files / "genome.fa", window_bp=400)
    assert all(abs(row["stops_delta"]) < 0.1 for row in found.rows if row["status"] == "ok")


def test_a_table_is_written_with_ranks_and_areas(model, files, tmp_path):
    (tmp_path / "known.tsv").write_text(
        "gene\tessential\ngenea\t1\nb\t0\nGENEC\t1\ngened\t\nzz\t0\n"
    )
    out = tmp_path / "genes.tsv"
    settings = {"gff": files / "genes.gff", "fasta": files / "genome.fa", "window_bp": 200}
    found = essentiality(model, out=out, essential=tmp_path / "known.tsv", **settings)
    text = out.read_text()
    assert "# command: essentiality" in text
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    at = lines[0].index("rank")
    assert sorted(cells[at] for cells in lines[1:]) == ["", "1", "2", "3", "4", "5"]
    told = json.loads((tmp_path / "genes.tsv.json").read_text())
    assert set(told["auroc"]) == set(found.areas)
    assert {"stop codons", "length of the gene, no model"} <= set(found.areas)
    assert found.unmatched == ("zz",)
    assert "AUROC stop codons" in str(found)
    labels = {row["id"]: row["essential"] for row in found.rows}
    assert labels == {"a": True, "b": False, "c": True, "d": None, "e": None, "f": None}


def test_a_bare_list_names_all_essential_genes(model, files, tmp_path):
    (tmp_path / "known.txt").write_text("# essential\ngenea\nb extra\n")
    found = essentiality(
        model,
        gff=files / "genes.gff",
        fasta=files / "genome.fa",
        window_bp=200,
        essential=tmp_path / "known.txt",
    )
    assert [row["essential"] for row in found.rows] == [True, True, False, False, False, False]


def test_a_killed_run_continues(model, files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BATCHES_TOGETHER", 0)
    settings = {"gff": files / "genes.gff", "fasta": files / "genome.fa", "window_bp": 200}
    whole, out = tmp_path / "whole.tsv", tmp_path / "genes.tsv"
    essentiality(model, out=whole, **settings)
    ordinary, calls = module._scores, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ordinary(*args)

    monkeypatch.setattr(module, "_scores", killed)
    with pytest.raises(KeyboardInterrupt):
        essentiality(model, out=out, **settings)
    assert not out.exists()
    essentiality(model, out=out, **settings)
    assert len(calls) == 7  # two genes before the kill, the third again, three more, and the kill
    assert out.read_text() == whole.read_text()
    with pytest.raises(InputError, match="there already"):
        essentiality(model, out=out, **settings)


def test_masked_models_are_scored_too(files):
    model = new("gpn", width=8, depth=2, mlp_width=8).eval()
    found = essentiality(
        model, gff=files / "genes.gff", fasta=files / "genome.fa", window_bp=64, mask_stride=8
    )
    assert sum(row["status"] == "ok" for row in found.rows) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window_bp": 500}, "takes 401 letters at most"),
        ({"window_bp": 20}, "at least 64"),
        ({"offset_bp": 150}, "offset_bp is 150"),
        ({"offset_bp": -1}, "offset_bp is -1"),
        ({"stops": "UAA"}, "stops is 'UAA'"),
        ({"kind": "gene"}, "no gene among"),
    ],
)
def test_senseless_settings_are_refused(model, files, wrong, message):
    settings = {"gff": files / "genes.gff", "fasta": files / "genome.fa", "window_bp": 200}
    with pytest.raises(InputError, match=message):
        essentiality(model, **(settings | wrong))


def test_genes_without_a_score_are_counted_and_none_with_one_is_an_error(
    model, files, tmp_path, capsys
):
    settings = {"gff": files / "genes.gff", "window_bp": 200}
    essentiality(model, fasta=files / "genome.fa", **settings)
    assert "1 of 6 genes not scored (1 unknown contig)" in capsys.readouterr().err
    for text, why in (("N" * 3000, "5 unknown letters, 1 unknown"), ("", "5 outside the contig")):
        write_fasta(tmp_path / f"{len(text)}.fa", [SequenceRecord("c", text)])
        out = tmp_path / f"{len(text)}.tsv"
        with pytest.raises(InputError, match=f"none of the 6 genes.*{why}.*holds the statuses"):
            essentiality(model, fasta=tmp_path / f"{len(text)}.fa", out=out, **settings)
        assert len([line for line in out.read_text().splitlines() if line[0] != "#"]) == 7


def test_a_window_longer_than_those_of_training_is_told(files, fixtures, capsys, monkeypatch):
    evo = load(fixtures / "evo/sh_8k_like", device="cpu")
    release = replace(releases()["evo-1-8k-base"][1], context=150)
    known = {evo.name: (evo.family, release)}
    monkeypatch.setattr("lexome.inference.stretches.releases", lambda: known)
    settings = {"gff": files / "genes.gff", "fasta": files / "genome.fa"}
    essentiality(evo, window_bp=150, **settings)
    assert "trained on" not in capsys.readouterr().err
    essentiality(evo, window_bp=200, **settings)
    said = capsys.readouterr().err
    assert said.count("up to 150 tokens, and a window has 200. It goes through whole") == 1


def test_a_genome_without_the_contigs_of_the_genes_is_refused(model, files, tmp_path):
    write_fasta(tmp_path / "other.fa", [SequenceRecord("x", bases(1000))])
    with pytest.raises(InputError, match="names 'c', the genome 'x'"):
        essentiality(model, gff=files / "genes.gff", fasta=tmp_path / "other.fa")


def test_labels_that_say_nothing_are_refused(model, files, tmp_path):
    settings = {"gff": files / "genes.gff", "fasta": files / "genome.fa", "window_bp": 200}
    for text, message in {
        "gene\tneeded\na\t1\n": "column named|Expected one named 'essential'",
        "gene\tessential\na\tmaybe\n": "essential is 'maybe'",
        "gene\tessential\na\t1\n": "essential genes and others",
        "gene\tessential\nq\t1\n": "none of the 1 names",
    }.items():
        (tmp_path / "known.tsv").write_text(text)
        with pytest.raises((InputError, FormatError), match=message):
            essentiality(model, essential=tmp_path / "known.tsv", **settings)


@pytest.mark.skipif(
    not (DATA / "phix174.gff").is_file(), reason="the genomes of ../shared/data are absent"
)
def test_genes_over_the_origin_of_a_phage_are_scored(model, capsys):
    found = essentiality(
        model,
        gff=DATA / "phix174.gff",
        fasta=DATA / "phix174.fa.gz",
        window_bp=400,
        circular=True,
    )
    assert [row["status"] for row in found.rows] == ["ok"] * 11
    assert sum(row["end"] > 5386 for row in found.rows) == 2
    # The starts of this file count from 0, as its publisher wrote it.
    assert all("1 more than a multiple of 3" in row["remark"] for row in found.rows)
    assert "11 of 11 genes are no whole coding sequences" in capsys.readouterr().err
    linear = essentiality(
        model, gff=DATA / "phix174.gff", fasta=DATA / "phix174.fa.gz", window_bp=400
    )
    assert sum(row["status"] == "outside the contig" for row in linear.rows) == 2


def test_rows_are_read_as_a_table(model, files, tmp_path):
    out = tmp_path / "genes.csv"
    essentiality(model, out=out, gff=files / "genes.gff", fasta=files / "genome.fa", window_bp=200)
    rows = list(read_table(out, "name"))
    assert [row.sequence for row in rows][:2] == ["genea", "geneb"]


def test_windows_of_evo_are_scored_whole_behind_the_token_that_its_authors_put_there(files):
    sizes = {"width": 16, "depth": 2, "heads": 2, "mlp_width": 32, "states": 2}
    evo = new("evo", **sizes, attention_layers=(1,)).eval()
    found = essentiality(
        evo, gff=files / "genes.gff", fasta=files / "genome.fa", window_bp=200, progress=False
    )
    rows = {row["id"]: row for row in found.rows}
    for id in "ab":
        texts = windows(files, id).letters
        for kind, row in zip(texts, score_sequences(evo, list(texts.values())).rows, strict=True):
            assert row["scored_tokens"] == row["length"] == 200
            assert rows[id][kind] == pytest.approx(row["loglik"] / 200, rel=1e-5)
