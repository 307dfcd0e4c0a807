"""Evo 1 (Nguyen et al. 2024, doi:10.1126/science.ado9336): StripedHyena over single bytes.

References: togethercomputer/stripedhyena and evo-design/evo. Pre-norm layers of a mixer and a gated
MLP; the mixer is a Hyena with modal filters, and in three of 32 layers rotary attention. Poles and
residues stay float32 beside bfloat16 weights. Gates and values of Hyena come head by head, and the
short convolution runs over them as they come. The 131k models divide rotary positions by 16. What
the files hold of rotary frequencies is rounded; see `ComputedRotary` for what becomes of it.
The authors' mask zeroes what padding gives to Hyena, and leaves its keys to attention; here
`attention_mask` keeps padding out of both.
Axes: B batch, L tokens, D width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks import (
    CausalSelfAttention,
    ComputedRotary,
    DecodeCache,
    GatedMlp,
    MixerBlock,
    ModalFilter,
    ModalHyena,
    Past,
    Stack,
    TokenHead,
    start_small,
)
from lexome.checkpoints import Family, KeyMap, Layout, Release, Shapes, expect_settings
from lexome.core import CheckpointError
from lexome.objectives import next_token_loss
from lexome.tokenizers import ByteTokenizer

_ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu}


@dataclass(frozen=True, kw_only=True)
class EvoConfig:
    """What a release or a small model sets.

    `attention_layers` counts from 0 and leaves out what is beyond the depth; it may be text, such
    as ``"8,16,24"``. All others are Hyena. `by_head` is the order of Hyena's gates and values.
    `stretch` is what rotary positions are divided by.
    """

    vocab_size: int = 512
    width: int = 4096
    depth: int = 32
    heads: int = 32
    attention_layers: tuple[int, ...] = (8, 16, 24)
    mlp_width: int = 10928
    activation: str = "gelu"
    states: int = 8
    taps: int = 3
    by_head: bool = True
    rotary_base: float = 10_000.0
    stretch: float = 1.0
    qkv_bias: bool = True
    out_bias: bool = True
    norm_eps: float = 1e-6
    tied: bool = True

    def __post_init__(self) -> None:
        given: Any = self.attention_layers
        layers = given.split(",") if isinstance(given, str) else given
        kept = tuple(int(i) for i in layers if int(i) < self.depth)
        object.__setattr__(self, "attention_layers", kept)


class DividedNorm(nn.Module):
    """scale * x / (rms(x) + eps): eps stands outside the root."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        wide = x.float()
        root = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) * wide.shape[-1] ** -0.5
        return (wide / (root + self.eps)).to(x.dtype) * self.scale


