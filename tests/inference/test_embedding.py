"""A record's vector is its own: equal to the model's alone, whatever else is in the file."""

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lexome.catalog import load, new, releases
from lexome.core import InputError, UnknownLetters, UnknownName
from lexome.formats import RowStore
from lexome.inference import embedding, reading, runs
from lexome.inference.embedding import POOLINGS, How, embed, layer_vectors
from lexome.inference.reading import Cutting, prepare

TOLERANCE = {"atol": 1e-5, "rtol": 1e-6}
# Single tokens of the random GPN differ from their float64 values by up to 1.6e-5 in any batch,
# since its norms divide by small spreads; two roundings of one token lie up to 1.9e-5 apart.
ROUGH = {"atol": 4e-5, "rtol": 1e-6}


def tolerance(pooling):
    return TOLERANCE if pooling == "mean" else ROUGH


def sequences(count, longest, seed=0, letters="ACGTN"):
    """Return sequences of mixed lengths, of which none is all unknown."""
    rng = np.random.default_rng(seed)
    return [
        (f"s{i}", "ACGT" + "".join(rng.choice(list(letters), rng.integers(0, longest), p=None)))
        for i in range(count)
    ]


def fits(model, text):
    return model.context is None or len(text) + 2 <= model.context


def states(model, text):
    """Return the final hidden state of one sequence alone, (tokens, D), by the plain way."""
    with torch.no_grad():
        return model(**model.tokenizer(text)).last_hidden_state[0]


def expected(state, pooling, prefix=0, suffix=0):
    state = state[prefix : len(state) - suffix]
    parts = {
        "mean": state.mean(0),
        "max": state.amax(0),
        "cls": state[0],
        "last": state[-1],
        "token": state,
    }
    return torch.cat([parts[p] for p in POOLINGS[pooling]])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_are_those_of_the_model_alone(each, pooling):
    texts = [(n, s) for n, s in sequences(12, 55) if fits(each, s)]
    found = embed(each, texts, pooling=pooling)
    assert found.ids == tuple(n for n, _ in texts)
    for vector, (_, text) in zip(found.vectors, texts, strict=True):
        alone = expected(states(each, text), pooling)
        assert_close(torch.from_numpy(vector), alone, **tolerance(pooling))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "token"])
def test_special_tokens_can_be_left_out_of_the_pool(each, pooling):
    tokenizer = each.tokenizer
    around = len(tokenizer.prefix), len(tokenizer.suffix)
    found = embed(each, ["ACGTTGCA", "AC"], pooling=pooling, special_tokens=False)
    for vector, text in zip(found.vectors, ["ACGTTGCA", "AC"], strict=True):
        alone = expected(states(each, text), pooling, *around)
        assert_close(torch.from_numpy(vector), alone, **tolerance(pooling))


@pytest.mark.parametrize("pooling", ["mean", "concat", "token"])
def test_vectors_do_not_depend_on_batches_order_or_neighbours(each, pooling):
    texts = sequences(40, 150)
    whole = embed(each, texts, pooling=pooling, max_unknown=1).vectors
    for tokens in (1, 64, 100_000):
        again = embed(
            each, texts[::-1], pooling=pooling, max_unknown=1, max_tokens_per_batch=tokens
        )
        for one, other in zip(again.vectors[::-1], whole, strict=True):
            np.testing.assert_allclose(one, other, **tolerance(pooling))
    alone = [embed(each, [t], pooling=pooling, max_unknown=1).vectors[0] for t in texts[:8]]
    for one, other in zip(alone, whole, strict=False):
        np.testing.assert_allclose(one, other, **tolerance(pooling))


def test_windows_of_records_do_not_change_vectors(tiny, monkeypatch):
    model = tiny("gpn/convnet")
    texts = sequences(60, 40)
    whole = embed(model, texts, max_unknown=1).vectors
    monkeypatch.setattr(runs, "_WINDOW_BATCHES", 1)
    again = embed(model, texts, max_unknown=1, max_tokens_per_batch=50).vectors
    np.testing.assert_allclose(again, whole, **TOLERANCE)


