"""Layers whose residual stream is normed itself, one-way and two-way.

HELM's form of Mamba's block (Yazdani-Jahromi et al. 2024, arXiv:2410.12459). Axes: B batch,
L tokens, D width.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from lexome.blocks.causal import Past
from lexome.blocks.linear import Linear


class RenormedBlock(nn.Module):
    """mixer(norm(norm(x))), whose sum with x is normed; the MLP reads the mixer, not the sum.

    Parameters
    ----------
    mixer
        Called with the tokens (B, L, D) and what the layers share.
    norm
        Makes a norm.
    mlp
        Without one, the layer is x + mixer(norm(norm(x))).
    """

    def __init__(
        self, mixer: nn.Module, norm: Callable[[], nn.Module], *, mlp: nn.Module | None = None
    ):
        super().__init__()
        self.norm, self.second_norm = norm(), norm()
        self.mixer = mixer
        if mlp is not None:
            self.stream_norm = norm()
        self.mlp = mlp

    def parts(self, x_BLD: Tensor, past: Past) -> tuple[Tensor, Tensor]:
        """Return what the layer adds and the stream that it is added to."""
        mixed_BLD = self.mixer(self.second_norm(self.norm(x_BLD)), past)
        if self.mlp is None:
            return mixed_BLD, x_BLD
        return self.mlp(mixed_BLD), self.stream_norm(mixed_BLD + x_BLD)

    def forward(self, x_BLD: Tensor, past: Past) -> Tensor:
        """Run the layer."""
        added_BLD, stream_BLD = self.parts(x_BLD, past)
        return added_BLD + stream_BLD


class TwoWayBlock(nn.Module):
    """A layer forwards and one backwards: what they add is joined by a matrix, streams averaged.

    Parameters
    ----------
    forwards, backwards
        The layers.
    width
        Number of channels D.
    """

    def __init__(self, forwards: RenormedBlock, backwards: RenormedBlock, width: int):
        super().__init__()
        self.forwards, self.backwards = forwards, backwards
        self.join = Linear(2 * width, width)

    def forward(self, x_BLD: Tensor, past: Past) -> Tensor:
        """Run the layer."""
        flipped = past
        if past.mask_BL is not None:
            flipped = replace(past, mask_BL=past.mask_BL.flip(1))
        added, stream = self.forwards.parts(x_BLD, past)
        added_back, stream_back = self.backwards.parts(x_BLD.flip(1), flipped)
        joined = self.join(torch.cat([added, added_back.flip(1)], dim=-1))
        return joined + 0.5 * (stream + stream_back.flip(1))
