"""scGPT (Cui et al. 2024, Nature Methods 21, 1470): a BERT over the genes that a cell expresses.

Reference: bowang-lab/scGPT. A token is the sum of a gene's embedding and its binned expression
through a small network; there are no positions, so a cell is a set. The layers are BERT's with ReLU
and a narrow MLP. Published files name the same attention matrix in three ways (flash attention, its
newer wrapper, plain PyTorch), each also below ``module.`` when saved from several GPUs. A cell's
embedding is the state of ``<cls>``, scaled to length 1. The whole-organ checkpoints (brain, heart,
lung, kidney, pan-cancer) load from their folders; their sizes are not established here.
Axes: B batch, L genes, D width, C classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks import Mlp, PostNormBlock, Stack, padding_bias
from lexome.blocks.expression import (
    BATCH_NORM_EPS,
    NORM_EPS,
    CellClassifier,
    DomainNorm,
    FromCell,
    NormedTable,
    ValueEncoder,
    along_width,
    check_labels,
    value_decoder,
)
from lexome.blocks.perceived import PerceivedAttention, let_see
from lexome.checkpoints import Family, KeyMap, Layout, Release, Shapes, read_json
from lexome.checkpoints.settings import expect_settings
from lexome.core import CheckpointError, InputError
from lexome.objectives import masked_value_loss, nonzero_loss
from lexome.tokenizers import CellTokenizer, Tokenizer, read_vocabulary

PERTURBATIONS = 3  # of a gene: not perturbed, perturbed, padding
_ONLY = {"input_style": ("binned",), "input_emb_style": ("continuous",), "cell_emb_style": ("cls",)}


@dataclass(frozen=True, kw_only=True)
class ScGptConfig:
    """What a release or a small model sets.

    Most say which parts a file holds beside the encoder and the gene decoder: the two `flags` of
    generative pretraining; `mvc`, the decoder from the cell's vector; classifiers of cells into
    `classes` and, as an `adversary`, into batches; probabilities of `zeros`. Decoders may be told
    which of so many `batches` and `modalities` a value is from, with `joint_queries` the one from
    the cell too. The stream may be normed, by one of so many `domains` or by one `batch_norm`.
    `perturbations` marks genes and makes the decoder affine in the old value.
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
    zeros: bool = False
    batches: int = 0
    adversary: int = 0
    modalities: int = 0
    joint_queries: bool = False
    domains: int = 0
    batch_norm: bool = False
    perturbations: bool = False
    bins: int = 51
    max_tokens: int = 1200
    pad_token: str = "<pad>"
    pad_value: float = -2.0
    mask_value: float = -1.0