def test_layers_are_the_streams_between_them(each):
    with torch.no_grad():
        out = each(**each.tokenizer("ACGTTGCATT"), output_hidden_states=True)
    for layer, state in [*enumerate(out.hidden_states), (-1, out.last_hidden_state)]:
        (vector,) = embed(each, ["ACGTTGCATT"], layer=layer, pooling="mean").vectors
        assert_close(torch.from_numpy(vector), state[0].mean(0), **TOLERANCE)
    for layer in (-2, len(out.hidden_states)):
        with pytest.raises(InputError, match="or -1 for the final state"):
            embed(each, ["ACGT"], layer=layer)


def test_the_head_and_the_layers_behind_are_not_run(monkeypatch):
    model = new("gpn", width=8, depth=3, mlp_width=8)

    def never(*args, **kwargs):
        raise AssertionError("this was not asked for")

    monkeypatch.setattr(model.head, "forward", never)
    monkeypatch.setattr(model.backbone.layers[2], "forward", never)
    assert embed(model, ["ACGT"], layer=2).status == ("ok",)


def test_cut_sequences_give_the_whole_ones_vectors_where_the_model_sees_no_farther():
    # Two layers of 9 taps, dilations 1 and 2: a token depends on 12 letters on each side.
    model = new("gpn", width=16, depth=2, mlp_width=16)
    texts = sequences(6, 400, letters="ACGT")
    for pooling in POOLINGS:
        whole = embed(model, texts, pooling=pooling).vectors
        found = embed(model, texts, pooling=pooling, max_tokens=50, overlap_tokens=24)
        assert found.summary.cut == sum(len(t) > 50 for _, t in texts) > 2
        for one, other in zip(found.vectors, whole, strict=True):
            np.testing.assert_allclose(one, other, **tolerance(pooling))


def test_cut_tokens_come_from_the_piece_where_they_stand_farthest_from_a_cut(each):
    tokenizer = each.tokenizer
    before, after = len(tokenizer.prefix), len(tokenizer.suffix)
    text = sequences(1, 100, seed=3, letters="ACGT")[0][1] * 3
    (bare,) = tokenizer.encode([text])
    ids, n = bare["input_ids"], len(bare["input_ids"])
    room = 30 - before - after
    causal = each.family.objective == "causal"
    # Fewest pieces at even distances with an eighth of overlap, as the documentation says.
    count = -(-(n - room // 8) // (room - room // 8))
    starts = [i * (n - room) // (count - 1) for i in range(count)]
    rows = [tokenizer.wrap({"input_ids": ids[a : a + room]}) for a in starts]
    with torch.no_grad():
        hidden = each.backbone(**tokenizer.collate(rows, mask=False)).last

    def distance(piece, token):
        left = n if piece == 0 else token - starts[piece]
        right = n if piece == count - 1 else starts[piece] + room - 1 - token
        return (left if causal else min(left, right), -piece)

    chosen = [
        max((p for p in range(count) if 0 <= t - starts[p] < room), key=lambda p: distance(p, t))
        for t in range(n)
    ]
    tokens = [hidden[p, t - starts[p] + before] for t, p in enumerate(chosen)]
    state = torch.stack([*hidden[0, :before], *tokens, *hidden[-1, room + before :]])
    for pooling in POOLINGS:
        (vector,) = embed(each, [text], pooling=pooling, max_tokens=30).vectors
        assert_close(torch.from_numpy(vector), expected(state, pooling), **tolerance(pooling))


# --------------------------------------------------------------------------- any length

CARRYING = (
    "evo/sh_8k_like",
    "helm/gpt2_clm",
    "helm/mamba_clm",
    "mamba/mamba1_statespaces",
    "mamba/mamba2_hf",
    "transformer_plus/llama_tiny",
)
CARRIED = {"atol": 2e-5, "rtol": 1e-5}  # sums in another order differ by up to 5e-6


@pytest.fixture(params=CARRYING)
def carrying(request, tiny):
    return tiny(request.param)


def letters_for(model, tokens, seed=0):
    """Return random letters of so many tokens, or of as many as the model takes."""
    tokens = min(tokens, (model.context or tokens + 2) - 2)
    size = len("ACGACG") // len(model.tokenizer.spans("ACGACG"))
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), tokens * size))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("chunk_tokens", [1, 16, 100])
def test_a_carried_state_gives_the_vectors_of_one_pass(carrying, pooling, chunk_tokens):
    text = letters_for(carrying, 60)
    for special in (True, False):
        found = embed(
            carrying, [text], pooling=pooling, chunk_tokens=chunk_tokens, special_tokens=special
        )
        around = carrying.tokenizer.prefix, carrying.tokenizer.suffix
        cut = (0, 0) if special else map(len, around)
        alone = expected(states(carrying, text), pooling, *cut)
        assert_close(torch.from_numpy(found.vectors[0]), alone, **CARRIED)


