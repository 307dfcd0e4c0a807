"""Feed-forward layers, plain and gated."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.linear import Linear, activated


class Mlp(nn.Module):
    """down(activation(up(x)))."""

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)
        self.activation = activation
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width); dropout, if any, acts between the two matrices."""
        inner = F.dropout(activated(self.up, self.activation, x), self.dropout, self.training)
        return self.down(inner)


class GatedMlp(nn.Module):
    """down(activation(first half of up(x)) * second half) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        up_bias: bool = False,
        down_bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.up = Linear(width, 2 * inner, bias=up_bias)
        self.down = Linear(inner, width, bias=down_bias)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(self.dropout(self.activation(gate) * value))
