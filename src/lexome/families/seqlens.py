"""seqLens (Baghbanzadeh et al. 2025, github.com/omicsEye/seqLens): encoders over BPE tokens.

Reference: omicseye/seqLens_* with transformers 4.38. Three wirings:

- ``"disentangled"``, the ``-at-`` models: DeBERTa-v2, whose scores tell content from relative
  position. Nothing else knows where a token stands.
- ``"absolute"``, those without a mark: the same code with its relative attention switched off, that
  is BERT with learned positions and without segments.
- ``"esm"``: the encoder of Nucleotide Transformer v2, pre-norm, with rotary positions and a gated
  MLP. Its files hold a position table and a contact predictor that nothing reads; they are kept,
  never trained, and written back.

The words are lower case, and letters that none of them has vanish: there is no unknown token.
Axes: B batch, L tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks import (
    DisentangledSelfAttention,
    DistanceTable,
    FirstTokenClassifier,
    GatedMlp,
    Linear,
    MaskedTokenHead,
    Mlp,
    PostNormBlock,
    PreNormBlock,
    Rotary,
    RotarySelfAttention,
    SelfAttention,
    Stack,
    padding_bias,
    start_small,
)
from lexome.checkpoints import (
    CLASS_DEFAULTS,
    Family,
    KeyMap,
    Layout,
    Release,
    Shapes,
    expect_settings,
    read_sizes,
    write_sizes,
)
from lexome.core import CheckpointError, InputError, pick
from lexome.objectives import masked_token_loss
from lexome.tokenizers import Tokenizer, read_trained

SPECIALS = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "cls_token_id": 3}
VOCABULARIES = (4096, 8192, 16_384, 32_768, 65_536)

_WIRINGS: dict[str, dict[str, Any]] = {  # what config.json says of each
    "disentangled": {
        "max_relative_positions": -1,
        "norm_rel_ebd": "layer_norm",
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "relative_attention": True,
        "share_att_key": True,
        "type_vocab_size": 0,
    },
    "absolute": {
        "position_biased_input": True,
        "relative_attention": False,
        "type_vocab_size": 0,
    },
    "esm": {
        "add_bias_fnn": False,
        "emb_layer_norm_before": False,
        "position_embedding_type": "rotary",
        "token_dropout": False,
    },
}


@dataclass(frozen=True, kw_only=True)
class SeqLensConfig:
    """What a release or a small model sets.

    `wiring` is ``"disentangled"``, ``"absolute"`` or ``"esm"``. `positions` is the longest input
    in pretraining, and the most that absolute positions can tell; of `buckets` distances in each
    direction the disentangled wiring knows. `tied` says whether the decoder is the token embedding;
    by default it is, but not in the ESM wiring.
    """

    wiring: str = "disentangled"
    vocab_size: int = 4096
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    positions: int = 512
    buckets: int = 256
    norm_eps: float = 1e-7
    dropout: float = 0.1
    attention_dropout: float = 0.1
    tied: bool | None = None
    classes: int = 2
    problem: str | None = None

    def __post_init__(self) -> None:
        if self.tied is None:
            object.__setattr__(self, "tied", self.wiring != "esm")


def _layer(c: SeqLensConfig, rotary: Rotary | None) -> nn.Module:
    dropout = c.attention_dropout
    if rotary is not None:
        turned = RotarySelfAttention(c.width, c.heads, rotary=rotary, dropout=dropout)
        mlp = GatedMlp(c.width, c.mlp_width, activation=F.silu, down_bias=False)
        return PreNormBlock(turned, mlp, width=c.width, eps=c.norm_eps, dropout=c.dropout)
    if c.wiring == "disentangled":
        attention = DisentangledSelfAttention(
            c.width, c.heads, dropout=dropout, table_dropout=c.dropout
        )
    else:
        attention = SelfAttention(c.width, c.heads, dropout=dropout)
    mlp = Mlp(c.width, c.mlp_width)
    return PostNormBlock(attention, mlp, width=c.width, eps=c.norm_eps, dropout=c.dropout)


class SeqLens(Stack):
    """The encoder."""

    def __init__(self, config: SeqLensConfig):
        super().__init__()
        c = self.config = config
        self.esm = pick("wiring", c.wiring, _WIRINGS) == "esm"
        self.embed = nn.Embedding(c.vocab_size, c.width)
        if c.wiring == "disentangled":
            self.distances = DistanceTable(c.width, c.buckets, farthest=c.positions, eps=c.norm_eps)
        else:
            self.position = nn.Embedding(c.positions, c.width).requires_grad_(not self.esm)
        self.embed_norm = nn.Identity() if self.esm else nn.LayerNorm(c.width, c.norm_eps)
        self.dropout = nn.Dropout(c.dropout)
        rotary = Rotary(c.width // c.heads) if self.esm else None
        self.layers = nn.ModuleList(_layer(c, rotary) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, c.norm_eps) if self.esm else nn.Identity()
        if self.esm:
            self.contact = Linear(c.depth * c.heads, 1).requires_grad_(False)
        self.apply(start_small)

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Embed; the layers share the padding's score bias and what tells them positions."""
        x_BLD = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        length = x_BLD.shape[1]
        shared: Any = padding_bias(attention_mask, x_BLD.dtype)
        if self.esm:
            rotary = self.layers[0].attention.rotary  # type: ignore[union-attr]
            shared = shared, rotary(length, x_BLD)
        elif self.config.wiring == "disentangled":
            shared = shared, self.distances(length, x_BLD)
        else:
            x_BLD = x_BLD + self.position(self._places(length, attention_mask))
        return self.dropout(self.embed_norm(x_BLD)), shared

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm, which only the ESM wiring has."""
        return self.norm(x)

    def _places(self, length: int, mask_BL: Tensor | None) -> Tensor:
        """Count tokens from 0, wherever the padding is."""
        if length > self.config.positions:
            raise InputError(
                f"the input has {length:,} tokens, and this seqLens tells {self.config.positions:,}"
                " positions apart. Cut it into pieces, or take an -at- model."
            )
        if mask_BL is None:
            return torch.arange(length, device=self.position.weight.device)
        return (mask_BL.cumsum(1) - 1).clamp(min=0)


def _masked(c: SeqLensConfig, backbone: SeqLens) -> MaskedTokenHead:
    tied = backbone.embed if c.tied else None
    head = MaskedTokenHead(c.width, c.vocab_size, loss=masked_token_loss, eps=c.norm_eps, tied=tied)
    head.apply(start_small)
    if not backbone.esm:
        head.bias = head.decoder.bias  # older files hold it under both names
    return head


def _classifier(c: SeqLensConfig, backbone: SeqLens) -> FirstTokenClassifier:
    activation, problem = torch.tanh if backbone.esm else F.gelu, c.problem
    if problem is None and c.classes > 1 and not backbone.esm:
        problem = "single_label_classification"  # DeBERTa takes shares of the classes as such
    return FirstTokenClassifier(
        c.width, c.classes, dropout=c.dropout, activation=activation, problem=problem
    )


def _wiring(raw: Mapping[str, Any]) -> str:
    if raw.get("model_type") != "deberta-v2":
        return "esm"
    return "disentangled" if raw.get("relative_attention") else "absolute"


def _recognise(raw: Mapping[str, Any]) -> bool:
    # DeBERTa and ESM models of text, proteins or k-mers have other words, and pad with 0 or 1.
    if raw.get("model_type") not in {"deberta-v2", "esm"}:
        return False
    ours = raw.get("pad_token_id") == SPECIALS["pad_token_id"]
    return ours or raw.get("vocab_size") in VOCABULARIES


_ONLY = {  # settings of which the code has more values than the models
    "conv_kernel_size": (0,),
    "hidden_act": ("gelu", "gelu_python"),
    "is_decoder": (False,),
    "pooler_hidden_act": ("gelu", "gelu_python"),
}


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> SeqLensConfig:
    wiring = _wiring(raw)
    raw = _normal({**CLASS_DEFAULTS["esm" if wiring == "esm" else "deberta-v2"], **raw})
    needed = _WIRINGS[wiring]
    given = {name: raw.get(name) for name in needed}  # nothing of it may be left out
    known = {name: (value,) for name, value in needed.items()}
    expect_settings(given, known, f"seqLens of the {wiring} wiring")
    expect_settings(raw, _ONLY, "seqLens")
    ends = ("classifier.out_proj.weight", "classifier.weight")
    classes = [shapes[name][0] for name in ends if name in shapes]
    buckets = raw.get("position_buckets", -1)
    if wiring == "disentangled" and not 2 <= buckets < 2 * raw["max_position_embeddings"] - 2:
        raise CheckpointError(
            f"config.json says position_buckets {buckets} and max_position_embeddings "
            f"{raw['max_position_embeddings']}. Expected at least 2 buckets, and half of them for "
            "near positions; all seqLens models have 256 and 512. Take the model's own config.json."
        )
    extra = {"buckets": buckets} if wiring == "disentangled" else {}
    return SeqLensConfig(
        **read_sizes(raw, SeqLensConfig),
        wiring=wiring,
        classes=classes[0] if classes else len(raw.get("id2label") or (0, 1)),
        **extra,
    )


def _normal(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with one way to say each thing."""
    kinds = raw.get("pos_att_type")
    if kinds:  # also written "p2c|c2p"
        kinds = kinds.lower().split("|") if isinstance(kinds, str) else list(kinds)
        raw = raw | {"pos_att_type": sorted(kinds, reverse=True)}
    if raw.get("max_relative_positions") == raw["max_position_embeddings"]:
        raw = raw | {"max_relative_positions": -1}  # which stands for that
    return raw | {"emb_layer_norm_before": bool(raw.get("emb_layer_norm_before"))}