def test_neighbours_do_not_change_what_is_carried(carrying):
    texts = [letters_for(carrying, n, seed=n) for n in (60, 57, 20, 60, 1, 34)]
    for pooling in ("concat", "last"):
        together = embed(carrying, texts, pooling=pooling, chunk_tokens=7).vectors
        for text, vector in zip(texts, together, strict=True):
            (alone,) = embed(carrying, [text], pooling=pooling).vectors
            np.testing.assert_allclose(vector, alone, **CARRIED)


def test_every_layer_is_carried_alike_alone_and_with_others(carrying):
    text = letters_for(carrying, 40)
    depth = len(carrying.backbone.layers)
    layers = [*range(depth + 1), -1]
    with torch.no_grad():
        out = carrying(**carrying.tokenizer(text), output_hidden_states=True)
    wanted = dict(zip(layers, [*out.hidden_states, out.last_hidden_state], strict=True))
    cut = Cutting(room=None, overlap=0, causal=True)
    items = list(
        prepare([("a", text, len(text), {})], carrying.tokenizer, cutting=cut, max_unknown=0)
    )
    how = How(
        parts=("mean", "last"),
        layer=-1,
        special_tokens=True,
        normalise=False,
        width=carrying.config.width,
        chunk_tokens=9,
    )
    found = layer_vectors(carrying, how, layers, 1000, items, lambda letters: None)
    for layer in layers:
        state = wanted[layer][0]
        whole = torch.cat([state.mean(0), state[-1]])
        assert_close(torch.from_numpy(found[layer][0]), whole, **CARRIED)
        (one,) = embed(carrying, [text], pooling="last", layer=layer, chunk_tokens=9).vectors
        assert_close(torch.from_numpy(one), state[-1], **CARRIED)


def test_a_model_with_a_state_takes_long_records_whole(tiny, capsys, monkeypatch):
    model = tiny("mamba/mamba2_hf")
    text = letters_for(model, 9000)
    found = embed(model, [text], pooling="mean")
    assert found.summary.cut == 0
    assert found.provenance["piece_tokens"] is None
    alone = expected(states(model, text), "mean")
    assert_close(torch.from_numpy(found.vectors[0]), alone, **CARRIED)
    assert embed(model, [text], max_tokens=4096).summary.cut == 1
    assert capsys.readouterr().err == ""


def test_a_word_is_said_where_records_are_longer_than_those_of_training(tiny, capsys, monkeypatch):
    model = tiny("evo/sh_8k_like")
    release = replace(releases()["evo-1-8k-base"][1], context=20)
    known = {model.name: (model.family, release)}
    monkeypatch.setattr("lexome.inference.stretches.releases", lambda: known)
    embed(model, ["ACGT" * 5, "ACGT" * 40], max_tokens=20)
    assert "trained" not in capsys.readouterr().err
    embed(model, ["ACGT" * 5, "ACGT" * 6, "ACGT" * 7])
    said = capsys.readouterr().err
    assert said.count("trained on sequences of up to 20 tokens, and a record has 28") == 1


