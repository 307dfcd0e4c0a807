"""scGPT (Cui et al. 2024, Nature Methods 21, 1470): a BERT over the genes that a cell expresses.

Reference: bowang-lab/scGPT. A token is the sum of a gene's embedding and its binned expression
through a small network; there are no positions, so a cell is a set. The layers are BERT's with ReLU
and a narrow MLP. Published files name the same attention matrix in three ways (flash attention, its
newer wrapper, plain PyTorch), each also below ``module.`` when saved from several GPUs. A cell's
embedding is the state of ``<cls>``, scaled to length 1. The whole-organ checkpoints (brain, heart,
lung, kidney, pan-cancer) load from their folders; their sizes are not established here.
Axes: B batch, L genes, D width, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks import Linear, Mlp, PostNormBlock, SelfAttention, Stack, padding_bias
from lexome.checkpoints import Family, KeyMap, Layout, Release, Shapes, read_json
from lexome.core import CheckpointError
from lexome.objectives import masked_value_loss
from lexome.tokenizers import CellTokenizer, Tokenizer, read_vocabulary

NORM_EPS = 1e-5
LARGEST_VALUE = 512


@dataclass(frozen=True, kw_only=True)
class ScGptConfig:
    """What a release or a small model sets.

    `flags`, `mvc` and `classes` say which parts beside the encoder and the gene decoder a file
    holds: the two flags of generative pretraining, the decoder that predicts genes from the cell's
    embedding, and a classifier of cells with so many classes.
    """

    vocab_size: int = 60697
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_width: int = 512
    dropout: float = 0.2
    flags: bool = False
    mvc: bool = True
    classes: int = 0
    classifier_depth: int = 3
    bins: int = 51
    max_tokens: int = 1200
    pad_token: str = "<pad>"
    pad_value: float = -2.0
    mask_value: float = -1.0


class GeneEncoder(nn.Module):
    """A gene's embedding: a row of a table, normed."""

    def __init__(self, vocab_size: int, width: int):
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        nn.init.uniform_(self.table.weight, -0.1, 0.1)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map ids (B, L) to (B, L, D)."""
        return self.norm(self.table(input_ids))


class ValueEncoder(nn.Module):
    """A number to a vector: norm(linear(ReLU(linear(value)))). Hidden values are numbers too."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.up = Linear(1, width)
        self.down = Linear(width, width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values_BL: Tensor) -> Tensor:
        """Map (B, L) to (B, L, D)."""
        x_BL1 = values_BL.clamp(max=LARGEST_VALUE)[..., None].to(self.up.weight.dtype)
        return self.dropout(self.norm(self.down(F.relu(self.up(x_BL1)))))


