"""Mamba-1 and Mamba-2 (Gu and Dao 2023, arXiv:2312.00752; Dao and Gu 2024, arXiv:2405.21060).

References: state-spaces/mamba and transformers' Mamba ports. Kept as architectures to compare with:
no weights trained on genomes were published, so that new models read single letters. A layer is
x + mixer(norm(x)), with no attention and no MLP; its memory of all tokens before is a state of
fixed size. The authors have no padding mask; give `attention_mask` to keep padding out.
Axes: B batch, L tokens, D width, V vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lexome.blocks import (
    DecodeCache,
    MixerBlock,
    PairedMixer,
    Past,
    SelectiveMixer,
    Stack,
    TokenHead,
)
from lexome.checkpoints import Family, KeyMap, Layout, Release, Shapes, expect_settings
from lexome.objectives import next_token_loss
from lexome.tokenizers import CHARACTERS, LetterTokenizer, Tokenizer, read_tokenizer


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """What a release or a small model sets.

    `generation` is 1 or 2. `rank` (of the step sizes) is Mamba-1's, `head_width`, `groups` and the
    bounds of the step are Mamba-2's.
    """

    generation: int = 1
    vocab_size: int = 12
    vocab_multiple: int = 8
    width: int = 256
    depth: int = 8
    expand: float = 2
    states: int = 16
    taps: int = 4
    rank: int | None = None
    head_width: int = 64
    groups: int = 1
    least_step: float = 0.0
    largest_step: float = math.inf
    bias: bool = False
    conv_bias: bool = True
    rms_norm: bool = True
    norm_eps: float = 1e-5
    tied: bool = True

    @property
    def rows(self) -> int:
        """Rows of the embedding table: the vocabulary rounded up."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


def _mixer(c: MambaConfig) -> nn.Module:
    inner = int(c.expand * c.width)
    if c.generation == 1:
        return SelectiveMixer(
            c.width,
            inner=inner,
            states=c.states,
            rank=c.rank or math.ceil(c.width / 16),
            taps=c.taps,
            bias=c.bias,
            conv_bias=c.conv_bias,
        )
    return PairedMixer(
        c.width,
        heads=inner // c.head_width,
        head_width=c.head_width,
        states=c.states,
        groups=c.groups,
        taps=c.taps,
        eps=c.norm_eps,
        least_step=c.least_step,
        largest_step=c.largest_step,
        bias=c.bias,
        conv_bias=c.conv_bias,
    )


