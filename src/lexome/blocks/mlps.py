"""Feed-forward layers, plain and gated."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.linear import Linear, activated, linear


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
    """down(activation(first half of up(x)) * second half) (Shazeer 2020, arXiv:2002.05202).

    With `gate_last`, the activation is the second half's.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        up_bias: bool = False,
        down_bias: bool = True,
        dropout: float = 0.0,
        gate_last: bool = False,
    ):
        super().__init__()
        self.gate_last = gate_last
        self.up = Linear(width, 2 * inner, bias=up_bias)
        self.down = Linear(inner, width, bias=down_bias)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        by_halves = x.device.type == "cpu" and not torch.is_grad_enabled()
        if not by_halves or type(self.up) is not Linear or self.up.packed is not None:
            gate, value = self._ordered(self.up(x).chunk(2, dim=-1))
            return self.down(self.dropout(self.activation(gate) * value))
        # On a CPU two products are faster than one: the halves then lie in one piece each, the
        # activation is applied while they are made, and a third as much memory is touched.
        gate_weight, value_weight = self._ordered(self.up.weight.chunk(2))
        bias = self.up.bias
        biases = (None, None) if bias is None else self._ordered(bias.chunk(2))
        inner = linear(x, gate_weight, biases[0], self.activation)
        inner *= linear(x, value_weight, biases[1])
        return self.down(self.dropout(inner))

    def _ordered(self, halves: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gate's half first."""
        return halves[::-1] if self.gate_last else halves