def test_chunks_are_refused_where_there_is_no_state(tiny):
    for case, why in {
        "hyenadna/hf_tiny": "filters are as long as the input",
        "gpn/convnet": "does not read from left to right",
    }.items():
        with pytest.raises(InputError, match=why):
            embed(tiny(case), ["ACGT"], chunk_tokens=2)
    with pytest.raises(InputError, match="at least 1"):
        embed(tiny("mamba/mamba2_hf"), ["ACGT"], chunk_tokens=0)


@pytest.mark.parametrize("pooling", ["mean", "concat", "last"])
def test_no_tensor_grows_with_the_record(pooling):
    model = new("mamba", width=16, depth=2, states=4).eval()
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                sizes.append(made.numel())
            return made

    most = {}
    for length in (4000, 16_000):
        sizes.clear()
        with Watch():
            embed(model, [letters_for(model, length)], pooling=pooling, max_tokens_per_batch=256)
        most[length] = max(sizes)
    assert most[16_000] == most[4000]


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_vectors_of_the_tokens_of_long_records_wait_in_a_file(tiny, tmp_path, monkeypatch, suffix):
    model = tiny("mamba/mamba2_hf")
    texts = [("a", letters_for(model, 300)), ("b", "ACGT"), ("c", ""), ("d", "ACG" * 80)]
    kept = embed(model, texts, pooling="token", chunk_tokens=50).vectors
    mapped, room = [], embedding._room

    def watched(*args):
        made = room(*args)
        mapped.append(isinstance(made, np.memmap))
        return made

    monkeypatch.setattr(embedding, "_HELD_BYTES", 5000)
    monkeypatch.setattr(embedding, "_room", watched)
    monkeypatch.setattr(runs, "_WAITING_BYTES", 10_000)
    out = tmp_path / f"x{suffix}"
    embed(model, texts, pooling="token", chunk_tokens=50, out=out, progress=False)
    assert mapped == [True, False, False, True]
    if suffix == ".npz":
        found = np.load(out)
        parts = np.split(found["embedding"], found["embedding_offsets"][1:-1])
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        parts = [np.array(v, "f4").reshape(-1, 32) for v in table["embedding"].to_pylist()]
    for part, vectors in zip(parts, kept, strict=True):
        np.testing.assert_array_equal(part, vectors)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted(
        {".npz": [".npz", ".tsv", ".json"], ".parquet": [".parquet"]}[suffix]
    )


def test_every_record_comes_out_in_order(each):
    texts = [("a", "ACGT"), ("b", ""), ("c", "XXXXXX"), ("d", "ACGTX"), ("e", "acgt" * 3)]
    found = embed(each, texts)
    folded = each.family.name == "gpn"
    last = "ok" if folded else "unknown letters"
    assert found.status == ("ok", "empty", "unknown letters", "ok", last)
    assert found.ids == tuple("abcde")
    assert found.lengths.tolist() == [4, 0, 6, 5, 12]
    assert found.unknown.tolist() == [0, 0, 6, 1, 0 if folded else 12]
    refused = np.array([s != "ok" for s in found.status])
    assert np.isnan(found.vectors[refused]).all()
    assert np.isfinite(found.vectors[~refused]).all()
    assert found.summary.refused == {s: found.status.count(s) for s in set(found.status) - {"ok"}}


