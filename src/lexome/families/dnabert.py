"""DNABERT (Ji et al. 2021, doi:10.1093/bioinformatics/btab083): BERT over overlapping k-mers.

Reference: zhihan1996/DNA_bert_{3,4,5,6} with ``dnabert_layer.py``, the form that is downloaded
today, and jerryji1993/DNABERT, the fork of transformers 2.5 that made the weights. The encoder is
BERT's; the classifiers of long inputs run it on pieces of 512 tokens. The two codes differ, and
``"semantics"`` in config.json says whose numbers are wanted:

- ``"hub"`` (if it says nothing): padding is hidden, the head's bias is added once, long inputs
  have special tokens at their ends only.
- ``"fork-2020"`` (for the classifiers that only the fork has): padding gets -10000, the head's
  bias is added twice, as in pretraining, every 510 k-mers stand in special tokens of their own.
- ``"fork-2021"``: as before, but from June 2021 on a misspelt variable adds 1 to the scores of
  tokens instead, which hides no padding. Batch-mates change each other's results then.

Axes: B batch, L tokens, D width, C classes, P pieces.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lexome.blocks import (
    Linear,
    MaskedTokenHead,
    Mlp,
    PostNormBlock,
    SelfAttention,
    Stack,
    padding_bias,
    sequence_loss,
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
from lexome.tokenizers import KmerPreset, KmerTokenizer, KmerVocabulary, find_kmers, read_kmers

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENS = 512  # the tokenizers' limit, and the length of a piece


@dataclass(frozen=True, kw_only=True)
class DnaBertConfig:
    """What a release or a small model sets.

    `pooler` says whether the weights hold one; `rnn` (``"lstm"`` or ``"gru"``), `rnn_depth`,
    `rnn_dropout` and `pieces` belong to the classifiers of long inputs.
    """

    vocab_size: int = 4101
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    positions: int = TOKENS
    segments: int = 2
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    tied: bool = True
    pooler: bool = True
    classes: int = 2
    problem: str | None = None
    rnn: str = "lstm"
    rnn_depth: int = 1
    rnn_dropout: float = 0.0
    pieces: int = 10
    semantics: str = "hub"


def _penalty(mask_BL: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if mask_BL is None else (1 - mask_BL[:, None, None].to(dtype)) * -10_000.0


def _bonus(mask_BL: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if mask_BL is None else mask_BL[:, None, None].to(dtype)


_BIASES: dict[str, Callable[[Tensor | None, torch.dtype], Tensor | None]] = {
    "hub": padding_bias,
    "fork-2020": _penalty,
    "fork-2021": _bonus,
}


class DnaBert(Stack):
    """The encoder, with the pooler that the published files hold beside it."""

    def __init__(self, config: DnaBertConfig):
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.vocab_size, c.width)
        self.position = nn.Embedding(c.positions, c.width)
        self.segment = nn.Embedding(c.segments, c.width)
        self.embed_norm = nn.LayerNorm(c.width, c.norm_eps)
        self.dropout = nn.Dropout(c.dropout)
        self.layers = nn.ModuleList(
            PostNormBlock(
                SelfAttention(c.width, c.heads, dropout=c.attention_dropout),
                Mlp(c.width, c.mlp_width),
                width=c.width,
                eps=c.norm_eps,
                dropout=c.dropout,
            )
            for _ in range(c.depth)
        )
        self.pooler = Linear(c.width, c.width) if c.pooler else None
        self.bias = _BIASES[pick("semantics", c.semantics, _BIASES)]
        self.apply(start_small)
        self.train_pooler(wanted=False)

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Add tokens, segments and positions; the layers share the score bias of the padding."""
        x_BLD = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        length, rows = x_BLD.shape[1], self.config.positions
        if length > rows:
            raise InputError(
                f"the input has {length:,} tokens, and DNABERT's position table has {rows:,}. Cut "
                "it into pieces of at most that."
            )
        place: Tensor | slice = slice(length)
        if attention_mask is not None and not bool(attention_mask[:, 0].all()):
            first_B1 = attention_mask.argmax(1, keepdim=True)  # padding on the left counts nothing
            place = (torch.arange(length, device=x_BLD.device) - first_B1).clamp(min=0)
        segment = 0 if token_type_ids is None else token_type_ids
        x_BLD = x_BLD + self.segment.weight[segment] + self.position.weight[place]
        return self.dropout(self.embed_norm(x_BLD)), self.bias(attention_mask, x_BLD.dtype)

    def pool(self, x: Tensor) -> Tensor:
        """Return tanh(linear(x)) of first tokens (..., D), what BERT calls the pooler output."""
        if self.pooler is None:
            raise InputError(
                "this checkpoint holds no pooler. Load one that does, or pool the hidden state."
            )
        return torch.tanh(self.pooler(x))

    def train_pooler(self, *, wanted: bool) -> None:
        """Say whether the head needs the pooler; if not, it is kept as it is."""
        if wanted and self.pooler is None:
            like, width = self.embed.weight, self.config.width
            self.pooler = Linear(width, width, device=like.device, dtype=like.dtype)
            self.pooler.apply(start_small)
        if self.pooler is not None:
            self.pooler.requires_grad_(wanted)


