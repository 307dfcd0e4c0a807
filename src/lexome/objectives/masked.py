"""Masked tokens: predict what was hidden. Axes: B batch, L tokens, V vocabulary."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""Label of a position that carries no loss."""


def masked_token_loss(logits_BLV: Tensor, labels_BL: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Mean cross entropy over the labelled positions, in nats per token.

    Parameters
    ----------
    logits_BLV
        Unnormalised scores, shape (batch, tokens, vocabulary).
    labels_BL
        True ids; -100 where nothing is to be predicted.
    batch
        ``loss_weight`` in it, shape (batch, tokens), weighs the positions: the sum of weighted
        terms is divided by the sum of the weights at labelled positions (GPN, Benegas et al.
        2023).
    """
    weight_BL = batch.get("loss_weight")
    scores, labels = logits_BLV.float().flatten(0, -2), labels_BL.flatten()
    if weight_BL is None:
        return F.cross_entropy(scores, labels, ignore_index=IGNORED)
    terms = F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="none")
    weight = weight_BL.flatten().to(terms.dtype) * (labels != IGNORED)
    return (terms * weight).sum() / weight.sum()
