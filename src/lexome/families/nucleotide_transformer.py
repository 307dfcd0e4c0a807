"""Nucleotide Transformer v1 and v2 (Dalla-Torre et al. 2024, doi:10.1038/s41592-024-02523-z).

Reference: InstaDeepAI/nucleotide-transformer-*; v1 is ``EsmForMaskedLM`` of transformers, v2 the
``modeling_esm.py`` of its repository. Pre-norm encoders over 6-mers side by side (3-mers in the
codon model), with single letters where no 6-mer fits. v1 has learned positions, a plain MLP with
biases, and scales embeddings by how many tokens are masked, at inference too. v2 turns queries and
keys, and has a gated MLP without biases. Files hold two parts that nothing reads: a contact
predictor and, in v2, a position table. They are kept, never trained, and written back.
The weights were trained in JAX with a layer norm epsilon of 1e-5; the PyTorch files say 1e-12 and
are taken at their word, so the two differ by up to 1e-3.
Axes: B batch, L tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks import (
    FirstTokenClassifier,
    GatedMlp,
    Linear,
    MaskedTokenHead,
    Mlp,
    PreNormBlock,
    Rotary,
    RotarySelfAttention,
    SelfAttention,
    Stack,
    TokenHead,
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
    read_json,
    read_sizes,
    write_sizes,
)
from lexome.core import CheckpointError, InputError
from lexome.objectives import masked_token_loss
from lexome.tokenizers import (
    KmerLetterPreset,
    KmerLetterTokenizer,
    KmerVocabulary,
    Tokenizer,
    find_kmers,
    read_kmers,
)

UNSEEN = 1 - 0.15 * 0.8  # share of tokens that were not masked in pretraining
PAD, MASK = 1, 2
SPECIALS = {
    "v1": ("<unk>", "<pad>", "<mask>", "<cls>"),
    "v2": ("<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>"),
}
LETTERS = ("A", "T", "C", "G", "N")


@dataclass(frozen=True, kw_only=True)
class NucleotideTransformerConfig:
    """What a release or a small model sets; `wiring` is ``"v1"`` or ``"v2"``.

    `positions` counts the rows of the position table, two more than tokens fit.
    """

    wiring: str = "v2"
    vocab_size: int = 4107
    width: int = 512
    depth: int = 12
    heads: int = 16
    mlp_width: int = 2048
    positions: int = 2050
    token_dropout: bool = False
    embed_norm: bool = False
    norm_eps: float = 1e-12
    dropout: float = 0.0
    attention_dropout: float = 0.0
    tied: bool = False
    classes: int = 2
    problem: str | None = None


def _layers(c: NucleotideTransformerConfig) -> nn.ModuleList:
    rotary = Rotary(c.width // c.heads) if c.wiring == "v2" else None
    layers = nn.ModuleList()
    for _ in range(c.depth):
        if rotary is None:
            attention = SelfAttention(c.width, c.heads, dropout=c.attention_dropout)
            mlp = Mlp(c.width, c.mlp_width)
        else:
            attention = RotarySelfAttention(
                c.width, c.heads, rotary=rotary, dropout=c.attention_dropout
            )
            mlp = GatedMlp(c.width, c.mlp_width, activation=F.silu, down_bias=False)
        layers.append(
            PreNormBlock(attention, mlp, width=c.width, eps=c.norm_eps, dropout=c.dropout)
        )
    return layers


class NucleotideTransformer(Stack):
    """The encoder."""

    def __init__(self, config: NucleotideTransformerConfig):
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.vocab_size, c.width)
        self.position = nn.Embedding(c.positions, c.width).requires_grad_(c.wiring == "v1")
        self.embed_norm = nn.LayerNorm(c.width, c.norm_eps) if c.embed_norm else nn.Identity()
        self.dropout = nn.Dropout(c.dropout)
        self.layers = _layers(c)
        self.norm = nn.LayerNorm(c.width, c.norm_eps)
        self.contact = Linear(c.depth * c.heads, 1).requires_grad_(False)  # nothing reads it
        self.apply(start_small)

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Embed; the layers share the padding's score bias and, in v2, the turns of positions."""
        c = self.config
        x_BLD = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        if c.token_dropout:
            x_BLD = _rescale(x_BLD, input_ids, attention_mask)
        if c.wiring == "v1":
            x_BLD = x_BLD + self.position(self._places(x_BLD, input_ids, attention_mask))
        x_BLD = self.embed_norm(x_BLD)
        bias = padding_bias(attention_mask, x_BLD.dtype)
        if bias is not None:
            x_BLD = x_BLD * attention_mask[..., None].to(x_BLD.dtype)  # type: ignore[index]
        if c.wiring == "v1":
            return self.dropout(x_BLD), bias
        rotary = self.layers[0].attention.rotary  # type: ignore[union-attr]
        return self.dropout(x_BLD), (bias, rotary(x_BLD.shape[1], x_BLD))

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm."""
        return self.norm(x)

    def _places(self, x_BLD: Tensor, input_ids: Tensor | None, mask_BL: Tensor | None) -> Tensor:
        """Count tokens that are no padding; the first one has the row after the padding's."""
        present_BL = x_BLD.new_ones(x_BLD.shape[:2], dtype=bool)
        if input_ids is not None:
            present_BL = input_ids != PAD
        if mask_BL is not None:
            present_BL = present_BL & mask_BL.bool()
        places_BL = present_BL.cumsum(1) * present_BL + PAD
        if x_BLD.shape[1] > (room := self.config.positions - 1 - PAD):
            raise InputError(
                f"the input has {x_BLD.shape[1]:,} tokens, and this model has positions for "
                f"{room:,}. Cut it into pieces of at most that."
            )
        return places_BL