class ForkMaskedTokenHead(MaskedTokenHead):
    """The masked-token head as in pretraining: its bias is added twice."""

    def forward(self, x: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (..., D) to (..., V)."""
        return super().forward(x, batch) + self.decoder.bias


def _masked(c: DnaBertConfig, backbone: DnaBert) -> nn.Module:
    kind = MaskedTokenHead if c.semantics == "hub" else ForkMaskedTokenHead
    head = kind(
        c.width,
        c.vocab_size,
        loss=masked_token_loss,
        eps=c.norm_eps,
        tied=backbone.embed if c.tied else None,
    ).apply(start_small)
    head.bias = head.decoder.bias  # published under both names
    backbone.train_pooler(wanted=False)
    return head


class PieceClassifier(nn.Module):
    """Base of the sequence heads: pools the first token of every piece of 512 tokens.

    Pieces that are padding alone count like others, as in the authors' code: keep the number of
    pieces constant.
    """

    piece_tokens = TOKENS

    def __init__(self, c: DnaBertConfig, backbone: DnaBert):
        super().__init__()
        self.problem = c.problem
        self.dropout = nn.Dropout(c.dropout)
        self.classifier = Linear(c.width, c.classes)
        backbone.train_pooler(wanted=True)
        self._backbone = (backbone,)  # in a tuple: the pooler is the backbone's, not a part of this

    def pool(self, x_BLD: Tensor) -> Tensor:
        """Map (B, L, D) to (B, P, D)."""
        return self._backbone[0].pool(x_BLD[:, :: self.piece_tokens])

    def loss(self, logits: Tensor, labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Give the loss of whole sequences."""
        return sequence_loss(logits, labels, self.problem)


class MeanClassifier(PieceClassifier):
    """Classes from the mean of the pieces; for one piece, what BERT does."""

    def forward(self, x_BLD: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (B, L, D) to (B, C)."""
        return self.classifier(self.dropout(self.pool(x_BLD).mean(1)))


class RecurrentClassifier(PieceClassifier):
    """Classes from what an RNN reads over the pieces: its last states of all layers, both ways."""

    def __init__(self, c: DnaBertConfig, backbone: DnaBert):
        super().__init__(c, backbone)
        kinds = {"lstm": nn.LSTM, "gru": nn.GRU}
        self.rnn = kinds[pick("kind of RNN", c.rnn, kinds)](
            c.width,
            c.width,
            num_layers=c.rnn_depth,
            dropout=c.rnn_dropout,
            bidirectional=True,
            batch_first=True,
        )
        for parameter in self.rnn.parameters():
            start = nn.init.xavier_normal_ if parameter.dim() > 1 else nn.init.normal_
            start(parameter)

    def forward(self, x_BLD: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (B, L, D) to (B, C)."""
        _, last = self.rnn(self.pool(x_BLD))
        last = last[0] if isinstance(last, tuple) else last
        return self.classifier(self.dropout(last.sum(0)))


class JoinedClassifier(PieceClassifier):
    """Classes from a fixed number of pieces laid side by side, through one hidden layer."""

    def __init__(self, c: DnaBertConfig, backbone: DnaBert):
        super().__init__(c, backbone)
        self.pieces = c.pieces
        self.mix = Linear(c.width * c.pieces, c.width)

    def forward(self, x_BLD: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (B, L, D) to (B, C)."""
        pooled_BPD = self.pool(x_BLD)
        if pooled_BPD.shape[1] != self.pieces:
            raise InputError(
                f"the input has {x_BLD.shape[1]:,} tokens, and this classifier takes "
                f"{self.pieces} pieces of {self.piece_tokens}. Pad it to that, or cut it."
            )
        x_BD = torch.relu(self.mix(self.dropout(pooled_BPD.flatten(1))))
        return self.classifier(self.dropout(x_BD))


def _recognise(raw: Mapping[str, Any]) -> bool:
    # A BERT is DNABERT's if it names the authors' code or has the settings of their fork.
    return "dnabert_layer." in str(raw.get("auto_map")) or (
        {"rnn", "num_rnn_layer", "split"} <= raw.keys()
    )


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> DnaBertConfig:
    known = {"hidden_act": ("gelu", "gelu_python"), "is_decoder": (False,)}
    expect_settings(raw, known | {"position_embedding_type": ("absolute",)}, "DNABERT")
    ends = ("classifier.weight", "classifier2.weight")
    classes = [shapes[name][0] for name in ends if name in shapes]
    classes += [len(raw.get("id2label") or ()) or raw.get("num_labels", 2)]
    only_in_fork = any(name.startswith(("rnn.", "classifier1.")) for name in shapes)
    return DnaBertConfig(
        **read_sizes(raw, DnaBertConfig, CLASS_DEFAULTS["bert"]),
        pooler=not shapes or any(name.endswith("pooler.dense.weight") for name in shapes),
        classes=classes[0],
        rnn=raw.get("rnn", "lstm"),
        rnn_depth=raw.get("num_rnn_layer", 1),
        rnn_dropout=raw.get("rnn_dropout", 0.0),
        pieces=raw.get("split", 10),
        semantics=raw.get("semantics", "fork-2020" if only_in_fork else "hub"),
    )


def _write_config(c: DnaBertConfig) -> dict[str, Any]:
    return write_sizes(c) | {
        "architectures": ["BertForMaskedLM"],
        "auto_map": {
            "AutoModel": "dnabert_layer.BertModel",
            "AutoModelForMaskedLM": "dnabert_layer.BertForMaskedLM",
            "AutoModelForSequenceClassification": "dnabert_layer.DNABertForSequenceClassification",
        },
        "hidden_act": "gelu",
        "model_type": "bert",
        "num_rnn_layer": c.rnn_depth,
        "pad_token_id": 0,
        "rnn": c.rnn,
        "rnn_dropout": c.rnn_dropout,
        "semantics": c.semantics,
        "split": c.pieces,
    }


def _tokenizer(folder: Path | None, c: DnaBertConfig) -> KmerTokenizer:
    if (path := find_kmers(folder)) is not None:
        words = read_kmers(path)
    else:
        k = next(k for k in range(1, 12) if c.vocab_size <= len(SPECIALS) + 4**k)
        words = KmerVocabulary(specials=SPECIALS, letters="ATCG", k=k)
    if words.specials != SPECIALS or words.size != c.vocab_size:
        raise CheckpointError(
            f"{path or 'the vocabulary'} has {words.size:,} words and begins with "
            f"{', '.join(words.specials) or 'no special token'}; the weights have rows for "
            f"{c.vocab_size:,}. Expected {', '.join(SPECIALS)}, then 4^k k-mers, and as many rows. "
            "The files belong to different models."
        )
    return KmerTokenizer(
        KmerPreset(
            name=f"dnabert-{words.k}mer",
            k=words.k,
            letters=words.letters,
            specials=SPECIALS,
            words=True,
            max_tokens=TOKENS,
            piece_tokens=None if c.semantics == "hub" else TOKENS,
        )
    )


_L = "bert.encoder.layer.{i}"
_OUR = "layers.{i}"
_ENCODER = {
    "bert.embeddings.word_embeddings.weight": "embed.weight",
    "bert.embeddings.position_embeddings.weight": "position.weight",
    "bert.embeddings.token_type_embeddings.weight": "segment.weight",
    "bert.embeddings.LayerNorm.{p}": "embed_norm.{p}",
    f"{_L}.attention.output.dense.{{p}}": f"{_OUR}.attention.out.{{p}}",
    f"{_L}.attention.output.LayerNorm.{{p}}": f"{_OUR}.attention_norm.{{p}}",
    f"{_L}.intermediate.dense.{{p}}": f"{_OUR}.mlp.up.{{p}}",
    f"{_L}.output.dense.{{p}}": f"{_OUR}.mlp.down.{{p}}",
    f"{_L}.output.LayerNorm.{{p}}": f"{_OUR}.mlp_norm.{{p}}",
    "bert.pooler.dense.{p}": "pooler.{p}",
}
_JOIN = {
    f"{_OUR}.attention.qkv.{{p}}": tuple(
        f"{_L}.attention.self.{name}.{{p}}" for name in ("query", "key", "value")
    )
}
_UNUSED = {"bert.embeddings.position_ids": "0, 1, 2, ..., saved by some versions"}
ENCODER = KeyMap(rename=_ENCODER, join=_JOIN, unused=_UNUSED)
MASKED = replace(
    ENCODER,
    rename=_ENCODER
    | {
        "cls.predictions.bias": "head.bias",
        "cls.predictions.transform.dense.{p}": "head.dense.{p}",
        "cls.predictions.transform.LayerNorm.{p}": "head.norm.{p}",
        "cls.predictions.decoder.{p}": "head.decoder.{p}",
    },
)
_CLASSIFIER = _ENCODER | {"classifier.{p}": "head.classifier.{p}"}
CLASSIFIER = replace(ENCODER, rename=_CLASSIFIER)
RECURRENT = replace(ENCODER, rename=_CLASSIFIER | {"rnn.{rest}": "head.rnn.{rest}"})
JOINED = replace(
    ENCODER,
    rename=_ENCODER | {"classifier1.{p}": "head.mix.{p}", "classifier2.{p}": "head.classifier.{p}"},
)
_WEIGHTS = ("pytorch_model.bin", "model.safetensors")  # the fork reads only the first

FAMILY = Family(
    name="dnabert",
    title="DNABERT",
    paper="doi:10.1093/bioinformatics/btab083",
    organism="human DNA",
    objective="masked",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=DnaBert,
    heads={
        "masked": _masked,
        "classifier": MeanClassifier,
        "recurrent-classifier": RecurrentClassifier,
        "joined-classifier": JoinedClassifier,
    },
    layouts=tuple(
        Layout(name=name, keys=keys, head=None if name == "encoder" else name, weights=_WEIGHTS)
        for name, keys in {
            "masked": MASKED,
            "classifier": CLASSIFIER,
            "recurrent-classifier": RECURRENT,
            "joined-classifier": JOINED,
            "encoder": ENCODER.without("bert."),
        }.items()
    ),
    tokenizer=_tokenizer,
    context=lambda c: c.positions,
    releases=tuple(
        Release(
            name=f"dnabert-{k}",
            source=f"hf:zhihan1996/DNA_bert_{k}",
            licence="Apache-2.0",
            parameters=parameters,
            context=TOKENS,
            layout="masked",
            config=_write_config(DnaBertConfig(vocab_size=5 + 4**k)),
        )
        for k, parameters in {
            3: 86_686_533,
            4: 86_834_181,
            5: 87_424_773,
            6: 89_787_141,
        }.items()
    ),
)
