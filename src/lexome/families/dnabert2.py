"""DNABERT-2 (Zhou et al. 2023, arXiv:2306.15006): BERT with ALiBi, gated MLPs and BPE tokens.

Reference: zhihan1996/DNABERT-2-117M, ``bert_layers.py``, the path without triton. Differs from
BERT in three places: no position table but a distance penalty on the scores, one bias-free matrix
for gate and value, fused query/key/value. The release holds no pooler.
Axes: B batch, L tokens, D width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lexome.blocks import (
    Alibi,
    FirstTokenClassifier,
    GatedMlp,
    MaskedTokenHead,
    PostNormBlock,
    SelfAttention,
    Stack,
    padding_bias,
    start_small,
)
from lexome.checkpoints import Family, KeyMap, Layout, Release, Shapes
from lexome.checkpoints.settings import expect_settings
from lexome.checkpoints.sizes import CLASS_DEFAULTS, read_sizes, write_sizes
from lexome.objectives import IGNORED, masked_token_loss
from lexome.tokenizers import Tokenizer, read_trained


@dataclass(frozen=True, kw_only=True)
class DnaBert2Config:
    """What a release or a small model sets."""

    vocab_size: int = 4096
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    segments: int = 2
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.0
    tied: bool = True
    classes: int = 2
    problem: str | None = None


class DnaBert2(Stack):
    """The encoder."""

    def __init__(self, config: DnaBert2Config):
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.vocab_size, c.width)
        self.segment = nn.Embedding(c.segments, c.width)
        self.embed_norm = nn.LayerNorm(c.width, c.norm_eps)
        self.dropout = nn.Dropout(c.dropout)
        self.alibi = Alibi(c.heads)
        self.layers = nn.ModuleList(
            PostNormBlock(
                SelfAttention(c.width, c.heads, dropout=c.attention_dropout),
                GatedMlp(c.width, c.mlp_width, dropout=c.dropout),
                width=c.width,
                eps=c.norm_eps,
                dropout=c.dropout,
            )
            for _ in range(c.depth)
        )
        self.apply(start_small)

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed, and build the one score bias that all layers share."""
        x_BLD = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        segment = 0 if token_type_ids is None else token_type_ids
        x_BLD = self.dropout(self.embed_norm(x_BLD + self.segment.weight[segment]))
        bias = self.alibi(x_BLD.shape[1], x_BLD)
        padding = padding_bias(attention_mask, x_BLD.dtype)
        return x_BLD, bias if padding is None else bias + padding


def _loss(logits_BLV: Tensor, labels_BL: Tensor, batch: Mapping[str, Any]) -> Tensor:
    # The authors score labels > 0 only, so that [UNK], id 0, is never a target.
    return masked_token_loss(logits_BLV, labels_BL.where(labels_BL > 0, IGNORED), batch)


def _masked(c: DnaBert2Config, backbone: DnaBert2) -> MaskedTokenHead:
    tied = backbone.embed if c.tied else None
    # Only this norm has its epsilon from the authors' code, whatever the configuration says.
    return MaskedTokenHead(c.width, c.vocab_size, loss=_loss, eps=1e-12, tied=tied)


def _recognise(raw: Mapping[str, Any]) -> bool:
    return "alibi_starting_size" in raw


_DEFAULTS = CLASS_DEFAULTS["bert"] | {"attention_probs_dropout_prob": 0.0}


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> DnaBert2Config:
    expect_settings(raw, {"hidden_act": ("gelu", "gelu_python")}, "DNABERT-2")
    classes = shapes.get("classifier.weight", (len(raw.get("id2label") or (0, 1)),))
    return DnaBert2Config(**read_sizes(raw, DnaBert2Config, _DEFAULTS), classes=classes[0])


def _write_config(c: DnaBert2Config) -> dict[str, Any]:
    return write_sizes(c) | {
        "_name_or_path": "zhihan1996/DNABERT-2-117M",
        "alibi_starting_size": 512,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
    }


def _tokenizer(folder: Path | None, config: DnaBert2Config) -> Tokenizer:
    return read_trained(folder, config.vocab_size, "DNABERT-2")


_L = "bert.encoder.layer.{i}"
_ENCODER = {
    "bert.embeddings.word_embeddings.weight": "embed.weight",
    "bert.embeddings.token_type_embeddings.weight": "segment.weight",
    "bert.embeddings.LayerNorm.{p}": "embed_norm.{p}",
    f"{_L}.attention.self.Wqkv.{{p}}": "layers.{i}.attention.qkv.{p}",
    f"{_L}.attention.output.dense.{{p}}": "layers.{i}.attention.out.{p}",
    f"{_L}.attention.output.LayerNorm.{{p}}": "layers.{i}.attention_norm.{p}",
    f"{_L}.mlp.gated_layers.weight": "layers.{i}.mlp.up.weight",
    f"{_L}.mlp.wo.{{p}}": "layers.{i}.mlp.down.{p}",
    f"{_L}.mlp.layernorm.{{p}}": "layers.{i}.mlp_norm.{p}",
}
MASKED = KeyMap(
    rename=_ENCODER
    | {
        "cls.predictions.transform.dense.{p}": "head.dense.{p}",
        "cls.predictions.transform.LayerNorm.{p}": "head.norm.{p}",
        "cls.predictions.decoder.{p}": "head.decoder.{p}",
    },
    unused={"bert.pooler.dense.{p}": "the classifier's; the release itself has none"},
)
CLASSIFIER = KeyMap(
    rename=_ENCODER
    | {
        "bert.pooler.dense.{p}": "head.pooler.{p}",
        "classifier.{p}": "head.classifier.{p}",
    }
)
ENCODER = KeyMap(
    rename={k.removeprefix("bert."): v for k, v in _ENCODER.items()},
    unused={"pooler.dense.{p}": "starts from random numbers in the authors' own loader"},
)

FAMILY = Family(
    name="dnabert2",
    title="DNABERT-2",
    paper="arXiv:2306.15006",
    organism="DNA of 135 species",
    objective="masked",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=DnaBert2,
    heads={
        "masked": _masked,
        "classifier": lambda c, backbone: FirstTokenClassifier(
            c.width, c.classes, dropout=c.dropout, problem=c.problem
        ),
    },
    layouts=(
        Layout(name="masked", keys=MASKED, head="masked"),
        Layout(name="classifier", keys=CLASSIFIER, head="classifier"),
        Layout(name="encoder", keys=ENCODER),
    ),
    tokenizer=_tokenizer,
    releases=(
        Release(
            name="dnabert2-117m",
            source="hf:zhihan1996/DNABERT-2-117M",
            licence="Apache-2.0",
            parameters=117_074_176,
            context=None,
            layout="masked",
            config=_write_config(DnaBert2Config()),
        ),
    ),
)
