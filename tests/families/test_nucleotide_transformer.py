"""Nucleotide Transformer v1 and v2 against the authors' outputs."""

import json

import pytest
import torch

from lexome.catalog import load, new
from lexome.checkpoints import read_weights, write_weights
from lexome.core import CheckpointError, CheckpointMismatch, InputError

SYSTEM = "nucleotide_transformer"
V1 = {"wiring": "v1", "vocab_size": 73, "token_dropout": True}
V2 = {"wiring": "v2", "vocab_size": 75}
SIZES = {"width": 16, "depth": 2, "heads": 4, "mlp_width": 24, "positions": 66}


def test_tokens_are_the_authors(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    items = checkpoint_case.io["tokenizer"]
    for item in items:
        ids = tokenizer([item["sequence"]])["input_ids"][0].tolist()
        assert ids == item["input_ids"], item["name"]
        if item["jax_ids"] != "same":
            assert "KeyError" in item["jax_ids"], "the JAX tokenizer differs only where it fails"
    together = tokenizer.encode([item["sequence"] for item in items])
    for item, encoded in zip(items, together, strict=True):
        assert [3, *encoded["input_ids"].tolist()] == item["input_ids"]
        assert len(tokenizer.spans(item["sequence"])) == len(encoded["input_ids"])


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    ids, mask = case.take("input_ids"), case.take("attention_mask")
    batch = model.tokenizer(case.io["batch_sequences"])
    assert torch.equal(batch["input_ids"], ids)
    assert torch.equal(batch["attention_mask"], mask)
    with torch.no_grad():
        if case.io["task"] == "seq_classification":
            out = model(**batch, labels=case.take("labels"))
            case.check("logits", out.logits)
            case.check("loss", out.loss)
        else:
            check_masked(case, model, batch)
    case.finish()


def at_positions(case, name, logits, real):
    """Compare logits that are stored whole, or as rows of (batch, token)."""
    if case.has(f"{name}_at_positions"):
        rows = case.take("logits_positions")
        case.check(f"{name}_at_positions", logits[rows[:, 0], rows[:, 1]])
    else:
        case.check(name, logits, where=real)


def check_masked(case, model, batch):
    ids, mask = batch["input_ids"], batch["attention_mask"]
    real = mask.bool()
    out = model(**batch, output_hidden_states=True)
    for layer, state in enumerate((*out.hidden_states[:-1], out.last_hidden_state)):
        case.check(f"hidden_{layer}", state, where=real)
    weight = mask[..., None].float()
    case.check("mean_pool", (out.last_hidden_state * weight).sum(1) / weight.sum(1))
    at_positions(case, "logits", out.logits, real)
    at_positions(case, "logits_no_attention_mask", model(ids).logits, real)
    masked = {**batch, "input_ids": case.take("mlm_input_ids")}
    scored = model(**masked, labels=case.take("mlm_labels"))
    at_positions(case, "mlm_logits", scored.logits, real)
    case.check("mlm_loss", scored.loss)
    single = model.tokenizer(case.io["batch_sequences"][:1])["input_ids"]
    case.check("single_hidden_last", model(single).last_hidden_state)
    (weights,) = model.attention(**batch)
    rows = real[:, None, :, None].expand_as(weights)
    case.check("attention_last", weights, where=rows)


@pytest.mark.parametrize("wiring", [V1, V2])
def test_padding_on_either_side_changes_nothing(wiring):
    model = new("nucleotide_transformer", **SIZES, **wiring).eval()
    ids = torch.tensor([[3, 7, 2, 9, 11, 2, 8]])
    with torch.no_grad():
        alone = model.backbone(input_ids=ids).last[0]
        for side in ((0, 4), (4, 0)):
            padded = torch.nn.functional.pad(ids, side, value=1)
            mask = torch.nn.functional.pad(torch.ones_like(ids), side)
            last = model.backbone(input_ids=padded, attention_mask=mask).last[0]
            torch.testing.assert_close(last[mask[0].bool()], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wiring", [V1, V2])
@pytest.mark.parametrize("head", ["masked", "classifier", "token-classifier"])
def test_heads_train_and_come_back_from_their_files(head, wiring, tmp_path):
    model = new("nucleotide_transformer", head=head, classes=3, **SIZES, **wiring).eval()
    ids = torch.randint(6, 70, (2, 9), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0]) if head == "classifier" else ids % 3
    out = model(ids, labels=labels)
    assert (
        out.logits.shape
        == {
            "masked": (2, 9, model.config.vocab_size),
            "classifier": (2, 3),
            "token-classifier": (2, 9, 3),
        }[head]
    )
    out.loss.backward()
    for name, parameter in model.named_parameters():
        kept = "contact" in name or ("position" in name and wiring == V2)
        assert parameter.requires_grad is not kept
        assert kept or parameter.grad.abs().sum() > 0, name
    again = load(model.save(tmp_path), device="cpu")
    assert again.head_name == head
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, out.logits)


def test_masked_tokens_are_made_up_for_as_in_pretraining():
    model = new("nucleotide_transformer", **SIZES, **V1).eval()
    table = model.backbone.embed.weight
    places = model.backbone.position.weight
    with torch.no_grad():
        (first, *_) = model.backbone(input_ids=torch.tensor([[3, 8, 2, 8]]), keep=True).states
    torch.testing.assert_close(first[0, 1], table[8] * 0.88 / 0.75 + places[3])
    torch.testing.assert_close(first[0, 2], places[4])