class ScGpt(Stack):
    """The encoder."""

    def __init__(self, config: ScGptConfig):
        super().__init__()
        c = self.config = config
        self.genes = GeneEncoder(c.vocab_size, c.width)
        # Stands for the value of a gene that generative pretraining makes; kept for saving.
        self.flags = nn.Embedding(2, c.width) if c.flags else None
        self.values = ValueEncoder(c.width, c.dropout)
        self.layers = nn.ModuleList(
            PostNormBlock(
                SelfAttention(c.width, c.heads, dropout=c.dropout),
                Mlp(c.width, c.mlp_width, activation=F.relu, dropout=c.dropout),
                width=c.width,
                eps=NORM_EPS,
                dropout=c.dropout,
            )
            for _ in range(c.depth)
        )

    def begin(
        self,
        *,
        values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Add genes and values; the layers share the padding bias.

        `inputs_embeds` are gene embeddings (B, L, D) in place of `input_ids`.
        """
        x_BLD = self.genes(input_ids) if inputs_embeds is None else inputs_embeds
        x_BLD = x_BLD + self.values(values)
        return x_BLD, padding_bias(attention_mask, x_BLD.dtype)


class CellClassifier(nn.Module):
    """Classes of a cell from its embedding: linear, ReLU and norm, so many times, then linear."""

    def __init__(self, width: int, classes: int, depth: int):
        super().__init__()
        self.layers = nn.Sequential()
        for _ in range(depth - 1):
            self.layers.extend([Linear(width, width), nn.ReLU(), nn.LayerNorm(width, NORM_EPS)])
        self.out = Linear(width, classes)

    def forward(self, cell_BD: Tensor) -> Tensor:
        """Map (B, D) to (B, C)."""
        return self.out(self.layers(cell_BD))


class FromCell(nn.Module):
    """A gene's value from the cell's embedding: sigmoid(query(gene)) through a matrix, times cell.

    The authors' "masked value prediction for cell modelling", style "inner product".
    """

    def __init__(self, width: int):
        super().__init__()
        self.query = Linear(width, width)
        self.mix = Linear(width, width, bias=False)

    def forward(self, genes_BLD: Tensor, cell_BD: Tensor) -> Tensor:
        """Map gene embeddings and cells to values (B, L)."""
        queries_BLD = self.mix(torch.sigmoid(self.query(genes_BLD)))
        return torch.einsum("bld,bd->bl", queries_BLD, cell_BD)


class ExpressionHead(nn.Module):
    """Values of the genes, from their own states and from the cell's, and the cell's class.

    Gives ``"expression"`` (B, L), and where the file holds the parts
    ``"expression_from_cell"`` (B, L) and ``"classes"`` (B, C). At chosen positions there is no
    whole cell, so that only the first is given.
    """

    def __init__(self, c: ScGptConfig, backbone: ScGpt):
        super().__init__()
        self.value = nn.Sequential(
            Linear(c.width, c.width),
            nn.LeakyReLU(),
            Linear(c.width, c.width),
            nn.LeakyReLU(),
            Linear(c.width, 1),
        )
        self.from_cell = FromCell(c.width) if c.mvc else None
        self.classes = CellClassifier(c.width, c.classes, c.classifier_depth) if c.classes else None
        self._genes = (backbone.genes,)  # in a tuple: it is the backbone's, not a part of this

    def forward(self, x: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Map (B, L, D), or (N, D) at chosen positions, to predictions by name."""
        predictions = {"expression": self.value(x)[..., 0]}
        if x.dim() == 2:
            return predictions
        cell_BD = x[:, 0]
        if self.from_cell is not None:
            genes_BLD = batch.get("inputs_embeds")
            genes_BLD = self._genes[0](batch["input_ids"]) if genes_BLD is None else genes_BLD
            predictions["expression_from_cell"] = self.from_cell(genes_BLD, cell_BD)
        if self.classes is not None:
            predictions["classes"] = self.classes(cell_BD)
        return predictions

    @staticmethod
    def loss(predictions: Mapping[str, Tensor], labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Sum of the mean squared errors of both ways to a gene's value (weights 1)."""
        names = [n for n in ("expression", "expression_from_cell") if n in predictions]
        return torch.stack([masked_value_loss(predictions[n], labels) for n in names]).sum()


def _recognise(raw: Mapping[str, Any]) -> bool:
    return {"embsize", "nheads", "d_hid", "n_bins"} <= raw.keys()


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> ScGptConfig:
    if raw.get("pre_norm") and raw.get("fast_transformer", True):
        raise CheckpointError(
            "args.json says pre_norm, whose layers add to the normed stream; no release has it. "
            "Expected post-norm layers, as in all published scGPT checkpoints."
        )
    if raw.get("input_style", "binned") != "binned":
        raise CheckpointError(
            f"args.json says input_style {raw['input_style']!r}. Expected 'binned', as in all "
            "published scGPT checkpoints."
        )
    known = {  # for a release that is described but not at hand
        "encoder.embedding.weight": (raw.get("vocab_size"),),
        "flag_encoder.weight": raw.get("USE_GENERATIVE_TRAINING"),
        "mvc_decoder.W.weight": raw.get("MVC", True),
        "cls_decoder.out_layer.weight": (raw["n_cls"],) if raw.get("n_cls") else None,
    }
    classifier_depth = raw.get("n_layers_cls", 3)
    if shapes:
        known = {name.removeprefix(_SEVERAL_GPUS): shape for name, shape in shapes.items()}
        if "cls_decoder.out_layer.weight" in known:
            inner = [s for n, s in known.items() if n.startswith("cls_decoder._decoder.")]
            classifier_depth = 1 + sum(len(shape) == 2 for shape in inner)
    return ScGptConfig(
        vocab_size=known.get("encoder.embedding.weight", (1,))[0],  # 1: to be told it is missing
        width=raw["embsize"],
        depth=raw["nlayers"],
        heads=raw["nheads"],
        mlp_width=raw["d_hid"],
        dropout=raw.get("dropout", 0.2),
        flags=bool(known.get("flag_encoder.weight")),
        mvc=bool(known.get("mvc_decoder.W.weight")),
        classes=(known.get("cls_decoder.out_layer.weight") or (0,))[0],
        classifier_depth=classifier_depth,
        bins=raw["n_bins"],
        max_tokens=raw.get("max_seq_len", 1200),
        pad_token=raw.get("pad_token", "<pad>"),
        pad_value=raw.get("pad_value", -2),
        mask_value=raw.get("mask_value", -1),
    )


def _write_config(c: ScGptConfig) -> dict[str, Any]:
    return {
        "embsize": c.width,
        "nheads": c.heads,
        "d_hid": c.mlp_width,
        "nlayers": c.depth,
        "n_layers_cls": c.classifier_depth,
        "n_cls": c.classes,
        "dropout": c.dropout,
        "vocab_size": c.vocab_size,
        "MVC": c.mvc,
        "USE_GENERATIVE_TRAINING": c.flags,
        "pad_token": c.pad_token,
        "pad_value": c.pad_value,
        "mask_value": c.mask_value,
        "n_bins": c.bins,
        "max_seq_len": c.max_tokens,
        "input_style": "binned",
        "input_emb_style": "continuous",
        "fast_transformer": True,
        "pre_norm": False,
    }


def _tokenizer(folder: Path | None, config: ScGptConfig) -> Tokenizer:
    path = folder / "vocab.json" if folder else None
    if path is None or not path.is_file():
        raise CheckpointError(
            "scGPT reads its genes from vocab.json, and "
            + (f"{folder} has none. " if folder else "a model made from scratch has none yet. ")
            + "Copy it from the release."
        )
    vocabulary = read_vocabulary(read_json(path), (config.pad_token, "<cls>", "<eoc>"))
    if max(vocabulary.values()) >= config.vocab_size:
        raise CheckpointError(
            f"{path} has ids up to {max(vocabulary.values())}, the weights have rows for "
            f"{config.vocab_size}. The two files belong to different models."
        )
    return CellTokenizer(
        vocabulary,
        bins=config.bins,
        max_tokens=config.max_tokens,
        pad=config.pad_token,
        pad_value=config.pad_value,
        mask_value=config.mask_value,
    )


_SEVERAL_GPUS = "module."
_L = "transformer_encoder.layers.{i}"
_ATTENTION = {  # the published forms of one matrix for query, key and value
    "wqkv": ("self_attn.Wqkv.{p}", "self_attn.out_proj.{p}"),
    "plain": ("self_attn.in_proj_{p}", "self_attn.out_proj.{p}"),
    "impl": ("self_attn._impl.Wqkv.{p}", "self_attn._impl.out_proj.{p}"),
}
_AROUND = {
    "encoder.embedding.weight": "genes.table.weight",
    "encoder.enc_norm.{p}": "genes.norm.{p}",
    "flag_encoder.weight": "flags.weight",
    "value_encoder.linear1.{p}": "values.up.{p}",
    "value_encoder.linear2.{p}": "values.down.{p}",
    "value_encoder.norm.{p}": "values.norm.{p}",
    f"{_L}.linear1.{{p}}": "layers.{i}.mlp.up.{p}",
    f"{_L}.linear2.{{p}}": "layers.{i}.mlp.down.{p}",
    f"{_L}.norm1.{{p}}": "layers.{i}.attention_norm.{p}",
    f"{_L}.norm2.{{p}}": "layers.{i}.mlp_norm.{p}",
    "decoder.fc.{i}.{p}": "head.value.{i}.{p}",
    "cls_decoder._decoder.{i}.{p}": "head.classes.layers.{i}.{p}",
    "cls_decoder.out_layer.{p}": "head.classes.out.{p}",
    "mvc_decoder.gene2query.{p}": "head.from_cell.query.{p}",
    "mvc_decoder.W.weight": "head.from_cell.mix.weight",
}


def _layout(name: str, prefix: str = "") -> Layout:
    qkv, out = _ATTENTION[name]
    table = _AROUND | {
        f"{_L}.{qkv}": "layers.{i}.attention.qkv.{p}",
        f"{_L}.{out}": "layers.{i}.attention.out.{p}",
    }
    return Layout(
        name=prefix + name,
        keys=KeyMap(rename={prefix + published: ours for published, ours in table.items()}),
        weights=("best_model.pt", "model.pt"),
        head="expression",
    )


_DRIVE = "https://drive.google.com/drive/folders/"

FAMILY = Family(
    name="scgpt",
    title="scGPT",
    paper="doi:10.1038/s41592-024-02201-0",
    organism="human single cells (RNA)",
    inputs="cell",
    objective="expression",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=ScGpt,
    heads={"expression": ExpressionHead},
    layouts=tuple(_layout(n, prefix) for prefix in ("", _SEVERAL_GPUS) for n in _ATTENTION),
    tokenizer=_tokenizer,
    config_file="args.json",
    side_files=("vocab.json",),
    pooling="cls",
    normalise=True,
    releases=(
        Release(
            name="scgpt-whole-human",
            source="hf:u-cellm/scGPT-whole-human",  # the bytes of the authors' Drive folder
            published="scGPT_human",
            sha256="6cb5d451ab5c4b33eb673adbe4fddc61d2389df1b89b7651a9fe2e557572b922",
            licence="MIT",
            parameters=51_330_049,
            context=None,
            layout="wqkv",
            config=_write_config(ScGptConfig(flags=True)),
        ),
        Release(
            name="scgpt-blood",
            source=_DRIVE + "1kkug5C7NjvXIwQGGaGoqXTk_Lb_pDrBU",
            published="scGPT_bc_blood",
            licence="MIT",
            parameters=38_979_073,
            context=None,
            layout="wqkv",
            config=_write_config(ScGptConfig(vocab_size=36574, flags=True)),
        ),
        Release(
            name="scgpt-continual-pretrained",
            source=_DRIVE + "1_GROJTzXiAV8HB4imruOTk6PEGuNOcgB",
            published="scGPT_CP",
            licence="MIT",
            parameters=51_948_210,  # with 177 classes, which the size of the file suggests
            context=None,
            layout="wqkv",
            config=_write_config(ScGptConfig(flags=True, classes=177)),
        ),
    ),
)
