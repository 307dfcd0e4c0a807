"""Hidden values: predict the numbers that were taken away. Axes: B batch, L tokens."""

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
