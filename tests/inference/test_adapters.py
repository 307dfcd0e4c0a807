"""Adapters of every family of sequences: where they go, what they train, how they are kept."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from lexome.catalog import families, load, new
from lexome.core import CheckpointError, CheckpointMismatch, InputError
from lexome.inference.adapters import (
    ADAPTERS,
    AdapterSettings,
    adapter_of,
    adapter_targets,
    add_adapter,
    merge_adapter,
    read_adapter,
    save_adapter,
)
from lexome.inference.embedding import embed
from lexome.model import Model

pytest.importorskip("peft", reason="the train extra is not installed")

Pair = tuple[list[str], list[str]]

_MLP = ["mlp.up", "mlp.down"]
_ATTENTION: Pair = (["attention.qkv", "attention.out", *_MLP], ["attention.qkv", "mlp.down"])
_HYENA: Pair = (["mixer.in_proj", "mixer.out_proj", *_MLP], ["mixer.in_proj", "mlp.down"])
_EVO: Pair = (["mixer.qkv", "mixer.out", *_MLP], ["mixer.qkv", "mlp.down"])
_MAMBA: Pair = (
    ["mixer.in_proj", "mixer.out_proj", "mixer.x_proj", "mixer.dt_proj"],
    ["mixer.in_proj", "mixer.x_proj"],
)
_MAMBA_MLP: Pair = ([*_MAMBA[0], *_MLP], [*_MAMBA[1], "mlp.down"])
_BOTH_WAYS: Pair = (
    [f"{way}.{leaf}" for way in ("forwards", "backwards") for leaf in _MAMBA_MLP[0]] + ["join"],
    [f"{way}.{leaf}" for way in ("forwards", "backwards") for leaf in _MAMBA_MLP[1]],
)
TARGETS: dict[str, Pair | list[Pair]] = {
    # case: (layers that LoRA goes around, those of IA3), for all layers or one by one
    "dnabert/mlm_k6_tiny": _ATTENTION,
    "dnabert2/mlm_4heads": _ATTENTION,
    "evo/sh_8k_like": [_HYENA, _HYENA, _EVO, _HYENA],
    "gpn/convnet": (["mlp"], ["mlp"]),
    "gpn/convnet_v2": (["mix", "up", "down"], ["mix", "down"]),
    "gpn/bytenet": (["narrow", "widen"], ["narrow", "widen"]),
    "helm/bimamba_mlm": _BOTH_WAYS,
    "helm/gpt2_clm": _ATTENTION,
    "hyenadna/hf_tiny": _HYENA,
    "mamba/mamba1_statespaces": _MAMBA,
    "mamba/mamba2_hf": (["mixer.in_proj", "mixer.out_proj"], ["mixer.in_proj"]),
    "nucleotide_transformer/v1_mlm_tiny": _ATTENTION,
    "nucleotide_transformer/v2_3mer_mlm": _ATTENTION,
    "seqlens/at_mlm": _ATTENTION,
    "seqlens/plain_mlm": _ATTENTION,
    "seqlens/esm_mlm": _ATTENTION,
    "transformer_plus/llama_tiny": _ATTENTION,
}
READS_INPUTS = ("down", "mix", "widen")  # of these IA3 multiplies what goes in
SETTINGS = AdapterSettings(rank=3, alpha=6.0, dropout=0.0, prompt_tokens=4)
TEXTS = ["ACGTACGTTGCATTG", "ttgacgtacATTGACCAGTACCAC", "ACGTACGCA"]  # whole codons


@pytest.fixture(params=TARGETS)
def case(request: pytest.FixtureRequest, fixtures: Path) -> Path:
    if not (folder := fixtures / request.param).is_dir():
        pytest.skip(f"{fixtures} has no case {request.param}")
    return folder


def fresh(folder: Path) -> Model:
    return load(folder, device="cpu")


def adapted(folder: Path, method: str, seed: int = 0) -> Model:
    """Return a model whose adapter is somewhere else than where it starts."""
    model = add_adapter(fresh(folder), method, SETTINGS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) / 12
    return model.eval()


def last_states(model: Model) -> list[torch.Tensor]:
    ids = [model.tokenizer(text.upper()) for text in TEXTS]
    with torch.no_grad():
        return [model(**one).last_hidden_state for one in ids]


def copied(folder: Path, to: Path) -> Path:
    """Return a copy of published files whose weights are others."""
    model = fresh(Path(shutil.copytree(folder, to)))
    with torch.no_grad():
        next(model.backbone.layers.parameters()).mul_(1.5)
    model.save(to)
    return to


def test_every_family_of_sequences_has_a_case_here():
    wanted = {name for name, family in families().items() if family.inputs == "sequence"}
    assert {case.split("/")[0] for case in TARGETS} == wanted


@pytest.mark.parametrize("method", ADAPTERS)
def test_adapters_go_where_they_should_and_train_nothing_else(case, method):
    model = fresh(case)
    depth = len(model.backbone.layers)
    layers = TARGETS["/".join(case.parts[-2:])]
    layers = layers if isinstance(layers, list) else [layers] * depth
    around = {"lora": 0, "ia3": 1}
    names = [
        f"layers.{i}.{leaf}"
        for i, of in enumerate(layers)
        for leaf in (of[around[method]] if method in around else [])
    ]
    assert adapter_targets(model, method) == names
    layers = [model.backbone.get_submodule(name) for name in names]
    add_adapter(model, method, SETTINGS)
    trained = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    ends = [name.rpartition(".")[2] for name in names]
    assert (
        trained
        == {
            "lora": sum(3 * (layer.in_features + layer.out_features) for layer in layers),
            "ia3": sum(
                layer.in_features if end in READS_INPUTS else layer.out_features
                for layer, end in zip(layers, ends, strict=True)
            ),
            "prompt": 4 * model.config.width,
        }[method]
    )


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_step_moves_all_of_the_adapter_and_nothing_else(case, method):
    model = adapted(case, method)
    before = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.backbone.parameters() if p.requires_grad], lr=0.1)
    ids = model.tokenizer(TEXTS[0])
    (model.backbone(**ids).last.sin() ** 2).sum().backward()
    optimizer.step()
    for name, parameter in model.backbone.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_a_new_adapter_changes_nothing_yet(case, method):
    model = fresh(case)
    before = last_states(model)
    add_adapter(model, method, SETTINGS)
    for old, new_ in zip(before, last_states(model.eval()), strict=True):
        assert_close(new_, old)


@pytest.mark.parametrize("method", ADAPTERS)
def test_what_is_saved_comes_back(case, method, tmp_path):
    model = adapted(case, method)
    folder = save_adapter(model, tmp_path / "adapter")
    again = read_adapter(fresh(case), folder).eval()
    assert adapter_of(again) == method
    assert not any(p.requires_grad for p in again.backbone.parameters())
    for old, new_ in zip(last_states(model), last_states(again), strict=True):
        assert_close(new_, old)


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_a_merged_model_is_an_official_one_with_equal_results(case, method, tmp_path):
    model = adapted(case, method)
    with_adapter = last_states(model)
    plain = fresh(case)
    merge_adapter(model)
    assert adapter_of(model) is None
    trained = {n for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in plain.backbone.named_parameters() if p.requires_grad}
    for old, new_ in zip(with_adapter, last_states(model), strict=True):
        assert_close(new_, old, atol=1e-5, rtol=1e-5)
    again = load(model.save(tmp_path / "merged"), device="cpu")
    assert again.published().keys() == plain.published().keys()
    for old, new_ in zip(last_states(model), last_states(again), strict=True):
        assert_close(new_, old)
    far = max(
        float((old - new_).abs().max())
        for old, new_ in zip(last_states(plain), with_adapter, strict=True)
    )
    assert far > 1e-2, "the adapter changed nothing, so that this test shows nothing"


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_the_update_of_lora_is_that_of_the_formula(fixtures, tmp_path, rank_stabilised):
    # W + alpha / rank B A (arXiv:2106.09685), or alpha / sqrt(rank) B A (arXiv:2312.03732)
    case = fixtures / "dnabert2/mlm_4heads"
    rank, alpha = 3, 5.0
    settings = AdapterSettings(rank=rank, alpha=alpha, dropout=0.0, rank_stabilised=rank_stabilised)
    model = add_adapter(fresh(case), "lora", settings)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    folder = save_adapter(model, tmp_path / "adapter")
    asked = json.loads((folder / "adapter_config.json").read_text())
    assert asked["use_rslora"] == rank_stabilised
    tensors = load_file(folder / "adapter_model.safetensors")
    merged = merge_adapter(read_adapter(fresh(case), folder))
    factor = alpha / (math.sqrt(rank) if rank_stabilised else rank)
    plain = fresh(case)
    for name in adapter_targets(plain, "lora"):
        down, up = (tensors[f"base_model.model.{name}.lora_{end}.weight"] for end in "AB")
        weight = plain.backbone.get_submodule(name).weight
        assert_close(
            merged.backbone.get_submodule(name).weight,
            weight + factor * up @ down,
            atol=1e-5,
            rtol=1e-5,
        )


def test_batch_mates_change_nothing_with_soft_tokens(case):
    model = adapted(case, "prompt")
    for pooling in ("mean", "max", "cls", "last"):
        together = embed(model, [t.upper() for t in TEXTS], pooling=pooling, progress=False)
        for text, vector in zip(TEXTS, together.vectors, strict=True):
            alone = embed(model, [text.upper()], pooling=pooling, progress=False).vectors[0]
            np.testing.assert_allclose(vector, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing_with_soft_tokens(case, side):
    model = adapted(case, "prompt")
    rows = [
        {name: value[0].numpy() for name, value in model.tokenizer(text.upper()).items()}
        for text in TEXTS[:2]
    ]
    rows = [{"input_ids": row["input_ids"]} for row in rows]
    batch = model.tokenizer.collate(rows, padding_side=side, mask=True)
    with torch.no_grad():
        together = model.backbone(**batch).last
        for row, found, present in zip(rows, together, batch["attention_mask"], strict=True):
            alone = model.backbone(input_ids=torch.from_numpy(row["input_ids"])[None]).last[0]
            assert_close(found[present.bool()], alone, atol=2e-5, rtol=1e-4)


def test_soft_tokens_are_seen_by_the_sequence_and_never_returned(case):
    plain, model = fresh(case), adapted(case, "prompt")
    ids = model.tokenizer(TEXTS[1].upper())
    with torch.no_grad():
        bare, soft = plain.backbone(keep=True, **ids), model.backbone(keep=True, **ids)
    assert [s.shape for s in soft.states] == [s.shape for s in bare.states]
    assert not torch.allclose(soft.last, bare.last, atol=1e-3)


def test_soft_tokens_take_places_of_the_context(case):
    plain, model = fresh(case), adapted(case, "prompt")
    if plain.context is None:
        assert model.context is None
        return
    assert model.context == plain.context - 4
    # A sequence of a little more than fits is cut, and not refused by a position table.
    letters = "ACGTTGCA" * plain.context
    assert embed(model, [letters], pooling="mean", progress=False).status == ("ok",)


def test_bfloat16_takes_adapters(case):
    model = load(case, device="cpu", precision="bfloat16")
    for method in ADAPTERS:
        add_adapter(model, method, SETTINGS)
        assert last_states(model.eval())[0].dtype is torch.bfloat16
        if method == "prompt":
            model.backbone.prompt = None
        else:
            merge_adapter(model)


@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_for_other_weights_is_refused(fixtures, method, tmp_path):
    case = fixtures / "dnabert2/mlm_4heads"
    folder = save_adapter(adapted(case, method), tmp_path / "adapter")
    other = fresh(copied(case, tmp_path / "other"))
    with pytest.raises(CheckpointMismatch, match=r"was not trained on other: its base has"):
        read_adapter(other, folder)
    assert adapter_of(other) is None
    stranger = fresh(fixtures / "hyenadna/hf_tiny")
    with pytest.raises(CheckpointMismatch, match="of the family dnabert2, not hyenadna"):
        read_adapter(stranger, folder)


@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_of_another_shape_is_refused_even_without_a_named_base(
    fixtures, method, tmp_path
):
    folder = save_adapter(adapted(fixtures / "dnabert2/mlm_4heads", method), tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path), path)  # as PEFT writes it, without a word on the base
    for other in ("dnabert/mlm_k6_tiny", "hyenadna/hf_tiny"):
        model = fresh(fixtures / other)
        same_width = model.config.width == 32 and method == "prompt"
        assert not same_width, "take another case: these soft tokens would fit"
        with pytest.raises(CheckpointMismatch, match="was not trained on"):
            read_adapter(model, folder)
        assert adapter_of(model) is None


def test_folders_without_a_known_adapter_are_refused(fixtures, tmp_path):
    model = fresh(fixtures / "gpn/convnet")
    with pytest.raises(CheckpointError, match="holds no adapter"):
        read_adapter(model, tmp_path)
    folder = save_adapter(adapted(fixtures / "gpn/convnet", "lora"), tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "OFT"}))
    with pytest.raises(CheckpointError, match="of the kind 'OFT'"):
        read_adapter(model, folder)


def test_one_model_takes_one_adapter(fixtures):
    for method in ADAPTERS:
        model = adapted(fixtures / "gpn/convnet", method)
        with pytest.raises(InputError, match=f"has an adapter already \\({method}\\)"):
            add_adapter(model, "lora")


def test_soft_tokens_cannot_be_merged_and_a_bare_model_has_nothing_to_merge(fixtures):
    with pytest.raises(InputError, match="4 soft tokens, which cannot be folded"):
        merge_adapter(adapted(fixtures / "gpn/convnet", "prompt"))
    with pytest.raises(InputError, match="no adapter to merge"):
        merge_adapter(fresh(fixtures / "gpn/convnet"))


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_model_with_an_adapter_is_not_saved_as_if_it_had_none(fixtures, method, tmp_path):
    model = adapted(fixtures / "gpn/convnet", method)
    with pytest.raises(CheckpointError, match="has an adapter"):
        model.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_of_cells_and_impossible_sizes_are_refused(fixtures):
    with pytest.raises(InputError, match="adapters are for models of sequences"):
        add_adapter(fresh(fixtures / "scgpt/released_2l/checkpoint"), "lora")
    model = new("nucleotide_transformer", vocab_size=75, width=8, depth=1, heads=2, positions=34)
    with pytest.raises(InputError, match="prompt_tokens is 20, but"):
        add_adapter(model, "prompt")
    with pytest.raises(InputError, match="rank is 0"):
        add_adapter(model, "lora", AdapterSettings(rank=0))


def test_the_seed_decides_where_adapters_start(fixtures):
    for method in ("lora", "prompt"):
        states = [
            [
                p.detach().clone()
                for p in add_adapter(
                    fresh(fixtures / "dnabert2/mlm_4heads"), method, AdapterSettings(seed=seed)
                ).backbone.parameters()
                if p.requires_grad
            ]
            for seed in (0, 0, 1)
        ]
        assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))


def test_soft_tokens_start_as_words(fixtures):
    model = add_adapter(fresh(fixtures / "gpn/convnet"), "prompt", SETTINGS)
    soft = next(model.backbone.prompt.parameters())
    words = model.backbone.token_vectors(torch.arange(model.config.vocab_size)[None])[0]
    assert all(any(torch.equal(vector, word) for word in words) for vector in soft)


def test_generation_continues_behind_soft_tokens(fixtures):
    from lexome.blocks import DecodeCache

    model = adapted(fixtures / "hyenadna/hf_tiny", "prompt")
    ids = model.tokenizer("ACGTACGTTGCA")["input_ids"]
    with torch.no_grad():
        whole = model.backbone(input_ids=ids).last
        cache = DecodeCache(capacity=ids.shape[1])
        first = model.backbone(input_ids=ids[:, :5], cache=cache).last
        rest = [
            model.backbone(input_ids=ids[:, i : i + 1], cache=cache).last
            for i in range(5, ids.shape[1])
        ]
    assert_close(torch.cat([first, *rest], 1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_layers_that_a_cpu_multiplies_by_other_kernels_get_the_same_gradients(method, monkeypatch):
    sizes = {"vocab_size": 40, "width": 128, "depth": 1, "heads": 2, "mlp_width": 256}
    model = add_adapter(new("dnabert2", dropout=0.0, **sizes), method, SETTINGS)
    ids = torch.randint(5, 40, (2, 64), generator=torch.Generator().manual_seed(0))

    def gradients() -> list[torch.Tensor]:
        parameters = [p for p in model.backbone.parameters() if p.requires_grad]
        loss = model.backbone(input_ids=ids).last.sin().sum()
        return list(torch.autograd.grad(loss, parameters))

    found = gradients()
    monkeypatch.setattr("lexome.blocks.linear._X86", False)
    expected = gradients()
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=1e-3, rtol=1e-3)  # sums over 128 tokens in another order
