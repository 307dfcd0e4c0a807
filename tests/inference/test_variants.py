import gzip
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from lexome.catalog import load, new, releases
from lexome.core import InputError, ReferenceMismatch
from lexome.inference.likelihood import score_sequences
from lexome.inference.variants import score_variants
from lexome.sequence import reverse_complement

BASES = np.random.default_rng(0).choice(list("ACGT"), 400)
BASES[100:108] = list("CACACACT")  # a repeat, in which indels have many spellings
CONTIG = "".join(BASES)
SHORT = "ACGTTGCAACGTNNRYacgt"


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_text(f">chr1 x\n{CONTIG}\n>scaffold\n{SHORT}\n")
    return path


@pytest.fixture(scope="module")
def gpn():
    return new("gpn", width=16, depth=3, mlp_width=16, init_std=0.3, seed=3).eval()


@pytest.fixture(scope="module")
def hyena():
    return new("hyenadna", width=16, depth=2, mlp_width=32, length=130, filter_width=8).eval()


@pytest.fixture(scope="module")
def dnabert2(fixtures):
    return load(fixtures / "dnabert2" / "mlm_4heads", device="cpu")


def other(base, by=1):
    return "ACGT"[("ACGT".index(base) + by) % 4]


def at(position, length=1):
    return CONTIG[position : position + length]


def status(model, genome, *variants, **options):
    return [row.status for row in score_variants(model, list(variants), genome, **options)]


SNV = f"chr1:151:{at(150)}>{other(at(150))}"


def test_every_kind_of_odd_record_has_its_status(gpn, genome, tmp_path):
    ref = at(150)
    alt = other(ref)
    rows = {
        f"chr1\t151\tsnv\t{ref}\t{alt}": ["ok"],
        f"chr1\t151\tlower\t{ref.lower()}\t{alt.lower()}": ["duplicate"],
        f"chr1\t151\tmulti\t{ref}\t{other(ref, 2)},<DEL>,*,N,{ref}": [
            *("ok", "symbolic", "star", "non_acgt", "same_as_ref"),
        ],
        f"chr1\t151\tmismatch\t{other(ref, 2)}\t{other(ref, 3)}": ["ref_mismatch"],
        f"chr1\t151\tswapped\t{alt}\t{ref}": ["ref_swapped"],
        f"chr1\t3\tedge\t{at(2)}\t{other(at(2))}": ["edge_padded"],
        f"chr1\t151\tinsertion\t{ref}\t{ref}TT": ["ok"],
        f"chr1\t151\tdeletion\t{at(150, 3)}\t{ref}": ["ok"],
        f"chr1\t151\tmnv\t{at(150, 2)}\t{other(at(150))}{other(at(151))}": ["ok"],
        f"chr1\t151\tlong\t{ref}\t{ref}{'A' * 64}": ["too_long"],
        f"chr1\t900\toutside\t{ref}\t{alt}": ["off_contig"],
        f"chr7\t151\tnowhere\t{ref}\t{alt}": ["contig_missing"],
        f"chr1\tabc\tmalformed\t{ref}\t{alt}": ["malformed"],
        f"chr1\t151\tnone\t{ref}\t.": ["no_alt"],
        "scaffold\t13\tN\tN\tA": ["non_acgt"],
        "scaffold\t17\tsoftmasked\tA\tC": ["edge_padded"],
    }
    vcf = tmp_path / "odd.vcf"
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    vcf.write_text(head + "".join(f"{row}\t.\t.\t.\n" for row in rows))
    scores = score_variants(gpn, vcf, genome, window_bp=64)
    assert [row.status for row in scores] == [s for each in rows.values() for s in each]
    for row in scores:
        assert bool(row.scores) == (row.status in {"ok", "edge_padded", "duplicate"})


def test_masked_ratio_is_for_single_bases_and_windows_for_the_rest(gpn, genome):
    ref = at(150)
    snv, insertion = score_variants(gpn, [SNV, f"chr1:151:{ref}>{ref}TT"], genome, window_bp=64)
    assert set(snv.scores) == {"masked_llr", "masked_llr_forward", "masked_llr_reverse"}
    assert set(insertion.scores) == {"pll_delta", "pll_delta_forward", "pll_delta_reverse"}
    assert snv.pll_delta is None
    assert insertion.masked_llr is None


