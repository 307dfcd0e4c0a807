"""HELM (Yazdani-Jahromi et al. 2024, arXiv:2410.12459): models of mRNA that know the genetic code.

Reference: johnsonandjohnson/HELM; no weights were published. Three ordinary backbones read codons,
trained to predict hidden or next ones: GPT-2, HyenaDNA and Mamba. What is HELM's own is the loss, a
cross entropy over the tree of codons and amino acids (`objectives.hierarchical`), and with it the
order of the tokens: alphabetical, special tokens first.
Three things differ from the plain backbones. Masked Hyena wraps its convolution around
(`WrappedHyena`). Mamba's layers norm twice before the mixer and norm the residual stream after it.
Masked Mamba runs one stack forwards and one backwards, joined after each layer.
Axes: B batch, L tokens, D width, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks import (
    CausalSelfAttention,
    DecodeCache,
    GatedMlp,
    Hyena,
    ImplicitFilter,
    Linear,
    MixerBlock,
    Mlp,
    Past,
    PreNormBlock,
    RenormedBlock,
    SelectiveMixer,
    SelfAttention,
    Stack,
    TokenHead,
    TwoWayBlock,
    WrappedHyena,
    gelu_tanh,
    padding_bias,
    seen_mask,
    start_small,
)
from lexome.checkpoints import Family, KeyMap, Layout, Shapes, expect_settings, hyena_keys
from lexome.core import InputError, pick
from lexome.objectives import masked_token_loss, next_token_loss
from lexome.objectives.hierarchical import (
    HierarchicalLoss,
    SoftLabelLoss,
    TokenTree,
    codon_paths,
    read_tree,
)
from lexome.objectives.hierarchical import (
    Path as TreePath,
)
from lexome.tokenizers import CodonTokenizer, codon_tokenizer


@dataclass(frozen=True, kw_only=True)
class HelmConfig:
    """What a checkpoint or a small model sets.

    `mixer` is ``"transformer"``, ``"hyena"`` or ``"mamba"``; `objective` is ``"masked"`` or
    ``"causal"``. `positions` counts learned positions, 0 for none; `length` is the longest input of
    Hyena, `rows` counts those of its embedding table, 0 for the vocabulary. With `hides_later`,
    masked attention looks back only, as the authors' does without flash-attention. `rank` is the
    width in which Mamba chooses its steps. `hierarchical` asks for the tree's loss and token order,
    with `alpha` the decay of its weights, `genetic_code` the code by NCBI's number and `tree` the
    path of each token, where it is not the code's; with a `hardness` above 0 the loss is that
    of soft labels. `tokens` is ``"3mer"``, ``"nuc"`` or ``"6mer"``.
    """

    mixer: str = "transformer"
    objective: str = "masked"
    tokens: str = "3mer"
    overlap: int = 0
    hierarchical: bool = True
    alpha: float = 0.2
    tree: tuple[TreePath, ...] | None = None
    hardness: float = 0.0
    genetic_code: int = 1
    vocab_size: int = 70
    rows: int = 0
    width: int = 640
    depth: int = 10
    mlp_width: int = 2560
    heads: int = 4
    hides_later: bool = False
    positions: int = 0
    length: int = 444
    filter_features: int = 3
    filter_width: int = 64
    filter_layers: int = 2
    filter_frequency: float = 1.0
    states: int = 16
    expand: int = 2
    taps: int = 4
    rank: int | None = None
    bias: bool = False
    conv_bias: bool = True
    rms_norm: bool = True
    norm_eps: float = 1e-5
    tied: bool = False

    def __post_init__(self) -> None:
        if self.mixer == "mamba" and self.norm_eps != 1e-5:
            raise InputError(
                f"norm_eps is {self.norm_eps}, and HELM's Mamba has 1e-5, whatever its "
                "configuration says. Leave it out."
            )

    @property
    def causal(self) -> bool:
        """Whether the next token is predicted, from those before it."""
        return self.objective == "causal"

    @property
    def looks_back(self) -> bool:
        """Whether attention sees the tokens before only."""
        return self.causal or self.hides_later


def _attention(c: HelmConfig) -> nn.Module:
    kind = CausalSelfAttention if c.looks_back else SelfAttention
    mlp = Mlp(c.width, c.mlp_width, activation=gelu_tanh)
    return PreNormBlock(kind(c.width, c.heads), mlp, width=c.width, eps=c.norm_eps)


def _hyena(c: HelmConfig) -> nn.Module:
    filter = ImplicitFilter(
        c.width,
        c.length,
        features=c.filter_features,
        inner=c.filter_width,
        inner_layers=c.filter_layers,
        frequency=c.filter_frequency,
    )
    mixer = (Hyena if c.causal else WrappedHyena)(c.width, filter)
    mlp = Mlp(c.width, c.mlp_width, activation=gelu_tanh)
    return MixerBlock(mixer, lambda: nn.LayerNorm(c.width), mlp=mlp, widest=c.mlp_width)


def _renormed(c: HelmConfig) -> RenormedBlock:
    mixer = SelectiveMixer(
        c.width,
        inner=c.expand * c.width,
        states=c.states,
        rank=c.rank or -(-c.width // 16),
        taps=c.taps,
        bias=c.bias,
        conv_bias=c.conv_bias,
    )
    mlp, norm = None, nn.RMSNorm if c.rms_norm else nn.LayerNorm
    if c.mlp_width:
        inner = -(-c.mlp_width // 128) * 128  # mamba_ssm's GatedMLP, multiple_of
        mlp = GatedMlp(c.width, inner, activation=F.silu, down_bias=False, gate_last=True)
    return RenormedBlock(mixer, lambda: norm(c.width, c.norm_eps), mlp=mlp)


def _mamba(c: HelmConfig) -> nn.Module:
    return _renormed(c) if c.causal else TwoWayBlock(_renormed(c), _renormed(c), c.width)


_LAYERS: Mapping[str, Callable[[HelmConfig], nn.Module]] = {
    "transformer": _attention,
    "hyena": _hyena,
    "mamba": _mamba,
}


class Helm(Stack):
    """The backbone below the head, of any of the three kinds."""

    undecayed = ("layers.*.ssm.*", "layers.*.filter.*")

    def __init__(self, config: HelmConfig):
        super().__init__()
        c = self.config = config
        make = _LAYERS[pick("mixer of HELM", c.mixer, _LAYERS)]
        is_mamba = c.mixer == "mamba"
        self.embed = nn.Embedding(c.rows or c.vocab_size, c.width)
        self.positions = nn.Embedding(c.positions, c.width) if c.positions else None
        self.gate = Linear(2 * c.width, 1) if is_mamba and not c.causal else None
        self.layers = nn.ModuleList(make(c) for _ in range(c.depth))
        norm = nn.RMSNorm if is_mamba and c.rms_norm else nn.LayerNorm
        self.norm = norm(c.width, c.norm_eps)
        if c.mixer == "transformer":
            self.apply(start_small)
        elif is_mamba:
            start_small(self.embed)  # the other two leave the rest to PyTorch

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: DecodeCache | None = None,
    ) -> tuple[Tensor, Any]:
        """Embed, add positions; attention layers share a bias, the others cache and mask."""
        c = self.config
        x_BLD = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        if self.positions is not None:
            place = (cache or DecodeCache(0)).places(x_BLD.shape[1], x_BLD.device)
            seen_BS = seen_mask(self, attention_mask, x_BLD, cache)
            if seen_BS is not None:  # padding has no place
                place = (seen_BS.long().cumsum(1)[:, place] - 1).clamp(min=0)
            x_BLD = x_BLD + self.positions(place)
        if self.gate is not None:
            nothing = torch.zeros_like(x_BLD)
            x_BLD = x_BLD * self.gate(torch.cat([x_BLD, nothing], dim=-1)).sigmoid()
        if c.mixer != "transformer":
            return x_BLD, Past.of(attention_mask, cache)
        if c.looks_back:
            return x_BLD, Past.attending(self, x_BLD, attention_mask, cache)
        return x_BLD, padding_bias(attention_mask, x_BLD.dtype)

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm."""
        return self.norm(x)


