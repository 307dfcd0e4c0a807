"""Carried memory gives the numbers of one pass; shared beginnings those of whole sequences."""

import numpy as np
import pytest
import torch

from lexome.catalog import new
from lexome.inference.causal_likelihood import (
    Trunk,
    branch_logliks,
    per_base_logliks,
    score_tokens,
    token_logprobs,
)
from lexome.inference.likelihood import score_sequences
from lexome.inference.stretches import carries_state

CARRYING = (
    "evo/sh_8k_like",
    "evo/sh_131k_interp16",
    "helm/gpt2_clm",
    "helm/mamba_clm",
    "mamba/mamba1_statespaces",
    "mamba/mamba2_hf",
    "transformer_plus/llama_tiny",
)
CLOSE = {"rtol": 1e-4, "atol": 2e-4}


@pytest.fixture(params=CARRYING)
def carrying(request, tiny):
    return tiny(request.param)


def draw(model, rows, length, seed=0):
    vocabulary = model.tokenizer.vocabulary
    ids = [i for i, word in enumerate(vocabulary) if word and set(word) <= set("ACGT")]
    length = min(length, model.context or length)
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(ids)[torch.randint(len(ids), (rows, length), generator=generator)]


def everywhere(ids_BL):
    rows, columns = torch.meshgrid(
        torch.arange(ids_BL.shape[0]), torch.arange(1, ids_BL.shape[1]), indexing="ij"
    )
    return rows.flatten(), columns.flatten()


@pytest.mark.parametrize("stretch", [1, 7, 32, 100])
def test_stretches_give_the_scores_of_one_pass(carrying, stretch):
    assert carries_state(carrying)
    inputs = {"input_ids": draw(carrying, 2, 90)}
    at = everywhere(inputs["input_ids"])
    whole = score_tokens(carrying, inputs, *at, entropies=True)
    told = []
    found = score_tokens(carrying, inputs, *at, stretch=stretch, entropies=True, done=told.append)
    torch.testing.assert_close(found.logprobs_N, whole.logprobs_N, **CLOSE)
    torch.testing.assert_close(found.entropies_N, whole.entropies_N, **CLOSE)
    assert sum(told) == pytest.approx(1)


def test_padded_rows_in_stretches_score_as_alone(carrying):
    ids_BL = draw(carrying, 2, 50)
    mask_BL = torch.ones_like(ids_BL)
    half = ids_BL.shape[1] // 2
    mask_BL[1, half:] = 0
    columns = torch.arange(1, half)
    rows = torch.ones_like(columns)
    inputs = {"input_ids": ids_BL, "attention_mask": mask_BL}
    found = score_tokens(carrying, inputs, rows, columns, stretch=9).logprobs_N
    alone = token_logprobs(carrying, {"input_ids": ids_BL[1:, :half]}, rows - 1, columns)
    torch.testing.assert_close(found, alone, **CLOSE)


def test_scores_and_entropies_are_those_of_the_whole_vocabulary(carrying):
    inputs = {"input_ids": draw(carrying, 1, 12)}
    with torch.no_grad():
        logprobs = carrying(**inputs).logits[0].double().log_softmax(-1)
    found = score_tokens(carrying, inputs, *everywhere(inputs["input_ids"]), entropies=True)
    targets = inputs["input_ids"][0, 1:]
    expected = logprobs[:-1].gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.logprobs_N.double(), expected, **CLOSE)
    entropy = torch.distributions.Categorical(logits=logprobs[:-1]).entropy()
    torch.testing.assert_close(found.entropies_N.double(), entropy, **CLOSE)


def test_no_tensor_is_as_long_as_the_sequence_but_the_tokens():
    model = new("mamba", width=16, depth=2, states=4).eval()
    longest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                longest.append(made.numel())
            return made

    most = {}
    for length in (4000, 16_000):
        ids_BL = draw(model, 1, length)
        at = torch.zeros(50, dtype=torch.long), torch.arange(length - 50, length)
        longest.clear()
        with Watch():
            score_tokens(model, {"input_ids": ids_BL}, *at, stretch=256)
        most[length] = max(longest)
    assert most[16_000] == most[4000]


