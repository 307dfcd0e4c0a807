"""GPN (Benegas et al. 2023, PNAS 120(44) e2311219120): dilated convolutions over single letters.

Reference: songlab-cal/gpn. Three wirings were published. `ConvNet` (gpn-brassicales) puts the norm
inside the branch after the activation: x + LN(GELU(conv(x))), x + LN(GELU(linear(x))), no final
norm. `GPN` with ``encoder: convnet`` is pre-norm with a four times wider MLP; with ``encoder:
bytenet`` (gpn-animal-promoter) one bottlenecked branch. Both end in a norm.
The authors have no padding mask, so their batches must be of equal length. With `attention_mask`
padding is zeroed before every convolution, which is what a convolution sees beyond the end.
Axes: B batch, L letters, D width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks import Linear, MaskedTokenHead, SameConvolution, Stack, TokenHead
from lexome.blocks.heads import MeanClassifier
from lexome.checkpoints import Family, KeyMap, Layout, Release, Shapes, expect_settings
from lexome.core import InputError, pick
from lexome.objectives import masked_token_loss
from lexome.tokenizers import LetterPreset, LetterTokenizer, Tokenizer, read_tokenizer

_WIRINGS = ("legacy", "convnet", "bytenet")


@dataclass(frozen=True, kw_only=True)
class GpnConfig:
    """What a release or a small model sets.

    `wiring` is ``"legacy"`` (the class ConvNet), ``"convnet"`` or ``"bytenet"`` (the class GPN).
    Layer i has dilation min(dilation_max, dilation_base^((i mod dilation_cycle) /
    dilation_double_every)), rounded down. `depthwise` leaves out the first layer, as the authors
    do. An `mlp_width` of 0 takes the authors': `width` in the legacy form, whose files hold no
    other, else four times that.
    """

    wiring: str = "legacy"
    vocab_size: int = 7
    width: int = 512
    depth: int = 25
    first_kernel: int = 9
    rest_kernel: int = 9
    mlp_width: int = 0
    dilation_base: int = 2
    dilation_double_every: int = 1
    dilation_max: int = 32
    dilation_cycle: int = 6
    one_hot: bool = True
    bias: bool = True
    slim: bool = False
    depthwise: bool = False
    head_transform: bool = True
    dropout: float = 0.0
    init_std: float = 0.02
    classes: int = 2
    problem: str | None = None
    positive: bool = False

    def __post_init__(self) -> None:
        legacy = pick("wiring", self.wiring, _WIRINGS) == "legacy"
        if not self.mlp_width:
            object.__setattr__(self, "mlp_width", self.width * (1 if legacy else 4))
        if not legacy:
            return
        fixed = {"rest_kernel": self.first_kernel, "mlp_width": self.width}
        fixed |= {"one_hot": True, "bias": True, "slim": False, "depthwise": False}
        fixed["head_transform"] = True
        other = {n: value for n, value in fixed.items() if getattr(self, n) != value}
        if other:
            raise InputError(
                f"GPN's legacy form cannot be saved so that it loads again: {_listing(self, other)}"
                ". Set these, or wiring='convnet', whose files hold them."
            )

    def dilation(self, layer: int) -> int:
        """Distance between the taps of a layer's convolution."""
        power = layer % self.dilation_cycle // self.dilation_double_every
        return min(self.dilation_max, self.dilation_base**power)


def _listing(config: GpnConfig, wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} is {getattr(config, n)!r}, not {v!r}" for n, v in wanted.items())


class Convolution(nn.Module):
    """A dilated convolution along the letters; what stands at padding counts as zero."""

    def __init__(self, width: int, c: GpnConfig, layer: int):
        super().__init__()
        self.conv = SameConvolution(
            width,
            c.first_kernel if layer == 0 else c.rest_kernel,
            dilation=c.dilation(layer),
            groups=width if c.depthwise and layer else 1,
            bias=c.bias,
        )

    def forward(self, x_BLD: Tensor, mask_BL1: Tensor | None) -> Tensor:
        """Map (B, L, D) to (B, L, D)."""
        return self.conv(x_BLD if mask_BL1 is None else x_BLD * mask_BL1)


class LegacyBlock(nn.Module):
    """x + LN(GELU(conv(x))), then x + LN(GELU(linear(x)))."""

    def __init__(self, c: GpnConfig, layer: int):
        super().__init__()
        self.conv = Convolution(c.width, c, layer)
        self.conv_norm = nn.LayerNorm(c.width)
        self.mlp = Linear(c.width, c.width)
        self.mlp_norm = nn.LayerNorm(c.width)

    def forward(self, x_BLD: Tensor, mask_BL1: Tensor | None) -> Tensor:
        """Run the block."""
        x_BLD = x_BLD + self.conv_norm(F.gelu(self.conv(x_BLD, mask_BL1)))
        return x_BLD + self.mlp_norm(F.gelu(self.mlp(x_BLD)))


