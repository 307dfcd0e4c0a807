"""Log-likelihoods equal their definition, token by token."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lexome.catalog import load, new, releases
from lexome.core import InputError, UnknownName
from lexome.inference.causal_likelihood import token_logprobs
from lexome.inference.likelihood import masked_logprobs, score_sequences
from lexome.tokenizers import KmerTokenizer

TEXT = "ACGTTGCAACGGT"
CLOSE = {"atol": 1e-4, "rtol": 1e-6}  # sums of about 20 terms, each rounded to float32


def texts(count, longest, seed=0, letters="ACGT"):
    rng = np.random.default_rng(seed)
    return [
        "AC" + "".join(rng.choice(list(letters), rng.integers(0, longest))) for _ in range(count)
    ]


def by_hand(model, text):
    """Sum the scores of one sequence from the definition, one forward per masked token."""
    tokenizer = model.tokenizer
    (bare,) = tokenizer.encode([text])
    ids, before = bare["input_ids"], len(tokenizer.prefix)
    total = 0.0
    with torch.no_grad():
        if model.family.objective == "causal":
            row = torch.tensor([[*tokenizer.prefix, *ids.tolist()]])
            logprobs = model(row).logits.double().log_softmax(-1)
            return sum(logprobs[0, t - 1, row[0, t]].item() for t in range(1, row.shape[1]))
        row = tokenizer(text)["input_ids"]
        for t, i in enumerate(ids, before):
            masked = row.clone()
            masked[0, t] = tokenizer.mask
            total += model(masked).logits[0, t].double().log_softmax(-1)[i].item()
    return total


def test_sums_are_those_of_the_definition(each):
    for text in (TEXT, "ACG"):
        (row,) = score_sequences(each, [text]).rows
        np.testing.assert_allclose(row["loglik"], by_hand(each, text), **CLOSE)
        skipped = each.family.objective == "causal" and not each.tokenizer.prefix
        bases = len(text) - skipped
        assert row["scored_bases"] == bases
        np.testing.assert_allclose(row["loglik_per_base"], row["loglik"] / bases)
        np.testing.assert_allclose(row["bits_per_base"], -row["loglik_per_base"] / math.log(2))


def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary():
    for model in (
        new("gpn", width=8, depth=2, mlp_width=8),
        new("hyenadna", width=8, depth=1, mlp_width=8, length=64),
    ):
        for parameter in model.head.parameters():
            torch.nn.init.zeros_(parameter)
        (row,) = score_sequences(model, [TEXT]).rows
        words = model.head.decoder.weight.shape[0]
        np.testing.assert_allclose(row["bits_per_base"], math.log2(words), rtol=1e-6)


def test_scores_do_not_depend_on_batches_order_or_neighbours(each):
    many = texts(12, 30)
    whole = score_sequences(each, many).column("loglik")
    for tokens in (1, 40, 100_000):
        again = score_sequences(each, many[::-1], max_tokens_per_batch=tokens).column("loglik")
        np.testing.assert_allclose(again[::-1], whole, **CLOSE)
    alone = [score_sequences(each, [t]).rows[0]["loglik"] for t in many[:4]]
    np.testing.assert_allclose(alone, whole[:4], **CLOSE)


def test_n_and_unknown_letters_are_seen_but_not_scored(each):
    (row,) = score_sequences(each, ["ACNNGTXA"], max_unknown=1).rows
    skipped = each.family.objective == "causal" and not each.tokenizer.prefix
    assert row["scored_bases"] == 5 - skipped
    (other,) = score_sequences(each, ["ACNNGTXC"], max_unknown=1).rows
    assert row["loglik"] != other["loglik"]


def test_the_first_token_is_scored_where_the_authors_put_one_before_it(tiny):
    bare, bracketed = tiny("hyenadna/hf_tiny"), tiny("hyenadna/orig_tiny_ckpt")
    assert score_sequences(bare, ["ACGT"]).rows[0]["scored_tokens"] == 3
    found = score_sequences(bracketed, ["ACGT"])
    assert found.rows[0]["scored_tokens"] == 4
    assert "scored given [CLS]" in str(found.provenance["method"])


def test_words_of_several_letters_are_scored_per_base(tiny):
    model = tiny("dnabert2/mlm_4heads")
    (row,) = score_sequences(model, [TEXT]).rows
    assert row["scored_tokens"] < row["scored_bases"] == len(TEXT)
    np.testing.assert_allclose(row["loglik_per_base"], row["loglik"] / len(TEXT))


def test_tokens_masked_together_are_an_approximation_that_says_so(tiny):
    model = tiny("gpn/convnet")
    exact = score_sequences(model, [TEXT])
    together = score_sequences(model, [TEXT], mask_stride=len(TEXT))
    np.testing.assert_allclose(together.column("loglik"), exact.column("loglik"), **CLOSE)
    assert "approximation" in str(together.provenance["method"])
    assert "approximation" not in str(exact.provenance["method"])

    ids, expected = model.tokenizer(TEXT)["input_ids"], 0.0
    for first in range(3):
        masked = ids.clone()
        masked[0, first::3] = model.tokenizer.mask
        with torch.no_grad():
            logprobs = model(masked).logits.double().log_softmax(-1)
        expected += sum(logprobs[0, t, ids[0, t]].item() for t in range(first, len(TEXT), 3))
    (row,) = score_sequences(model, [TEXT], mask_stride=3).rows
    np.testing.assert_allclose(row["loglik"], expected, **CLOSE)


def test_cut_sequences_score_as_whole_ones_where_the_model_sees_no_farther():
    model = new("gpn", width=16, depth=2, mlp_width=16)  # sees 12 letters to each side
    many = texts(3, 150)
    whole = score_sequences(model, many).column("loglik")
    cut = score_sequences(model, many, max_tokens=60, overlap_tokens=24)
    np.testing.assert_allclose(cut.column("loglik"), whole, **CLOSE)
    assert cut.summary.cut > 0


def test_a_cut_causal_sequence_scores_every_token_once_with_the_overlap_before_it(tiny):
    model = tiny("hyenadna/hf_tiny")
    text = texts(1, 120, seed=5)[0]
    (row,) = score_sequences(model, [text], max_tokens=20, overlap_tokens=8).rows
    n = len(text)
    assert (row["scored_tokens"], row["pieces"]) == (n - 1, -(-(n - 8) // 12))
    starts = [i * (n - 20) // (row["pieces"] - 1) for i in range(row["pieces"])]
    ids, expected = model.tokenizer(text)["input_ids"][0, :n], 0.0
    for piece, start in enumerate(starts):
        with torch.no_grad():
            logprobs = model(ids[None, start : start + 20]).logits[0].double().log_softmax(-1)
        new_from = 1 if piece == 0 else starts[piece - 1] + 20 - start
        assert piece == 0 or new_from >= 8
        expected += sum(logprobs[t - 1, ids[start + t]].item() for t in range(new_from, 20))
    np.testing.assert_allclose(row["loglik"], expected, **CLOSE)


def test_every_record_comes_out_with_its_status(tiny):
    found = score_sequences(tiny("hyenadna/hf_tiny"), ["ACGT", "", "A", "xxxx", "NNN"])
    assert [r["status"] for r in found.rows] == [
        *("ok", "empty", "too short", "unknown letters", "unknown letters")
    ]
    assert np.isnan(found.column("loglik")).tolist() == [False, True, True, True, True]
    lines = str(found).splitlines()
    assert lines[0].split("\t")[:2] == ["id", "status"]
    assert len(lines) == 6


def test_outputs_hold_the_rows(tiny, tmp_path):
    model, out = tiny("gpn/convnet"), tmp_path / "scores.tsv"
    kept = score_sequences(model, [TEXT, ""])
    summary = score_sequences(model, [TEXT, ""], out=out, progress=False)
    assert summary.records == 2
    lines = out.read_text().splitlines()
    header = [line for line in lines if line.startswith("# ")]
    assert any("each token masked alone" in line for line in header)
    names, first, second = (line.split("\t") for line in lines[len(header) :])
    assert dict(zip(names, first, strict=True))["loglik"] == str(kept.rows[0]["loglik"])
    assert dict(zip(names, second, strict=True))["loglik"] == ""


def test_models_that_cannot_score_say_why(tiny, fixtures):
    classifier = load(fixtures / "dnabert2" / "seqcls_3way", device="cpu")
    with pytest.raises(InputError, match="has classifier head, and scoring needs the masked one"):
        score_sequences(classifier, [TEXT])
    with pytest.raises(InputError, match="mask_stride is for masked models"):
        score_sequences(tiny("hyenadna/hf_tiny"), [TEXT], mask_stride=4)
    with pytest.raises(InputError, match="mask_stride is 0"):
        score_sequences(tiny("gpn/convnet"), [TEXT], mask_stride=0)
    cells = load(fixtures / "scgpt" / "annotation_fast" / "checkpoint", device="cpu")
    with pytest.raises(InputError, match="gives no probabilities of letters"):
        score_sequences(cells, [TEXT])


def test_token_logprobs_are_conditioned_on_what_stands_before(tiny):
    model = tiny("hyenadna/hf_tiny")
    inputs = model.tokenizer(["ACGTAC", "TTGCAA"], special_tokens=False)
    rows, columns = torch.tensor([0, 1, 1]), torch.tensor([1, 3, 5])
    found = token_logprobs(model, inputs, rows, columns)
    with torch.no_grad():
        logprobs = model(**inputs).logits.log_softmax(-1)
    ids = inputs["input_ids"]
    torch.testing.assert_close(found, logprobs[rows, columns - 1, ids[rows, columns]])


def test_masked_logprobs_answer_every_query_with_a_distribution(tiny):
    model = tiny("dnabert2/mlm_4heads")
    items = [model.tokenizer.wrap(e) for e in model.tokenizer.encode([TEXT, "ACGTACGTAA"])]
    queries = [(items[0], [1]), (items[1], [2, 1]), (items[0], [3])]
    found = dict(masked_logprobs(model, queries, max_tokens=12))
    assert sorted(found) == [0, 1, 2]
    assert [len(found[i]) for i in range(3)] == [1, 2, 1]
    torch.testing.assert_close(found[1].exp().sum(-1), torch.ones(2))
    (first, second) = found[1]
    swapped = dict(masked_logprobs(model, [(items[1], [1, 2])], max_tokens=12))[0]
    torch.testing.assert_close(swapped, torch.stack([second, first]))
    assert items[0]["input_ids"].tolist() == model.tokenizer(TEXT)["input_ids"][0].tolist()


def test_tokens_that_overlap_by_less_than_all_letters_are_refused():
    model = new("dnabert", vocab_size=69, width=8, depth=1, heads=1, mlp_width=8)
    model.tokenizer = KmerTokenizer(replace(model.tokenizer.preset, stride=2))
    with pytest.raises(InputError, match="stand in its neighbours"):
        score_sequences(model, ["ACGTACGTACGT"])


def test_a_model_with_a_state_takes_long_records_whole_in_stretches(tiny):
    model = tiny("mamba/mamba2_hf")
    text = "A" + texts(1, 400, seed=7)[0]
    (row,) = score_sequences(model, [text]).rows
    assert row["pieces"] == 1
    np.testing.assert_allclose(row["loglik"], by_hand(model, text), rtol=1e-5)
    for tokens in (1, 13, 64):
        again = score_sequences(model, [text, text[:70]], chunk_tokens=tokens)
        np.testing.assert_allclose(again.rows[0]["loglik"], row["loglik"], rtol=1e-5)
        assert again.provenance == score_sequences(model, [text]).provenance
    (cut,) = score_sequences(model, [text], max_tokens=64).rows
    assert cut["pieces"] > 1


def test_a_word_is_said_where_records_are_longer_than_those_of_training(tiny, capsys, monkeypatch):
    model = tiny("evo/sh_8k_like")
    release = replace(releases()["evo-1-8k-base"][1], context=20)
    known = {model.name: (model.family, release)}
    monkeypatch.setattr("lexome.inference.stretches.releases", lambda: known)
    score_sequences(model, ["ACGT" * 5])
    assert "trained" not in capsys.readouterr().err
    found = score_sequences(model, ["ACGT" * 5, "ACGT" * 6, "ACGT" * 7])
    assert [row["pieces"] for row in found.rows] == [1, 1, 1]
    said = capsys.readouterr().err
    assert said.count("trained on sequences of up to 20 tokens, and a record has 28") == 1


def test_stretches_are_refused_where_there_is_no_state(tiny):
    for case in ("hyenadna/hf_tiny", "gpn/convnet"):
        with pytest.raises(InputError, match="chunk_tokens"):
            score_sequences(tiny(case), [TEXT], chunk_tokens=8)


def read_positions(path):
    with path.open() as stream:
        header = stream.readline().split()
        lines = [line.rstrip("\n").split("\t") for line in stream]
    assert header == ["id", "start", "end", "logprob", "entropy"]
    return lines


def test_positions_add_up_to_the_rows_and_cover_every_letter(each, tmp_path):
    many = [("one", TEXT), ("two", ""), ("three", "ACNGTTA")]
    out, positions = tmp_path / "rows.tsv", tmp_path / "positions.tsv"
    score_sequences(each, many, out=out, positions=positions, progress=False)
    rows = score_sequences(each, many).rows
    lines = read_positions(positions)
    for (name, text), row in zip(many, rows, strict=True):
        own = [line for line in lines if line[0] == name]
        assert [int(line[1]) for line in own[1:]] == [int(line[2]) for line in own[:-1]]
        assert not text or (own[0][1], own[-1][2]) == ("0", str(len(text)))
        logprobs = [float(line[3]) for line in own if line[3]]
        assert len(logprobs) == row["scored_tokens"]
        if row["loglik"] is not None:
            np.testing.assert_allclose(sum(logprobs), row["loglik"], **CLOSE)
        words = len(each.tokenizer.vocabulary) + 16  # tables are rounded up
        assert all(0 <= float(line[4]) <= math.log(words) for line in own if line[4])
        assert [bool(line[3]) for line in own] == [bool(line[4]) for line in own]
    assert out.read_text().count("\n") > 3


def test_entropies_are_those_of_the_whole_vocabulary(tiny, tmp_path):
    model = tiny("hyenadna/hf_tiny")
    positions = tmp_path / "positions.npz"
    score_sequences(model, ["ACGTN"], positions=positions, progress=False)
    ids = model.tokenizer("ACGTN")["input_ids"][:, :5]
    with torch.no_grad():
        logprobs = model(ids).logits[0, :4].double().log_softmax(-1)
    found = np.load(positions)
    expected = -(logprobs.exp() * logprobs).sum(-1).numpy()
    np.testing.assert_allclose(found["entropy"][1:4], expected[:3], rtol=1e-5)
    assert np.isnan(found["entropy"][[0, 4]]).all()
    assert found["span_offsets"].tolist() == [0, 5]


def test_positions_without_rows_are_an_output_of_their_own(tiny, tmp_path):
    positions = tmp_path / "p.tsv"
    summary = score_sequences(tiny("gpn/convnet"), [TEXT], positions=positions, progress=False)
    assert str(summary) == str(positions)
    assert len(read_positions(positions)) == len(TEXT)
    with pytest.raises(InputError, match="there already"):
        score_sequences(tiny("gpn/convnet"), [TEXT], positions=positions, progress=False)


def test_unscorable_files_of_positions_are_refused_before_any_work(tiny, tmp_path):
    model = tiny("gpn/convnet")
    with pytest.raises(UnknownName, match="no format for positions"):
        score_sequences(model, [TEXT], positions=tmp_path / "p.parquet")
    with pytest.raises(InputError, match="two files"):
        score_sequences(model, [TEXT], positions=tmp_path / "p.tsv", out=tmp_path / "p.tsv")
