"""HELM against the authors' outputs: three backbones, masked and causal; recipe shapes."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lexome.blocks import DecodeCache
from lexome.catalog import families, load, new
from lexome.core import CheckpointError, InputError
from lexome.inference.generation import generate
from lexome.model import Model
from lexome.objectives.hierarchical import (
    HierarchicalLoss,
    SoftLabelLoss,
    TokenTree,
    codon_paths,
    soft_labels,
)
from lexome.tokenizers import codon_tokenizer

SYSTEM = "helm"
CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # orders of FFT and of the scan differ; values reach 20
KINDS = {
    "transformer": {"mlp_width": 24, "heads": 4, "positions": 40},
    "transformer without positions": {"mlp_width": 24, "heads": 4},
    "transformer that hides later tokens": {"mlp_width": 24, "hides_later": True, "norm_eps": 0.01},
    "hyena": {"mlp_width": 24, "length": 40, "filter_width": 8},
    "hyena with more rows": {"mlp_width": 24, "length": 40, "filter_width": 8, "rows": 72},
    "mamba": {"mlp_width": 24, "positions": 40, "states": 4},
    "mamba without MLPs": {"mlp_width": 0, "states": 4, "expand": 3, "taps": 3, "rms_norm": False},
    "mamba set otherwise": {"mlp_width": 24, "rank": 5, "bias": True, "conv_bias": False},
}


def small(kind, objective):
    sizes = {"width": 16, "depth": 2, "objective": objective, **KINDS[kind]}
    if objective == "causal":  # which hides them anyhow
        sizes.pop("hides_later", None)
    return new("helm", mixer=kind.split()[0], seed=1, **sizes).eval()


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    ids, targets = case.take("input_ids"), case.take("targets")
    assert torch.equal(case.take("position_ids"), torch.arange(ids.shape[1]).expand_as(ids))
    # The authors' transformer leaves out keys whose id is 1, padding in one of the two token
    # orders; everything else is read as it stands.
    hides = model.config.mixer == "transformer" and not model.config.causal
    mask = (ids != 1).long() if hides else None
    with torch.no_grad():
        out = model(ids, attention_mask=mask)
    real = ids != model.tokenizer.pad
    case.check("hidden_last", out.last_hidden_state, where=real, **CLOSE)
    case.check("logits_all_positions", out.logits, where=real, **CLOSE)
    scored = torch.ones_like(real) if model.config.causal else ids == model.tokenizer.mask
    logits, labels = out.logits[scored], targets[scored]
    counted = (real & scored)[scored]  # padding is scored in the authors' causal loss
    case.check("logits", logits, where=counted.view(case.tensors["logits"].shape[:-1]), **CLOSE)
    stored = case.tensors["logits_all_positions"][scored]
    case.check("loss.xe", F.cross_entropy(logits.where(counted[:, None], stored), labels), **CLOSE)
    for name in [n for n in case.tensors if n.startswith("loss.hxe")]:
        tree = TokenTree(codon_paths(model.tokenizer.vocabulary))
        loss = HierarchicalLoss(tree, alpha=float(name.removeprefix("loss.hxe")))
        terms = loss.terms(logits.where(counted[:, None], stored), labels)
        case.check(name, terms.mean(), atol=1e-6, rtol=1e-5)
    case.finish()


def test_the_loss_of_a_checkpoint_is_its_own(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    assert isinstance(model.head.loss, HierarchicalLoss) == case.io["helm_token_order"]
    assert model.objective == {"mlm": "masked", "clm": "causal"}[case.io["mode"]] == model.head_name
    if isinstance(model.head.loss, HierarchicalLoss):
        assert model.head.loss.alpha == case.io["alpha"]


def test_tokens_are_the_ids_of_the_case(checkpoint_case):
    case, tokenizer = checkpoint_case, checkpoint_case.load().tokenizer
    targets, ids = case.tensors["targets"], case.tensors["input_ids"]
    causal = case.io["mode"] == "clm"
    for row, text in enumerate(case.io["sequences"]):
        found = tokenizer([text])["input_ids"][0]
        assert torch.equal(found[int(causal) :], targets[row, : len(found) - int(causal)])
        given = ids[row, : len(found)]
        hidden = given == (-1 if causal else tokenizer.mask)
        assert torch.equal(given[~hidden], found[: len(given)][~hidden])
        assert (ids[row, len(found) :] == tokenizer.pad).all()


def read_tree(text, classes):
    """Return the path of each class in a tree in brackets."""
    above, found, word = [], {}, None
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == ")":
            above.pop()
        elif above and above[-1] == "(":
            above[-1] = word
        elif word == "(":
            above.append(word)
        else:
            found[word] = tuple(above[1:])
    return [found[name] for name in classes]


def test_losses_are_the_authors(case):
    """Cases without a checkpoint hold scores and what the authors' losses make of them."""
    if (case.folder / "last.ckpt").is_file():
        return
    classes = case.io["classes_order"]
    tree = TokenTree(codon_paths(classes))
    assert tree.paths == tuple(read_tree(case.io["tree"], classes))
    logits, labels = case.take("logits").requires_grad_(), case.take("labels")
    case.check("xe.loss", F.cross_entropy(logits, labels))
    edges = case.take("onehot_num_edges_per_class").int().tolist()
    assert tree.weights(0.2).count_nonzero(1).tolist() == edges
    for alpha in {
        n.removeprefix("hxe.alpha").rpartition(".")[0]
        for n in case.tensors
        if n.startswith("hxe.alpha")
    }:
        check_alpha(case, tree, alpha)
    for name, loss, scale in (
        ("random_tree", HierarchicalLoss(TokenTree(random_paths(case))), 1),
        # Uniform weights of 1 are not divided by their sum.
        ("hxe.uniform1", HierarchicalLoss(tree, alpha=0.0), len(tree) + len(tree.nodes)),
    ):
        found = scale * loss.terms(logits, labels).mean()
        case.check(f"{name}.loss", found, atol=1e-6 * scale)
    terms = HierarchicalLoss(tree).terms(
        case.take("hxe.underflow.logits"), case.take("hxe.underflow.labels")
    )
    case.check("hxe.underflow.loss", terms.mean())
    for beta in {n.split(".")[1] for n in case.tensors if n.startswith("soft.")}:
        hardness = float(beta.removeprefix("beta"))
        table = soft_labels(tree, hardness, as_published=True)
        case.check(f"soft.{beta}.matrix_row0", table[0])
        row = case.take(f"soft.{beta}.row_L")
        assert any(torch.allclose(one, row, atol=1e-6) for one in table[codons_of(case, "L")])
        loss = SoftLabelLoss(tree, hardness=hardness, as_published=True)
        case.check(f"soft.{beta}.kl_mean_loss", loss(logits, labels, {}), atol=1e-6)
    case.finish()