class Mamba(Stack):
    """The decoder below the head."""

    undecayed = ("layers.*.mixer.ssm.*",)  # mamba_simple.py, _no_weight_decay

    def __init__(self, config: MambaConfig):
        super().__init__()
        c = self.config = config
        norm = nn.RMSNorm if c.rms_norm else nn.LayerNorm
        self.embed = nn.Embedding(c.rows, c.width)
        self.layers = nn.ModuleList(
            MixerBlock(_mixer(c), lambda: norm(c.width, c.norm_eps)) for _ in range(c.depth)
        )
        self.norm = norm(c.width, c.norm_eps)
        nn.init.normal_(self.embed.weight, std=0.02)
        for block in self.layers:  # mixer_seq_simple.py, _init_weights
            nn.init.kaiming_uniform_(block.mixer.out_proj.weight, a=math.sqrt(5))
            block.mixer.out_proj.weight.data /= math.sqrt(c.depth)

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: DecodeCache | None = None,
    ) -> tuple[Tensor, Past]:
        """Embed; the layers share the cache and the mask."""
        x_BLD = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        return x_BLD, Past.of(attention_mask, cache)

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm."""
        return self.norm(x)


def _recognise(raw: Mapping[str, Any]) -> bool:
    original = {"d_model", "n_layer", "ssm_cfg"} <= set(raw)
    return original or raw.get("model_type") in {"mamba", "mamba2"}


# Of the layers' settings, those that the layers here have no way to follow.
_SSM = {
    "layer": ("Mamba1", "Mamba2"),
    "d_ssm": (None,),
    "D_has_hdim": (False,),
    "rmsnorm": (True,),
    "norm_before_gate": (False,),
}
_BETWEEN = {"d_intermediate": (0, None), "attn_layer_idx": ([], None)}


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> MambaConfig:
    if "model_type" in raw:
        return _read_transformers(raw)
    ssm = raw["ssm_cfg"]
    expect_settings(ssm, _SSM, "Mamba")
    expect_settings(raw, _BETWEEN, "Mamba")
    second = ssm.get("layer", "Mamba1") == "Mamba2"
    low, high = ssm.get("dt_limit", (0.0, math.inf))
    return MambaConfig(
        generation=2 if second else 1,
        vocab_size=raw["vocab_size"],
        vocab_multiple=raw.get("pad_vocab_size_multiple", 8),
        width=raw["d_model"],
        depth=raw["n_layer"],
        expand=ssm.get("expand", 2),
        states=ssm.get("d_state", 128 if second else 16),
        taps=ssm.get("d_conv", 4),
        rank=None if ssm.get("dt_rank", "auto") == "auto" else ssm["dt_rank"],
        head_width=ssm.get("headdim", 64),
        groups=ssm.get("ngroups", 1),
        least_step=low,
        largest_step=high,
        bias=ssm.get("bias", False),
        conv_bias=ssm.get("conv_bias", True),
        rms_norm=raw.get("rms_norm", True),
        tied=raw.get("tie_embeddings", True),
    )


def _read_transformers(raw: Mapping[str, Any]) -> MambaConfig:
    expect_settings(raw, {"hidden_act": ("silu", "swish")}, "Mamba")
    second = raw["model_type"] == "mamba2"
    low, high = map(_number, raw.get("time_step_limit") or (0.0, math.inf))
    rank = raw.get("time_step_rank", "auto")
    return MambaConfig(
        generation=2 if second else 1,
        vocab_size=raw["vocab_size"],
        vocab_multiple=1,
        width=raw["hidden_size"],
        depth=raw["num_hidden_layers"],
        expand=raw.get("expand", 2),
        states=raw.get("state_size", 128 if second else 16),
        taps=raw.get("conv_kernel", 4),
        rank=None if rank == "auto" or second else rank,
        head_width=raw.get("head_dim", 64),
        groups=raw.get("n_groups", 8),
        least_step=low,
        largest_step=high,
        bias=raw.get("use_bias", False),
        conv_bias=raw.get("use_conv_bias", True),
        norm_eps=raw.get("layer_norm_epsilon", 1e-5),
        tied=raw.get("tie_word_embeddings", not second),
    )


def _number(value: Any) -> float:
    """Read a number; transformers 5 writes infinity as a table of its own."""
    return float(value["__float__"] if isinstance(value, Mapping) else value)


def _write_config(c: MambaConfig) -> dict[str, Any]:
    ssm: dict[str, Any] = {"expand": c.expand, "d_state": c.states, "d_conv": c.taps}
    if c.generation == 2:
        ssm |= {"layer": "Mamba2", "headdim": c.head_width, "ngroups": c.groups}
        if (c.least_step, c.largest_step) != (0.0, math.inf):
            ssm["dt_limit"] = [c.least_step, c.largest_step]
    elif c.rank is not None:
        ssm["dt_rank"] = c.rank
    if c.bias:
        ssm["bias"] = True
    if not c.conv_bias:
        ssm["conv_bias"] = False
    return {
        "attn_layer_idx": [],
        "d_intermediate": 0,
        "d_model": c.width,
        "n_layer": c.depth,
        "pad_vocab_size_multiple": c.vocab_multiple,
        "residual_in_fp32": True,
        "rms_norm": c.rms_norm,
        "ssm_cfg": ssm,
        "tie_embeddings": c.tied,
        "vocab_size": c.vocab_size,
    }


def _tokenizer(folder: Path | None, config: MambaConfig) -> Tokenizer | None:
    """Read tokenizer.json; without one, letters if the table is of their size, or nothing."""
    published = read_tokenizer(folder) if folder else None
    if published is None and config.rows == MambaConfig().rows:
        return LetterTokenizer(CHARACTERS)
    return published


def _keys(embedding: str) -> KeyMap:
    mixer, ours = "backbone.layers.{i}.mixer", "layers.{i}.mixer"
    return KeyMap(
        rename={
            f"backbone.{embedding}.weight": "embed.weight",
            "backbone.layers.{i}.norm.{p}": "layers.{i}.norm1.{p}",
            f"{mixer}.A_log": f"{ours}.ssm.log_rate",
            f"{mixer}.D": f"{ours}.ssm.skip",
            f"{mixer}.dt_bias": f"{ours}.ssm.step_bias",
            f"{mixer}.in_proj.{{p}}": f"{ours}.in_proj.{{p}}",
            f"{mixer}.out_proj.{{p}}": f"{ours}.out_proj.{{p}}",
            f"{mixer}.conv1d.{{p}}": f"{ours}.conv.{{p}}",
            f"{mixer}.x_proj.weight": f"{ours}.x_proj.weight",
            f"{mixer}.dt_proj.{{p}}": f"{ours}.dt_proj.{{p}}",
            f"{mixer}.norm.weight": f"{ours}.norm.weight",
            "backbone.norm_f.{p}": "norm.{p}",
            "lm_head.weight": "head.decoder.weight",
        }
    )


FAMILY = Family(
    name="mamba",
    title="Mamba",
    paper="arXiv:2312.00752",
    organism="English, where published; else what the user has",
    objective="causal",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=Mamba,
    heads={
        "causal": lambda c, backbone: TokenHead(
            c.width, c.rows, loss=next_token_loss, tied=backbone.embed if c.tied else None
        ),
    },
    layouts=(
        Layout(
            name="original",
            keys=_keys("embedding"),
            weights=("pytorch_model.bin", "model.safetensors"),
            head="causal",
        ),
        Layout(name="transformers", keys=_keys("embeddings"), head="causal"),
    ),
    tokenizer=_tokenizer,
    releases=(
        Release(
            name="mamba-130m",
            source="hf:state-spaces/mamba-130m",
            licence="Apache-2.0",
            parameters=129_135_360,
            context=None,
            layout="original",
            config={
                "d_model": 768,
                "n_layer": 24,
                "vocab_size": 50277,
                "ssm_cfg": {},
                "rms_norm": True,
                "pad_vocab_size_multiple": 8,
            },
        ),
    ),
    pooling="last",
)
