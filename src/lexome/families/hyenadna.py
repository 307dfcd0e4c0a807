"""HyenaDNA (Nguyen et al. 2023, arXiv:2306.15794): a causal model of long convolutions.

Reference: HazyResearch/hyena-dna, ``standalone_hyenadna.py``, and the hub's ``-hf`` ports. Differs
from a pre-norm GPT in one place: attention is the order-2 Hyena operator, whose filter is a small
network over positions. The filter's positions and decay rates are part of the checkpoint. There is
no padding mask in the authors' code: pads on the left are ordinary context. Give `attention_mask`
to keep them out.
Axes: B batch, L tokens, D width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lexome.blocks import (
    DecodeCache,
    Hyena,
    ImplicitFilter,
    Linear,
    MixerBlock,
    Mlp,
    Past,
    Stack,
    TokenHead,
    gelu_tanh,
    sequence_loss,
)
from lexome.checkpoints import Family, KeyMap, Layout, Release, Shapes, expect_settings, hyena_keys
from lexome.core import CheckpointError, InputError
from lexome.objectives import next_token_loss
from lexome.tokenizers import CHARACTERS, LetterTokenizer

SHIFT = 0.05  # of the released code, which the hub's config.json does not name
# What the hub's code takes whatever its config.json says. It pads for three taps too, so that with
# more it would look ahead.
_FIXED = {"shift": SHIFT, "taps": 3, "norm_eps": 1e-5}


@dataclass(frozen=True, kw_only=True)
class HyenaDnaConfig:
    """What a release or a small model sets.

    `length` is the number of tokens that the filters were made for: the longest input. `shift` is
    the floor of the filter's window; 0.05 in the released code, 0 in the training repository.
    `bracketed` puts [CLS] before every sequence, as the stand-alone code that reads weights.ckpt
    does and pretraining did not.
    """

    vocab_size: int = 12
    vocab_multiple: int = 8
    width: int = 128
    depth: int = 2
    mlp_width: int = 512
    length: int = 1026
    filter_features: int = 5
    filter_width: int = 64
    filter_layers: int = 2
    filter_frequency: float = 10.0
    shift: float = SHIFT
    taps: int = 3
    norm_eps: float = 1e-5
    final_norm_eps: float = 1e-5
    dropout: float = 0.1
    tied: bool = True
    bracketed: bool = False
    pad_id: int | None = 4
    classes: int = 2
    problem: str | None = None

    def __post_init__(self) -> None:
        odd = {n: getattr(self, n) for n, v in _FIXED.items() if getattr(self, n) != v}
        if odd and not self.bracketed:
            name, value = next(iter(odd.items()))
            raise InputError(
                f"{name} is {value}, and a new HyenaDNA is saved in the hub's form, whose code "
                f"takes {_FIXED[name]}. Leave it out."
            )

    @property
    def rows(self) -> int:
        """Rows of the embedding table: the vocabulary rounded up."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


def _block(c: HyenaDnaConfig) -> MixerBlock:
    """Make a layer: x + hyena(norm(x)), then x + mlp(norm(x))."""
    filter = ImplicitFilter(
        c.width,
        c.length,
        features=c.filter_features,
        inner=c.filter_width,
        inner_layers=c.filter_layers,
        frequency=c.filter_frequency,
        shift=c.shift,
    )
    mixer = Hyena(c.width, filter, taps=c.taps)
    mlp = Mlp(c.width, c.mlp_width, activation=gelu_tanh)
    norm = lambda: nn.LayerNorm(c.width, c.norm_eps)  # noqa: E731
    return MixerBlock(mixer, norm, mlp=mlp, widest=c.mlp_width)


