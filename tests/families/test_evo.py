"""Evo 1 against the authors' outputs: both configurations, scores, states, generation."""

import pytest
import torch
import yaml

from lexome.blocks import CausalSelfAttention, DecodeCache
from lexome.catalog import families, load, new
from lexome.core import CheckpointError, FormatError
from lexome.inference.causal_likelihood import change_logliks
from lexome.inference.generation import generate
from lexome.inference.likelihood import score_sequences

SYSTEM = "evo"
CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # orders of sums differ; values reach 20
SIZES = {
    "width": 16,
    "depth": 3,
    "heads": 2,
    "attention_layers": (1,),
    "mlp_width": 24,
    "states": 4,
}


def test_both_configurations_say_the_same(checkpoint_case):
    model = checkpoint_case.load()
    raw = yaml.safe_load((checkpoint_case.folder / "inference.yml").read_text())
    assert model.family.recognise(raw)
    assert model.family.read_config(raw, {}) == model.config


def test_tokens_are_the_bytes_of_the_authors(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    for texts in (checkpoint_case.io["tokens"], checkpoint_case.io["non_ascii_tokens"]):
        for text, ids in texts.items():
            assert tokenizer([text])["input_ids"][0].tolist() == ids
    for text, decoded in checkpoint_case.io["detokenize"].items():
        assert tokenizer.decode(tokenizer([text])["input_ids"][0]) == decoded
    special = next(k for k in checkpoint_case.io if k.startswith("detokenize_ids_"))
    ids = [int(i) for i in special.split("[")[1].rstrip("]").split(",")]
    assert tokenizer.decode(ids) == checkpoint_case.io[special]
    assert tokenizer.pad == checkpoint_case.io["pad_id"]


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    for name in sorted({n.split(".")[0] for n in case.tensors if n.endswith(".input_ids")}):
        ids = case.take(f"{name}.input_ids")
        with torch.no_grad():
            out = model(ids, labels=ids, output_hidden_states=True)
        if name == "recurrent":
            check_steps(case, model, ids, out.logits)
            continue
        stored = case.tensors[f"{name}.logits"]
        case.check(f"{name}.logits", out.logits[:, -stored.shape[1] :], **CLOSE)
        if case.has(f"{name}.loss_next_token"):
            case.check(f"{name}.loss_next_token", out.loss)
        if case.has(f"{name}.embed"):
            case.check(f"{name}.embed", out.hidden_states[0])
            for layer, state in enumerate(out.hidden_states[1:]):
                case.check(f"{name}.hidden{layer}", state, **CLOSE)
            case.check(f"{name}.final_norm", out.last_hidden_state, **CLOSE)
            check_entropy(case, name, out.logits)
        if case.has(f"{name}.logits_bf16"):
            check_narrow(case, name, ids, out.logits)
    check_scores(case, model)
    check_padding(case, model)
    case.finish()


def check_narrow(case, name, ids, exact):
    """In bfloat16 sums are rounded in another order: to be as near to float32 as theirs is."""
    narrow = case.load(precision="bfloat16")
    mixers = [layer.mixer for layer in narrow.backbone.layers]
    filters = [mixer.filter for mixer in mixers if hasattr(mixer, "filter")]
    assert all(filter.poles.dtype == filter.residues.dtype == torch.float32 for filter in filters)
    with torch.no_grad():
        rounded = narrow(ids).logits.float()
    theirs = (case.take(f"{name}.logits_bf16") - exact).norm()
    assert (rounded - exact).norm() <= 2 * theirs
    assert theirs < 0.2 * exact.norm()


def check_entropy(case, name, logits):
    """Entropy of the prediction at each place but the last, start token not counted."""
    stored = case.take(f"{name}.positional_entropy")
    ids = torch.cat([torch.zeros(1, 1, dtype=torch.long), case.tensors[f"{name}.input_ids"]], 1)
    with torch.no_grad():
        logp = case.load()(ids).logits[0].log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    torch.testing.assert_close(entropy[: len(stored)], stored, **CLOSE)


def check_scores(case, model):
    """Mean log-probability of the letters after the start token 0, as evo/scoring.py has it."""
    ids = torch.tensor(case.io["score_batch_ids"])
    lengths = case.io["score_lengths"]
    with torch.no_grad():
        logp = model(ids).logits[:, :-1].log_softmax(-1)
    picked = logp.gather(-1, ids[:, 1:, None])[..., 0]
    real = torch.arange(ids.shape[1] - 1) < torch.tensor(lengths)[:, None]
    case.check("score.logprobs", picked, where=real, **CLOSE)
    for key, pool in (("score_mean", torch.mean), ("score_sum", torch.sum)):
        found = torch.stack([pool(row[:n]) for row, n in zip(picked, lengths, strict=True)])
        torch.testing.assert_close(found, torch.tensor(case.io[key]), atol=2e-3, rtol=1e-5)


def test_likelihoods_are_the_authors_scores(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    rows = case.io["score_batch_ids"]
    texts = [
        bytes(r[1 : n + 1]).decode() for r, n in zip(rows, case.io["score_lengths"], strict=True)
    ]
    found = score_sequences(model, texts).rows
    for row, text, mean, total in zip(
        found, texts, case.io["score_mean"], case.io["score_sum"], strict=True
    ):
        if set(text) & {"N", "n"}:  # not scored here
            assert row["scored_bases"] < len(text)
            continue
        assert row["scored_bases"] == len(text)
        assert row["loglik"] == pytest.approx(total, abs=2e-3)
        assert row["loglik_per_base"] == pytest.approx(mean, abs=2e-4)


def test_only_scoring_puts_the_end_of_another_sequence_in_front():
    model = new("evo", **SIZES).eval()
    assert model.tokenizer(["ACG"])["input_ids"].tolist() == [[65, 67, 71]]
    scored = model.to_score().tokenizer(["ACG"])["input_ids"]
    assert scored.tolist() == [[0, 65, 67, 71]]
    assert "given id 0" in score_sequences(model, ["ACG"]).provenance["method"]
    with torch.no_grad():
        logp = model(scored).logits[0, :-1].log_softmax(-1)
    expected = logp.gather(-1, scored[0, 1:, None]).sum().item()
    row = score_sequences(model, ["ACG"]).rows[0]
    assert row["loglik"] == pytest.approx(expected, rel=1e-5)
    change = change_logliks(model, {"ACG": ["TCG"]}, max_tokens=99)["ACG", "TCG"]
    changed = score_sequences(model, ["TCG"]).rows[0]["loglik"]
    assert change == pytest.approx(changed - row["loglik"], rel=1e-3)


def check_padding(case, model):
    """Rows with padding behind give what they give without; the authors' last column is one."""
    ids, mask = torch.tensor(case.io["score_batch_ids"]), case.take("padmask.mask")
    with torch.no_grad():
        together = model(ids, attention_mask=mask).logits
    last = torch.stack([row[int(m.sum()) - 1] for row, m in zip(together, mask, strict=True)])
    full = mask[:, -1] > 0
    case.check("padmask.logits_last", last, where=full, **CLOSE)


def check_steps(case, model, ids, logits):
    """Recurrent generation: the states after the prompt, and the logits of every step."""
    prompt = len(case.io["recurrent_prompt"])
    cache = DecodeCache(ids.shape[1])
    with torch.no_grad():
        parts = [model(ids[:, :prompt], cache=cache).logits]
        check_states(case, model, cache, prompt)
        parts += [model(one, cache=cache).logits for one in ids[:, prompt:].split(1, dim=1)]
    steps = torch.cat(parts, 1)
    case.check("recurrent.logits_stepwise", steps, **CLOSE)
    stored = case.tensors["recurrent.logits_parallel_last13"]
    case.check("recurrent.logits_parallel_last13", logits[:, -stored.shape[1] :], **CLOSE)
    torch.testing.assert_close(steps, logits, **CLOSE)


def check_states(case, model, cache, prompt):
    for i, layer in enumerate(model.backbone.layers):
        slot, name = cache.slot(layer.mixer), f"state.prefill.layer{i}"
        if not any(stored.startswith(f"{name}.") for stored in case.tensors):
            continue  # the cases keep the first layers
        if isinstance(layer.mixer, CausalSelfAttention):
            both = torch.stack([slot["keys"], slot["values"]], 2)[
                ..., :prompt, :
            ]  # (B, H, 2, L, E)
            case.check(f"{name}.kv", both.permute(0, 3, 2, 1, 4), **CLOSE)
            continue
        state = torch.view_as_real(slot["state"].transpose(0, 1))
        case.check(f"{name}.iir", state, **CLOSE)
        raw = slot["raw"]  # (3, D, B, taps - 1)
        heads = model.config.heads if model.config.by_head else 1
        by_head = raw.unflatten(1, (heads, -1)).transpose(0, 1).flatten(0, 2).transpose(0, 1)
        case.check(f"{name}.fir", by_head, **CLOSE)


def test_greedy_generation_is_the_authors(checkpoint_case):
    model, stored = checkpoint_case.load(), checkpoint_case.io["greedy_cached_False"]
    ids = model.tokenizer(stored["prompts"])["input_ids"]
    cache = DecodeCache(ids.shape[1] + stored["n_tokens"])
    made, now = [], ids
    with torch.no_grad():
        for _ in range(stored["n_tokens"]):
            now = model(now, cache=cache).logits[:, -1:].argmax(-1)
            made.append(now)
    assert torch.cat(made, 1).tolist() == stored["outputs_ids"]


@pytest.mark.parametrize("step", [1, 9, 50])
def test_chunks_with_carried_state_equal_all_at_once(step):
    model = new("evo", **SIZES).eval()
    ids = torch.randint(65, 85, (2, 120), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cache = model(ids).logits, DecodeCache(120)
        parts = [model(part, cache=cache).logits for part in ids.split(step, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_generation_does_not_depend_on_batch_mates():
    model = new("evo", **SIZES).eval()
    prompts = [("a", "ACGTACGTAC"), ("b", "`ACG")]
    together = generate(model, prompts, length=12, letters="ACGT")
    alone = [generate(model, [p], length=12, letters="ACGT")[0] for p in prompts]
    assert [one.sequence for one in together] == [one.sequence for one in alone]


@pytest.mark.parametrize("layers", ["1,2", [1, 2], (1, 2, 8)])
def test_attention_layers_may_be_text_and_end_with_the_depth(layers):
    model = new("evo", **{**SIZES, "attention_layers": layers})
    kinds = [isinstance(block.mixer, CausalSelfAttention) for block in model.backbone.layers]
    assert kinds == [False, True, True]


def test_shared_keys_are_refused():
    family = families()["evo"]
    raw = family.write_config(family.read_config(family.releases[0].config, {}))
    with pytest.raises(CheckpointError, match="proj_groups 1"):
        family.read_config({**raw, "proj_groups": 4}, {})


@pytest.mark.parametrize(
    "setting",
    [
        {"hyena_filter_groups": 16},
        {"num_filters": 1},
        {"short_filter_bias": False},
        {"mlp_activation": "relu"},
        {"final_norm": False},
        {"hyena_layer_idxs": [0]},
    ],
)
def test_settings_that_are_not_followed_are_refused(setting):
    family = families()["evo"]
    raw = family.write_config(family.read_config(family.releases[0].config, {}))
    with pytest.raises(CheckpointError, match="Expected"):
        family.read_config({**raw, **setting}, {})


@pytest.mark.parametrize(("qkv", "out"), [(False, True), (True, False), (False, False)])
def test_projections_of_attention_have_biases_of_their_own(qkv, out, tmp_path):
    model = new("evo", **SIZES, qkv_bias=qkv, out_bias=out)
    names = model.published()
    assert any(name.endswith("Wqkv.bias") for name in names) == qkv
    assert any(name.endswith("inner_mha_cls.out_proj.bias") for name in names) == out
    assert load(model.save(tmp_path), device="cpu").config == model.config


def test_the_width_of_the_mlp_is_a_multiple_for_all_that_share_it():
    family = families()["evo"]
    raw = family.write_config(family.read_config(family.releases[0].config, {}))
    for share, wanted in ((1, 88), (2, 96), (8, 128)):  # 8 / 3 of 32 is 85
        sizes = {"hidden_size": 32, "num_filters": 32, "inner_mlp_size": None}
        asked = {"inner_size_multiple_of": 8 if share < 8 else 16, "model_parallel_size": share}
        assert family.read_config({**raw, **sizes, **asked}, {}).mlp_width == wanted


def test_the_repositorys_configuration_is_enough(checkpoint_case, tmp_path):
    for path in checkpoint_case.folder.iterdir():
        if path.name.startswith(("model", "pytorch_model")):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (checkpoint_case.folder / "inference.yml").read_bytes()
    (tmp_path / "evo-1-8k-base_inference.yml").write_bytes(content)
    model = load(tmp_path, device="cpu")
    assert model.config == checkpoint_case.load().config
    again = model.save(tmp_path / "again")
    assert (again / "evo-1-8k-base_inference.yml").read_bytes() == content
    assert not (again / "config.json").exists()
    assert load(again, device="cpu").config == model.config
    (again / "evo-1-8k-base_inference.yml").write_text("a: [1")
    with pytest.raises(FormatError, match="no valid YAML"):
        load(again, device="cpu")