def test_the_masked_ratio_is_that_of_the_definition(gpn, genome):
    (row,) = score_variants(gpn, [SNV], genome, window_bp=64)
    window = CONTIG[150 - 32 : 150 + 32]
    by_strand = []
    for text, place, base in (
        (window, 32, lambda b: b),
        (reverse_complement(window), 31, reverse_complement),
    ):
        ids = gpn.tokenizer([text])["input_ids"]
        ids[0, place] = gpn.tokenizer.mask
        with torch.no_grad():
            logp = gpn(ids).logits[0, place].log_softmax(-1)
        ref, alt = (gpn.tokenizer.encode([base(b)])[0]["input_ids"][0] for b in (row.ref, row.alt))
        by_strand.append(float(logp[int(alt)] - logp[int(ref)]))
    assert row.scores["masked_llr_forward"] == pytest.approx(by_strand[0], abs=1e-5)
    assert row.scores["masked_llr_reverse"] == pytest.approx(by_strand[1], abs=1e-5)
    assert row.masked_llr == pytest.approx(sum(by_strand) / 2, abs=1e-5)


@pytest.mark.parametrize("name", ["hyena", "dnabert2"])
def test_window_scores_are_differences_of_likelihoods(name, genome, request):
    model = request.getfixturevalue(name)
    (row,) = score_variants(model, [SNV], genome, window_bp=64, mask_stride=None)
    ref = CONTIG[118:182]
    alt = ref[:32] + row.alt + ref[33:]
    texts = [alt, ref, reverse_complement(alt), reverse_complement(ref)]
    alt_f, ref_f, alt_r, ref_r = score_sequences(model, texts, progress=False).column("loglik")
    (column,) = {n.split("_")[0] for n in row.scores}
    assert column == {"hyena": "loglik", "dnabert2": "pll"}[name]
    assert row.scores[f"{column}_delta_forward"] == pytest.approx(alt_f - ref_f, abs=1e-4)
    assert row.scores[f"{column}_delta_reverse"] == pytest.approx(alt_r - ref_r, abs=1e-4)


def test_all_spellings_of_an_indel_have_one_score(gpn, genome):
    first, second = score_variants(gpn, ["chr1:101:CAC>C", "chr1:103:CAC>C"], genome, window_bp=64)
    assert first.status == "ok"
    assert second.status == "duplicate"
    assert first.scores == second.scores


@pytest.mark.parametrize("name", ["gpn", "hyena"])
def test_a_score_does_not_depend_on_its_neighbours(name, genome, request):
    model = request.getfixturevalue(name)
    variants = [f"chr1:{p + 1}:{at(p)}>{other(at(p))}" for p in range(40, 90)]
    variants[7] = f"chr1:61:{at(60, 4)}>{at(60)}"
    together = score_variants(model, variants, genome, window_bp=64)
    for i in (0, 7, 49):
        (alone,) = score_variants(model, [variants[i]], genome, window_bp=64)
        for key, value in alone.scores.items():
            assert together[i].scores[key] == pytest.approx(value, abs=1e-4)
    tiny = score_variants(model, variants, genome, window_bp=64, max_tokens_per_batch=64)
    for row, again in zip(together, tiny, strict=True):
        for key, value in row.scores.items():
            assert again.scores[key] == pytest.approx(value, abs=1e-4)


def test_reversing_the_genome_reverses_the_strands(gpn, genome, tmp_path):
    turned = tmp_path / "turned.fa"
    turned.write_text(f">chr1\n{reverse_complement(CONTIG)}\n")
    place = len(CONTIG) - 150
    ref, alt = reverse_complement(at(150)), reverse_complement(other(at(150)))
    # An odd window has its centre in the middle on both strands.
    (row,) = score_variants(gpn, [SNV], genome, window_bp=65)
    (back,) = score_variants(gpn, [f"chr1:{place}:{ref}>{alt}"], turned, window_bp=65)
    assert row.masked_llr == pytest.approx(back.masked_llr, abs=1e-5)
    assert row.scores["masked_llr_forward"] == pytest.approx(
        back.scores["masked_llr_reverse"], abs=1e-5
    )


def test_contig_names_are_harmonised_with_a_note(gpn, genome, capsys):
    assert status(gpn, genome, SNV.replace("chr1", "1"), window_bp=64) == ["ok"]
    assert "calls '1' what genome.fa calls 'chr1'" in capsys.readouterr().err


