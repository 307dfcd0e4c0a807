"""seqLens against the authors' outputs."""

import json

import pytest
import torch
import torch.nn.functional as F

from lexome.catalog import load, new
from lexome.core import CheckpointError, InputError
from lexome.families.seqlens import FAMILY

SYSTEM = "seqlens"
SIZES = {"vocab_size": 40, "width": 16, "depth": 2, "heads": 4, "mlp_width": 24}
SIZES |= {"positions": 32, "buckets": 8}
WIRINGS = ("disentangled", "absolute", "esm")


def test_tokens_are_the_authors(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    for item in checkpoint_case.io["tokenizer"]:
        ids = tokenizer([item["sequence"]])["input_ids"][0].tolist()
        assert ids == item["input_ids"], item["name"]


def test_letters_that_vanish_are_counted(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    for text, unknown in (("ACGTN", 0), ("acgtn", 0), ("ACRYGT", 2), ("UUU", 3), ("", 0)):
        (encoded,) = tokenizer.encode([text])
        assert tokenizer.measure_unknown(text, encoded) == (unknown, len(text))


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    ids, mask = case.take("input_ids"), case.take("attention_mask")
    batch = model.tokenizer(case.io["batch_sequences"])
    assert torch.equal(batch["input_ids"], ids)
    assert torch.equal(batch["attention_mask"], mask)
    with torch.no_grad():
        if case.io["task"] == "sequence_classification":
            out = model(**batch, labels=case.take("labels"))
            case.check("logits", out.logits)
            case.check("loss", out.loss)
        else:
            check_masked(case, model, batch)
    case.finish()


def check_masked(case, model, batch):
    real = batch["attention_mask"].bool()
    out = model(**batch, output_hidden_states=True)
    for layer, state in enumerate((*out.hidden_states[:-1], out.last_hidden_state)):
        case.check(f"hidden_{layer}", state, where=real)
    case.check("logits", out.logits, where=real)
    unmasked = model(batch["input_ids"]).logits
    case.check("logits_no_attention_mask", unmasked, where=real)
    masked = {**batch, "input_ids": case.take("mlm_input_ids")}
    scored = model(**masked, labels=case.take("mlm_labels"))
    case.check("mlm_logits", scored.logits, where=real)
    case.check("mlm_loss", scored.loss)
    (weights,) = model.attention(**batch)
    case.check("attention_last", weights, where=real[:, None, :, None].expand_as(weights))
    check_poolings(case, out.last_hidden_state, real)


def check_poolings(case, last, real):
    """The authors' poolings: special tokens count, and zeros of padding compete for the maximum."""
    kept = last * real[..., None]
    pooled = {"cls": last[:, 0], "max": kept.amax(1), "mean": kept.sum(1) / real.sum(1)[:, None]}
    for name, value in pooled.items():
        case.check(f"pool_{name}", value)
    joined = torch.cat([pooled["cls"], pooled["max"], pooled["mean"]], -1)
    case.check("pool_concat_cls_max_mean", joined)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_padding_on_either_side_changes_nothing(wiring):
    model = new("seqlens", **SIZES, wiring=wiring).eval()
    ids = torch.tensor([[3, 7, 2, 9, 11, 2, 8, 1]])
    with torch.no_grad():
        alone = model.backbone(input_ids=ids).last[0]
        for side in ((0, 4), (4, 0)):
            padded = F.pad(ids, side, value=2)
            mask = F.pad(torch.ones_like(ids), side)
            last = model.backbone(input_ids=padded, attention_mask=mask).last[0]
            torch.testing.assert_close(last[mask[0].bool()], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("head", ["masked", "classifier"])
def test_heads_train_and_come_back_from_their_files(head, wiring, tmp_path):
    model = new("seqlens", head=head, classes=3, **SIZES, wiring=wiring).eval()
    ids = torch.randint(4, 40, (2, 9), generator=torch.Generator().manual_seed(0))
    out = model(ids, labels=torch.tensor([2, 0]) if head == "classifier" else ids)
    assert out.logits.shape == ((2, 3) if head == "classifier" else (2, 9, 40))
    out.loss.backward()
    for name, parameter in model.named_parameters():
        kept = wiring == "esm" and ("contact" in name or "position" in name)
        assert parameter.requires_grad is not kept
        assert kept or parameter.grad.abs().sum() > 0, name
    again = model_of(model.save(tmp_path), wiring)
    assert again.head_name == head
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, out.logits)


def model_of(folder, wiring):
    """Load a model without a tokenizer by lending it one of the same size."""
    words = {"<sos>": 0, "<eos>": 1, "<pad>": 2, "<cls>": 3, "a": 4, "c": 5, "g": 6, "t": 7}
    content = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "merges": []}}
    content["model"]["vocab"] = words
    (folder / "tokenizer.json").write_text(
        json.dumps({**content, "normalizer": {"type": "Lowercase"}})
    )
    model = load(folder, device="cpu")
    assert model.config.wiring == wiring
    return model