class ScGpt(Stack):
    """The encoder."""

    def __init__(self, config: ScGptConfig):
        super().__init__()
        c = self.config = config
        self.genes = NormedTable(c.vocab_size, c.width)
        # Row 1 stands for the value of a gene that is generated; row 0 is never used.
        self.flags = nn.Embedding(2, c.width) if c.flags else None
        self.values = ValueEncoder(c.width, c.dropout)
        self.perturbed = nn.Embedding(PERTURBATIONS, c.width) if c.perturbations else None
        self.domains = DomainNorm(c.width, c.domains) if c.domains else None
        self.batch_norm = nn.BatchNorm1d(c.width, BATCH_NORM_EPS) if c.batch_norm else None
        self.layers = nn.ModuleList(
            PostNormBlock(
                PerceivedAttention(c.width, c.heads, dropout=c.dropout),
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
        batch_labels: Tensor | None = None,
        domains: Tensor | None = None,
        mod_types: Tensor | None = None,
        pert_flags: Tensor | None = None,
        generated_ids: Tensor | None = None,
        generated_mask: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Add genes, values and perturbations; the layers share the bias of the padding.

        `inputs_embeds` are gene embeddings (B, L, D) in place of `input_ids`. `batch_labels` (B,)
        choose the batch norm where there are several, unless `domains` do; the head reads them
        too, and alone the `mod_types` (B, L). `pert_flags` (B, L) are 0 for genes that were not
        perturbed, 1 for those that were, 2 for padding. `generated_ids` (B, G) are genes without a
        value behind the others; each sees those and itself. `cells` (B, D) take the place of the
        first token, to generate from a cell's vector.
        """
        c = self.config
        x_BLD = self.genes(input_ids) if inputs_embeds is None else inputs_embeds
        x_BLD = x_BLD + self.values(values)
        if self.perturbed is not None:
            flags_BL = check_labels(pert_flags, PERTURBATIONS, "pert_flags", values.shape)
            x_BLD = x_BLD + self.perturbed(flags_BL)
        bias: Any = padding_bias(attention_mask, x_BLD.dtype)
        if generated_ids is not None:
            if self.flags is None:
                raise InputError(
                    "generated_ids were given, and this model has no flags for such genes. Load "
                    "one with flag_encoder.weight, as generative pretraining makes it."
                )
            bias = let_see(x_BLD, attention_mask, generated_ids, generated_mask)
            x_BLD = torch.cat([x_BLD, self.genes(generated_ids) + self.flags.weight[1]], 1)
        if self.domains is not None:
            chosen_B = batch_labels if domains is None else domains
            chosen_B = check_labels(chosen_B, c.domains, "batch_labels", values.shape[:1])
            x_BLD = self.domains(x_BLD, chosen_B)
        if self.batch_norm is not None:
            x_BLD = along_width(self.batch_norm, x_BLD)
        if cells is not None:
            x_BLD = torch.cat([cells[:, None].to(x_BLD.dtype), x_BLD[:, 1:]], 1)
        return x_BLD, bias


class ExpressionHead(nn.Module):
    """Values of the genes, from their own states and from the cell's, and the cell's classes.

    Gives ``"expression"`` (B, L), and where the file holds the parts ``"nonzero"``, the probability
    that it is not 0, ``"expression_from_cell"``, ``"nonzero_from_cell"`` (B, L), ``"classes"`` and
    ``"batches"`` (B, C). At chosen positions there is no whole cell, and only the first two.
    """

    def __init__(self, c: ScGptConfig, backbone: ScGpt):
        super().__init__()
        conditions = bool(c.batches or c.modalities)
        read = c.width * (1 + conditions)
        self.batch_table = NormedTable(c.batches, c.width) if c.batches else None
        self.modality_table = NormedTable(c.modalities, c.width) if c.modalities else None
        self.value = value_decoder(read, c.width)
        self.factor = value_decoder(read, c.width) if c.perturbations else None
        self.zero = value_decoder(read, c.width) if c.zeros else None
        self.joint = c.joint_queries
        genes = c.width * (1 + c.joint_queries)
        self.from_cell = FromCell(genes, read, zeros=c.zeros) if c.mvc else None
        self.classes = CellClassifier(c.width, c.classes, c.classifier_depth) if c.classes else None
        self.batches = CellClassifier(c.width, c.adversary, adversary=True) if c.adversary else None
        self.whole = conditions or c.perturbations
        self._genes = (backbone.genes,)  # in a tuple: it is the backbone's, not a part of this

    def forward(self, x: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Map (B, L, D), or (N, D) at chosen positions, to predictions by name."""
        if x.dim() == 2 and self.whole:
            raise InputError(
                "values at chosen positions were asked for, and this model makes them from the "
                "conditions of whole cells. Leave `positions` out."
            )
        given = self._conditions(x, batch)
        state = x if given is None else torch.cat([x, given], -1)
        predictions = {"expression": self.value(state)[..., 0]}
        if self.factor is not None:
            predictions["expression"] += self.factor(state)[..., 0] * batch["values"]
        if self.zero is not None:
            predictions["nonzero"] = torch.sigmoid(self.zero(state)[..., 0])
        if x.dim() == 2:
            return predictions
        if self.from_cell is not None:
            genes_BLD = self._gene_vectors(batch)
            if self.joint and given is not None:
                genes_BLD = torch.cat([genes_BLD, given], -1)
            names = ("expression_from_cell", "nonzero_from_cell")  # not all have the second
            predictions |= zip(names, self.from_cell(genes_BLD, state[:, 0]), strict=False)
        for name, classify in (("classes", self.classes), ("batches", self.batches)):
            if classify is not None:
                predictions[name] = classify(x[:, 0])
        return predictions

    def _conditions(self, x: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """Return the sum of the vectors of batch and kind of measurement, (B, L, D)."""
        given = None
        if self.batch_table is not None:
            count = self.batch_table.table.num_embeddings
            labels_B = check_labels(batch.get("batch_labels"), count, "batch_labels", x.shape[:1])
            given = self.batch_table(labels_B)[:, None].expand(x.shape)
        if self.modality_table is not None:
            count = self.modality_table.table.num_embeddings
            kinds_BL = check_labels(batch.get("mod_types"), count, "mod_types", x.shape[:2])
            kinds_BLD = self.modality_table(kinds_BL)
            given = kinds_BLD if given is None else given + kinds_BLD
        return given

    def _gene_vectors(self, batch: Mapping[str, Any]) -> Tensor:
        given = batch.get("inputs_embeds")
        genes_BLD = self._genes[0](batch["input_ids"]) if given is None else given
        more_BG = batch.get("generated_ids")
        if more_BG is None:
            return genes_BLD
        return torch.cat([genes_BLD, self._genes[0](more_BG)], 1)

    @staticmethod
    def loss(predictions: Mapping[str, Tensor], labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Sum of the losses of both ways to a gene's value and to its being zero (weights 1)."""
        losses = {"expression": masked_value_loss, "nonzero": nonzero_loss}
        return torch.stack(
            [
                loss(predictions[name], labels)
                for kind, loss in losses.items()
                for name in (kind, f"{kind}_from_cell")
                if name in predictions
            ]
        ).sum()


def _recognise(raw: Mapping[str, Any]) -> bool:
    return {"embsize", "nheads", "d_hid", "n_bins"} <= raw.keys()


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> ScGptConfig:
    if raw.get("pre_norm") and raw.get("fast_transformer", True):
        raise CheckpointError(
            "args.json says pre_norm, whose layers add to the normed stream; no release has it. "
            "Expected post-norm layers, as in all published scGPT checkpoints."
        )
    expect_settings(raw, _ONLY, "scGPT")
    known: Mapping[str, Any] = {  # for a release that is described but not at hand
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

    def rows(name: str) -> int:
        return (known.get(name) or (0,))[0]

    return ScGptConfig(
        vocab_size=known.get("encoder.embedding.weight", (1,))[0],  # 1: to be told it is missing
        width=raw["embsize"],
        depth=raw["nlayers"],
        heads=raw["nheads"],
        mlp_width=raw["d_hid"],
        dropout=raw.get("dropout", 0.2),
        flags=bool(known.get("flag_encoder.weight")),
        mvc=bool(known.get("mvc_decoder.W.weight")),
        classes=rows("cls_decoder.out_layer.weight"),
        classifier_depth=classifier_depth,
        zeros=bool({"decoder.zero_logit.0.weight", "mvc_decoder.W_zero_logit.weight"} & {*known}),
        batches=rows("batch_encoder.embedding.weight"),
        adversary=rows("grad_reverse_discriminator.out_layer.weight"),
        modalities=rows("mod_encoder.embedding.weight"),
        joint_queries=rows("mvc_decoder.gene2query.weight") > raw["embsize"],
        domains=sum(_DOMAIN.fullmatch(name) is not None for name in known),
        batch_norm="bn.running_mean" in known,
        perturbations="pert_encoder.weight" in known,
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
_DOMAIN = re.compile(r"dsbn\.bns\.\d+\.running_mean")
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
    "pert_encoder.weight": "perturbed.weight",
    "batch_encoder.embedding.weight": "head.batch_table.table.weight",
    "batch_encoder.enc_norm.{p}": "head.batch_table.norm.{p}",
    "mod_encoder.embedding.weight": "head.modality_table.table.weight",
    "mod_encoder.enc_norm.{p}": "head.modality_table.norm.{p}",
    "dsbn.bns.{i}.{rest}": "domains.norms.{i}.{rest}",
    "bn.{rest}": "batch_norm.{rest}",
    "value_encoder.linear1.{p}": "values.up.{p}",
    "value_encoder.linear2.{p}": "values.down.{p}",
    "value_encoder.norm.{p}": "values.norm.{p}",
    f"{_L}.linear1.{{p}}": "layers.{i}.mlp.up.{p}",
    f"{_L}.linear2.{{p}}": "layers.{i}.mlp.down.{p}",
    f"{_L}.norm1.{{p}}": "layers.{i}.attention_norm.{p}",
    f"{_L}.norm2.{{p}}": "layers.{i}.mlp_norm.{p}",
    "decoder.zero_logit.{i}.{p}": "head.zero.{i}.{p}",
    "decoder.coeff_decoder.fc.{i}.{p}": "head.factor.{i}.{p}",
    "cls_decoder._decoder.{i}.{p}": "head.classes.layers.{i}.{p}",
    "cls_decoder.out_layer.{p}": "head.classes.out.{p}",
    "mvc_decoder.gene2query.{p}": "head.from_cell.query.{p}",
    "mvc_decoder.W.weight": "head.from_cell.mix.weight",
    "mvc_decoder.W_zero_logit.{p}": "head.from_cell.zero.{p}",
    "grad_reverse_discriminator._decoder.{i}.{p}": "head.batches.layers.{i}.{p}",
    "grad_reverse_discriminator.out_layer.{p}": "head.batches.out.{p}",
}
_VALUES = {False: "decoder.fc.{i}.{p}", True: "decoder.bias_decoder.fc.{i}.{p}"}  # by perturbations


def _layout(name: str, prefix: str = "", *, perturbations: bool = False) -> Layout:
    qkv, out = _ATTENTION[name]
    table = _AROUND | {
        _VALUES[perturbations]: "head.value.{i}.{p}",
        f"{_L}.{qkv}": "layers.{i}.attention.qkv.{p}",
        f"{_L}.{out}": "layers.{i}.attention.out.{p}",
    }
    return Layout(
        name=prefix + name + perturbations * "-perturbation",
        keys=KeyMap(rename={prefix + published: ours for published, ours in table.items()}),
        weights=("best_model.pt", "model.pt"),
        head="expression",
        fits=lambda config: config.perturbations is perturbations,
    )


_DRIVE = "https://drive.google.com/drive/folders/"
_HUB = "hf:u-cellm/scGPT-whole-human"  # the bytes of the authors' Drive folder
_SHA256 = {"whole-human": "6cb5d451ab5c4b33eb673adbe4fddc61d2389df1b89b7651a9fe2e557572b922"}
_BLOOD = f"{_DRIVE}1kkug5C7NjvXIwQGGaGoqXTk_Lb_pDrBU"
_CONTINUAL = f"{_DRIVE}1_GROJTzXiAV8HB4imruOTk6PEGuNOcgB"
_RELEASES: tuple[tuple[str, str, str, int, dict[str, Any]], ...] = (
    ("whole-human", "human", _HUB, 51_330_049, {}),
    ("blood", "bc_blood", _BLOOD, 38_979_073, {"vocab_size": 36574}),
    ("continual-pretrained", "CP", _CONTINUAL, 51_948_210, {"classes": 177}),  # by the file's size
)

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
    layouts=tuple(
        _layout(name, prefix, perturbations=perturbations)
        for perturbations in (False, True)
        for prefix in ("", _SEVERAL_GPUS)
        for name in _ATTENTION
    ),
    tokenizer=_tokenizer,
    config_file="args.json",
    side_files=("vocab.json", "vocab_mod.json"),
    pooling="cls",
    normalise=True,
    releases=tuple(
        Release(
            name=f"scgpt-{name}",
            source=source,
            published=f"scGPT_{published}",
            sha256=_SHA256.get(name),
            licence="MIT",
            parameters=parameters,
            context=None,
            layout="wqkv",
            config=_write_config(ScGptConfig(flags=True, **sizes)),
        )
        for name, published, source, parameters, sizes in _RELEASES
    ),
)