def _write_config(c: SeqLensConfig) -> dict[str, Any]:
    published = write_sizes(c) | _WIRINGS[c.wiring] | SPECIALS
    if c.wiring == "esm":
        return published | {"architectures": ["EsmForMaskedLM"], "model_type": "esm"}
    del published["mask_token_id"]
    if c.wiring == "disentangled":
        published["position_buckets"] = c.buckets
    return published | {
        "architectures": ["DebertaV2ForMaskedLM"],
        "hidden_act": "gelu",
        "model_type": "deberta-v2",
        "pooler_dropout": 0,
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": c.width,
    }


def _tokenizer(folder: Path | None, c: SeqLensConfig) -> Tokenizer:
    return read_trained(folder, c.vocab_size, "seqLens")


_DEBERTA = "deberta.encoder.layer.{i}"
DEBERTA = KeyMap(
    rename={
        "deberta.embeddings.word_embeddings.weight": "embed.weight",
        "deberta.embeddings.position_embeddings.weight": "position.weight",
        "deberta.embeddings.LayerNorm.{p}": "embed_norm.{p}",
        "deberta.encoder.rel_embeddings.weight": "distances.table.weight",
        "deberta.encoder.LayerNorm.{p}": "distances.norm.{p}",
        f"{_DEBERTA}.attention.output.dense.{{p}}": "layers.{i}.attention.out.{p}",
        f"{_DEBERTA}.attention.output.LayerNorm.{{p}}": "layers.{i}.attention_norm.{p}",
        f"{_DEBERTA}.intermediate.dense.{{p}}": "layers.{i}.mlp.up.{p}",
        f"{_DEBERTA}.output.dense.{{p}}": "layers.{i}.mlp.down.{p}",
        f"{_DEBERTA}.output.LayerNorm.{{p}}": "layers.{i}.mlp_norm.{p}",
    },
    join={
        "layers.{i}.attention.qkv.{p}": (
            f"{_DEBERTA}.attention.self.query_proj.{{p}}",
            f"{_DEBERTA}.attention.self.key_proj.{{p}}",
            f"{_DEBERTA}.attention.self.value_proj.{{p}}",
        )
    },
    unused={"deberta.embeddings.position_ids": "0, 1, 2, ..., saved by some versions"},
)
_DEBERTA_MASKED = {
    "cls.predictions.bias": "head.bias",
    "cls.predictions.decoder.{p}": "head.decoder.{p}",
    "cls.predictions.transform.dense.{p}": "head.dense.{p}",
    "cls.predictions.transform.LayerNorm.{p}": "head.norm.{p}",
}
_DEBERTA_CLASSES = {"pooler.dense.{p}": "head.pooler.{p}", "classifier.{p}": "head.classifier.{p}"}