@pytest.mark.parametrize("wiring", WIRINGS)
def test_embeddings_may_stand_for_tokens(wiring):
    model = new("seqlens", **SIZES, wiring=wiring).eval()
    ids = torch.tensor([[3, 8, 9, 10]])
    with torch.no_grad():
        by_id = model(ids).last_hidden_state
        by_vector = model(inputs_embeds=model.backbone.embed(ids)).last_hidden_state
    torch.testing.assert_close(by_id, by_vector)


def test_only_absolute_positions_have_an_end():
    ids = torch.full((1, 33), 8)
    for wiring in ("disentangled", "esm"):
        assert new("seqlens", **SIZES, wiring=wiring).eval()(ids).logits.shape == (1, 33, 40)
    with pytest.raises(InputError, match="33 tokens, and this seqLens tells 32 positions apart"):
        new("seqlens", **SIZES, wiring="absolute")(ids)


def test_only_disentangled_models_keep_distances_and_share_them():
    names = {w: dict(new("seqlens", **SIZES, wiring=w).named_parameters()) for w in WIRINGS}
    tables = {w: [n for n in names[w] if "distances" in n] for w in WIRINGS}
    assert tables["absolute"] == tables["esm"] == []
    assert names["disentangled"]["backbone.distances.table.weight"].shape == (16, 16)
    assert not [n for n in names["disentangled"] if "position" in n]


def test_a_mixture_of_wirings_is_refused(tmp_path):
    new("seqlens", **SIZES).save(tmp_path)
    config = tmp_path / "config.json"
    raw = json.loads(config.read_text())
    for name, value in (("share_att_key", False), ("pos_att_type", ["c2p"])):
        config.write_text(json.dumps(raw | {name: value}))
        with pytest.raises(CheckpointError, match=f"disentangled wiring sets {name}"):
            load(tmp_path)
    for name, value in (("pooler_hidden_act", "tanh"), ("conv_kernel_size", 3)):
        config.write_text(json.dumps(raw | {name: value}))
        with pytest.raises(CheckpointError, match=f"{name} {value!r}, which is not known here"):
            load(tmp_path)
    for buckets in (-1, 62):
        config.write_text(json.dumps(raw | {"position_buckets": buckets}))
        with pytest.raises(CheckpointError, match=f"position_buckets {buckets}"):
            load(tmp_path)


@pytest.mark.parametrize(
    "same",
    [
        {"pos_att_type": ["c2p", "p2c"]},
        {"pos_att_type": "p2c|c2p"},
        {"pos_att_type": "C2P|P2C"},
        {"max_relative_positions": 32},
    ],
)
def test_what_says_the_same_in_other_words_is_read(same, tmp_path):
    raw = FAMILY.write_config(new("seqlens", **SIZES).config)
    assert FAMILY.read_config(raw | same, {}) == FAMILY.read_config(raw, {})


def test_what_is_left_out_is_as_in_the_authors_class():
    plain = FAMILY.write_config(new("seqlens", **SIZES, wiring="absolute").config)
    left = ("relative_attention", "position_biased_input", "type_vocab_size", "layer_norm_eps")
    kept = {name: value for name, value in plain.items() if name not in left}
    assert FAMILY.read_config(kept, {}) == FAMILY.read_config(plain, {})


def test_shares_of_classes_are_cross_entropy_in_deberta_alone():
    ids, shares = torch.tensor([[3, 8, 9, 1]]), torch.tensor([[0.5, 0.0, 0.5]])
    for wiring in WIRINGS:
        model = new("seqlens", head="classifier", classes=3, **SIZES, wiring=wiring).eval()
        out = model(ids, labels=shares)
        crossed = -(out.logits.log_softmax(-1) * shares).sum(-1).mean()
        each = F.binary_cross_entropy_with_logits(out.logits, shares)
        torch.testing.assert_close(out.loss, each if wiring == "esm" else crossed)


def test_models_of_text_proteins_and_kmers_are_not_claimed():
    text = {"model_type": "deberta-v2", "vocab_size": 128_100, "pad_token_id": 0}
    protein = {"model_type": "esm", "vocab_size": 33, "pad_token_id": 1}
    for raw in (text, protein, protein | {"vocab_size": 4107}, {"pad_token_id": 2}):
        assert not FAMILY.recognise(raw)
    assert FAMILY.recognise(text | {"pad_token_id": 2})
    assert FAMILY.recognise(protein | {"vocab_size": 4096})