def _rescale(x_BLD: Tensor, input_ids: Tensor | None, mask_BL: Tensor | None) -> Tensor:
    """Zero masked tokens, and make up for it as if pretraining's share of them had been there."""
    if input_ids is None:
        return x_BLD * UNSEEN
    is_mask_BL = input_ids == MASK
    length_B1 = input_ids.shape[1] if mask_BL is None else mask_BL.sum(1, keepdim=True)
    unmasked_B1 = 1 - is_mask_BL.sum(1, keepdim=True).float() / length_B1
    scale_BL = UNSEEN / unmasked_B1 * ~is_mask_BL
    return x_BLD * scale_BL[..., None].to(x_BLD.dtype)


def _kmer_size(vocab_size: int, wiring: str) -> int | None:
    """Return k of a vocabulary of so many words, None where it is no such vocabulary."""
    others = len(SPECIALS[wiring]) + len(LETTERS)
    return next((k for k in range(2, 9) if vocab_size == 4**k + others), None)


def _wiring(raw: Mapping[str, Any]) -> str:
    return "v2" if raw.get("position_embedding_type") == "rotary" else "v1"


def _recognise(raw: Mapping[str, Any]) -> bool:
    # Other ESM models, of proteins or with byte-pair words, have other vocabularies.
    is_esm = raw.get("model_type") == "esm" or "esm" in str(raw.get("auto_map"))
    return is_esm and _kmer_size(raw.get("vocab_size", 0), _wiring(raw)) is not None


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> NucleotideTransformerConfig:
    raw = {**CLASS_DEFAULTS["esm"], **raw}
    wiring, plain = _wiring(raw), raw["add_bias_fnn"]
    if plain != (wiring == "v1"):
        raise CheckpointError(
            f"config.json says positions {raw['position_embedding_type']!r} and add_bias_fnn "
            f"{plain}. Expected the wiring of v1 ('absolute', not set) or v2 ('rotary', False), "
            "which all releases have."
        )
    known = {"position_embedding_type": ("absolute", "rotary"), "is_decoder": (False,)}
    known |= {"pad_token_id": (PAD, None), "mask_token_id": (MASK, None)}
    expect_settings(raw, known, "Nucleotide Transformer")
    classes = [
        shapes[n][0] for n in ("classifier.out_proj.weight", "classifier.weight") if n in shapes
    ]
    return NucleotideTransformerConfig(
        **read_sizes(raw, NucleotideTransformerConfig),
        wiring=wiring,
        token_dropout=raw["token_dropout"],
        embed_norm=bool(raw["emb_layer_norm_before"]),
        classes=[*classes, len(raw.get("id2label") or (0, 1))][0],
    )