# --------------------------------------------------------------------------- changes


def by_hand(model, ids):
    row = torch.from_numpy(ids)[None]
    return float(token_logprobs(model, {"input_ids": row}, *everywhere(row)).double().sum())


def changed(ids, model, seed):
    """Return substitutions, a deletion, an insertion and the sequence itself."""
    others = draw(model, 1, 3, seed=seed + 50)[0].numpy()
    made = []
    for place, letter in zip((0, 5, len(ids) // 2), others, strict=True):
        row = ids.copy()
        row[place] = letter
        made.append(row)
    half = len(ids) // 2
    made.append(np.concatenate([ids[:half], ids[half + 2 :]]))
    made.append(np.concatenate([ids[:half], others, ids[half:]]))
    return (*made, ids[:-3], ids)


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_changed_forms_score_as_when_run_whole(carrying, max_tokens):
    trunks = []
    for seed, length in enumerate((19, 19, 16)):
        ids = draw(carrying, 1, length, seed=seed)[0].numpy()
        trunks.append(Trunk(ids, changed(ids, carrying, seed)))
    found = branch_logliks(carrying, trunks, unscored=np.zeros(0, np.int64), max_tokens=max_tokens)
    for trunk, scores in zip(trunks, found, strict=True):
        own = by_hand(carrying, trunk.ids)
        assert scores.loglik == pytest.approx(own, rel=1e-4)
        expected = [by_hand(carrying, branch) - own for branch in trunk.branches]
        np.testing.assert_allclose(scores.deltas_N, expected, rtol=1e-4, atol=5e-4)


def test_unscored_tokens_of_changed_forms_count_for_nothing(tiny):
    model = tiny("mamba/mamba2_hf")
    ids = draw(model, 1, 20)[0].numpy()
    other = ids.copy()
    other[8] = 1 + ids[8]
    everything = np.unique(np.concatenate([ids, other]))
    trunk = Trunk(ids, (other,))
    (scores,) = branch_logliks(model, [trunk], unscored=everything, max_tokens=100)
    assert (scores.loglik, *scores.deltas_N) == (0.0, 0.0)
    (scores,) = branch_logliks(model, [trunk], unscored=everything[:0], max_tokens=100)
    assert scores.deltas_N != [0.0]


def test_means_per_letter_are_those_of_whole_sequences(carrying):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGTN"), 57, p=[0.22, 0.22, 0.22, 0.22, 0.12])) for _ in "ab"]
    changes = {text: [text[:30], text[:21] + "TAATAG" + text[21:], text] for text in texts}
    changes["NNN"] = ["NNNNNN"]
    found = per_base_logliks(carrying, changes, max_tokens=70)
    wanted = score_sequences(carrying, list(found), max_unknown=1.0).column("loglik_per_base")
    assert len(found) == 8
    none = [v is None for v in found.values()]
    assert none == np.isnan(wanted).tolist()
    values = np.array([v for v in found.values() if v is not None])
    np.testing.assert_allclose(values, wanted[~np.isnan(wanted)], rtol=1e-5, atol=1e-6)


def test_only_what_stands_behind_a_change_is_run_again(monkeypatch, tiny):
    model = tiny("mamba/mamba2_hf")
    ids = draw(model, 1, 64)[0].numpy()
    branches = []
    for letter in draw(model, 1, 3, seed=9)[0].tolist():
        row = ids.copy()
        row[48] = letter
        branches.append(row)
    run, forward = [], model.backbone.forward
    monkeypatch.setattr(
        model.backbone,
        "forward",
        lambda **inputs: run.append(inputs["input_ids"].numel()) or forward(**inputs),
    )
    branch_logliks(
        model, [Trunk(ids, tuple(branches))], unscored=np.zeros(0, np.int64), max_tokens=1000
    )
    differing = [row for row in branches if row[48] != ids[48]]
    assert sum(run) == 64 + 16 * len(differing)
