"""Multi-head self-attention and its position biases.

Axes: B batch, L tokens, D width, H heads, E head width.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.linear import Linear
from lexome.blocks.positions import Rotary, Turns, turn


def alibi_slopes(heads: int) -> list[float]:
    """Return the slope of each head (Press et al. 2021, arXiv:2108.12409).

    Powers of 2^(-8/heads) where `heads` is a power of two; else those of the next lower power of
    two, filled up with every second slope of the next higher one.

    Examples
    --------
    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / lower) for i in range(lower)]
    finer = [2 ** (-8 * (i + 1) / (2 * lower)) for i in range(0, 2 * lower, 2)]
    return slopes + finer[: heads - lower]


class Alibi:
    """Attention bias -slope * |i - j|, built once per length.

    The table for the longest input so far is kept; shorter ones are views of it.
    """

    def __init__(self, heads: int):
        self.heads = heads
        self._table: Tensor | None = None

    def __call__(self, length: int, like: Tensor) -> Tensor:
        """Return the bias, shape (1, H, L, L), in the dtype and on the device of `like`."""
        table = self._table
        fits = table is not None and (table.dtype, table.device) == (like.dtype, like.device)
        if table is None or not fits or table.shape[-1] < length:
            place = torch.arange(length, device=like.device, dtype=torch.float32)
            distance = (place[:, None] - place[None, :]).abs()
            slopes = torch.tensor(alibi_slopes(self.heads), device=like.device)
            table = (-slopes[:, None, None] * distance).to(like.dtype)[None]
            self._table = table.contiguous()
        return self._table[..., :length, :length]  # type: ignore[index]


