"""DNABERT-2 against the authors' outputs."""

import json

import pytest
import torch

from lexome.blocks import alibi_slopes
from lexome.catalog import new
from lexome.core import CheckpointError
from lexome.families.dnabert2 import FAMILY
from lexome.tokenizers import read_tokenizer

SYSTEM = "dnabert2"


def test_tokens_are_the_authors(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    for item in checkpoint_case.io["tokenizer"]:
        ids = tokenizer([item["sequence"]])["input_ids"][0].tolist()
        assert ids == item["input_ids"], item["name"]


def test_the_published_tokenizer_gives_the_published_ids(fixtures):
    folder = fixtures / SYSTEM / "real_tokenizer"
    tokenizer = read_tokenizer(folder) if folder.is_dir() else None
    if tokenizer is None:
        pytest.skip("put the published tokenizer.json beside expected_ids.json to run this")
    for case in json.loads((folder / "expected_ids.json").read_text())["cases"]:
        assert tokenizer([case["sequence"]])["input_ids"][0].tolist() == case["input_ids"]


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    ids, mask = case.take("input_ids"), case.take("attention_mask")
    real = mask.bool()
    batch = model.tokenizer(case.io["batch_sequences"])
    assert torch.equal(batch["input_ids"], ids)
    assert torch.equal(batch["attention_mask"], mask)
    labels = case.take("labels") if case.has("labels") else None
    with torch.no_grad():
        out = model(**batch, labels=labels, output_hidden_states=True)
    case.check("hidden_last", out.last_hidden_state, where=real)
    if case.io["task"] == "sequence_classification":
        case.check("logits", out.logits)
        case.check("loss", out.loss)
        first = out.last_hidden_state[:, 0]
        case.check("pooler_output", torch.tanh(model.head.pooler(first)).detach())
    else:
        check_masked(case, model, batch, real, out)
    case.finish()


# The head multiplies rounding by about 7: the stored logits themselves lie up to 1.3e-5 from the
# same model in float64, and ours as much. Logits reach 16.
LOGITS = {"atol": 2e-5, "rtol": 1e-5}


def check_masked(case, model, batch, real, out):
    case.check("embeddings", out.hidden_states[0], where=real)
    for layer, state in enumerate(out.hidden_states[1:], start=1):
        case.check(f"hidden_{layer}", state, where=real)
    case.check("logits", out.logits, where=real, **LOGITS)
    length = case.take("alibi_first_8").shape[-1]
    bias = model.backbone.alibi(length, out.last_hidden_state)
    case.check("alibi_first_8", bias)
    ids = batch["input_ids"]
    half = torch.zeros_like(ids)
    half[:, ids.shape[1] // 2 :] = 1
    with torch.no_grad():
        case.check("logits_no_attention_mask", model(ids).logits, **LOGITS)
        segmented = model(**batch, token_type_ids=half).logits
        case.check("logits_token_type_ids_half_1", segmented, where=real, **LOGITS)
        labels = case.take("mlm_labels")
        masked = {**batch, "input_ids": case.take("mlm_input_ids")}
        scored = model(**masked, labels=labels)
        case.check("mlm_loss", scored.loss)
        case.check("mlm_logits_scattered", scored.logits, where=labels > 0, **LOGITS)
        single = model(case.take("single_input_ids")).last_hidden_state
    case.check("single_hidden_last", single)
    case.check("single_mean_pool", single[0].mean(0))
    case.check("single_max_pool", single[0].amax(0))


def test_label_zero_carries_no_loss(checkpoint_case):
    model = checkpoint_case.load()
    if model.head_name != "masked":
        pytest.skip("a classifier has no token loss")
    ids = torch.tensor([[1, 5, 6, 2]])
    some = model(ids, labels=torch.tensor([[-100, 5, -100, -100]])).loss
    more = model(ids, labels=torch.tensor([[0, 5, 0, 0]])).loss
    assert torch.equal(some, more)


def test_slopes_of_12_heads_fill_up_from_16():
    slopes = alibi_slopes(12)
    assert slopes[:8] == alibi_slopes(8)
    assert slopes[8:] == alibi_slopes(16)[0:8:2]


def test_the_heads_norm_has_its_own_epsilon():
    """The authors' code writes 1e-12 into the head, whatever the configuration says."""
    model = new("dnabert2", vocab_size=40, width=16, depth=1, heads=2, mlp_width=8, norm_eps=1e-3)
    assert (model.backbone.embed_norm.eps, model.head.norm.eps) == (1e-3, 1e-12)


def test_only_sizes_must_be_said():
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 8}
    config = FAMILY.read_config(sizes, {})
    assert (config.segments, config.norm_eps, config.dropout) == (2, 1e-12, 0.1)
    with pytest.raises(KeyError, match="intermediate_size"):
        FAMILY.read_config({k: v for k, v in sizes.items() if k != "intermediate_size"}, {})
    with pytest.raises(CheckpointError, match="hidden_act 'relu', which is not known here"):
        FAMILY.read_config(sizes | {"hidden_act": "relu"}, {})