def _write_config(c: NucleotideTransformerConfig) -> dict[str, Any]:
    published = write_sizes(c) | {
        "architectures": ["EsmForMaskedLM"],
        "emb_layer_norm_before": c.embed_norm,
        "mask_token_id": MASK,
        "model_type": "esm",
        "pad_token_id": PAD,
        "position_embedding_type": "absolute" if c.wiring == "v1" else "rotary",
        "token_dropout": c.token_dropout,
    }
    if c.wiring == "v2":
        published["add_bias_fnn"] = False
        published["auto_map"] = {
            "AutoConfig": "esm_config.EsmConfig",
            "AutoModelForMaskedLM": "modeling_esm.EsmForMaskedLM",
            "AutoModelForSequenceClassification": "modeling_esm.EsmForSequenceClassification",
            "AutoModelForTokenClassification": "modeling_esm.EsmForTokenClassification",
        }
    return published


def _tokenizer(folder: Path | None, c: NucleotideTransformerConfig) -> Tokenizer:
    specials = SPECIALS[c.wiring]
    if (path := find_kmers(folder)) is not None:
        words = read_kmers(path)
    else:
        k = _kmer_size(c.vocab_size, c.wiring) or 0
        words = KmerVocabulary(specials=specials, letters="ATCG", k=k, rest=LETTERS)
    if words.specials != specials or words.size != c.vocab_size:
        raise CheckpointError(
            f"{path or 'the vocabulary'} has {words.size:,} words and begins with "
            f"{', '.join(words.specials)}; the weights have rows for {c.vocab_size:,}. Expected "
            f"{', '.join(specials)}, then 4^k k-mers and single letters, and as many rows. The "
            "files belong to different models."
        )
    return KmerLetterTokenizer(
        KmerLetterPreset(
            name=f"nucleotide-transformer-{c.wiring}-{words.k}mer",
            k=words.k,
            letters=words.letters,
            specials=specials,
            layout="<cls> {sequence} <eos>" if _ends(folder, specials) else "<cls> {sequence}",
            singles=words.rest,
            max_tokens=_context(c),
        )
    )


def _ends(folder: Path | None, specials: tuple[str, ...]) -> bool:
    """Say whether inputs end in ``<eos>``: where the tokenizer's settings do not rule it out.

    They do in all releases; the authors' class appends it wherever the vocabulary has it.
    """
    path = folder / "tokenizer_config.json" if folder else None
    if "<eos>" not in specials or path is None or not path.is_file():
        return False
    return bool(read_json(path).get("eos_token", "<eos>"))


def _context(c: NucleotideTransformerConfig) -> int:
    return c.positions - 1 - PAD


_L = "esm.encoder.layer.{i}"
_OUR = "layers.{i}"
_ENCODER = {
    "esm.embeddings.word_embeddings.weight": "embed.weight",
    "esm.embeddings.position_embeddings.weight": "position.weight",
    "esm.embeddings.layer_norm.{p}": "embed_norm.{p}",
    f"{_L}.attention.LayerNorm.{{p}}": f"{_OUR}.attention_norm.{{p}}",
    f"{_L}.attention.self.rotary_embeddings.inv_freq": f"{_OUR}.attention.rotary.inv_freq",
    f"{_L}.attention.output.dense.{{p}}": f"{_OUR}.attention.out.{{p}}",
    f"{_L}.LayerNorm.{{p}}": f"{_OUR}.mlp_norm.{{p}}",
    f"{_L}.intermediate.dense.{{p}}": f"{_OUR}.mlp.up.{{p}}",
    f"{_L}.output.dense.{{p}}": f"{_OUR}.mlp.down.{{p}}",
    "esm.encoder.emb_layer_norm_after.{p}": "norm.{p}",
    "esm.contact_head.regression.{p}": "contact.{p}",
}
_JOIN = {
    f"{_OUR}.attention.qkv.{{p}}": tuple(
        f"{_L}.attention.self.{name}.{{p}}" for name in ("query", "key", "value")
    )
}
_UNUSED = {
    "esm.embeddings.position_ids": "0, 1, 2, ..., saved by some versions",
    "esm.pooler.dense.{p}": "starts from random numbers in the authors' own loader",
}
ENCODER = KeyMap(rename=_ENCODER, join=_JOIN, unused=_UNUSED)
MASKED = replace(
    ENCODER,
    rename=_ENCODER
    | {
        "lm_head.bias": "head.decoder.bias",
        "lm_head.decoder.weight": "head.decoder.weight",
        "lm_head.dense.{p}": "head.dense.{p}",
        "lm_head.layer_norm.{p}": "head.norm.{p}",
    },
)
CLASSIFIER = replace(
    ENCODER,
    rename=_ENCODER
    | {
        "classifier.dense.{p}": "head.pooler.{p}",
        "classifier.out_proj.{p}": "head.classifier.{p}",
    },
)
TOKENS = replace(ENCODER, rename=_ENCODER | {"classifier.{p}": "head.decoder.{p}"})

