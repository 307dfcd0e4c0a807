"""Convolutions along the tokens, fast on CPUs.

Axes: B batch, L tokens, D width, O outputs, K taps, P points.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.linear import linear
from lexome.blocks.versions import versions

_TOKENS = 4096  # so many at a time stay in the cache, and fill the rows of the products
_FEWEST_TOKENS = 2048  # below, turning the weights once costs more than it saves
_FEWEST_CHANNELS = 128


class SameConvolution(nn.Conv1d):
    """A dilated convolution that keeps the number of tokens; zeros beyond the ends.

    On CPUs, large enough inputs are convolved with fewer multiplications. A stretch of 2(K - 1)
    outputs needs K multiplications of matrices for each of them, 9 for 9 taps. The same outputs
    are part of the circular convolution of 3(K - 1) inputs, and thus of a product of discrete
    Fourier transforms. A product of two complex numbers takes three real ones (Gauss), so that
    2.2 multiplications for each output are left. All transforms are small real matrices and the
    error is near that of the plain sum: what it multiplies are sums of the inputs with factors
    of at most 1.4. The turned weights, about four times the size of the weights, are kept.
    """

    def __init__(
        self, width: int, taps: int, *, dilation: int = 1, groups: int = 1, bias: bool = True
    ):
        super().__init__(
            width, width, taps, padding="same", dilation=dilation, groups=groups, bias=bias
        )
        self._turned: tuple[tuple[int, ...], Tensor] | None = None

    def forward(self, x_BLD: Tensor) -> Tensor:  # type: ignore[override]
        """Map (B, L, D) to (B, L, D)."""
        if not self._has_short_cut(x_BLD):
            return super().forward(x_BLD.transpose(1, 2)).transpose(1, 2)
        rows = max(1, _TOKENS // x_BLD.shape[1])
        if rows >= len(x_BLD):
            return self._by_points(x_BLD)
        return torch.cat([self._by_points(part) for part in x_BLD.split(rows)])

    def _has_short_cut(self, x: Tensor) -> bool:
        return (
            self.groups == 1
            and self.kernel_size[0] in {5, 7, 9}
            and self.in_channels >= _FEWEST_CHANNELS
            and x.shape[0] * x.shape[1] >= _FEWEST_TOKENS
            and x.dtype is torch.float32
            and x.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
        )

    def cpu_bytes(self, dtype: torch.dtype) -> tuple[int, int]:
        """Return how much the short cut keeps on a CPU, and works in, for weights of this type."""
        if (
            dtype is not torch.float32
            or self.groups != 1
            or self.kernel_size[0] not in {5, 7, 9}
            or self.in_channels < _FEWEST_CHANNELS
        ):
            return 0, 0
        forth, _, back = _transforms(self.kernel_size[0])
        (points, inputs), outputs = forth.shape, len(back)
        kept = points * self.weight.shape[0] * self.weight.shape[1]
        # Inputs, points, products twice, outputs; up to half of the tiles' tokens are padding.
        working = 2 * _TOKENS * self.in_channels * (inputs + 3 * points + outputs) // outputs
        return 4 * kept, 4 * working

    def _by_points(self, x_BLD: Tensor) -> Tensor:
        (K,), (step,) = self.kernel_size, self.dilation
        forth, _, back = (m.to(x_BLD) for m in _transforms(K))
        B, L, D = x_BLD.shape
        outputs, inputs = back.shape[0], forth.shape[1]
        # A tile is `outputs` tokens, `step` apart; so many tiles lie between each other.
        tiles = -(-L // (outputs * step))
        before = step * (K - 1) // 2
        after = tiles * outputs * step + step * (K - 1) - before - L
        padded = F.pad(x_BLD, (0, 0, before, after))
        row, token, one = padded.stride()
        overlapping = padded.as_strided(
            (inputs, B, tiles, step, D), (step * token, row, outputs * step * token, token, one)
        )
        points_PTD = (forth @ overlapping.reshape(inputs, -1)).view(len(forth), -1, D)
        products_PTO = torch.stack(
            [linear(p_TD, w_OD) for p_TD, w_OD in zip(points_PTD, self._turn(), strict=True)]
        )
        tiled = (back @ products_PTO.flatten(1)).view(outputs, B, tiles, step, -1)
        y_BLO = tiled.permute(1, 2, 0, 3, 4).reshape(B, -1, tiled.shape[-1])[:, :L]
        return y_BLO if self.bias is None else y_BLO + self.bias

    def _turn(self) -> Tensor:
        """Return the weights at the points, shape (P, O, D), kept until they change."""
        state = versions([self.weight])
        if self._turned is None or self._turned[0] != state:
            _, turn, _ = (m.to(self.weight) for m in _transforms(self.kernel_size[0]))
            with torch.inference_mode(False):
                turned = torch.matmul(turn, self.weight.detach().flatten(0, 1).T)
                self._turned = state, turned.view(len(turn), *self.weight.shape[:2])
        return self._turned[1]


@cache
def _transforms(taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the real matrices of a convolution of `taps` by discrete Fourier transforms.

    Returns
    -------
    Inputs to points (P, 3(K - 1)), taps to points (P, K), points to outputs (2(K - 1), P).
    """
    size, outputs = 3 * (taps - 1), 2 * (taps - 1)
    place = torch.arange(size, dtype=torch.float64)
    ones, signs = torch.ones_like(place), (-1.0) ** place
    forth, turn, back = [ones, signs], [ones, signs], [ones / size, signs / size]
    for frequency in range(1, size // 2):
        angle = 2 * math.pi * frequency * place / size
        cos, sin = angle.cos(), angle.sin()
        # X = cos - i sin of the inputs; the taps meet later inputs, so theirs is conjugate:
        # W = cos + i sin. Re = Wr (Xr + Xi) - Xi (Wr + Wi), Im = Wr (Xr + Xi) + Xr (Wi - Wr).
        forth += [cos - sin, cos, -sin]
        turn += [cos, sin - cos, cos + sin]
        back += [2 / size * (cos - sin), -2 / size * sin, -2 / size * cos]
    return (
        torch.stack(forth),
        torch.stack(turn)[:, :taps].contiguous(),
        torch.stack(back, 1)[:outputs].contiguous(),
    )
