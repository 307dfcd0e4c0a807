"""Next tokens: predict each token from those before it."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lexome.objectives.masked import IGNORED


def next_token_loss(logits_BLV: Tensor, labels_BL: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Mean cross entropy of token t + 1 given tokens up to t, in nats per token.

    Parameters
    ----------
    logits_BLV
        Unnormalised scores, shape (batch, tokens, vocabulary).
    labels_BL
        The input ids again, not shifted; -100 where nothing is to be predicted. Without any
        label the loss is 0.
    batch
        Not used; every loss takes it.
    """
    scores, labels = logits_BLV[:, :-1].float().flatten(0, 1), labels_BL[:, 1:].flatten()
    total = F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