class HyenaDna(Stack):
    """The decoder below the head."""

    undecayed = ("embed.*", "layers.*.mixer.filter.*")  # optim_groups.py and hyena.py, wd: 0.0

    def __init__(self, config: HyenaDnaConfig):
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.rows, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.layers = nn.ModuleList(_block(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, c.final_norm_eps)
        nn.init.normal_(self.embed.weight, std=0.02)
        for block in self.layers:
            for linear in (block.mixer.in_proj, block.mlp.up):
                nn.init.normal_(linear.weight, std=0.02)
            for linear in (block.mixer.out_proj, block.mlp.down):
                nn.init.normal_(linear.weight, std=0.02 / (2 * c.depth) ** 0.5)
            for linear in (block.mixer.in_proj, block.mixer.out_proj, block.mlp.up, block.mlp.down):
                nn.init.zeros_(linear.bias)

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
        return self.dropout(x_BLD), Past.of(attention_mask, cache)

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm."""
        return self.norm(x)


class LastTokenClassifier(nn.Module):
    """Classes from the position before the first pad, or the last where no pad follows."""

    def __init__(self, width: int, classes: int, pad_id: int | None, problem: str | None = None):
        super().__init__()
        self.problem = problem
        self.score = Linear(width, classes, bias=False)
        self.pad_id = pad_id

    def forward(self, x_BLD: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (B, L, D) to (B, classes)."""
        ids = batch.get("input_ids")
        rows = torch.arange(x_BLD.shape[0], device=x_BLD.device)
        # argmax gives 0 both for no pad and for a pad in front; 0 - 1 is the last position.
        padded = ids is not None and self.pad_id is not None
        last = (ids == self.pad_id).int().argmax(-1) - 1 if padded else -1
        return self.score(x_BLD[rows, last])

    def loss(self, logits: Tensor, labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Compute what the labels ask for; see `sequence_loss`."""
        return sequence_loss(logits, labels, self.problem)


def _recognise(raw: Mapping[str, Any]) -> bool:
    layer = raw.get("layer")
    original = isinstance(layer, Mapping) and layer.get("_name_") == "hyena" and "d_model" in raw
    return original or raw.get("model_type") == "hyenadna"


# Settings that the operator here has one way for.
_HUB = {
    "hyena_order": (2,),
    "short_filter_order": (3,),
    "train_freq": (True,),
}
_LAYER = {
    "order": (2,),
    "modulate": (True,),
    "normalized": (False,),
    "bias": (True,),
    "bidirectional": (False,),
    "linear_mixer": (False,),
    "num_heads": (1,),
    "inner_factor": (1,),
    "num_blocks": (1,),
    "outer_mixing": (False,),
    "post_order_ffn": (False,),
    "activation": ("id", None),
}
_AROUND = {"attn_layer_idx": (None, []), "max_position_embeddings": (0,)}


def _read_config(raw: Mapping[str, Any], shapes: Shapes) -> HyenaDnaConfig:
    hub, layer = raw.get("model_type") == "hyenadna", raw.get("layer", {})
    for part, known in ((raw, _HUB),) if hub else ((layer, _LAYER), (raw, _AROUND)):
        expect_settings(part, known, "HyenaDNA")
    sizes = {
        "vocab_size": raw["vocab_size"],
        "width": raw["d_model"],
        "depth": raw["n_layer"],
        "mlp_width": raw.get("d_inner") or 4 * raw["d_model"],
        "final_norm_eps": raw.get("layer_norm_epsilon", 1e-5),
        "dropout": raw.get("embed_dropout", 0.1),
    }
    if hub:
        return HyenaDnaConfig(
            **sizes,
            vocab_multiple=raw.get("pad_vocab_size_multiple", 8),
            length=raw["max_seq_len"],
            filter_features=raw.get("emb_dim", 3),
            filter_width=raw.get("filter_order", 64),
            filter_layers=raw.get("num_inner_mlps", 2),
            filter_frequency=raw.get("activation_freq", 1),
            tied=raw.get("tie_word_embeddings", False),
            pad_id=raw.get("pad_token_id", 4),
            classes=len(raw.get("id2label") or (0, 1)),
            problem=raw.get("problem_type"),
        )
    return HyenaDnaConfig(
        **sizes,
        vocab_multiple=raw.get("pad_vocab_size_multiple", 1),
        length=layer["l_max"],
        filter_features=layer.get("emb_dim", 3),
        filter_width=layer.get("filter_order", 64),
        filter_layers=layer.get("num_inner_mlps", 2),
        filter_frequency=layer.get("w", 1),
        shift=layer.get("shift", SHIFT),
        taps=layer.get("short_filter_order", 3),
        norm_eps=sizes["final_norm_eps"],
        bracketed=True,
    )


def _write_config(c: HyenaDnaConfig) -> dict[str, Any]:
    odd = [name for name, value in _FIXED.items() if getattr(c, name) != value]
    if odd:
        raise CheckpointError(
            f"the hub's form of HyenaDNA has no place for a {odd[0]} of {getattr(c, odd[0])}: the "
            f"code that reads it takes {_FIXED[odd[0]]}. Make the model with that."
        )
    return {
        "activation_freq": c.filter_frequency,
        "architectures": ["HyenaDNAForCausalLM"],
        "d_inner": c.mlp_width,
        "d_model": c.width,
        "emb_dim": c.filter_features,
        "embed_dropout": c.dropout,
        "filter_order": c.filter_width,
        "hyena_order": 2,
        "id2label": {str(i): f"LABEL_{i}" for i in range(c.classes)},
        "layer_norm_epsilon": c.final_norm_eps,
        "max_seq_len": c.length,
        "model_type": "hyenadna",
        "n_layer": c.depth,
        "num_inner_mlps": c.filter_layers,
        "pad_token_id": c.pad_id,
        "pad_vocab_size_multiple": c.vocab_multiple,
        "problem_type": c.problem,
        "short_filter_order": c.taps,
        "tie_word_embeddings": c.tied,
        "train_freq": True,
        "use_bias": True,
        "vocab_size": c.vocab_size,
    }


# The hub's ports and the training repository end in [SEP] and give no mask.
LETTERS = replace(CHARACTERS, name="hyenadna", attention_mask=False)
# The stand-alone code that reads weights.ckpt begins with [CLS] too.
BRACKETED = replace(CHARACTERS, name="hyenadna-standalone", layout="[CLS] {sequence} [SEP]")


def _tokenizer(folder: Path | None, config: HyenaDnaConfig) -> LetterTokenizer:
    tokenizer = LetterTokenizer(BRACKETED if config.bracketed else LETTERS)
    tokenizer.max_tokens = config.length
    return tokenizer


def _original(wrap: str) -> KeyMap:
    counters = "a counter of the training run"
    return KeyMap(
        rename={
            **hyena_keys("model.backbone.", wrap=wrap),
            "model.lm_head.weight": "head.decoder.weight",
        },
        unused={f"{part}_torchmetrics.{{rest}}": counters for part in ("train", "val", "test")},
    )


def _hub(head: Mapping[str, str], root: str = "hyena.backbone.") -> KeyMap:
    return KeyMap(rename={**hyena_keys(root), **head})


def _release(name: str, parameters: int, *, hub: bool, **shape: Any) -> Release:
    config = HyenaDnaConfig(**shape)
    raw = _write_config(config) | {"tie_word_embeddings": False}
    if not hub:
        raw = {
            "d_model": config.width,
            "n_layer": config.depth,
            "d_inner": config.mlp_width,
            "vocab_size": 12,
            "pad_vocab_size_multiple": 8,
            "layer": {
                "_name_": "hyena",
                "emb_dim": config.filter_features,
                "filter_order": config.filter_width,
                "l_max": config.length,
                "w": config.filter_frequency,
            },
        }
    # Sizes from small-32k up were trained with gradient checkpointing, which renames the layers.
    original = "original" if config.depth == 2 else "original-checkpointed"
    return Release(
        name=f"hyenadna-{name}{'-hf' if hub else ''}",
        source=f"hf:LongSafari/hyenadna-{name}{'-hf' if hub else ''}",
        licence="BSD-3-Clause",
        parameters=parameters + (16 * config.width if hub else 0),  # -hf stores the head apart
        context=config.length,
        layout="hub-causal" if hub else original,
        config=raw,
    )


_SIZES: tuple[tuple[str, int, dict[str, int]], ...] = (
    ("tiny-1k-seqlen", 436_096, {"width": 128, "mlp_width": 512, "length": 1026}),
    ("tiny-1k-seqlen-d256", 1_641_088, {"width": 256, "mlp_width": 1024, "length": 1026}),
    ("tiny-16k-seqlen-d128", 436_096, {"width": 128, "mlp_width": 512, "length": 16_386}),
    (
        "small-32k-seqlen",
        3_277_568,
        {"width": 256, "mlp_width": 1024, "length": 32_770, "depth": 4},
    ),
    (
        "medium-160k-seqlen",
        6_550_528,
        {"width": 256, "mlp_width": 1024, "length": 160_002, "depth": 8},
    ),
    (
        "medium-450k-seqlen",
        6_550_528,
        {"width": 256, "mlp_width": 1024, "length": 450_002, "depth": 8},
    ),
    (
        "large-1m-seqlen",
        6_550_528,
        {"width": 256, "mlp_width": 1024, "length": 1_000_002, "depth": 8},
    ),
)

FAMILY = Family(
    name="hyenadna",
    title="HyenaDNA",
    paper="arXiv:2306.15794",
    organism="human DNA",
    objective="causal",
    recognise=_recognise,
    read_config=_read_config,
    write_config=_write_config,
    backbone=HyenaDna,
    heads={
        "causal": lambda c, backbone: TokenHead(
            c.width, c.rows, loss=next_token_loss, tied=backbone.embed if c.tied else None
        ),
        "classifier": lambda c, backbone: LastTokenClassifier(
            c.width, c.classes, c.pad_id, c.problem
        ),
    },
    layouts=(
        Layout(
            name="hub-causal", keys=_hub({"lm_head.weight": "head.decoder.weight"}), head="causal"
        ),
        Layout(
            name="hub-classifier",
            keys=_hub({"score.weight": "head.score.weight"}),
            head="classifier",
        ),
        Layout(name="hub-backbone", keys=_hub({}, root="backbone.")),
        Layout(
            name="original",
            keys=_original(""),
            weights=("weights.ckpt",),
            head="causal",
            state="state_dict",
        ),
        Layout(
            name="original-checkpointed",
            keys=_original("layer."),
            weights=("weights.ckpt",),
            head="causal",
            state="state_dict",
        ),
    ),
    tokenizer=_tokenizer,
    context=lambda c: c.length,
    releases=tuple(
        _release(n, p, hub=hub, **shape) for n, p, shape in _SIZES for hub in (False, True)
    ),
)