def test_one_strand_can_be_asked_for(gpn, genome):
    (row,) = score_variants(gpn, [SNV], genome, window_bp=64, both_strands=False)
    assert list(row.scores) == ["masked_llr"]


def test_a_vcf_keeps_its_rows_and_gets_a_value_per_allele(gpn, genome, tmp_path):
    ref = at(150)
    vcf = tmp_path / "calls.vcf"
    vcf.write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=chr1,length=400>\n"
        '##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\n"
        f"chr1\t151\trs1\t{ref}\t{other(ref)},<DEL>,{ref}A\t9\tPASS\tAF=0.1,0.2,0.3\tGT\t0/1\n"
        "chr1\tx\trs2\tA\tC\t.\t.\t.\tGT\t0/0\n"
    )
    out = tmp_path / "scored.vcf"
    summary = score_variants(gpn, vcf, genome, out=out, window_bp=64, progress=False)
    assert summary.statuses == {"ok": 2, "symbolic": 1, "malformed": 1}
    lines = out.read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("##"))
    for fact in ("sign=positive", "window_bp=64", "strands=forward and", "genome=genome.fa"):
        assert f"##lexome_{fact}" in header
    first, second = (line.split("\t") for line in lines if not line.startswith("#"))
    assert first[:5] == ["chr1", "151", "rs1", ref, f"{other(ref)},<DEL>,{ref}A"]
    assert first[8:] == ["GT", "0/1"]
    info = dict(pair.split("=") for pair in first[7].split(";"))
    assert info["AF"] == "0.1,0.2,0.3"
    assert info["LEXOME_status"] == "ok,symbolic,ok"
    snv, symbolic, insertion = info["LEXOME_masked_llr"].split(",")
    assert (symbolic, insertion) == (".", ".")
    scores = score_variants(gpn, vcf, genome, window_bp=64)
    assert float(snv) == pytest.approx(scores[0].masked_llr, rel=1e-5)
    assert float(info["LEXOME_pll_delta"].split(",")[2]) == pytest.approx(
        scores[2].pll_delta, rel=1e-5
    )
    assert second[7] == "LEXOME_status=malformed"


def test_a_table_keeps_its_columns_in_a_table(gpn, genome, tmp_path):
    table = tmp_path / "v.tsv"
    table.write_text(f"chrom\tpos\tref\talt\tgene\nchr1\t151\t{at(150)}\t{other(at(150))}\tABC\n")
    out = tmp_path / "scored.tsv"
    score_variants(gpn, table, genome, out=out, window_bp=64, progress=False)
    lines = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    row = dict(zip(lines[0].split("\t"), lines[1].split("\t"), strict=True))
    assert row["gene"] == "ABC"
    assert row["status"] == "ok"
    assert float(row["masked_llr"]) == pytest.approx(
        score_variants(gpn, table, genome, window_bp=64)[0].masked_llr
    )


def test_the_wrong_genome_is_an_error_after_the_output_is_written(gpn, genome, tmp_path):
    out = tmp_path / "scored.tsv"
    wrong = [SNV.replace("chr1", "chr9")]
    with pytest.raises(ReferenceMismatch, match="no variant agrees with"):
        score_variants(gpn, wrong, genome, out=out, window_bp=64, progress=False)
    assert "contig_missing" in out.read_text()


def test_strict_stops_at_the_first_bad_row_and_names_it(gpn, genome):
    bad = f"chr1:151:{other(at(150))}>{other(at(150), 2)}"
    with pytest.raises(ReferenceMismatch, match=rf"row 2: chr1:151 .* \(the genome has {at(150)}"):
        score_variants(gpn, [SNV, bad], genome, window_bp=64, strict=True)


def test_another_build_in_the_header_is_noted(gpn, genome, tmp_path, capsys):
    vcf = tmp_path / "calls.vcf"
    vcf.write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=chr1,length=999>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\t"
        f"FILTER\tINFO\nchr1\t151\t.\t{at(150)}\t{other(at(150))}\t.\t.\t.\n"
    )
    score_variants(gpn, vcf, genome, window_bp=64)
    assert "chr1 is 999 there and 400 here" in capsys.readouterr().err


def test_a_window_beyond_the_context_is_an_error(hyena, genome):
    with pytest.raises(InputError, match="Give at most 12"):
        score_variants(hyena, [SNV], genome, window_bp=512)