def check_alpha(case, tree, alpha):
    name, loss = f"hxe.alpha{alpha}", HierarchicalLoss(tree, alpha=float(alpha))
    logits, labels = case.tensors["logits"], case.tensors["labels"]
    logits.grad = None
    case.check(f"{name}.weights", tree.weights(float(alpha)), atol=1e-7)
    value = loss(logits[None], labels[None], {})
    case.check(f"{name}.loss", value, atol=1e-6)
    case.check(f"{name}.loss_3d", loss(logits.view(2, -1, 70), labels.view(2, -1), {}), atol=1e-6)
    case.check(f"{name}.per_sample", loss.terms(logits, labels), atol=1e-6)
    value.backward()
    case.check(f"{name}.grad", logits.grad, atol=1e-6, rtol=1e-4)


def random_paths(case):
    return read_tree(case.io["random_tree"], case.io["random_tree_classes"])


def codons_of(case, amino_acid):
    """Return the ids of the codons of an amino acid."""
    classes = case.io["classes_order"]
    return [i for i, path in enumerate(codon_paths(classes)) if path[-1] == amino_acid]


def test_tokens_are_the_authors(case):
    for text, kinds in case.io.get("tokens", {}).items():
        for kind, ids in kinds.items():
            name, _, more = kind.partition("_")
            overlap = int(more.removeprefix("overlap")) if more.startswith("overlap") else 0
            tokenizer = codon_tokenizer(name, alphabetical=more == "tree", overlap=overlap)
            assert tokenizer([text])["input_ids"][0].tolist() == ids, (text, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_padding_and_batch_mates_change_nothing(kind, objective):
    model = small(kind, objective)
    ids = torch.randint(6, 70, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 12, [1] * 7 + [0] * 5, [0] * 3 + [1] * 9])
    with torch.no_grad():
        together = model(ids, attention_mask=mask).last_hidden_state
        for row, kept in enumerate(mask > 0):
            alone = model(ids[row : row + 1, kept]).last_hidden_state[0]
            torch.testing.assert_close(together[row, kept], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_causal_model_goes_on_where_it_stopped(kind):
    model = small(kind, "causal")
    ids = torch.randint(6, 70, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cache = model(ids).logits, DecodeCache(30)
        parts = [model(part, cache=cache).logits for part in ids.split([11, 1, 1, 7, 10], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_does_not_depend_on_batch_mates(kind):
    model = small(kind, "causal")
    prompts = [("a", "ATGGCTGCTAAA"), ("b", "ATG")]
    together = generate(model, prompts, length=8)
    alone = [generate(model, [p], length=8)[0] for p in prompts]
    assert [one.sequence for one in together] == [one.sequence for one in alone]
    assert all(len(one.sequence) % 3 == 0 for one in together)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_every_kind_trains_by_the_tree_and_is_saved_so_that_it_loads(kind, objective, tmp_path):
    model = small(kind, objective).train()
    ids = torch.randint(6, 70, (2, 12), generator=torch.Generator().manual_seed(0))
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    again = load(model.eval().save(tmp_path), device="cpu")
    assert again.config == model.config
    with torch.no_grad():
        one, other = model(ids, labels=ids), again(ids, labels=ids)
    torch.testing.assert_close(other.logits, one.logits)
    torch.testing.assert_close(other.loss, one.loss)


@pytest.mark.parametrize(("tokens", "rows"), [("nuc", 10), ("6mer", 4102)])
def test_other_tokens_are_read_too(tokens, rows):
    model = new("helm", tokens=tokens, vocab_size=rows, width=16, depth=1, mlp_width=16).eval()
    batch = model.tokenizer(["ATGGCTGCTAAA"])
    assert model(**batch).logits.shape[-1] == rows
    assert not isinstance(model.head.loss, HierarchicalLoss)


def test_the_two_orders_of_tokens_hold_the_same_words():
    plain, tree = codon_tokenizer("3mer"), codon_tokenizer("3mer", alphabetical=True)
    assert sorted(plain.vocabulary) == list(tree.vocabulary)


def test_recipes_have_the_authors_shapes(fixtures):
    own = Path(__file__).parents[1] / "fixtures"
    names = sorted((fixtures / "manifest").glob("helm-*.json"))
    names = names or sorted((own / "manifest").glob("helm-*.json"))
    assert names
    for path in names:
        manifest = json.loads(path.read_text())
        inner = manifest["config"]
        shapes = {name: tuple(shape) for name, shape in manifest["tensors"].items()}
        mixer = next(
            m for m in ("mamba", "hyena", "transformer") if m in path.name or m == "transformer"
        )
        masked = inner.get("bidirectional", not re.search("clm", path.name))
        raw = {"model_type": mixer, "mode": "mlm" if masked else "clm", "model_config": inner}
        family = families()["helm"]
        for known in (shapes, {}):
            config = family.read_config(raw, known)
            layout = next(form for form in family.layouts if form.fits(config))
            with torch.device("meta"):
                model = Model(family, config, head=layout.head)
            ours = {name: tuple(t.shape) for name, t in model.published(layout).items()}
            assert ours == shapes, path.name
            assert model.count_parameters() == manifest["params"]


def as_published(tree, alpha):
    """Return what the authors' loss keeps: which tokens stand below each edge, and its weight."""
    below = torch.zeros(len(tree), len(tree), tree.edges)
    for token, path in enumerate(tree.paths):
        below[token, token, 0] = 1
        for edge, depth in enumerate(range(len(path), 0, -1), 1):
            same = [other[:depth] == path[:depth] for other in tree.paths]
            below[token, :, edge] = torch.tensor(same).float()
    return {"criterion.onehot_num": below, "criterion.weights": tree.weights(alpha)}


@pytest.mark.parametrize("own", [True, False])
def test_the_tree_and_its_decay_are_those_of_the_checkpoint(own, tmp_path):
    model = small("transformer", "causal")
    model.save(tmp_path)
    tree = model.head.loss.tree
    if not own:  # codons grouped otherwise, as the authors did to compare
        groups = [("codons", f"group {i % 7}") if i > 5 else p for i, p in enumerate(tree.paths)]
        tree = TokenTree(groups)
    path = tmp_path / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"] |= as_published(tree, 0.37)
    torch.save(content, path)
    again = load(tmp_path, device="cpu")
    assert again.config.alpha == 0.37
    assert (again.config.tree is None) == own
    ids = torch.randint(6, 70, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = again(ids, labels=ids)
    expected = HierarchicalLoss(tree, alpha=0.37, causal=True)(out.logits, ids, {})
    torch.testing.assert_close(out.loss, expected)
    kept = torch.load(again.save(tmp_path / "again") / "last.ckpt", weights_only=True)
    assert torch.equal(
        kept["state_dict"]["criterion.onehot_num"], as_published(tree, 0)["criterion.onehot_num"]
    )


@pytest.mark.parametrize("mixer", ["hyena", "mamba"])
def test_heads_that_nothing_has_do_not_matter(mixer, tmp_path):
    model = new("helm", mixer=mixer, width=18, depth=1, mlp_width=16)
    assert load(model.save(tmp_path), device="cpu").config == model.config


def read(mixer, mode="mlm", **settings):
    inner = {"d_model": 16, "n_layer": 2, "max_seq_len": 30, **settings}
    raw = {"model_type": mixer, "mode": mode, "model_config": inner}
    return families()["helm"].read_config(raw, {})


@pytest.mark.parametrize(
    ("mixer", "setting"),
    [
        ("mamba", {"pos_embedding": "SinCos"}),
        ("mamba", {"pos_embedding": "absolute", "pos_embedding_apply": "concat"}),
        ("mamba", {"ssm_cfg": {"layer": "Mamba2"}}),
        ("mamba", {"non_markovian_relation": True}),
        ("mamba", {"bidirectional": False}),
        ("transformer", {"model": "bert"}),
        ("transformer", {"pos_embedding": "rotary"}),
        ("hyena", {"hyena_order": 3}),
    ],
)
def test_settings_that_are_not_followed_are_refused(mixer, setting):
    with pytest.raises(CheckpointError, match=f"{list(setting)[-1]}|layer"):
        read(mixer, **setting)


def test_masked_attention_looks_back_only_where_the_authors_ran_it_without_flash_attention():
    looking = {
        way: read("transformer", **settings).looks_back
        for way, settings in {
            "unsaid": {},
            "flash": {"attention": "flash (amp)"},
            "eager": {"attention": "eager"},
            "without amp": {"amp": False},
        }.items()
    }
    assert looking == {"unsaid": False, "flash": False, "eager": True, "without amp": True}
    assert not read("transformer", "clm", attention="eager").hides_later
    ids = torch.randint(6, 70, (1, 9), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[0, -1] = 3
    for kind, same in (("transformer", False), ("transformer that hides later tokens", True)):
        model = small(kind, "masked")
        with torch.no_grad():
            one, other = (model(x).logits[:, :-1] for x in (ids, changed))
        assert torch.equal(one, other) == same


def test_mamba_has_an_epsilon_of_its_own_whatever_the_configuration_says():
    assert read("mamba", layer_norm_epsilon=0.1).norm_eps == 1e-5
    assert read("hyena", layer_norm_epsilon=0.1).norm_eps == 0.1
    with pytest.raises(InputError, match=r"norm_eps is 0\.1"):
        new("helm", mixer="mamba", norm_eps=0.1)


def test_hyena_rounds_the_rows_of_its_table_but_not_of_its_head():
    config = read("hyena", pad_vocab_size_multiple=8)
    assert (config.vocab_size, config.rows) == (70, 72)
    assert read("hyena").rows == 0