_ESM = "esm.encoder.layer.{i}"
ESM = KeyMap(
    rename={
        "esm.embeddings.word_embeddings.weight": "embed.weight",
        "esm.embeddings.position_embeddings.weight": "position.weight",
        "esm.contact_head.regression.{p}": "contact.{p}",
        "esm.encoder.emb_layer_norm_after.{p}": "norm.{p}",
        f"{_ESM}.LayerNorm.{{p}}": "layers.{i}.mlp_norm.{p}",
        f"{_ESM}.attention.LayerNorm.{{p}}": "layers.{i}.attention_norm.{p}",
        f"{_ESM}.attention.output.dense.{{p}}": "layers.{i}.attention.out.{p}",
        f"{_ESM}.attention.self.rotary_embeddings.inv_freq": (
            "layers.{i}.attention.rotary.inv_freq"
        ),
        f"{_ESM}.intermediate.dense.weight": "layers.{i}.mlp.up.weight",
        f"{_ESM}.output.dense.weight": "layers.{i}.mlp.down.weight",
    },
    join={
        "layers.{i}.attention.qkv.{p}": (
            f"{_ESM}.attention.self.query.{{p}}",
            f"{_ESM}.attention.self.key.{{p}}",
            f"{_ESM}.attention.self.value.{{p}}",
        )
    },
    unused={
        "esm.embeddings.position_ids": "0, 1, 2, ..., saved by some versions",
        "esm.pooler.dense.{p}": "starts from random numbers in the authors' own loader",
    },
)
_ESM_MASKED = {
    "lm_head.bias": "head.decoder.bias",
    "lm_head.decoder.weight": "head.decoder.weight",
    "lm_head.dense.{p}": "head.dense.{p}",
    "lm_head.layer_norm.{p}": "head.norm.{p}",
}
_ESM_CLASSES = {
    "classifier.dense.{p}": "head.pooler.{p}",
    "classifier.out_proj.{p}": "head.classifier.{p}",
}