def test_embeddings_may_stand_for_tokens():
    for wiring in (V1, V2):
        model = new("nucleotide_transformer", **SIZES, **wiring).eval()
        ids = torch.tensor([[3, 8, 9, 10]])
        with torch.no_grad():
            by_id = model(ids).last_hidden_state
            by_vector = model(inputs_embeds=model.backbone.embed(ids)).last_hidden_state
        torch.testing.assert_close(by_id, by_vector)


def test_layers_with_different_turns_are_refused(tmp_path):
    model = new("nucleotide_transformer", **SIZES, **V2)
    path = model.save(tmp_path) / "model.safetensors"
    tensors = dict(read_weights(path).tensors)
    names = [name for name in tensors if name.endswith("inv_freq")]
    assert len(names) == SIZES["depth"], "every layer's frequencies are written"
    tensors[names[1]] = tensors[names[1]] * 2
    write_weights(path, tensors)
    with pytest.raises(CheckpointMismatch, match="ties"):
        load(tmp_path)


def test_too_long_an_input_is_refused():
    model = new("nucleotide_transformer", **SIZES, **V1)
    assert model.context == 64
    model(torch.full((1, 64), 8))
    with pytest.raises(InputError, match="65 tokens, and this model has positions for 64"):
        model(torch.full((1, 65), 8))


def test_a_mixture_of_wirings_is_refused(tmp_path):
    new("nucleotide_transformer", **SIZES, **V2).save(tmp_path)
    config = tmp_path / "config.json"
    raw = json.loads(config.read_text())
    config.write_text(json.dumps(raw | {"add_bias_fnn": True}))
    with pytest.raises(CheckpointError, match="the wiring of v1"):
        load(tmp_path)


def test_a_vocabulary_of_another_model_is_refused(tmp_path):
    new("nucleotide_transformer", **SIZES, **V2).save(tmp_path)
    words = (tmp_path / "vocab.txt").read_text().split()
    (tmp_path / "vocab.txt").write_text("\n".join(words[:4] + words[6:]))
    with pytest.raises(CheckpointError, match="73 words"):
        load(tmp_path)


def test_other_esm_models_are_not_claimed():
    from lexome.families.nucleotide_transformer import FAMILY

    protein = {"model_type": "esm", "vocab_size": 33, "position_embedding_type": "rotary"}
    assert not FAMILY.recognise(protein)
    assert not FAMILY.recognise(protein | {"vocab_size": 4096})
    assert FAMILY.recognise(protein | {"vocab_size": 4107})


@pytest.mark.parametrize("wiring", [V1, V2])
def test_embeddings_may_be_normed_before_the_layers(wiring, tmp_path):
    model = new("nucleotide_transformer", embed_norm=True, **SIZES, **wiring).eval()
    torch.nn.init.constant_(model.backbone.embed_norm.bias, 3.0)
    ids, mask = torch.tensor([[3, 8, 9, 1]]), torch.tensor([[1, 1, 1, 0]])
    with torch.no_grad():
        (first, *_) = model.backbone(input_ids=ids, attention_mask=mask, keep=True).states
    torch.testing.assert_close(first.mean(-1), torch.tensor([[3.0, 3.0, 3.0, 0.0]]))
    again = load(model.save(tmp_path), device="cpu")
    assert again.config == model.config
    assert "esm.embeddings.layer_norm.weight" in again.published()


@pytest.mark.parametrize("tied", [True, False])
def test_the_decoder_may_be_the_token_embedding(tied, tmp_path):
    model = new("nucleotide_transformer", tied=tied, **SIZES, **V1)
    assert (model.head.decoder.weight is model.backbone.embed.weight) == tied
    model.save(tmp_path)
    names = set(read_weights(tmp_path / "model.safetensors").tensors)
    assert ("lm_head.decoder.weight" in names) != tied
    assert load(tmp_path, device="cpu").config.tied == tied


def test_other_ids_of_special_tokens_are_refused(tmp_path):
    new("nucleotide_transformer", **SIZES, **V1).save(tmp_path)
    config = tmp_path / "config.json"
    raw = json.loads(config.read_text())
    for name in ("mask_token_id", "pad_token_id"):
        config.write_text(json.dumps(raw | {name: 0}))
        with pytest.raises(CheckpointError, match=f"{name} 0, which is not known here"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "ends"),
    [({"eos_token": None}, []), ({"eos_token": "<eos>"}, [4]), ({}, [4]), (None, [])],
)
def test_inputs_end_as_the_tokenizers_settings_say(settings, ends, tmp_path):
    """The authors' class appends <eos> unless told not to; all releases tell it."""
    new("nucleotide_transformer", **SIZES, **V2).save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load(tmp_path, device="cpu").tokenizer
    assert tokenizer(["ATA"])["input_ids"].tolist() == [[3, 10, *ends]]


def test_v1_has_no_token_for_an_end(tmp_path):
    new("nucleotide_transformer", **SIZES, **V1).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert load(tmp_path, device="cpu").tokenizer.suffix == ()


def test_the_order_of_a_fast_tokenizers_words_is_kept(tmp_path):
    new("nucleotide_transformer", **SIZES, **V2).save(tmp_path)
    words = (tmp_path / "vocab.txt").read_text().translate(str.maketrans("AT", "TA")).split()
    (tmp_path / "vocab.txt").unlink()
    vocabulary = {word: i for i, word in enumerate(words)}
    content = {"model": {"type": "WordLevel", "vocab": vocabulary}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    ids = load(tmp_path, device="cpu").tokenizer(["TTTA"])["input_ids"].tolist()
    assert ids == [[3, vocabulary["TTT"], vocabulary["A"]]] == [[3, 6, 71]]
