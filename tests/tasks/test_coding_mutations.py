import json

import numpy as np
import pytest
import torch

import lexome.tasks.coding_mutations as module
from lexome.catalog import new
from lexome.core import FormatError, InputError, UnknownName
from lexome.inference.likelihood import score_sequences
from lexome.tasks.coding_mutations import coding_effects

CDS = "ATGAAATGGTAA"


@pytest.fixture(scope="module")
def causal():
    return new("hyenadna", width=16, mlp_width=32, depth=2, length=66).eval()


@pytest.fixture(scope="module")
def masked():
    return new("gpn", width=8, depth=2, mlp_width=8).eval()


def by_mutation(found):
    return {row["mutation"]: row for row in found.rows}


def test_a_causal_score_is_the_difference_of_whole_sequences(causal):
    found = by_mutation(coding_effects(causal, [CDS]))
    assert len(found) == 36
    scores = score_sequences(causal, [CDS, "ATGAACTGGTAA"]).column("loglik")
    row = found["A6C"]
    assert row["score"] == pytest.approx(scores[1] - scores[0], abs=1e-5)
    assert (row["codon"], row["before"], row["after"]) == (1, "AAA", "AAC")
    assert (row["protein"], row["effect"]) == ("K2N", "missense")


@pytest.mark.parametrize("changes", ["nucleotide", "amino-acid"])
def test_a_state_carried_to_each_change_gives_the_scores_of_whole_sequences(changes, monkeypatch):
    model = new("mamba", width=16, depth=2, states=4).eval()
    records = [("a", CDS), ("b", "ATGAAATGGCATTAA"), ("c", CDS)]
    carried = coding_effects(model, records, changes=changes)
    monkeypatch.setattr(module, "carries_state", lambda model: False)
    whole = coding_effects(model, records, changes=changes)
    assert [r["mutation"] for r in carried.rows] == [r["mutation"] for r in whole.rows]
    scores = ([row["score"] for row in found.rows] for found in (carried, whole))
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-4)


def test_a_masked_score_is_the_log_odds_where_the_letter_is_hidden(masked):
    found = by_mutation(coding_effects(masked, [CDS]))
    tokens = masked.tokenizer
    ids = torch.tensor([tokens.encode([CDS])[0]["input_ids"].astype(int).tolist()])
    ids[0, 5] = tokens.mask
    with torch.no_grad():
        scores = masked(ids).logits[0, 5]
    a, c = tokens.encode(["AC"])[0]["input_ids"].astype(int)
    assert found["A6C"]["score"] == pytest.approx(float(scores[c] - scores[a]), abs=1e-5)