def padding_bias(mask_BL: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn a token mask into an additive bias on the keys, or None where nothing is padded.

    Returns
    -------
    Shape (B, 1, 1, L): 0 at tokens, the lowest number of `dtype` at padding.
    """
    if mask_BL is None or bool(mask_BL.all()):
        return None
    bias = torch.zeros(mask_BL.shape, dtype=dtype, device=mask_BL.device)
    bias.masked_fill_(mask_BL == 0, torch.finfo(dtype).min)
    return bias[:, None, None, :]


_SHORT = 64  # tokens up to which the formula as it stands costs little more than the kernel
_LONG = 1024  # tokens from which on one head's scores no longer fit a CPU's cache
_SCORES = 1 << 18  # made at a time, where they do


def attend(
    q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias: Tensor | None, *, dropout: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(E) + bias) v; `bias` broadcasts to (B, H, L, L).

    PyTorch's blocked kernel, but on a CPU the formula as it stands for short inputs, where sums in
    the authors' order are nearly free, and in narrow types, where the kernel takes twice the time.
    The latter go by few rows and heads, so that the scores stay in the cache. The softmax is
    computed in float32 in any case.
    """
    (B, H, L, _), S = q_BHLE.shape, k_BHLE.shape[2]
    if q_BHLE.device.type == "cpu" and not dropout:
        if q_BHLE.dtype is torch.float32 and L <= _SHORT:
            return _attend_plainly(q_BHLE, k_BHLE, v_BHLE, bias)
        if q_BHLE.dtype is not torch.float32 and S <= _LONG and not torch.is_grad_enabled():
            mixed_BHLE = v_BHLE.new_empty(B, L, H, v_BHLE.shape[-1]).transpose(1, 2)
            rows, heads = max(1, _SCORES // (H * L * S)), min(H, 1 + _SCORES // (L * S))
            for row in range(0, B, rows):
                for head in range(0, H, heads):
                    some = slice(row, row + rows), slice(head, head + heads)
                    q, k, v = (x[some].contiguous() for x in (q_BHLE, k_BHLE, v_BHLE))
                    part = None if bias is None else bias.expand(B, H, L, S)[some]
                    mixed_BHLE[some] = _attend_plainly(q, k, v, part)
            return mixed_BHLE
    return F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask=bias, dropout_p=dropout)


def _attend_plainly(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    scores = torch.matmul(q, k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
    return torch.matmul((scores if bias is None else scores + bias).softmax(-1).to(v.dtype), v)


class SelfAttention(nn.Module):
    """Softmax attention with one matrix for query, key and value.

    Rows of `qkv` are all queries, then all keys, then all values, each ordered by head; scores
    are divided by sqrt(head width).

    `bias` says whether the projections have one; `out_bias` says it of the last, where it differs.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        out_bias: bool | None = None,
    ):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.out = Linear(width, width, bias=bias if out_bias is None else out_bias)

    def forward(self, x_BLD: Tensor, shared: Any = None) -> Tensor:
        """Attend; `shared` is a bias on the scores that broadcasts to (B, H, L, L), or None."""
        q_BHLE, k_BHLE, v_BHLE, bias = self._project(x_BLD, shared)
        dropout = self.dropout if self.training else 0.0
        mixed_BHLE = attend(q_BHLE, k_BHLE, v_BHLE, bias, dropout=dropout)
        return self.out(mixed_BHLE.transpose(1, 2).flatten(2))

    def weights(self, x_BLD: Tensor, shared: Any = None) -> Tensor:
        """Return how much each token takes of each other, (B, H, L, L); rows sum to 1."""
        q_BHLE, k_BHLE, _, bias = self._project(x_BLD, shared)
        scores = q_BHLE @ k_BHLE.transpose(-1, -2) / math.sqrt(q_BHLE.shape[-1])
        return (scores if bias is None else scores + bias).softmax(-1)

    def _project(self, x_BLD: Tensor, shared: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries, keys and values, (B, H, L, E) each, and the bias on the scores."""
        packed = self.qkv(x_BLD).unflatten(-1, (3, self.heads, -1))
        q_BHLE, k_BHLE, v_BHLE = packed.transpose(1, 3).unbind(2)
        return q_BHLE, k_BHLE, v_BHLE, shared


class RotarySelfAttention(SelfAttention):
    """Softmax attention whose queries and keys are turned by their positions.

    The layers of a backbone share `rotary`, and what it gives for a batch: `shared` is
    ``(bias or None, turns)``.
    """

    def __init__(
        self, width: int, heads: int, *, rotary: Rotary, dropout: float = 0.0, bias: bool = True
    ):
        super().__init__(width, heads, dropout=dropout, bias=bias)
        self.rotary = rotary

    def _project(
        self, x_BLD: Tensor, shared: tuple[Tensor | None, Turns]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        bias, turns = shared
        packed = self.qkv(x_BLD).unflatten(-1, (3, self.heads, -1))
        q_BHLE, k_BHLE = turn(packed[:, :, :2], turns).transpose(1, 3).unbind(2)
        return q_BHLE, k_BHLE, packed[:, :, 2].transpose(1, 2), bias


class PostNormBlock(nn.Module):
    """x = norm(x + attention(x)); x = norm(x + mlp(x)), the layer of BERT."""

    def __init__(
        self, attention: nn.Module, mlp: nn.Module, *, width: int, eps: float, dropout: float = 0.0
    ):
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.attention_norm = nn.LayerNorm(width, eps)
        self.mlp_norm = nn.LayerNorm(width, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, shared: Any = None) -> Tensor:
        """Run the layer; `shared` goes to the attention."""
        x_BLD = self.attention_norm(x_BLD + self.dropout(self.attention(x_BLD, shared)))
        return self.mlp_norm(x_BLD + self.dropout(self.mlp(x_BLD)))

    def weights(self, x_BLD: Tensor, shared: Any = None) -> Tensor:
        """Return the attention weights of the layer, (B, H, L, L)."""
        return self.attention.weights(x_BLD, shared)


class PreNormBlock(nn.Module):
    """x = x + attention(norm(x)); x = x + mlp(norm(x)) (Xiong et al. 2020, arXiv:2002.04745)."""

    def __init__(
        self,
        attention: nn.Module,
        mlp: nn.Module,
        *,
        width: int,
        eps: float,
        dropout: float = 0.0,
        norm: Callable[[int, float], nn.Module] = nn.LayerNorm,
    ):
        super().__init__()
        self.attention_norm = norm(width, eps)
        self.attention = attention
        self.mlp_norm = norm(width, eps)
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, shared: Any = None) -> Tensor:
        """Run the layer; `shared` goes to the attention."""
        x_BLD = x_BLD + self.dropout(self.attention(self.attention_norm(x_BLD), shared))
        return x_BLD + self.dropout(self.mlp(self.mlp_norm(x_BLD)))

    def weights(self, x_BLD: Tensor, shared: Any = None) -> Tensor:
        """Return the attention weights of the layer, (B, H, L, L)."""
        return self.attention.weights(self.attention_norm(x_BLD), shared)