def test_an_existing_output_is_not_overwritten_unasked(gpn, genome, tmp_path):
    out = tmp_path / "scored.tsv"
    out.write_text("precious")
    with pytest.raises(InputError, match="there already"):
        score_variants(gpn, [SNV], genome, out=out, window_bp=64)
    assert out.read_text() == "precious"


def test_a_killed_run_goes_on_without_losing_or_repeating_a_row(genome, tmp_path, fixtures):
    table = tmp_path / "v.tsv"
    rows = [(p, at(p), other(at(p), k)) for p in range(40, 360) for k in (1, 2, 3)]
    table.write_text(
        "chrom\tpos\tref\talt\n" + "".join(f"chr1\t{p + 1}\t{r}\t{a}\n" for p, r, a in rows)
    )
    model, out = fixtures / "gpn" / "convnet", tmp_path / "scored.tsv"
    code = f"""
        from lexome.inference.variants import score_variants
        score_variants({str(model)!r}, {str(table)!r}, {str(genome)!r}, out={str(out)!r},
                       window_bp=64, max_tokens_per_batch=64, progress=False)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env=environment)
    folder = tmp_path / "scored.tsv.partial"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not out.exists()
    assert list(folder.glob("*.npz"))
    subprocess.run(command, env=environment, check=True)
    lines = [x for x in out.read_text().splitlines() if not x.startswith("#")][1:]
    assert [tuple(line.split("\t")[i] for i in (1, 3, 4)) for line in lines] == [
        (str(p + 1), r, a) for p, r, a in rows
    ]
    whole = score_variants(load(model, device="cpu"), table, genome, window_bp=64)
    scores = [float(line.split("\t")[7]) for line in lines]
    np.testing.assert_allclose(scores, [row.masked_llr for row in whole], atol=1e-4)


def test_scored_vcf_gz_is_readable_as_gzip(gpn, genome, tmp_path):
    out = tmp_path / "scored.vcf.gz"
    score_variants(gpn, [SNV], genome, out=out, window_bp=64, progress=False)
    with gzip.open(out, "rt") as stream:
        assert "LEXOME_masked_llr" in stream.read()
    assert out.with_name("scored.vcf.gz.tbi").is_file()


def test_the_place_in_the_window_can_be_chosen_for_each_strand(gpn, genome):
    (row,) = score_variants(gpn, [SNV], genome, window_bp=64, centre=20, centre_reverse=10)
    windows = (
        (CONTIG[150 - 20 : 150 + 44], 20, lambda b: b),
        (reverse_complement(CONTIG[150 - 53 : 150 + 11]), 10, reverse_complement),
    )
    for (text, place, base), strand in zip(windows, ("forward", "reverse"), strict=True):
        assert text[place] == base(at(150))
        ids = gpn.tokenizer([text])["input_ids"]
        ids[0, place] = gpn.tokenizer.mask
        with torch.no_grad():
            logits = gpn(ids).logits[0, place]
        ref, alt = (gpn.tokenizer.encode([base(b)])[0]["input_ids"][0] for b in (row.ref, row.alt))
        wanted = float(logits[int(alt)] - logits[int(ref)])
        assert row.scores[f"masked_llr_{strand}"] == pytest.approx(wanted, abs=1e-5)


def test_a_causal_model_can_have_the_variant_at_the_end_of_its_window(hyena, genome):
    (row,) = score_variants(hyena, [SNV], genome, window_bp=64, centre=60, both_strands=False)
    ref = CONTIG[90:154]
    texts = [ref[:60] + row.alt + ref[61:], ref]
    alt_score, ref_score = score_sequences(hyena, texts, progress=False).column("loglik")
    assert row.loglik_delta == pytest.approx(alt_score - ref_score, abs=1e-4)


def test_the_default_place_is_the_middle_and_the_output_says_where(gpn, genome):
    plain = score_variants(gpn, [SNV], genome, window_bp=64)
    named = score_variants(gpn, [SNV], genome, window_bp=64, centre=32, centre_reverse=31)
    assert plain[0].scores == named[0].scores
    assert plain.provenance["centre"] == named.provenance["centre"]
    assert "index 32" in str(plain.provenance["centre"])


def test_a_window_near_the_end_is_padded_where_the_place_makes_it_so(gpn, genome):
    variant = f"chr1:41:{at(40)}>{other(at(40))}"
    assert status(gpn, genome, variant, window_bp=64) == ["ok"]
    assert status(gpn, genome, variant, window_bp=64, centre=41) == ["edge_padded"]
    assert status(gpn, genome, variant, window_bp=64, centre_reverse=20) == ["edge_padded"]


def test_a_place_outside_the_window_is_refused(gpn, genome):
    with pytest.raises(InputError, match="centre is 64"):
        score_variants(gpn, [SNV], genome, window_bp=64, centre=64)
    with pytest.raises(InputError, match="one strand"):
        score_variants(gpn, [SNV], genome, centre_reverse=3, both_strands=False)


@pytest.mark.slow
def test_published_variants_agree_with_their_genome(gpn, data, tmp_path):
    vcf, genome = data / "variants/1000g_chr20_1Mb.vcf.gz", data / "genomes/human_chr20_1Mb.fa.gz"
    out = tmp_path / "scored.vcf.gz"
    summary = score_variants(gpn, vcf, genome, window_bp=16, mask_stride=4, out=out, progress=False)
    assert summary.alleles == 29_144
    assert summary.statuses["symbolic"] == 24
    assert set(summary.statuses) == {"ok", "symbolic", "edge_padded", "too_long"}
    with gzip.open(out, "rt") as stream:
        rows = [line.split("\t") for line in stream if line[0] != "#"]
    with gzip.open(vcf, "rt") as stream:
        given = [line.split("\t") for line in stream if line[0] != "#"]
    assert [row[:7] for row in rows] == [row[:7] for row in given]
    assert sum("LEXOME_masked_llr=" in row[7] for row in rows) > 28_000
    assert sum("symbolic" in row[7] for row in rows) >= 24


def test_a_window_longer_than_those_of_training_is_told(tiny, genome, capsys, monkeypatch):
    evo = tiny("evo/sh_8k_like")
    release = replace(releases()["evo-1-8k-base"][1], context=50)
    known = {evo.name: (evo.family, release)}
    monkeypatch.setattr("lexome.inference.stretches.releases", lambda: known)
    for window_bp, said in ((50, 0), (51, 1)):
        score_variants(evo, [SNV, SNV], genome, window_bp=window_bp)
        assert capsys.readouterr().err.count("up to 50 tokens, and a window has 51") == said


CARRYING = ("evo/sh_8k_like", "mamba/mamba2_hf", "helm/mamba_clm", "transformer_plus/llama_tiny")


def many_changes():
    """Return substitutions of all kinds, insertions, deletions, repeats and windows at edges."""
    changes = []
    for position in (3, 60, 101, 150, 390):
        ref = at(position)
        changes += [f"chr1:{position + 1}:{ref}>{other(ref, by)}" for by in (1, 2, 3)]
        changes.append(f"chr1:{position + 1}:{ref}>{ref}TT")
        changes.append(f"chr1:{position + 1}:{at(position, 3)}>{ref}")
    return [*changes, changes[0]]


@pytest.mark.parametrize("case", CARRYING)
@pytest.mark.parametrize("how", [{}, {"centre": 1}, {"max_tokens_per_batch": 300}])
def test_shared_beginnings_give_the_scores_of_whole_windows(
    case, how, fixtures, genome, monkeypatch
):
    model = load(fixtures / case, device="cpu")
    window = min(48, model.context or 48)
    shared = score_variants(model, many_changes(), genome, window_bp=window, **how)
    assert {row.status for row in shared} == {"ok", "edge_padded", "duplicate"}
    monkeypatch.setattr("lexome.inference.variants.carries_state", lambda model: False)
    whole = score_variants(model, many_changes(), genome, window_bp=window, **how)
    assert any(row.loglik_delta for row in whole)
    for one, other_one in zip(shared, whole, strict=True):
        assert one.scores.keys() == other_one.scores.keys()
        np.testing.assert_allclose(
            [*one.scores.values()], [*other_one.scores.values()], rtol=1e-4, atol=1e-3
        )


def test_what_stands_before_a_change_is_run_once_for_all_alleles(fixtures, genome, monkeypatch):
    model = load(fixtures / "mamba/mamba2_hf", device="cpu")
    ref, run, forward = at(150), [], model.backbone.forward
    monkeypatch.setattr(
        model.backbone,
        "forward",
        lambda **inputs: run.append(inputs["input_ids"].numel()) or forward(**inputs),
    )
    alleles = [f"chr1:151:{ref}>{other(ref, by)}" for by in (1, 2, 3)]
    score_variants(model, alleles, genome, window_bp=100, both_strands=False)
    assert sum(run) == 100 + 3 * 50