class Evo(Stack):
    """The decoder below the head."""

    undecayed = ("embed.*", "layers.*.mixer.filter.*", "layers.*.scale")

    def __init__(self, config: EvoConfig):
        super().__init__()
        c = self.config = config
        rotary = ComputedRotary(c.width // c.heads, base=c.rotary_base, stretch=c.stretch)
        self.embed = nn.Embedding(c.vocab_size, c.width)
        self.layers = nn.ModuleList()
        for i in range(c.depth):
            if i in c.attention_layers:
                mixer = CausalSelfAttention(
                    c.width, c.heads, bias=c.qkv_bias, out_bias=c.out_bias, rotary=rotary
                )
            else:
                filter = ModalFilter(c.width, c.states)
                heads = c.heads if c.by_head else 1
                mixer = ModalHyena(c.width, filter, taps=c.taps, heads=heads)
            mlp = GatedMlp(
                c.width, c.mlp_width, activation=_ACTIVATIONS[c.activation], down_bias=False
            )
            norm = lambda: DividedNorm(c.width, c.norm_eps)  # noqa: E731
            self.layers.append(MixerBlock(mixer, norm, mlp=mlp, widest=2 * c.mlp_width))
        self.norm = DividedNorm(c.width, c.norm_eps)
        self.apply(start_small)

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: DecodeCache | None = None,
    ) -> tuple[Tensor, Past]:
        """Embed; the layers share cache and mask, and those of attention a bias and turns."""
        x_BLD = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        rotary = next((b.mixer.rotary for b in self.layers if hasattr(b.mixer, "rotary")), None)
        if rotary is None:
            return x_BLD, Past.of(attention_mask, cache)
        start = 0 if cache is None else cache.position
        turns = rotary(x_BLD.shape[1], x_BLD, start=start)
        return x_BLD, Past.attending(self, x_BLD, attention_mask, cache, turns)

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm."""
        return self.norm(x)


def _recognise(raw: Mapping[str, Any]) -> bool:
    return {"attn_layer_idxs", "hyena_layer_idxs"} <= set(raw)


# What the layers here have one way for; StripedHyena-7B, for one, shares keys among heads.
_SETTINGS = {
    "proj_groups": (1,),
    "hyena_filter_groups": (1,),
    "smeared_gqa": (False,),
    "final_norm": (True,),
    "short_filter_bias": (True,),
    "mlp_activation": ("silu", "gelu"),
    "long_fir_threshold": (None,),
}


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> EvoConfig:
    """Read the hub's config.json or the configuration of the authors' repository."""
    width = raw["hidden_size"]
    expect_settings(raw, {**_SETTINGS, "num_filters": (width,)}, "StripedHyena")
    layers = {*raw["attn_layer_idxs"], *raw["hyena_layer_idxs"]}
    if not layers.issuperset(range(raw["num_layers"])):
        raise CheckpointError(
            f"this StripedHyena has {raw['num_layers']} layers, of which attn_layer_idxs and "
            f"hyena_layer_idxs name {sorted(layers)}. Expected every layer in one of them."
        )
    multiple = raw.get("inner_size_multiple_of", 64) * raw.get("model_parallel_size", 1)
    inner = raw.get("inner_mlp_size") or -(-(8 * width // 3) // multiple) * multiple
    stretched = raw.get("use_interpolated_rotary_pos_emb", False)
    return EvoConfig(
        vocab_size=raw["vocab_size"],
        width=width,
        depth=raw["num_layers"],
        heads=raw["num_attention_heads"],
        attention_layers=tuple(raw["attn_layer_idxs"]),
        mlp_width=inner,
        activation=raw.get("mlp_activation", "silu"),
        states=raw["state_size"],
        taps=raw.get("short_filter_length", 3),
        by_head=raw.get("column_split_hyena", True),
        rotary_base=raw.get("rotary_emb_base", 10_000),
        stretch=raw.get("rotary_emb_scaling_factor", 1.0) if stretched else 1.0,
        qkv_bias=raw.get("qkv_proj_bias", True),
        out_bias=raw.get("mha_out_proj_bias", True),
        norm_eps=raw.get("eps", 1e-6),
        tied=raw.get("tie_embeddings", True),
    )


def _write_config(c: EvoConfig) -> dict[str, Any]:
    attention = list(c.attention_layers)
    return {
        "architectures": ["StripedHyenaModelForCausalLM"],
        "attn_layer_idxs": attention,
        "column_split_hyena": c.by_head,
        "eps": c.norm_eps,
        "final_norm": True,
        "hidden_size": c.width,
        "hyena_filter_groups": 1,
        "hyena_layer_idxs": [i for i in range(c.depth) if i not in attention],
        "inner_mlp_size": c.mlp_width,
        "mha_out_proj_bias": c.out_bias,
        "mlp_activation": c.activation,
        "model_type": "stripedhyena",
        "num_attention_heads": c.heads,
        "num_filters": c.width,
        "num_layers": c.depth,
        "proj_groups": 1,
        "qkv_proj_bias": c.qkv_bias,
        "rotary_emb_base": c.rotary_base,
        "rotary_emb_scaling_factor": c.stretch,
        "short_filter_bias": True,
        "short_filter_length": c.taps,
        "state_size": c.states,
        "tie_embeddings": c.tied,
        "use_interpolated_rotary_pos_emb": c.stretch != 1,
        "vocab_size": c.vocab_size,
    }


def _tokenizer(folder: Path | None, c: EvoConfig) -> ByteTokenizer:
    # A sequence to score comes after the end of another, id 0; one to go on from does not.
    return ByteTokenizer(c.vocab_size, scored_after=(0,))


_THEIRS, _OURS = "backbone.blocks.{i}", "layers.{i}"
_FILTER, _LONG = f"{_THEIRS}.filter", f"{_OURS}.mixer.filter"
_ATTENTION = f"{_THEIRS}.inner_mha_cls"
KEYS = KeyMap(
    rename={
        "backbone.embedding_layer.weight": "embed.weight",
        "backbone.unembed.weight": "head.decoder.weight",
        "backbone.norm.scale": "norm.scale",
        f"{_THEIRS}.pre_norm.scale": f"{_OURS}.norm1.scale",
        f"{_THEIRS}.post_norm.scale": f"{_OURS}.norm2.scale",
        f"{_THEIRS}.projections.{{p}}": f"{_OURS}.mixer.in_proj.{{p}}",
        f"{_THEIRS}.out_filter_dense.{{p}}": f"{_OURS}.mixer.out_proj.{{p}}",
        f"{_FILTER}.short_filter_weight": f"{_OURS}.mixer.short.weight",
        f"{_FILTER}.short_filter_bias": f"{_OURS}.mixer.short.bias",
        f"{_FILTER}.D": f"{_LONG}.bias",
        f"{_FILTER}.poles": f"{_LONG}.poles",
        f"{_FILTER}.residues": f"{_LONG}.residues",
        f"{_ATTENTION}.Wqkv.{{p}}": f"{_OURS}.mixer.qkv.{{p}}",
        f"{_ATTENTION}.out_proj.{{p}}": f"{_OURS}.mixer.out.{{p}}",
        f"{_ATTENTION}.rotary_emb.inv_freq": f"{_OURS}.mixer.rotary.inv_freq",
        f"{_THEIRS}.mlp.l3.weight": f"{_OURS}.mlp.down.weight",
    },
    join={
        f"{_OURS}.mlp.up.weight": (f"{_THEIRS}.mlp.l1.weight", f"{_THEIRS}.mlp.l2.weight"),
    },
)


def _release(name: str, source: str, context: int) -> Release:
    raw = _write_config(EvoConfig(stretch=context / 8192))
    return Release(
        name=name,
        source=f"hf:{source}",
        licence="Apache-2.0",
        parameters=6_452_781_056,
        context=context,
        layout="hub",
        config=raw,
    )


FAMILY = Family(
    name="evo",
    title="Evo 1",
    paper="doi:10.1126/science.ado9336",
    organism="genomes of bacteria, archaea and phages",
    objective="causal",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=Evo,
    heads={
        "causal": lambda c, backbone: TokenHead(
            c.width, c.vocab_size, loss=next_token_loss, tied=backbone.embed if c.tied else None
        ),
    },
    layouts=(
        Layout(name="hub", keys=KEYS, head="causal"),
        Layout(
            name="repository",
            keys=KEYS.without("backbone."),
            weights=("pytorch_model.pt",),
            head="causal",
        ),
    ),
    tokenizer=_tokenizer,
    releases=(
        # Other revisions of the first two have a wrong order of some projections.
        _release("evo-1-8k-base", "togethercomputer/evo-1-8k-base@1.1_fix", 8192),
        _release("evo-1-131k-base", "togethercomputer/evo-1-131k-base@1.1_fix", 131_072),
        _release("evo-1.5-8k-base", "evo-design/evo-1.5-8k-base", 8192),
        _release("evo-1-8k-crispr", "LongSafari/evo-1-8k-crispr", 8192),
        _release("evo-1-8k-transposon", "LongSafari/evo-1-8k-transposon", 8192),
    ),
    side_files=("tokenizer_config.json", "generation_config.json", "inference.yml"),
    yaml_configs=("*inference.yml",),
    pooling="last",
)
