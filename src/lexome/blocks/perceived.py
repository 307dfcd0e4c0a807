"""Attention between tokens that are perceived and tokens that are generated all at once.

Cui et al. 2024, Nature Methods 21, 1470, "Generative pretraining".
Axes: B batch, L tokens, P perceived tokens, G generated tokens, D width, H heads, E head width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lexome.blocks.attention import SelfAttention, attend


class Generating(NamedTuple):
    """What layers share where tokens are generated: who sees whom, and how many are perceived."""

    bias: Tensor
    perceived: int


def let_see(
    x_BPD: Tensor, mask_BP: Tensor | None, generated_BG: Tensor, mask_BG: Tensor | None
) -> Generating:
    """Let all tokens see those that are perceived, and each generated one itself.

    Parameters
    ----------
    x_BPD
        The perceived tokens, for their number and type.
    mask_BP, mask_BG
        1 at tokens, 0 at padding; None where there is none.
    generated_BG
        Ids of the generated tokens, for their number.
    """
    (rows, perceived), generated = x_BPD.shape[:2], generated_BG.shape[1]
    real = [
        mask > 0 if mask is not None else generated_BG.new_ones(rows, count, dtype=torch.bool)
        for mask, count in ((mask_BP, perceived), (mask_BG, generated))
    ]
    seen = torch.eye(perceived + generated, device=x_BPD.device, dtype=torch.bool)
    seen[:, :perceived] = True
    seen[:perceived, perceived:] = False
    seen = seen & torch.cat(real, 1)[:, None, None]
    return Generating(x_BPD.new_zeros(()).where(seen, torch.finfo(x_BPD.dtype).min), perceived)


class PerceivedAttention(SelfAttention):
    """Attention; what generated tokens gather skips the output matrix.

    So does scGPT's code of generative pretraining, and its weights are made for it.
    """

    def forward(self, x_BLD: Tensor, shared: Any = None) -> Tensor:
        """Attend; `shared` is a bias on the scores, None, or what `let_see` gives."""
        if not isinstance(shared, Generating):
            return super().forward(x_BLD, shared)
        q_BHLE, k_BHLE, v_BHLE, bias = self._project(x_BLD, shared)
        mixed_BLD = attend(q_BHLE, k_BHLE, v_BHLE, bias).transpose(1, 2).flatten(2)
        mixed_BPD, mixed_BGD = mixed_BLD.tensor_split([shared.perceived], dim=1)
        return torch.cat([self.out(mixed_BPD), mixed_BGD], 1)

    def _project(self, x_BLD: Tensor, shared: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return super()._project(x_BLD, shared.bias if isinstance(shared, Generating) else shared)