def test_a_file_that_the_model_cannot_read_at_all_is_an_error_that_says_what_helps(tiny, tmp_path):
    model = tiny("hyenadna/hf_tiny")
    path = tmp_path / "soft_masked.fa"
    path.write_text(">chr1\nacgtacgt\n>chr2\nacgtnnnn\n")
    with pytest.raises(UnknownLetters, match=r"8 of 8 in 'chr1' .* pass upper=True"):
        embed(model, path, out=tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()
    assert embed(model, path, upper=True).status == ("ok", "ok")


def test_a_word_is_said_of_letters_that_would_be_read_badly(tiny, capsys):
    half = ("ACGT" * 10 + "acgt" * 9) * 5
    rna = "ACGU" * 90
    for case, text, said in (
        ("hyenadna/hf_tiny", half, "180 of 380 letters of 'b' are unknown. This model knows upper"),
        ("hyenadna/hf_tiny", rna, "90 of 360 letters of 'b' are unknown. This model knows no U"),
        ("evo/sh_8k_like", half, "'b' has letters of lower case, which are other letters"),
        ("evo/sh_8k_like", "MKVLAAGIVGRRRELLEPQ", "'b' has the letters E I L P Q, which stand for"),
        ("evo/sh_8k_like", "ACGTRYSWKMBDHVN" * 9, ""),
        ("gpn/convnet", half, ""),  # lower case is what it was trained to read
        ("hyenadna/hf_tiny", "ACGTNNNN" * 20, ""),  # nothing would help
        ("hyenadna/hf_tiny", "ACGT" * 20 + "acg", ""),  # too few
    ):
        embed(tiny(case), [("a", "ACGT" * 9), ("b", text), ("c", text)])
        err = capsys.readouterr().err
        assert err.count("may read this badly") == bool(said), case
        assert said in err


def test_the_recommended_pooling_is_the_familys(tiny):
    model = new("gpn", width=8, depth=1, mlp_width=8)
    model.family = replace(model.family, pooling="cls", normalise=True)
    (vector,) = embed(model, ["ACGT"]).vectors
    first = states(model, "ACGT")[0]
    assert_close(torch.from_numpy(vector), first / first.norm(), **TOLERANCE)
    (plain,) = embed(model, ["ACGT"], pooling="cls").vectors
    assert_close(torch.from_numpy(plain), first, **TOLERANCE)


def test_no_records_give_no_vectors():
    model = new("gpn", width=8, depth=1, mlp_width=8)
    assert embed(model, []).vectors.shape == (0, 8)
    assert embed(model, [], pooling="concat").vectors.shape == (0, 24)
    assert embed(model, [""], pooling="token").vectors[0].shape == (0, 8)


def test_narrow_precision_is_close_and_named(fixtures):
    folder = fixtures / "gpn" / "convnet"
    texts = sequences(5, 60)
    full = embed(str(folder), texts, max_unknown=1)
    half = embed(folder, texts, max_unknown=1, precision="bfloat16")
    assert (full.provenance["precision"], half.provenance["precision"]) == ("float32", "bfloat16")
    assert half.vectors.dtype == np.float32
    cosine = (full.vectors * half.vectors).sum(1) / (
        np.linalg.norm(full.vectors, axis=1) * np.linalg.norm(half.vectors, axis=1)
    )
    assert cosine.min() > 0.999


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet", ".h5ad", ".tsv", ".csv.gz"])
def test_outputs_hold_what_memory_holds(tiny, tmp_path, suffix):
    model, texts = tiny("dnabert2/mlm_4heads"), [*sequences(9, 50), ("empty", "")]
    kept = embed(model, texts)
    out = tmp_path / f"vectors{suffix}"
    summary = embed(model, texts, out=out, progress=False)
    assert str(summary) == str(out)
    assert summary.records == 10
    if suffix in {".npz", ".npy"}:
        loaded = np.load(out)
        vectors = loaded if suffix == ".npy" else loaded["embedding"]
        rows = (tmp_path / f"vectors{suffix}.tsv").read_text().splitlines()
        assert rows[0].split("\t")[:3] == ["id", "status", "length"]
        assert [row.split("\t")[0] for row in rows[1:]] == list(kept.ids)
        made = json.loads((tmp_path / f"vectors{suffix}.json").read_text())
        assert (made["model"], made["pooling"]) == ("mlm_4heads", "mean")
    elif suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        vectors = np.array(table["embedding"].to_pylist(), np.float32)
        assert table["id"].to_pylist() == list(kept.ids)
    elif suffix == ".h5ad":
        cells = pytest.importorskip("anndata").read_h5ad(out)
        vectors = cells.X
        assert list(cells.obs_names) == list(kept.ids)
        assert list(cells.obs["status"]) == list(kept.status)
    else:
        pandas = pytest.importorskip("pandas")
        table = pandas.read_csv(out, sep="," if "csv" in suffix else "\t", comment="#")
        vectors = table.filter(like="embedding_").to_numpy(np.float32)
        assert table["id"].tolist() == list(kept.ids)
    np.testing.assert_array_equal(vectors, kept.vectors)


def test_one_vector_per_token_goes_to_formats_that_can_hold_it(tiny, tmp_path):
    model, texts = tiny("gpn/convnet"), [("a", "ACGT"), ("b", ""), ("c", "AC")]
    with pytest.raises(InputError, match="one vector per token"):
        embed(model, texts, pooling="token", out=tmp_path / "x.tsv")
    embed(model, texts, pooling="token", out=tmp_path / "x.npz", progress=False)
    kept = embed(model, texts, pooling="token")
    found = np.load(tmp_path / "x.npz")
    assert found["embedding_offsets"].tolist() == [0, 4, 4, 6]
    np.testing.assert_array_equal(found["embedding"], np.concatenate(kept.vectors))


def test_columns_of_the_input_stay_with_their_rows(tiny, tmp_path):
    path = tmp_path / "reads.tsv"
    path.write_text("name\tseq\tlabel\tstatus\nx\tACGT\tpromoter\told\ny\tAC\tother\tnew\n")
    found = embed(tiny("gpn/convnet"), path, sequence_column="seq", id_column="name")
    assert found.ids == ("x", "y")
    assert found.fields == (
        {"label": "promoter", "input_status": "old"},
        {"label": "other", "input_status": "new"},
    )


def test_intervals_are_read_from_their_genome(tiny, tmp_path):
    (tmp_path / "g.fa").write_text(">chr1\nAACCGGTTACGT\n")
    (tmp_path / "r.bed").write_text("chr1\t2\t8\tfirst\t0\t-\n")
    model = tiny("gpn/convnet")
    found = embed(model, tmp_path / "r.bed", genome=tmp_path / "g.fa")
    np.testing.assert_allclose(found.vectors, embed(model, ["AACCGG"]).vectors, **TOLERANCE)
    assert found.fields[0]["strand"] == "-"


def test_sequences_come_from_stdin(tiny, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b">a\nACGT\n>b\nAC\n")))
    assert embed(tiny("gpn/convnet"), "-").ids == ("a", "b")


