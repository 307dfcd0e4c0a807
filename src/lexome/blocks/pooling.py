"""From one vector a token to one vector an item: sums and maxima over a range of each row.

They are given apart from the division, so that an item that went through the model in several
pieces is pooled over all of its tokens exactly. Axes: B batch, L tokens, D width.
"""

import torch
from torch import Tensor


def _fill_outside(x_BLD: Tensor, ranges_B2: Tensor, value: float) -> Tensor:
    place_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
    outside_BL = (place_L < ranges_B2[:, :1]) | (place_L >= ranges_B2[:, 1:])
    return x_BLD.float().masked_fill(outside_BL[..., None], value)


def range_sum(x_BLD: Tensor, ranges_B2: Tensor) -> Tensor:
    """Sum the vectors of one range of each row.

    Parameters
    ----------
    x_BLD
        Hidden states, any float dtype.
    ranges_B2
        Start and stop of each row's range, 0-based half-open; what stands outside is ignored,
        whatever it holds.

    Returns
    -------
    Shape (B, D), float32; zeros for an empty range.

    Examples
    --------
    >>> range_sum(torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[1, 3]])).tolist()
    [[6.0]]
    """
    return _fill_outside(x_BLD, ranges_B2, 0.0).sum(1)


def range_max(x_BLD: Tensor, ranges_B2: Tensor) -> Tensor:
    """Take the maximum of each channel over one range of each row.

    Parameters
    ----------
    x_BLD, ranges_B2
        As for :func:`range_sum`.

    Returns
    -------
    Shape (B, D), float32; minus infinity for an empty range.
    """
    return _fill_outside(x_BLD, ranges_B2, -torch.inf).amax(1)