class ConvBlock(nn.Module):
    """x + linear(GELU(conv(LN(x)))), then x + mlp(LN(x))."""

    def __init__(self, c: GpnConfig, layer: int):
        super().__init__()
        self.conv_norm = nn.LayerNorm(c.width, bias=c.bias)
        self.conv = Convolution(c.width, c, layer)
        self.mix = Linear(c.width, c.width, bias=c.bias)
        self.mlp_norm = nn.LayerNorm(c.width, bias=c.bias)
        self.up = Linear(c.width, c.mlp_width, bias=c.bias)
        self.down = Linear(c.mlp_width, c.width, bias=c.bias)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x_BLD: Tensor, mask_BL1: Tensor | None) -> Tensor:
        """Run the block."""
        mixed = self.mix(F.gelu(self.conv(self.conv_norm(x_BLD), mask_BL1)))
        x_BLD = x_BLD + self.dropout(mixed)
        return x_BLD + self.dropout(self.down(F.gelu(self.up(self.mlp_norm(x_BLD)))))


class ByteNetBlock(nn.Module):
    """x + a bottleneck: norm and GELU before a narrowing linear, a convolution, a widening one."""

    def __init__(self, c: GpnConfig, layer: int):
        super().__init__()
        inner = c.width // 2 if c.slim else c.width
        self.narrow_norm = nn.LayerNorm(c.width, bias=c.bias)
        self.narrow = Linear(c.width, inner, bias=c.bias)
        self.conv_norm = nn.LayerNorm(inner, bias=c.bias)
        self.conv = Convolution(inner, c, layer)
        self.widen_norm = nn.LayerNorm(inner, bias=c.bias)
        self.widen = Linear(inner, c.width, bias=c.bias)

    def forward(self, x_BLD: Tensor, mask_BL1: Tensor | None) -> Tensor:
        """Run the block."""
        inner = self.narrow(F.gelu(self.narrow_norm(x_BLD)))
        inner = self.conv(F.gelu(self.conv_norm(inner)), mask_BL1)
        return x_BLD + self.widen(F.gelu(self.widen_norm(inner)))


_BLOCKS = {"legacy": LegacyBlock, "convnet": ConvBlock, "bytenet": ByteNetBlock}