def test_the_last_line_counts_what_happened(tiny, tmp_path, capfd):
    model, texts = tiny("hyenadna/hf_tiny"), [("a", "ACGT" * 30), ("b", ""), ("c", "ACx")]
    embed(model, texts, out=tmp_path / "x.npz")
    line = capfd.readouterr().err
    assert line.startswith(
        "3 records, 1 refused (1 empty), 1 cut into overlapping pieces, 123 bases (1 unknown) in "
    )
    embed(model, texts)
    embed(model, texts, out=tmp_path / "y.npz", progress=False)
    assert capfd.readouterr().err == ""


def test_a_finished_output_is_not_replaced_unasked(tiny, tmp_path):
    model, out = tiny("gpn/convnet"), tmp_path / "x.npz"
    embed(model, ["ACGT"], out=out, progress=False)
    with pytest.raises(InputError, match=r"there already\. Pass overwrite=True"):
        embed(model, ["AC"], out=out)
    embed(model, ["AC", "GT"], out=out, overwrite=True, progress=False)
    assert np.load(out)["embedding"].shape[0] == 2


def test_bad_arguments_are_named_before_any_work(tiny, tmp_path):
    model = tiny("gpn/convnet")
    with pytest.raises(UnknownName, match="Did you mean 'mean'"):
        embed(model, ["ACGT"], pooling="meen")
    with pytest.raises(UnknownName, match="output format"):
        embed(model, ["ACGT"], out=tmp_path / "x.docx")
    with pytest.raises(InputError, match="still to be loaded"):
        embed(model, ["ACGT"], precision="bfloat16")
    with pytest.raises(InputError, match="share from 0 to 1"):
        embed(model, ["ACGT"], max_unknown=50)


