"""Attention that scores content and relative position apart.

He et al. 2021, arXiv:2006.03654, section 3, with the log-spaced distances of DeBERTa-v2.
Axes: B batch, L tokens, D width, H heads, E head width, R rows of the distance table.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lexome.blocks.attention import SelfAttention


def bucket(distance: Tensor, buckets: int, farthest: int) -> Tensor:
    """Give distances numbers: near ones each their own, far ones shared and log-spaced.

    Up to `buckets` / 2 a distance is its own number; from there to `farthest` - 1 the numbers grow
    with the logarithm, up to `buckets` - 1. The sign is kept.

    Parameters
    ----------
    distance
        Whole numbers, any shape.
    buckets, farthest
        Of DeBERTa-v2's configuration: ``position_buckets`` and the longest input in tokens.

    Examples
    --------
    >>> bucket(torch.tensor([-4, 3, 5, 10, 31]), buckets=8, farthest=32).tolist()
    [-4, 3, 5, 6, 7]
    """
    near = buckets // 2
    far = distance.abs().clamp(min=near).float()
    # In float32 and in this order, as the authors: a ceiling turns rounding into another bucket.
    share = torch.log(far / near) / torch.log(torch.tensor((farthest - 1) / near))
    grown = torch.ceil(share * (near - 1)).long() + near
    return torch.where(distance.abs() <= near, distance, grown * distance.sign())


class Distances(NamedTuple):
    """What the layers share: vectors of the distances that occur, and which row a pair has."""

    table_RD: Tensor
    index_LL: Tensor


class DistanceTable(nn.Module):
    """Vectors of bucketed distances, normalised; the indices are built once per length.

    Row `buckets` + n is the vector of bucket n; whatever lies beyond takes the last row.
    """

    def __init__(self, width: int, buckets: int, *, farthest: int, eps: float):
        super().__init__()
        self.buckets, self.farthest = buckets, farthest
        self.table = nn.Embedding(2 * buckets, width)
        self.norm = nn.LayerNorm(width, eps)
        self._index: tuple[int, Tensor] | None = None

    def forward(self, length: int, like: Tensor) -> Distances:
        """Return the vectors and, for query i and key j, the row of distance i - j.

        Only the rows that inputs of this length use are returned.
        """
        known = self._index
        if known is None or known[1].device != like.device or len(known[1]) != length:
            known = self._index = self._build(length, like.device)
        first, index_LL = known
        # The farthest in either direction stand equally far from the middle row.
        last = 2 * self.buckets - first
        return Distances(self.norm(self.table.weight[first : last + 1]), index_LL)

    @torch.inference_mode(mode=False)  # what is kept here may be used in training later
    def _build(self, length: int, device: torch.device) -> tuple[int, Tensor]:
        place = torch.arange(length, device=device)
        numbers = bucket(place[:, None] - place, self.buckets, self.farthest)
        index_LL = (numbers + self.buckets).clamp(0, 2 * self.buckets - 1)
        first = int(index_LL[0, -1])
        return first, index_LL - first


class DisentangledSelfAttention(SelfAttention):
    """Softmax attention over content-content, content-position and position-content scores.

    score_ij = (q_i k_j + q_i K(i - j) + k_j Q(i - j)) / sqrt(3 E), where K and Q are what the
    layer's own key and query matrices make of the distance vectors. Each position product is made
    once over the table and then spread over the pairs. `shared` is
    ``(bias or None, distances)``; `table_dropout` acts on the distance vectors.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0, table_dropout: float = 0.0):
        super().__init__(width, heads, dropout=dropout)
        self.table_dropout = nn.Dropout(table_dropout)

    def _project(
        self, x_BLD: Tensor, shared: tuple[Tensor | None, Distances]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        padding, (table_RD, index_LL) = shared
        q_BHLE, k_BHLE, v_BHLE, _ = super()._project(x_BLD, None)
        packed = self.qkv(self.table_dropout(table_RD)).unflatten(-1, (3, self.heads, -1))
        position_q_HRE, position_k_HRE, _ = packed.permute(1, 2, 0, 3)
        q_BHLE = q_BHLE * 3**-0.5
        scale = q_BHLE.shape[-1] ** -0.5
        B, L = x_BLD.shape[:2]
        index = index_LL.expand(B, self.heads, L, L)
        bias = (q_BHLE @ (position_k_HRE * scale).transpose(-1, -2)).gather(-1, index)
        position_q_HRE = position_q_HRE * (scale * 3**-0.5)
        bias += (position_q_HRE @ k_BHLE.transpose(-1, -2)).gather(-2, index)
        if padding is not None:
            bias += padding
        return q_BHLE, k_BHLE, v_BHLE, bias
