"""HyenaDNA against the authors' outputs, the original files and the hub's."""

import re

import pytest
import torch
import torch.nn.functional as F

from lexome.catalog import families, load, new
from lexome.core import CheckpointError, InputError
from lexome.families.hyenadna import LastTokenClassifier
from lexome.objectives import next_token_loss

SYSTEM = "hyenadna"
LOGITS = {"atol": 1e-4, "rtol": 1e-5}  # orders of FFT differ; values reach 20


def test_tokens_are_the_authors(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    for text, expected in checkpoint_case.io["tokens"].items():
        for kind, ids in expected.items():
            assert tokenize(tokenizer, text, kind) == ids, (text, kind)


def tokenize(tokenizer, text, kind):
    """The four behaviours: with brackets, with [SEP] alone, bare, and padded to a length."""
    if kind.endswith("no_special"):
        return tokenizer([text], special_tokens=False)["input_ids"][0].tolist()
    if kind in {"default", "standalone_tokenizer(seq)"}:
        return tokenizer([text])["input_ids"][0].tolist()
    bare = tokenizer([text], special_tokens=False)["input_ids"][0].tolist()
    repository = [*bare, tokenizer.suffix[0]]
    if kind == "repo_tokenizer(seq)":
        return repository
    length = int(re.fullmatch(r"repo_padmax(\d+)", kind).group(1))
    kept = [*bare[: length - 1], tokenizer.suffix[0]]
    return [tokenizer.pad] * (length - len(kept)) + kept


def test_padded_batches_are_the_authors(checkpoint_case):
    case, tokenizer = checkpoint_case, checkpoint_case.load().tokenizer
    padded = case.io["padded_batch"]
    if isinstance(padded, dict):
        batch = tokenizer(case.io["sequences"][: len(padded["input_ids"])])
        assert batch["input_ids"].tolist() == padded["input_ids"]
        assert batch["attention_mask"].tolist() == padded["attention_mask"]
    else:
        batch = tokenizer(case.io["sequences"][: len(padded)])
        assert list(batch) == case.io["padded_batch_keys"]
        assert batch["input_ids"].tolist() == padded
        assert batch["input_ids"].tolist() == case.tensors["batch.input_ids"].tolist()
    if "decode_of_batch0" in case.io:
        real = batch["input_ids"][0]
        assert tokenizer.decode(real[real != tokenizer.pad]) == case.io["decode_of_batch0"]


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    for name in sorted({n.split(".")[0] for n in case.tensors if n.endswith(".input_ids")}):
        ids = case.take(f"{name}.input_ids")
        with torch.no_grad():
            out = model(ids, output_hidden_states=True)
        case.check(f"{name}.logits", out.logits, **LOGITS)
        if case.has(f"{name}.hidden0"):
            for layer, state in enumerate((*out.hidden_states, out.last_hidden_state)):
                case.check(f"{name}.hidden{layer}", state, atol=1e-4)
        else:
            case.check(f"{name}.hidden_last", out.last_hidden_state, atol=1e-4)
            for layer, state in enumerate(out.hidden_states[1:]):
                case.check(f"{name}.residual_after_layer{layer}", state, atol=1e-4)
        check_losses(case, model, name, ids, out)
    check_prompts(case, model)
    check_original_extras(case, model)
    case.finish()


def check_losses(case, model, name, ids, out):
    if case.has(f"{name}.labels"):
        labels = case.take(f"{name}.labels")
        case.check(f"{name}.loss", model.head.loss(out.logits, labels, {}))
        return
    without_pads = ids.where(ids != model.tokenizer.pad, -100)
    for key, labels in (
        ("loss", ids),
        ("loss_next_token", ids),
        ("loss_ignore_pad", without_pads),
        ("loss_next_token_ignore_pad4", without_pads),
    ):
        if case.has(f"{name}.{key}"):
            case.check(f"{name}.{key}", next_token_loss(out.logits, labels, {}))


def check_prompts(case, model):
    """Embeddings given directly: soft prompts before a sequence, or nothing but embeddings."""
    with torch.no_grad():
        if case.has("embeds.in"):
            given = case.take("embeds.in")
            case.check("embeds.logits", model(inputs_embeds=given).logits, **LOGITS)
        if case.has("softprompt.tokens"):
            prompt = case.take("softprompt.tokens")
            for name in [n for n in case.tensors if re.fullmatch(r"softprompt\.s\d+\.logits", n)]:
                ids = case.tensors[f"{name.split('.')[1]}.input_ids"]
                x = torch.cat([prompt[None], model.backbone.embed(ids)], dim=1)
                case.check(name, model(inputs_embeds=x).logits, **LOGITS)


def check_original_extras(case, model):
    if not case.has("head.weight"):
        return
    ids = case.tensors["batch.input_ids"]
    weight, bias = case.take("head.weight"), case.take("head.bias")
    with torch.no_grad():
        hidden = model(ids).last_hidden_state
        for mode, pooled in (
            ("pool", hidden.mean(1)),
            ("last", hidden[:, -1]),
            ("first", hidden[:, 0]),
            ("sum", hidden.sum(1)),
        ):
            case.check(f"batch.cls_logits_{mode}", pooled @ weight.T + bias, atol=2e-4)
        for name in [n for n in case.tensors if n.startswith("filter.layer")]:
            layer, length = re.fullmatch(r"filter\.layer(\d+)\.k_L(\d+)", name).groups()
            filter = model.backbone.layers[int(layer)].mixer.filter
            case.check(name, filter.taps(int(length)).T)
        for block in model.backbone.layers:
            block.mixer.filter.shift = 0.0
        unshifted = model(ids).last_hidden_state
        case.check("batch.hidden_last_shift0", unshifted, atol=1e-4)


def test_a_shift_that_no_file_holds_is_refused():
    with pytest.raises(InputError, match=r"shift is 0\.1"):
        new("hyenadna", width=16, depth=1, mlp_width=16, length=34, shift=0.1)
    model = new("hyenadna", width=16, depth=1, mlp_width=16, length=34, shift=0.1, bracketed=True)
    with pytest.raises(CheckpointError, match=r"shift of 0\.1"):
        model.family.write_config(model.config)


HUB = {"model_type": "hyenadna", "vocab_size": 12, "d_model": 16, "n_layer": 2, "max_seq_len": 66}
ORIGINAL = {
    "vocab_size": 12,
    "d_model": 16,
    "n_layer": 2,
    "layer": {"_name_": "hyena", "l_max": 66},
}


def read(raw):
    return families()["hyenadna"].read_config(raw, {})


def test_what_a_configuration_leaves_out_is_what_the_code_that_reads_it_takes():
    hub, original = read(HUB), read(ORIGINAL)
    assert hub.mlp_width == original.mlp_width == read({**HUB, "d_inner": None}).mlp_width == 64
    assert hub.filter_width == original.filter_width == 64
    assert (hub.rows, original.rows) == (16, 12)  # of 12, rounded up to 8 and to 1
    assert (hub.filter_features, hub.filter_frequency) == (3, 1)


def test_the_epsilon_of_norms_is_the_last_ones_on_the_hub_and_all_ones_in_the_original():
    hub = read({**HUB, "layer_norm_epsilon": 0.01})
    original = read({**ORIGINAL, "layer_norm_epsilon": 0.01})
    assert (hub.norm_eps, hub.final_norm_eps) == (1e-5, 0.01)
    assert (original.norm_eps, original.final_norm_eps) == (0.01, 0.01)
    layers = families()["hyenadna"].backbone(original).layers
    assert {norm.eps for block in layers for norm in (block.norm1, block.norm2)} == {0.01}


def test_projections_have_biases_whatever_the_hubs_configuration_says(tmp_path):
    model = new("hyenadna", width=16, depth=1, mlp_width=16, length=34)
    config = model.save(tmp_path) / "config.json"
    config.write_text(config.read_text().replace('"use_bias": true', '"use_bias": false'))
    again = load(tmp_path, device="cpu")
    assert torch.equal(again.backbone.layers[0].mixer.in_proj.bias, torch.zeros(48))


@pytest.mark.parametrize(
    "raw",
    [
        # The hub's code pads for three taps: with more it would look ahead, with fewer be late.
        *({**HUB, "short_filter_order": taps} for taps in (2, 4)),
        {**HUB, "hyena_order": 3},
        {**HUB, "train_freq": False},
        *(
            {**ORIGINAL, "layer": {**ORIGINAL["layer"], **more}}
            for more in ({"modulate": False}, {"normalized": True}, {"num_heads": 2}, {"order": 3})
        ),
        {**ORIGINAL, "attn_layer_idx": [1]},
    ],
)
def test_settings_that_are_not_followed_are_refused(raw):
    with pytest.raises(CheckpointError, match="not known here"):
        read(raw)


def test_a_new_model_has_the_taps_of_the_hubs_code():
    with pytest.raises(InputError, match="taps is 4"):
        new("hyenadna", width=16, depth=1, mlp_width=16, length=34, taps=4)


def test_the_classifiers_loss_follows_the_labels():
    logits = torch.tensor([[0.2, -1.0, 0.5], [1.0, 0.0, 2.0]])
    classes, several = torch.tensor([2, 0]), torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    loss = LastTokenClassifier(4, 3, 4).loss
    torch.testing.assert_close(loss(logits, classes, {}), F.cross_entropy(logits, classes))
    expected = -(several * logits.sigmoid().log() + (1 - several) * (-logits).sigmoid().log())
    torch.testing.assert_close(loss(logits, several, {}), expected.mean())
    values = torch.tensor([0.5, 3.0])
    torch.testing.assert_close(loss(logits[:, :1], values, {}), torch.tensor((0.09 + 4.0) / 2))
    regression = LastTokenClassifier(4, 3, 4, read({**HUB, "problem_type": "regression"}).problem)
    expected = (logits - several).square().mean()
    torch.testing.assert_close(regression.loss(logits, several, {}), expected)


def test_without_a_pad_the_classifier_reads_the_last_token():
    head, x = LastTokenClassifier(4, 3, None), torch.randn(2, 5, 4)
    ids = torch.full((2, 5), 4)
    torch.testing.assert_close(head(x, {"input_ids": ids}), head.score(x[:, -1]))
    padded = LastTokenClassifier(4, 3, 4)
    padded.score = head.score
    ids[:, :3] = 7  # two pads behind
    torch.testing.assert_close(padded(x, {"input_ids": ids}), head.score(x[:, 2]))