def _layout(name: str, keys: KeyMap, head: dict[str, str], kind: str | None) -> Layout:
    return Layout(name=name, keys=replace(keys, rename={**keys.rename, **head}), head=kind)


_AT = {"wiring": "disentangled"}
_XSMALL = _AT | {"width": 384, "heads": 6, "mlp_width": 1536}
_S = {"wiring": "absolute", "width": 512, "heads": 8, "mlp_width": 2048}
_M = {"wiring": "absolute"}
_L = {"wiring": "absolute", "width": 1024, "heads": 16, "mlp_width": 4096}
_E = {"wiring": "esm", "width": 512, "heads": 16, "mlp_width": 2048, "norm_eps": 1e-12}
_E |= {"dropout": 0.0, "attention_dropout": 0.0}
_RELEASES: dict[str, tuple[int, int, dict[str, Any]]] = {  # name: parameters, depth, other sizes
    "4096_512_15M": (15_237_632, 4, _S),
    "4096_512_27M": (27_847_168, 8, _S),
    "4096_512_46M": (46_663_936, 6, _M),
    "4096_512_46M-Me": (46_663_936, 6, _M),
    "4096_512_46M-Mp": (46_663_936, 6, _M),
    "4096_512_46M-Ms": (46_663_936, 6, _M),
    "4096_512_89M": (89_191_168, 12, _M),
    "4096_512_106M": (106_546_176, 8, _L),
    "4096_512_23M-at-xsmall": (23_217_280, 12, _XSMALL),
    "4096_512_47M-at-small": (46_665_472, 6, _AT),
    "4096_512_89M-at-base": (89_192_704, 12, _AT),
    "4096_512_89M-at-base-multi": (89_192_704, 12, _AT),
    "8192_512_17M": (17_338_880, 4, _S),
    "8192_512_30M": (29_948_416, 8, _S),
    "8192_512_50M": (49_813_760, 6, _M),
    "8192_512_92M": (92_340_992, 12, _M),
    "8192_512_111M": (110_744_576, 8, _L),
    "8192_512_25M-at-xsmall": (24_794_240, 12, _XSMALL),
    "16384_512_22M": (21_541_376, 4, _S),
    "16384_512_34M": (34_150_912, 8, _S),
    "16384_512_56M": (56_113_408, 6, _M),
    "16384_512_28M-at-xsmall": (27_948_160, 12, _XSMALL),
    "32768_512_30M": (29_946_368, 4, _S),
    "32768_512_43M": (42_555_904, 8, _S),
    "32768_512_69M": (68_712_704, 6, _M),
    "32768_512_34M-at-xsmall": (34_256_000, 12, _XSMALL),
    "65536_512_47M": (46_756_352, 4, _S),
    "65536_512_59M": (59_365_888, 8, _S),
    "65536_512_94M": (93_911_296, 6, _M),
    "esm_4096_512_55M": (55_106_241, 12, _E),
    "esm_4096_512_97M": (97_090_401, 22, _E),
}


def _release(name: str, parameters: int, depth: int, sizes: dict[str, Any]) -> Release:
    words = int(name.removeprefix("esm_").split("_")[0])
    config = SeqLensConfig(vocab_size=words, depth=depth, **sizes)
    return Release(
        name=f"seqlens-{name.lower().replace('_', '-')}",
        source=f"hf:omicseye/seqLens_{name}",
        licence="CC-BY-NC-4.0",
        parameters=parameters,
        context=config.positions,
        layout="esm-masked" if config.wiring == "esm" else "masked",
        config=_write_config(config),
    )


FAMILY = Family(
    name="seqlens",
    title="seqLens",
    paper="doi:10.1101/2025.03.12.642848",
    organism="DNA of 19,551 genomes, mostly prokaryotes, or of 1,354 from all kingdoms",
    objective="masked",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=SeqLens,
    heads={"masked": _masked, "classifier": _classifier},
    layouts=(
        _layout("masked", DEBERTA, _DEBERTA_MASKED, "masked"),
        _layout("classifier", DEBERTA, _DEBERTA_CLASSES, "classifier"),
        Layout(name="encoder", keys=DEBERTA.without("deberta.")),
        _layout("esm-masked", ESM, _ESM_MASKED, "masked"),
        _layout("esm-classifier", ESM, _ESM_CLASSES, "classifier"),
        Layout(name="esm-encoder", keys=ESM.without("esm.")),
    ),
    tokenizer=_tokenizer,
    context=lambda c: c.positions,
    releases=tuple(_release(name, *facts) for name, facts in _RELEASES.items()),
)
