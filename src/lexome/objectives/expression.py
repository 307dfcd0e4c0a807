"""Hidden values: predict the numbers that were taken away. Axes: B batch, L tokens, D width."""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_value_loss(values_BL: Tensor, labels_BL: Tensor) -> Tensor:
    """Mean squared error over the labelled positions, in squared units of the values.

    Parameters
    ----------
    values_BL
        Predicted values, shape (batch, tokens).
    labels_BL
        True values of the same shape; NaN where nothing is to be predicted.

    Returns
    -------
    A float32 scalar; NaN if no position has a label.

    Examples
    --------
    >>> from torch import tensor
    >>> nan = float("nan")
    >>> masked_value_loss(tensor([[1.0, 2.0, 9.0]]), tensor([[3.0, 2.0, nan]]))
    tensor(2.)
    """
    labelled = ~labels_BL.isnan()
    # Chosen before the difference is taken: NaN times zero would spoil the gradient.
    return F.mse_loss(values_BL[labelled].float(), labels_BL[labelled].float())


def nonzero_loss(nonzero_BL: Tensor, labels_BL: Tensor) -> Tensor:
    """Mean negative log-likelihood of values being zero or not, over the labelled positions.

    Parameters
    ----------
    nonzero_BL
        Predicted probabilities that values are not zero, shape (batch, tokens).
    labels_BL
        True values of the same shape; NaN where nothing is to be predicted.

    Returns
    -------
    A float32 scalar in nats; NaN if no position has a label.

    Examples
    --------
    >>> from torch import tensor
    >>> nonzero_loss(tensor([[0.5, 0.5, 0.9]]), tensor([[3.0, 0.0, float("nan")]]))
    tensor(0.6931)
    """
    labelled = ~labels_BL.isnan()
    smallest = torch.finfo(torch.float32).eps  # beyond it the authors' distribution goes no farther
    nonzero = nonzero_BL[labelled].float().clamp(smallest, 1 - smallest)
    return F.binary_cross_entropy(nonzero, (labels_BL[labelled] > 0).float())


def similarity_loss(cells_BD: Tensor, threshold: float) -> Tensor:
    """Push similar cells of a batch together and others apart: mean of 1 - (cosine - threshold)^2.

    Negative cosines count as 0, as do those of cells with themselves (Cui et al. 2024, Nature
    Methods 21, 1470, "elastic cell similarity").

    Parameters
    ----------
    cells_BD
        Vectors of cells.
    threshold
        Cosine above which two cells are pulled together.

    Examples
    --------
    >>> from torch import tensor
    >>> similarity_loss(tensor([[1.0, 0.0], [2.0, 0.0]]), threshold=0.5)
    tensor(0.7500)
    """
    unit_BD = F.normalize(cells_BD.float(), dim=1)
    cosines_BB = F.relu((unit_BD @ unit_BD.T).fill_diagonal_(0.0))
    return (1 - (cosines_BB - threshold) ** 2).mean()