def test_a_masked_codon_is_hidden_as_a_whole(masked):
    found = by_mutation(coding_effects(masked, [CDS], changes="codon"))
    assert len(found) == 4 * 63
    tokens = masked.tokenizer
    ids = torch.tensor([tokens.encode([CDS])[0]["input_ids"].astype(int).tolist()])
    ids[0, 3:6] = tokens.mask
    with torch.no_grad():
        logs = masked(ids).logits[0, 3:6].log_softmax(-1)
    before, after = (tokens.encode([c])[0]["input_ids"].astype(int) for c in ("AAA", "CTG"))
    expected = sum(float(logs[i, after[i]] - logs[i, before[i]]) for i in range(3))
    assert found["AAA2CTG"]["score"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("which", ["causal", "masked"])
def test_amino_acids_join_their_codons(which, request):
    model = request.getfixturevalue(which)
    codons = by_mutation(coding_effects(model, [CDS], changes="codon"))
    leucine = [codons[f"AAA2{c}"]["score"] for c in ("TTA", "TTG", "CTT", "CTC", "CTA", "CTG")]
    mean = by_mutation(coding_effects(model, [CDS], changes="amino-acid"))["K2L"]
    best = by_mutation(coding_effects(model, [CDS], changes="amino-acid", synonymous="best"))["K2L"]
    assert mean["score"] == pytest.approx(np.mean(leucine), abs=1e-4)
    assert best["score"] == pytest.approx(max(leucine), abs=1e-4)
    assert codons[f"AAA2{best['after']}"]["score"] == pytest.approx(max(leucine), abs=1e-4)


def test_effects_are_those_of_the_genetic_code(causal):
    found = by_mutation(coding_effects(causal, [CDS]))
    kinds = {
        "A1G": "synonymous",  # GTG begins proteins too
        "T2A": "start lost",
        "A6G": "synonymous",
        "A6C": "missense",
        "A4T": "stop gained",
        "T10C": "stop lost",
        "A12G": "synonymous",
    }
    assert {name: found[name]["effect"] for name in kinds} == kinds
    assert [found[name]["protein"] for name in ("A1G", "T2A", "T10C")] == ["M1M", "M1K", "*4Q"]
    other = by_mutation(coding_effects(causal, [CDS], genetic_code=4))
    assert (found["G9A"]["effect"], other["G9A"]["effect"]) == ("stop gained", "synonymous")


def test_rna_keeps_its_letters():
    rows = list(module._rows("AUG", 0, module.code_of(11), "codon"))
    assert {"U"} <= {letter for name, _ in rows for letter in name}
    assert not any("T" in change.letters for _, options in rows for change in options)
    assert len(rows) == 63


def test_records_that_are_no_coding_sequences_are_named_and_left_out(causal, capsys):
    found = coding_effects(causal, [("good", CDS), ("odd", CDS + "A"), ("inside", "ATGTAAATG")])
    assert {row["id"] for row in found.rows} == {"good"}
    assert set(found.refused) == {"odd", "inside"}
    told = capsys.readouterr().err
    assert "inside is no coding sequence: it has the stop codon TAA as codon 2 of 3" in told
    assert str(found).startswith("id\tmutation\tcodon\tbefore\tafter\tprotein\teffect\tscore\ngood")
    with pytest.raises(InputError, match="1 more than a multiple of 3"):
        coding_effects(causal, [CDS + "A"])
    with pytest.raises(InputError, match="whole=False"):
        coding_effects(causal, ["AAAAAA"])
    assert coding_effects(causal, ["AAAAAA"], whole=False).count == 18


def written(path, rows, header="mutation\tscore"):
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def test_measurements_that_follow_the_scores_correlate_with_them(causal, tmp_path):
    rows = coding_effects(causal, [CDS]).rows
    table = written(
        tmp_path / "dms.tsv",
        [
            (f"c.{r['mutation'][1:-1]}{r['mutation'][0]}>{r['mutation'][-1]}", 2 * r["score"] + 1)
            for r in rows[:30]
        ]
        + [("c.99A>G", 3.0), ("A5C", "")],
    )
    out = tmp_path / "effects.tsv"
    found = coding_effects(causal, [CDS], measured=table, out=out, resamples=50)
    assert found.measured.spearman == pytest.approx(1.0)
    assert found.measured.interval.low > 0.99
    assert (found.measured.matched, found.measured.unmatched) == (30, ("A99G",))
    assert abs(found.measured.by_kind) < 1
    told = json.loads((tmp_path / "effects.tsv.json").read_text())
    assert told["spearman"] == pytest.approx(1.0)
    assert "Spearman 1.000" in str(found)
    assert len([x for x in out.read_text().splitlines() if not x.startswith("#")]) == 37


def test_several_sequences_need_their_names_in_the_table(causal, tmp_path):
    table = written(tmp_path / "a.tsv", [("A4C", 1), ("A4G", 2), ("A4T", 3)])
    with pytest.raises(InputError, match="column id"):
        coding_effects(causal, [("x", CDS), ("y", CDS)], measured=table)
    rows = [("x", "A4C", 1), ("y", "A4C", 2), ("x", "A4T", 3), ("z", "A4T", 3)]
    table = written(tmp_path / "b.tsv", rows, "id\tmutation\tscore")
    found = coding_effects(causal, [("x", CDS), ("y", CDS)], measured=table, resamples=10)
    assert (found.measured.matched, len(found.measured.unmatched)) == (3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mutation\teffect\nA4C\t1\n", "none named 'score'"),
        ("mutation\tscore\nA4C\tlow\n", "line 2: score is 'low'"),
        ("mutation\tscore\nA4C\t1\nA4C\t2\n", "line 3: the mutation A4C was measured before"),
        ("mutation\tscore\nK2L\t1\nK2M\t2\nK2P\t0\n", r"0 of 3 measurements .*'A1C'"),
    ],
)
def test_measurements_that_do_not_fit_are_refused(causal, tmp_path, text, message):
    (tmp_path / "dms.tsv").write_text(text)
    with pytest.raises((InputError, FormatError), match=message):
        coding_effects(causal, [CDS], measured=tmp_path / "dms.tsv")


def test_a_killed_run_continues(causal, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BATCHES_TOGETHER", 0)
    whole, out = tmp_path / "whole.tsv", tmp_path / "effects.tsv"
    source = [("x", CDS), ("y", CDS)]
    coding_effects(causal, source, out=whole)
    ordinary, calls = module._score, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return ordinary(*args)

    monkeypatch.setattr(module, "_score", killed)
    with pytest.raises(KeyboardInterrupt):
        coding_effects(causal, source, out=out)
    coding_effects(causal, source, out=out)
    assert len(calls) == 9
    assert out.read_text() == whole.read_text()


def test_models_that_cannot_score_changes_are_refused(masked, tiny_dnabert):
    with pytest.raises(InputError, match="overlap"):
        coding_effects(tiny_dnabert, [CDS])
    with pytest.raises(UnknownName, match="kind of changes"):
        coding_effects(masked, [CDS], changes="letters")


@pytest.fixture
def tiny_dnabert(fixtures):
    from lexome.catalog import load

    return load(fixtures / "dnabert" / "mlm_k6_tiny", device="cpu")
