"""Attention, positions, MLPs, Hyena and heads: mechanisms under their own names."""

from lexome.blocks.attention import (
    Alibi,
    PostNormBlock,
    PreNormBlock,
    RotarySelfAttention,
    SelfAttention,
    alibi_slopes,
    padding_bias,
)
from lexome.blocks.causal import (
    CausalSelfAttention,
    MixerBlock,
    Past,
    causal_bias,
    seen_mask,
)
from lexome.blocks.convolution import SameConvolution
from lexome.blocks.disentangled import DisentangledSelfAttention, DistanceTable, bucket
from lexome.blocks.heads import (
    FirstTokenClassifier,
    MaskedTokenHead,
    MeanClassifier,
    TokenHead,
    sequence_loss,
)
from lexome.blocks.hyena import Hyena, ImplicitFilter, WrappedHyena
from lexome.blocks.initialise import start_small
from lexome.blocks.linear import (
    Linear,
    activated,
    by_rows,
    gelu_tanh,
    large_layers,
    packed,
    packed_bytes,
)
from lexome.blocks.mlps import GatedMlp, Mlp
from lexome.blocks.modal import ModalFilter, ModalHyena
from lexome.blocks.positions import ComputedRotary, Rotary, rotary_turns, turn
from lexome.blocks.prompt import SoftTokens
from lexome.blocks.renormed import RenormedBlock, TwoWayBlock
from lexome.blocks.stack import DecodeCache, Hidden, Stack
from lexome.blocks.state_space import PairedMixer, SelectiveMixer

__all__ = [
    "Alibi",
    "CausalSelfAttention",
    "ComputedRotary",
    "DecodeCache",
    "DisentangledSelfAttention",
    "DistanceTable",
    "FirstTokenClassifier",
    "GatedMlp",
    "Hidden",
    "Hyena",
    "ImplicitFilter",
    "Linear",
    "MaskedTokenHead",
    "MeanClassifier",
    "MixerBlock",
    "Mlp",
    "ModalFilter",
    "ModalHyena",
    "PairedMixer",
    "Past",
    "PostNormBlock",
    "PreNormBlock",
    "RenormedBlock",
    "Rotary",
    "RotarySelfAttention",
    "SameConvolution",
    "SelectiveMixer",
    "SelfAttention",
    "SoftTokens",
    "Stack",
    "TokenHead",
    "TwoWayBlock",
    "WrappedHyena",
    "activated",
    "alibi_slopes",
    "bucket",
    "by_rows",
    "causal_bias",
    "gelu_tanh",
    "large_layers",
    "packed",
    "packed_bytes",
    "padding_bias",
    "rotary_turns",
    "seen_mask",
    "sequence_loss",
    "start_small",
    "turn",
]