class Gpn(Stack):
    """The encoder."""

    def __init__(self, config: GpnConfig):
        super().__init__()
        c = self.config = config
        self.embed = None if c.one_hot else nn.Embedding(c.vocab_size, c.width)
        self.layers = nn.ModuleList(_BLOCKS[c.wiring](c, i) for i in range(c.depth))
        self.norm = nn.Identity() if c.wiring == "legacy" else nn.LayerNorm(c.width, bias=c.bias)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Embedding):
                nn.init.normal_(module.weight, std=c.init_std)
            if isinstance(module, nn.Linear | nn.Conv1d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def token_vectors(self, input_ids: Tensor) -> Tensor:
        """Embed: letter i is channel i, or a row of a table."""
        if self.embed is not None:
            return self.embed(input_ids)
        return F.one_hot(input_ids, self.config.width).to(next(self.parameters()).dtype)

    def begin(
        self,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embed; the layers share the mask."""
        x_BLD = inputs_embeds
        if x_BLD is None:
            assert input_ids is not None, "input_ids or inputs_embeds"
            x_BLD = self.token_vectors(input_ids)
        if attention_mask is None or bool(attention_mask.all()):
            return x_BLD, None
        return x_BLD, attention_mask[..., None].to(x_BLD.dtype)

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm, where the wiring has one."""
        return self.norm(x)

    def state_at(self, column: int, **inputs: Any) -> Tensor:
        """Return the final hidden state of one column, (B, D).

        Between the last layers only those letters are kept that it still depends on.
        """
        if self.prompt is not None:
            return super().state_at(column, **inputs)
        x_BLD, mask_BL1 = self.begin(**inputs)
        reach = 0
        reaches = []  # letters on either side of the column that the layers behind each need
        for layer in reversed(self.layers):
            reaches.append(reach)
            (taps,), (step,) = layer.conv.conv.kernel_size, layer.conv.conv.dilation
            reach += (step * (taps - 1) + 1) // 2  # an even kernel reaches farther to the right
        for layer, reach in zip(self.layers, reversed(reaches), strict=True):
            x_BLD = layer(x_BLD, mask_BL1)
            near = slice(max(0, column - reach), column + reach + 1)
            x_BLD, column = x_BLD[:, near], column - near.start
            mask_BL1 = None if mask_BL1 is None else mask_BL1[:, near]
        return self.finish(x_BLD)[:, column]


def _head(c: GpnConfig, backbone: Gpn) -> nn.Module:
    if c.head_transform:
        return MaskedTokenHead(c.width, c.vocab_size, loss=masked_token_loss, eps=1e-5, bias=c.bias)
    return TokenHead(c.width, c.vocab_size, loss=masked_token_loss, bias=c.bias)


def _classifier(c: GpnConfig, backbone: Gpn) -> MeanClassifier:
    norm, rest = c.wiring != "legacy", {"positive": c.positive, "problem": c.problem}
    return MeanClassifier(c.width, c.classes, norm=norm, bias=c.bias, dropout=c.dropout, **rest)


def _recognise(raw: Mapping[str, Any]) -> bool:
    return raw.get("model_type") in {"ConvNet", "GPN"}


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> GpnConfig:
    # What a configuration leaves out, but for sizes, is as the authors' class fills it in.
    shared = GpnConfig(
        vocab_size=raw.get("vocab_size", 7),
        width=raw["hidden_size"],
        dilation_double_every=raw.get("dilation_double_every", 1),
        dilation_base=raw.get("dilation_base", 2),
        init_std=raw.get("initializer_range", 0.02),
        classes=shapes.get("classifier.out_proj.weight", (len(raw.get("id2label") or (0, 1)),))[0],
        problem=raw.get("problem_type"),
        positive=raw.get("regression_softplus", False),
    )
    known = {"hidden_act": ("gelu",), "classification_head": ("standard",)}
    expect_settings(raw, known, "GPN")
    if raw.get("model_type") == "ConvNet":
        kernel = raw.get("kernel_size", 9)
        return replace(
            shared,
            depth=raw["n_layers"],
            first_kernel=kernel,
            rest_kernel=kernel,
            mlp_width=shared.width,
            dilation_max=raw.get("dilation_max", 32),
            dilation_cycle=raw.get("dilation_cycle", 6),
        )
    known = {"encoder": ("convnet", "bytenet"), "embedding": ("one_hot", "embedding")}
    expect_settings(raw, known, "GPN")
    return replace(
        shared,
        wiring=raw.get("encoder", "convnet"),
        depth=raw["num_hidden_layers"],
        first_kernel=raw.get("first_kernel_size", 9),
        rest_kernel=raw.get("rest_kernel_size", 5),
        mlp_width=raw.get("intermediate_size", 2048),
        dilation_max=raw.get("dilation_max", 9999),
        dilation_cycle=raw.get("dilation_cycle", 8),
        one_hot=raw.get("embedding", "one_hot") == "one_hot",
        bias=raw.get("bias", False),
        slim=raw.get("slim", False),
        depthwise=raw.get("depthwise", False),
        head_transform=raw.get("mlm_head_transform", True),
        dropout=raw.get("hidden_dropout_prob", 0.0),
    )


def _write_config(c: GpnConfig) -> dict[str, Any]:
    labels = {"id2label": {str(i): f"LABEL_{i}" for i in range(c.classes)}}
    shared = labels | {"problem_type": c.problem, "regression_softplus": c.positive}
    if c.wiring == "legacy":
        return shared | {
            "architectures": ["ConvNetForMaskedLM"],
            "dilation_base": c.dilation_base,
            "dilation_cycle": c.dilation_cycle,
            "dilation_double_every": c.dilation_double_every,
            "dilation_max": c.dilation_max,
            "hidden_size": c.width,
            "initializer_range": c.init_std,
            "kernel_size": c.first_kernel,
            "model_type": "ConvNet",
            "n_layers": c.depth,
            "vocab_size": c.vocab_size,
        }
    return shared | {
        "architectures": ["GPNForMaskedLM"],
        "bias": c.bias,
        "depthwise": c.depthwise,
        "dilation_base": c.dilation_base,
        "dilation_cycle": c.dilation_cycle,
        "dilation_double_every": c.dilation_double_every,
        "dilation_max": c.dilation_max,
        "embedding": "one_hot" if c.one_hot else "embedding",
        "encoder": c.wiring,
        "first_kernel_size": c.first_kernel,
        "hidden_dropout_prob": c.dropout,
        "hidden_size": c.width,
        "initializer_range": c.init_std,
        "intermediate_size": c.mlp_width,
        "mlm_head_transform": c.head_transform,
        "model_type": "GPN",
        "num_hidden_layers": c.depth,
        "rest_kernel_size": c.rest_kernel,
        "slim": c.slim,
        "vocab_size": c.vocab_size,
    }


LETTERS = LetterPreset(
    name="gpn",
    vocabulary=("[PAD]", "[MASK]", "[UNK]", "a", "c", "g", "t"),
    fold_case=True,  # case is kept for the loss weights only
    drop_whitespace=True,
)


def _tokenizer(folder: Path | None, config: GpnConfig) -> Tokenizer:
    published = read_tokenizer(folder) if folder else None
    return published or LetterTokenizer(LETTERS)


_LEGACY = {
    "model.encoder.{i}.conv.1.{p}": "layers.{i}.conv.conv.{p}",
    "model.encoder.{i}.conv.4.{p}": "layers.{i}.conv_norm.{p}",
    "model.encoder.{i}.ffn.0.{p}": "layers.{i}.mlp.{p}",
    "model.encoder.{i}.ffn.2.{p}": "layers.{i}.mlp_norm.{p}",
}
_LEGACY_MASKED = {
    "cls.decoder.0.{p}": "head.dense.{p}",
    "cls.decoder.2.{p}": "head.norm.{p}",
    "cls.decoder.3.{p}": "head.decoder.{p}",
}
_ENDS = {
    "model.embeddings.word_embeddings.weight": "embed.weight",
    "model.ln_f.{p}": "norm.{p}",
}
_L = "model.encoder.layer.{i}"
_CONVNET = _ENDS | {
    f"{_L}.conv.0.{{p}}": "layers.{i}.conv_norm.{p}",
    f"{_L}.conv.2.{{p}}": "layers.{i}.conv.conv.{p}",
    f"{_L}.conv.5.{{p}}": "layers.{i}.mix.{p}",
    f"{_L}.ffn.0.{{p}}": "layers.{i}.mlp_norm.{p}",
    f"{_L}.ffn.1.{{p}}": "layers.{i}.up.{p}",
    f"{_L}.ffn.3.{{p}}": "layers.{i}.down.{p}",
}
_BYTENET = _ENDS | {
    f"{_L}.layer.0.{{p}}": "layers.{i}.narrow_norm.{p}",
    f"{_L}.layer.2.{{p}}": "layers.{i}.narrow.{p}",
    f"{_L}.layer.3.{{p}}": "layers.{i}.conv_norm.{p}",
    f"{_L}.layer.6.{{p}}": "layers.{i}.conv.conv.{p}",
    f"{_L}.layer.8.{{p}}": "layers.{i}.widen_norm.{p}",
    f"{_L}.layer.10.{{p}}": "layers.{i}.widen.{p}",
}
_MASKED = {
    "cls.transform.0.{p}": "head.dense.{p}",
    "cls.transform.2.{p}": "head.norm.{p}",
    "cls.decoder.{p}": "head.decoder.{p}",
}
_CLASSES = {
    "classifier.ln.{p}": "head.norm.{p}",
    "classifier.dense.{p}": "head.dense.{p}",
    "classifier.out_proj.{p}": "head.classifier.{p}",
}


def _layouts(name: str, encoder: dict[str, str], masked: dict[str, str]) -> tuple[Layout, ...]:
    heads = {"": (masked, "masked"), "-classifier": (_CLASSES, "mean-classifier")}
    forms = [
        Layout(name=name + end, keys=KeyMap(rename=encoder | keys), head=head)
        for end, (keys, head) in heads.items()
    ]
    return (*forms, Layout(name=f"{name}-encoder", keys=KeyMap(rename=encoder).without("model.")))


FAMILY = Family(
    name="gpn",
    title="GPN",
    paper="doi:10.1073/pnas.2311219120",
    organism="plant and animal DNA",
    objective="masked",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=Gpn,
    heads={"masked": _head, "mean-classifier": _classifier},
    layouts=(
        *_layouts("legacy", _LEGACY, _LEGACY_MASKED),
        *_layouts("convnet", _CONVNET, _MASKED),
        *_layouts("bytenet", _BYTENET, _MASKED),
    ),
    tokenizer=_tokenizer,
    releases=(
        Release(
            name="gpn-brassicales",
            source="hf:songlab/gpn-brassicales",
            licence="MIT",
            parameters=65_880_071,
            context=None,
            layout="legacy",
            config=_write_config(GpnConfig()),
        ),
        Release(
            name="gpn-animal-promoter",
            source="hf:songlab/gpn-animal-promoter",
            licence="MIT",
            parameters=152_189_952,
            context=None,
            layout="bytenet",
            config=_write_config(
                GpnConfig(
                    wiring="bytenet",
                    width=1024,
                    depth=64,
                    rest_kernel=5,
                    mlp_width=2048,
                    dilation_max=9999,
                    dilation_cycle=8,
                    one_hot=False,
                    bias=False,
                    slim=True,
                    head_transform=False,
                )
            ),
        ),
    ),
)