_V1 = {"wiring": "v1", "vocab_size": 4105, "positions": 1002, "token_dropout": True}
_V1_500M = _V1 | {"width": 1280, "depth": 24, "heads": 20, "mlp_width": 5120}
_V1_2B = _V1 | {"width": 2560, "depth": 32, "heads": 20, "mlp_width": 10_240}
_RELEASES: dict[str, tuple[int, dict[str, Any]]] = {
    "500m-human-ref": (485_699_306, _V1_500M),
    "500m-1000g": (485_699_306, _V1_500M),
    "2.5b-1000g": (2_547_801_226, _V1_2B),
    "2.5b-multi-species": (2_547_801_226, _V1_2B),
    "v2-50m-multi-species": (55_904_972, {}),
    "v2-100m-multi-species": (97_889_132, {"depth": 22}),
    "v2-250m-multi-species": (235_120_780, {"width": 768, "depth": 24, "mlp_width": 3072}),
    "v2-500m-multi-species": (498_345_436, {"width": 1024, "depth": 29, "mlp_width": 4096}),
    "v2-50m-3mer-multi-species": (51_772_172, {"vocab_size": 75}),
}


def _release(name: str, parameters: int, config: NucleotideTransformerConfig) -> Release:
    return Release(
        name=f"nucleotide-transformer-{name}",
        source=f"hf:InstaDeepAI/nucleotide-transformer-{name}",
        licence="CC-BY-NC-SA-4.0",
        parameters=parameters,
        context=_context(config),
        layout="masked",
        config=_write_config(config),
    )


FAMILY = Family(
    name="nucleotide_transformer",
    title="Nucleotide Transformer",
    paper="doi:10.1038/s41592-024-02523-z",
    organism="DNA of human genomes, or of 850 species",
    objective="masked",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=NucleotideTransformer,
    heads={
        "masked": lambda c, backbone: MaskedTokenHead(
            c.width,
            c.vocab_size,
            loss=masked_token_loss,
            eps=c.norm_eps,
            tied=backbone.embed if c.tied else None,
        ).apply(start_small),
        "classifier": lambda c, backbone: FirstTokenClassifier(
            c.width, c.classes, dropout=c.dropout, problem=c.problem
        ),
        "token-classifier": lambda c, backbone: TokenHead(
            c.width, c.classes, loss=masked_token_loss, bias=True
        ),
    },
    layouts=(
        Layout(name="masked", keys=MASKED, head="masked"),
        Layout(name="classifier", keys=CLASSIFIER, head="classifier"),
        Layout(name="token-classifier", keys=TOKENS, head="token-classifier"),
        Layout(name="encoder", keys=ENCODER.without("esm.")),
    ),
    tokenizer=_tokenizer,
    context=_context,
    releases=tuple(
        _release(name, parameters, NucleotideTransformerConfig(**sizes))
        for name, (parameters, sizes) in _RELEASES.items()
    ),
)
