import json
import math

import numpy as np
import pytest
import torch

import lexome.inference.generation as generation
from lexome.blocks import DecodeCache
from lexome.catalog import new
from lexome.core import InputError, UnknownLetters
from lexome.formats import read_fasta, read_table
from lexome.inference import stretches
from lexome.inference.generation import generate

SIZES = {"width": 16, "mlp_width": 32, "depth": 2, "length": 400}


@pytest.fixture(scope="module")
def model():
    return new("hyenadna", **SIZES).eval()


def logprobs(model, ids):
    """Log-probability of every next token, from one parallel run."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def ids_of(model, text):
    """Ids of a text with the start token, if there is one."""
    bare = model.tokenizer.encode([text])[0]["input_ids"]
    return [*model.tokenizer.prefix, *bare.tolist()]


def bases(count, seed=0):
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), count))


@pytest.mark.parametrize("bracketed", [True, False])
@pytest.mark.parametrize("prompt_bp", [1, 2, 63, 64, 65, 200])
def test_scores_step_by_step_are_those_of_one_run(bracketed, prompt_bp):
    model = new("hyenadna", **SIZES, bracketed=bracketed).eval()
    (made,) = generate(model, [bases(prompt_bp)], length=150, letters="ACGT")
    ids = ids_of(model, made.prompt + made.sequence)
    start = len(ids) - 150
    expected = logprobs(model, ids)[range(start - 1, len(ids) - 1), ids[start:]]
    torch.testing.assert_close(
        torch.from_numpy(made.logprobs), expected.float(), atol=1e-4, rtol=1e-4
    )


def test_a_step_reads_one_token(model, monkeypatch):
    read = []
    forward = type(model.backbone).forward

    def spy(self, **inputs):
        read.append(inputs["input_ids"].shape[1])
        return forward(self, **inputs)

    monkeypatch.setattr(type(model.backbone), "forward", spy)
    generate(model, ["ACGTACGT"], length=5, letters="ACGT")
    assert read == [8, 1, 1, 1, 1]


def test_a_long_prompt_is_continued_right():
    model = new("hyenadna", **(SIZES | {"length": 10_300})).eval()
    prompt = bases(10_000)
    (made,) = generate(model, [prompt], length=200, temperature=0, letters="ACGT")
    ids = ids_of(model, prompt + made.sequence)
    scores = logprobs(model, ids)[9_999:-1]
    torch.testing.assert_close(
        torch.from_numpy(made.logprobs), scores[range(200), ids[10_000:]], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("case", ["hyenadna/hf_tiny", "hyenadna/orig_tiny_ckpt"])
def test_published_forms_generate(tiny, case):
    model = tiny(case)
    (made,) = generate(model, ["ACGT"], length=40, letters="ACGT")
    assert len(made.sequence) == len(made.logprobs) == 40


def test_a_sample_does_not_depend_on_its_batch_mates(model):
    prompts = [(f"p{i}", bases(n, i)) for i, n in enumerate((3, 40, 1, 17, 40))]
    together = generate(model, prompts, length=80, samples=2, letters="ACGT")
    assert [one.id for one in together] == [f"p{i}_{k}" for i in range(5) for k in (1, 2)]
    small = generate(model, prompts, length=80, samples=2, letters="ACGT", max_tokens_per_batch=200)
    alone = [
        one for p in prompts for one in generate(model, [p], length=80, samples=2, letters="ACGT")
    ]
    for one, other, third in zip(together, small, alone, strict=True):
        assert one.sequence == other.sequence == third.sequence
        np.testing.assert_allclose(one.logprobs, third.logprobs, atol=1e-5)


def test_the_same_seed_gives_the_same_text(model):
    first, again = (generate(model, ["ACGT"], length=60, seed=7)[0] for _ in range(2))
    other = generate(model, ["ACGT"], length=60, seed=8)[0]
    assert first.sequence == again.sequence != other.sequence


def test_samples_and_equal_prompts_differ(model):
    texts = [g.sequence for g in generate(model, ["ACGT"] * 2, length=60, samples=3, letters="AC")]
    assert len(set(texts)) == 6


def test_temperature_zero_takes_the_likeliest_letter(model):
    (made,) = generate(model, ["GATTACA"], length=30, temperature=0, letters="ACGT")
    ids = ids_of(model, made.prompt + made.sequence)
    allowed = [model.tokenizer.vocabulary.index(letter) for letter in "ACGT"]
    scores = logprobs(model, ids)[6:-1][:, allowed]
    assert [allowed[i] for i in scores.argmax(-1)] == ids[7:]


@pytest.mark.parametrize("choice", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}])
def test_the_narrowest_choice_is_the_likeliest(model, choice):
    greedy = generate(model, ["GATTACA"], length=30, temperature=0, letters="ACGT")
    assert generate(model, ["GATTACA"], length=30, letters="ACGT", **choice)[0].sequence == (
        greedy[0].sequence
    )


def test_only_the_letters_asked_for_are_drawn(model):
    (made,) = generate(model, ["ACGT"], length=200, letters="AG")
    assert set(made.sequence) == {"A", "G"}
    assert made.ended == "length"


def test_by_default_all_letters_and_the_end_are_drawn(model):
    made = generate(model, ["ACGT"], length=60, samples=20)
    assert set("".join(one.sequence for one in made)) == set("ACGTN")
    ends = {one.ended for one in made}
    assert "end" in ends
    for one in made:
        assert len(one.sequence) == len(one.logprobs)
        assert (one.ended == "length") == (len(one.sequence) == 60)


def test_a_stop_string_ends_with_it(model):
    for one in generate(model, ["ACGT"], length=150, samples=5, letters="ACGT", stop="GA"):
        assert one.ended == "stop"
        assert one.sequence.endswith("GA")
        assert "GA" not in one.sequence[:-1]
    (two,) = generate(model, ["ACGT"], length=150, letters="ACGT", stop=["TTTTTTTT", "C"])
    assert two.sequence.endswith("C")


def test_an_empty_prompt_begins_with_the_start_token():
    model = new("hyenadna", **SIZES, bracketed=True).eval()
    (made,) = generate(model, length=20, letters="ACGT")
    ids = ids_of(model, made.sequence)
    expected = logprobs(model, ids)[range(20), ids[1:]].numpy()
    np.testing.assert_allclose(made.logprobs, expected, atol=1e-4)


def test_without_a_start_token_the_first_letter_is_even(model):
    made = generate(model, ["", "ACGT"], length=5, samples=100, letters="ACGT")
    assert all(len(one.sequence) == len(one.logprobs) == 5 for one in made)
    first = [one.sequence[0] for one in made[:100]]
    assert all(10 < first.count(letter) < 45 for letter in "ACGT")
    assert made[0].logprobs[0] == pytest.approx(-math.log(4))
    ids = ids_of(model, made[0].sequence)
    expected = logprobs(model, ids)[range(4), ids[1:]].numpy()
    np.testing.assert_allclose(made[0].logprobs[1:], expected, atol=1e-4)
    assert [len(g.sequence) for g in generate(model, [""], length=1, letters="ACGT")] == [1]


def test_letters_can_be_given_as_one_string(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (made,) = generate(model, "GATTACA", length=3)
    assert (made.prompt, made.id) == ("GATTACA", "generated_1")
    (tmp_path / "GATTACA").write_text(">a\nCC\n")
    assert generate(model, "GATTACA", length=3)[0].prompt == "CC"
    assert str(generate(model, "GATTACA", length=3, letters="A")).splitlines()[1] == "AAA"


def test_prompt_and_length_must_fit_the_context(model):
    assert generate(model, [bases(390)], length=10)
    for prompt_bp, length in ((391, 10), (400, 1), (500, 1)):
        with pytest.raises(InputError, match=r"more than the 400 .* shorter prompt"):
            generate(model, [bases(prompt_bp)], length=length)


def test_unknown_letters_are_refused_with_advice(model):
    with pytest.raises(UnknownLetters, match="upper=True"):
        generate(model, ["acgt"], length=3)
    assert generate(model, ["acgt"], length=3, upper=True)[0].prompt == "ACGT"


def test_a_masked_model_is_refused_and_others_named(tiny):
    with pytest.raises(InputError, match=r"masked model.*HyenaDNA"):
        generate(tiny("gpn/convnet"), ["ACGT"])


def test_a_model_without_its_token_head_is_refused():
    model = new("hyenadna", head="classifier", **SIZES)
    with pytest.raises(InputError, match="classifier head"):
        generate(model, ["ACGT"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0},
        {"samples": 0},
        {"temperature": -1},
        {"temperature": math.nan},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.5},
        {"letters": "ACGX"},
        {"letters": ""},
        {"max_tokens_per_batch": 0},
    ],
)
def test_senseless_settings_are_refused(model, wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        generate(model, ["ACGT"], **wrong)


def test_fasta_says_how_it_was_made(model, tmp_path):
    out = tmp_path / "new.fa"
    prompts = [("a", "ACGT"), ("b", "TT")]
    made = generate(model, prompts, length=20, samples=2, letters="ACGT")
    assert generate(model, prompts, length=20, samples=2, letters="ACGT", out=out) == out
    records = list(read_fasta(out))
    assert [(r.id, r.sequence) for r in records] == [(g.id, g.sequence) for g in made]
    assert "prompt_bp=4" in records[0].description
    assert "temperature=1.0" in records[0].description
    assert "seed=0" in records[0].description
    said = json.loads((tmp_path / "new.fa.json").read_text())
    assert (said["command"], said["samples"], said["family"]) == ("generate", 2, "hyenadna")


def test_tables_hold_prompts_and_scores(model, tmp_path):
    out = tmp_path / "new.tsv"
    generate(model, ["ACGT"], length=20, letters="ACGT", out=out)
    (row,) = read_table(out)
    (made,) = generate(model, ["ACGT"], length=20, letters="ACGT")
    assert row.sequence == made.sequence
    assert float(row.fields["mean_logprob"]) == pytest.approx(made.mean_logprob, abs=1e-6)
    assert row.fields["prompt"] == "ACGT"


def test_npz_holds_the_score_of_every_token(model, tmp_path):
    out = tmp_path / "new.npz"
    generate(model, ["ACGT", "TT"], length=20, stop="A", letters="ACGT", out=out)
    made = generate(model, ["ACGT", "TT"], length=20, stop="A", letters="ACGT")
    stored = np.load(out)
    np.testing.assert_array_equal(
        stored["logprobs"], np.concatenate([one.logprobs for one in made])
    )


def test_a_killed_run_continues_where_it_was(model, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "_BATCHES_PER_WINDOW", 1)
    out, whole = tmp_path / "new.tsv", tmp_path / "whole.tsv"
    prompts = [(f"p{i}", bases(5, i)) for i in range(10)]
    settings = {"length": 20, "letters": "ACGT", "max_tokens_per_batch": 60}
    generate(model, prompts, out=whole, **settings)
    ordinary, calls = generation._generate, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ordinary(*args)

    monkeypatch.setattr(generation, "_generate", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(model, prompts, out=out, **settings)
    assert not out.exists()
    generate(model, prompts, out=out, **settings)
    assert out.read_text() == whole.read_text()
    with pytest.raises(InputError, match="there already"):
        generate(model, prompts, out=out, **settings)
    generate(model, prompts, out=out, overwrite=True, **settings)


def test_cached_steps_equal_one_run_for_many_lengths(model):
    ids = torch.randint(7, 11, (2, 300))
    with torch.no_grad():
        whole = model(ids).logits
        for start in (1, 5, 64, 129):
            cache = DecodeCache(300)
            parts = [model(ids[:, :start], cache=cache).logits]
            parts += [model(ids[:, t : t + 1], cache=cache).logits for t in range(start, 300)]
            torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)


def test_no_repeat_writes_no_word_twice(model):
    prompt = "ACGTTGCA"
    for one in generate(model, [prompt], length=150, samples=3, letters="ACGT", no_repeat=5):
        text = prompt + one.sequence
        words = [text[i : i + 5] for i in range(len(text) - 4)]
        assert len(set(words)) == len(words)


def test_where_all_would_repeat_all_may_come(model):
    (made,) = generate(model, ["AA"], length=30, letters="A", no_repeat=2)
    assert made.sequence == "A" * 30


def test_repetition_penalty_follows_its_formula(model):
    # Scores of letters that came are divided if positive and multiplied if negative.
    prompt, theta = "AAC", 3.0
    with torch.no_grad():
        scores = model(torch.tensor([ids_of(model, prompt)])).logits[0, -1]
    seen = torch.tensor(ids_of(model, prompt)).unique()
    scores[seen] = torch.where(scores[seen] > 0, scores[seen] / theta, scores[seen] * theta)
    letters = model.tokenizer.encode(["ACGT"])[0]["input_ids"].astype(int)
    expected = "ACGT"[int(scores[letters].argmax())]
    settings = {"length": 1, "temperature": 0, "letters": "ACGT"}
    (made,) = generate(model, [prompt], repetition_penalty=theta, **settings)
    assert made.sequence == expected
    plain = generate(model, [prompt], **settings)
    same = generate(model, [prompt], repetition_penalty=1.0, **settings)
    assert [one.sequence for one in plain] == [one.sequence for one in same]


def test_scores_are_the_models_own_whatever_restrains_the_draw(model):
    settings = {"repetition_penalty": 2.0, "no_repeat": 4, "letters": "ACGT"}
    (made,) = generate(model, ["ACGT"], length=60, **settings)
    ids = ids_of(model, made.prompt + made.sequence)
    expected = logprobs(model, ids)[range(3, 63), ids[4:]].numpy()
    np.testing.assert_allclose(made.logprobs, expected, atol=1e-4)


def test_nothing_ends_a_sequence_before_its_least_length(model):
    made = generate(model, ["ACGT", ""], length=60, samples=20, min_length=25)
    assert all(len(one.sequence) >= 25 for one in made)
    assert "end" in {one.ended for one in made}
    stopped = generate(model, ["A"], length=60, samples=5, letters="ACGT", stop="C", min_length=9)
    for one in stopped:
        assert len(one.sequence) >= 9
        assert "C" not in one.sequence[8:-1]


def test_special_tokens_are_taken_literally_from_text_and_prefix(model):
    (plain,) = generate(model, "[SEP]AC", length=10, letters="ACGT")
    assert plain.prompt == "[SEP]AC"
    (made,) = generate(model, ["AC"], length=10, letters="ACGT", prefix="[SEP]", temperature=0)
    ids = ids_of(model, "[SEP]AC" + made.sequence)
    assert len(ids) == 13
    expected = logprobs(model, ids)[range(2, 12), ids[3:]].numpy()
    np.testing.assert_allclose(made.logprobs, expected, atol=1e-4)
    assert (made.prompt, len(made.sequence)) == ("AC", 10)


def test_an_empty_stop_is_refused(model):
    with pytest.raises(InputError, match="stop is empty text"):
        generate(model, "ACGT", length=3, stop=["TAA", ""])


def test_what_looks_like_a_file_is_one(model):
    with pytest.raises(InputError, match=r"no file prompts\.fa"):
        generate(model, "prompts.fa", length=3)
    with pytest.raises(UnknownLetters, match=r"does not know .* model's alphabet\.$"):
        generate(model, "|d__Bacteria;s__Escherichia coli|", length=3)


def test_tables_hold_token_scores_when_asked(model, tmp_path):
    out = tmp_path / "new.tsv"
    generate(model, ["ACGT"], length=20, letters="ACGT", out=out, token_scores=True)
    (row,) = read_table(out)
    (made,) = generate(model, ["ACGT"], length=20, letters="ACGT")
    told = [float(value) for value in row.fields["logprobs"].split()]
    np.testing.assert_allclose(told, made.logprobs, rtol=1e-5)
    with pytest.raises(InputError, match="token_scores is for"):
        generate(model, ["ACGT"], length=3, out=tmp_path / "new.fa", token_scores=True)


@pytest.mark.parametrize(
    "wrong", [{"repetition_penalty": 0.5}, {"no_repeat": 1}, {"min_length": 11}]
)
def test_senseless_restraints_are_refused(model, wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        generate(model, ["ACGT"], length=10, **wrong)


def test_writing_beyond_what_a_release_was_trained_on_is_said(monkeypatch, capsys):
    class Release:
        context = 30

    model = new("mamba", width=16, depth=1).eval()
    monkeypatch.setattr(stretches, "releases", lambda: {model.name: (None, Release())})
    generate(model, ["ACGT"], length=26)
    assert not capsys.readouterr().err
    generate(model, ["ACGT", "ACGTA"], length=30)
    (told,) = capsys.readouterr().err.splitlines()
    assert "trained on sequences of up to 30 tokens, and what is to be written has 34" in told


def test_evo_is_steered_by_bytes_and_continues_one_letter():
    sizes = {"width": 32, "depth": 3, "heads": 4, "mlp_width": 64, "attention_layers": (1,)}
    model = new("evo", **sizes).eval()
    for prompt in ("|d__Bacteria;s__Escherichia coli|", "`", "A"):
        (made,) = generate(model, prompt, length=20, letters="ACGT", no_repeat=6)
        assert made.prompt == prompt
        ids = ids_of(model, prompt + made.sequence)
        start = len(ids) - 20
        expected = logprobs(model, ids)[range(start - 1, len(ids) - 1), ids[start:]].numpy()
        np.testing.assert_allclose(made.logprobs, expected, atol=1e-4)
    steered = generate(model, ["ACGT"], length=20, letters="ACGT", prefix="|d__Bacteria|")
    plain = generate(model, ["ACGT"], length=20, letters="ACGT")
    assert steered[0].prompt == "ACGT"
    assert not np.allclose(steered[0].logprobs, plain[0].logprobs)