def _tokenizer(folder: Path | None, c: HelmConfig) -> CodonTokenizer:
    tokenizer = codon_tokenizer(c.tokens, alphabetical=c.hierarchical, overlap=c.overlap)
    tokenizer.max_tokens = _context(c)
    return tokenizer


def _context(c: HelmConfig) -> int | None:
    return c.length if c.mixer == "hyena" else c.positions or None


def _recognise(raw: Mapping[str, Any]) -> bool:
    return raw.get("model_type") in _LAYERS and isinstance(raw.get("model_config"), Mapping)


_ROWS = {"3mer": 70, "nuc": 10, "6mer": 4102}  # train.py: one more than words but for codons
_FILTER = {
    "emb_dim": "filter_features",
    "filter_order": "filter_width",
    "num_inner_mlps": "filter_layers",
    "activation_freq": "filter_frequency",
}
_STATES = {"d_state": "states", "d_conv": "taps", "dt_rank": "rank"}
_STATES |= {name: name for name in ("expand", "bias", "conv_bias")}
# What there is one way for; "learned" positions are none in the authors' code.
_KNOWN = {
    "model": ("gpt2",),
    "pos_embedding": (None, "none", "learned", "absolute"),
    "pos_embedding_apply": ("add", None),
    "non_markovian_relation": (False, None),
    "attn_layer_idx": ([], None),
    "hyena_order": (2,),
    "short_filter_order": (3,),
    "train_freq": (True,),
}


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> HelmConfig:
    inner, mixer = raw["model_config"], raw["model_type"]
    causal = {"mlm": False, "clm": True}[raw["mode"]]
    ssm = inner.get("ssm_cfg") or {}
    expect_settings(inner, {**_KNOWN, "bidirectional": (not causal,)}, "HELM")
    expect_settings(ssm, {"layer": ("Mamba1", "Mamba")}, "HELM")
    rows = {name.split(".")[-2]: shape[0] for name, shape in shapes.items() if shape}
    positions = inner.get("max_position_embeddings" if mixer == "transformer" else "max_seq_len")
    if inner.get("pos_embedding") != "absolute" or mixer == "hyena":
        positions = 0
    usual = 0 if mixer == "mamba" else 4 * inner["d_model"]
    tokens = raw.get("tokenizer", "3mer")
    vocab_size = rows.get("lm_head") or inner.get("vocab_size", _ROWS[tokens])
    multiple = inner.get("pad_vocab_size_multiple", 1)
    embedded = rows.get("word_embeddings") or -(-vocab_size // multiple) * multiple
    eager = inner.get("attention") == "eager" or inner.get("amp") is False
    return HelmConfig(
        mixer=mixer,
        objective="causal" if causal else "masked",
        tokens=tokens,
        overlap=raw.get("overlap", 0),
        hierarchical=raw.get("helm", False),
        alpha=raw.get("hxe_alpha", 0.2),
        genetic_code=raw.get("genetic_code", 1),
        vocab_size=vocab_size,
        rows=embedded if mixer == "hyena" and embedded != vocab_size else 0,
        width=inner["d_model"],
        depth=inner["n_layer"],
        mlp_width=inner.get("d_inner" if mixer == "hyena" else "d_intermediate") or usual,
        heads=inner.get("num_heads", 4),
        hides_later=mixer == "transformer" and not causal and eager,
        positions=rows.get("wpe") or rows.get("embedding_pos") or positions or 0,
        length=inner["max_seq_len"] if mixer == "hyena" else HelmConfig.length,
        rms_norm=inner.get("rms_norm", True),
        norm_eps=1e-5 if mixer == "mamba" else inner.get("layer_norm_epsilon", 1e-5),
        tied=inner.get("tie_embeddings", False),
        **{ours: inner[name] for name, ours in _FILTER.items() if name in inner},
        **{ours: ssm[name] for name, ours in _STATES.items() if ssm.get(name, "auto") != "auto"},
    )


def _complete_config(c: HelmConfig, tensors: Mapping[str, Tensor]) -> HelmConfig:
    """Take the tree and its decay, which the configuration does not hold, from the loss."""
    if not c.hierarchical or "criterion.onehot_num" not in tensors:
        return c
    found, alpha = read_tree(tensors["criterion.onehot_num"], tensors["criterion.weights"])
    usual = _tree(c).plain()
    return replace(c, alpha=alpha, tree=None if found == usual else found)


def _tree(c: HelmConfig) -> TokenTree:
    words = codon_tokenizer(c.tokens, alphabetical=True).vocabulary
    return TokenTree(c.tree or codon_paths(words, code=c.genetic_code))


def _write_config(c: HelmConfig) -> dict[str, Any]:
    inner: dict[str, Any] = {"d_model": c.width, "n_layer": c.depth, "bidirectional": not c.causal}
    position = "absolute" if c.positions else None
    if c.mixer == "hyena":
        inner |= {"d_inner": c.mlp_width, "max_seq_len": c.length}
        inner |= {"pad_vocab_size_multiple": c.rows or 1}
        inner |= {name: getattr(c, ours) for name, ours in _FILTER.items()}
    elif c.mixer == "transformer":
        inner |= {"model": "gpt2", "d_intermediate": c.mlp_width, "num_heads": c.heads}
        inner |= {"pos_embedding": position, "max_position_embeddings": c.positions}
        inner |= {"attention": "eager"} if c.hides_later else {}
    else:
        ssm = {name: getattr(c, ours) for name, ours in _STATES.items()}
        inner |= {"d_intermediate": c.mlp_width, "ssm_cfg": {**ssm, "dt_rank": c.rank or "auto"}}
        inner |= {"pos_embedding": position, "max_seq_len": c.positions, "rms_norm": c.rms_norm}
    if c.norm_eps != HelmConfig.norm_eps:
        inner["layer_norm_epsilon"] = c.norm_eps
    if c.tied:
        inner["tie_embeddings"] = True
    return {
        "model_type": c.mixer,
        "mode": "clm" if c.causal else "mlm",
        "tokenizer": c.tokens,
        "overlap": c.overlap,
        "helm": c.hierarchical,
        "hxe_alpha": c.alpha,
        "genetic_code": c.genetic_code,
        "model_config": inner,
    }


def _head(c: HelmConfig, backbone: Helm) -> TokenHead:
    loss: Any = next_token_loss if c.causal else masked_token_loss
    if c.hierarchical and c.tokens == "3mer":
        tree = _tree(c)
        loss = HierarchicalLoss(tree, alpha=c.alpha, causal=c.causal)
        if c.hardness:
            loss = SoftLabelLoss(tree, hardness=c.hardness, causal=c.causal)
    return TokenHead(c.width, c.vocab_size, loss=loss, tied=backbone.embed if c.tied else None)


_L = "layers.{i}"
_GPT2 = "model.model.h.{i}"
_TRANSFORMER_KEYS = {
    "model.model.wte.weight": "embed.weight",
    "model.model.wpe.weight": "positions.weight",
    f"{_GPT2}.ln_1.{{p}}": f"{_L}.attention_norm.{{p}}",
    f"{_GPT2}.attn.c_attn.bias": f"{_L}.attention.qkv.bias",
    f"{_GPT2}.attn.c_proj.bias": f"{_L}.attention.out.bias",
    f"{_GPT2}.ln_2.{{p}}": f"{_L}.mlp_norm.{{p}}",
    f"{_GPT2}.mlp.c_fc.bias": f"{_L}.mlp.up.bias",
    f"{_GPT2}.mlp.c_proj.bias": f"{_L}.mlp.down.bias",
    "model.model.ln_f.{p}": "norm.{p}",
}
_TURNED = {  # GPT-2 stores (inputs, outputs)
    f"{_GPT2}.attn.c_attn.weight": f"{_L}.attention.qkv.weight",
    f"{_GPT2}.attn.c_proj.weight": f"{_L}.attention.out.weight",
    f"{_GPT2}.mlp.c_fc.weight": f"{_L}.mlp.up.weight",
    f"{_GPT2}.mlp.c_proj.weight": f"{_L}.mlp.down.weight",
}


def _mamba_keys(theirs: str, ours: str) -> dict[str, str]:
    theirs, ours = f"model.backbone.{theirs}.{{i}}", f"{_L}{ours}"
    return {
        f"{theirs}.norm.{{p}}": f"{ours}.norm.{{p}}",
        f"{theirs}.non_markovian_norm.{{p}}": f"{ours}.second_norm.{{p}}",
        f"{theirs}.norm2.{{p}}": f"{ours}.stream_norm.{{p}}",
        f"{theirs}.mlp.fc1.weight": f"{ours}.mlp.up.weight",
        f"{theirs}.mlp.fc2.weight": f"{ours}.mlp.down.weight",
        f"{theirs}.mixer.A_log": f"{ours}.mixer.ssm.log_rate",
        f"{theirs}.mixer.D": f"{ours}.mixer.ssm.skip",
        f"{theirs}.mixer.conv1d.{{p}}": f"{ours}.mixer.conv.{{p}}",
        **{
            f"{theirs}.mixer.{part}.{{p}}": f"{ours}.mixer.{part}.{{p}}"
            for part in ("in_proj", "x_proj", "dt_proj", "out_proj")
        },
    }


_MAMBA_KEYS = {
    "model.backbone.embedding.weight": "embed.weight",
    "model.backbone.embedding_pos.weight": "positions.weight",
    "model.backbone.gate.{p}": "gate.{p}",
    "model.backbone.hidden_fc.{i}.{p}": f"{_L}.join.{{p}}",
    "model.backbone.norm_f.{p}": "norm.{p}",
    **_mamba_keys("layers", ""),
    **_mamba_keys("forward_layers", ".forwards"),
    **_mamba_keys("backward_layers", ".backwards"),
}


def _layout(mixer: str, objective: str) -> Layout:
    of_hyena = hyena_keys("model.model.")
    keys = {"transformer": _TRANSFORMER_KEYS, "hyena": of_hyena, "mamba": _MAMBA_KEYS}[mixer]
    return Layout(
        name=f"lightning-{mixer}-{objective}",
        keys=KeyMap(
            rename={**keys, "model.lm_head.weight": "head.decoder.weight"},
            turn=_TURNED if mixer == "transformer" else {},
            unused={
                "criterion.{rest}": "the tree of tokens, made anew",
                "model.distill_head.weight": "a head for a teacher's answers",
                f"{_GPT2}.attn.bias": "the causal mask",
                f"{_GPT2}.attn.masked_bias": "what masked scores become",
            },
        ),
        weights=("last.ckpt",),
        head=objective,
        state="state_dict",
        fits=lambda c: (c.mixer, c.objective) == (mixer, objective),
    )


FAMILY = Family(
    name="helm",
    title="HELM",
    paper="arXiv:2410.12459",
    organism="antibody mRNA, in codons",
    objective="masked",
    recognise=_recognise,
    read_config=_read_config,
    complete_config=_complete_config,
    write_config=_write_config,
    backbone=Helm,
    heads={"masked": _head, "causal": _head},
    layouts=tuple(_layout(mixer, way) for mixer in _LAYERS for way in ("masked", "causal")),
    tokenizer=_tokenizer,
    releases=(),
    config_file="model_config.json",
    context=_context,
)