def interrupted_after(rows):
    """Return a sequence source that breaks off, as a kill or a broken file does."""

    def source(texts):
        yield from texts[:rows]
        raise KeyboardInterrupt

    return source


def test_an_interrupted_run_continues_where_it_was(tiny, tmp_path, monkeypatch, capfd):
    model, texts, out = tiny("gpn/convnet"), sequences(50, 40), tmp_path / "x.npz"
    monkeypatch.setattr(runs, "SAFE_EVERY_SECONDS", 0)
    monkeypatch.setattr(runs, "_WINDOW_BATCHES", 1)
    monkeypatch.setattr(reading, "_TOGETHER", 4)
    options = {"max_tokens_per_batch": 100, "max_unknown": 1, "out": out}
    with pytest.raises(KeyboardInterrupt):
        embed(model, interrupted_after(30)(texts), **options)
    assert "rows are safe in" in capfd.readouterr().err
    with pytest.raises(InputError, match="of an earlier run over other records: number 3 "):
        embed(model, [*texts[:2], ("other", "ACGT"), *texts[3:]], **options)
    with pytest.raises(InputError, match="with other settings"):
        embed(model, texts, **options, pooling="max")
    ran = []
    monkeypatch.setattr(
        model.backbone,
        "forward",
        lambda *a, f=model.backbone.forward, **k: (ran.append(len(k["input_ids"])), f(*a, **k))[1],
    )
    embed(model, texts, **options, progress=False)
    assert 0 < sum(ran) < 50
    whole = embed(model, texts, max_unknown=1, max_tokens_per_batch=100)
    np.testing.assert_array_equal(np.load(out)["embedding"], whole.vectors)


KILLED = """
import sys
import time
from lexome.catalog import load
from lexome.inference import embedding, runs

runs.SAFE_EVERY_SECONDS, runs._WINDOW_BATCHES = 0, 1
model = load(sys.argv[1], device="cpu")
run = model.backbone.forward
model.backbone.forward = lambda *a, **k: (time.sleep(0.05), run(*a, **k))[1]
embedding.embed(model, sys.argv[2], out=sys.argv[3], max_unknown=1, max_tokens_per_batch=60)
"""


def test_a_killed_run_ends_as_one_that_was_not(fixtures, tmp_path, monkeypatch):
    reads, out = tmp_path / "reads.fa", tmp_path / "x.parquet"
    reads.write_text("".join(f">{n}\n{s}\n" for n, s in sequences(80, 50)))
    folder = fixtures / "gpn" / "convnet"
    command = [sys.executable, "-c", KILLED, folder, reads, out]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    partial = tmp_path / "x.parquet.partial"
    deadline = time.monotonic() + 60
    while len(list(partial.glob("*.npz"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    monkeypatch.setattr(runs, "SAFE_EVERY_SECONDS", 0)
    monkeypatch.setattr(runs, "_WINDOW_BATCHES", 1)
    options = {"max_unknown": 1, "max_tokens_per_batch": 60, "progress": False}
    model = load(folder, device="cpu")
    embed(model, reads, out=tmp_path / "whole.parquet", **options)
    ran = []
    run_model = model.backbone.forward
    model.backbone.forward = lambda *a, **k: (ran.append(1), run_model(*a, **k))[1]
    embed(model, reads, out=out, **options)
    assert len(ran) <= 80 - 3
    assert not partial.exists()
    parquet = pytest.importorskip("pyarrow.parquet")
    whole = parquet.read_table(tmp_path / "whole.parquet")
    assert parquet.read_table(out).to_pydict() == whole.to_pydict()


def test_rows_of_a_model_that_was_trained_since_are_not_continued(tiny, tmp_path):
    model = new("gpn", width=8, depth=1, mlp_width=8)
    with RowStore(tmp_path / "x.npz", {"weights": "other"}) as store:
        store.append([{"id": "a"}])
    with pytest.raises(InputError, match="with other settings"):
        embed(model, ["ACGT"], out=tmp_path / "x.npz")
