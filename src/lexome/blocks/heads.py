"""What stands on a backbone: hidden states to scores, and the loss of those scores.

A head is called with the hidden state and the batch it came from and gives one tensor, or several
by name with the main one first; `loss` takes what it gave, the labels and the batch.
Axes: B batch, L tokens, D width, V vocabulary, C classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.linear import Linear

Loss = Callable[[Tensor, Tensor, Mapping[str, Any]], Tensor]


class TokenHead(nn.Module):
    """Scores over the vocabulary by one matrix, tied to the token embedding or not."""

    def __init__(
        self,
        width: int,
        vocab: int,
        *,
        loss: Loss,
        bias: bool = False,
        tied: nn.Embedding | None = None,
    ):
        super().__init__()
        self.decoder = Linear(width, vocab, bias=bias)
        if tied is not None:
            self.decoder.weight = tied.weight
        self.loss = loss

    def forward(self, x: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (..., D) to (..., V)."""
        return self.decoder(x)


class MaskedTokenHead(nn.Module):
    """The masked-token head of BERT: dense, GELU, layer norm, decoder."""

    def __init__(
        self,
        width: int,
        vocab: int,
        *,
        loss: Loss,
        eps: float,
        bias: bool = True,
        tied: nn.Embedding | None = None,
    ):
        super().__init__()
        self.dense = Linear(width, width, bias=bias)
        self.norm = nn.LayerNorm(width, eps, bias=bias)
        self.decoder = Linear(width, vocab, bias=bias)
        if tied is not None:
            self.decoder.weight = tied.weight
        self.loss = loss

    def forward(self, x: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (..., D) to (..., V)."""
        return self.decoder(self.norm(F.gelu(self.dense(x))))


def sequence_loss(logits_BC: Tensor, labels: Tensor, problem: str | None = None) -> Tensor:
    """Compute the loss of whole sequences, as transformers does.

    Parameters
    ----------
    logits_BC
        Scores, or values where these are asked for.
    labels
        Classes (B,), shares or presence of each class, or values, (B, C); (B,) where C = 1.
    problem
        ``"single_label_classification"``: cross entropy. ``"multi_label_classification"``: mean
        binary cross entropy. ``"regression"``: mean squared error. None: the last for C = 1, else
        the first for labels that are whole numbers and the second for others.

    Examples
    --------
    >>> sequence_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0]))
    tensor(2.)
    """
    if problem is None:
        by_class = "multi" if labels.is_floating_point() else "single"
        problem = "regression" if logits_BC.shape[-1] == 1 else f"{by_class}_label_classification"
    if problem == "single_label_classification":
        return F.cross_entropy(logits_BC.float(), labels)
    logits, truth = logits_BC.float().reshape(labels.shape), labels.float()
    if problem == "regression":
        return F.mse_loss(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth)


class FirstTokenClassifier(nn.Module):
    """Classes from the first token: tanh(dense(x_0)), dropout, linear, as BERT does.

    DeBERTa has GELU as `activation`. `problem` is what `sequence_loss` takes.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        problem: str | None = None,
    ):
        super().__init__()
        self.activation, self.problem = activation, problem
        self.pooler = Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = Linear(width, classes)

    def forward(self, x_BLD: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (B, L, D) to (B, C)."""
        return self.classifier(self.dropout(self.activation(self.pooler(x_BLD[:, 0]))))

    def loss(self, logits: Tensor, labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Give the loss of whole sequences."""
        return sequence_loss(logits, labels, self.problem)


class MeanClassifier(nn.Module):
    """Classes from the mean over the tokens: norm, dense, GELU, matrix.

    Parameters
    ----------
    width, classes
        D and C.
    norm
        Whether the mean is normed first.
    bias
        Whether norm and matrices have one.
    positive
        Whether softplus makes values positive.
    problem
        What `sequence_loss` takes.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        norm: bool = True,
        bias: bool = True,
        dropout: float = 0.0,
        positive: bool = False,
        problem: str | None = None,
    ):
        super().__init__()
        self.positive, self.problem = positive, problem
        self.norm = nn.LayerNorm(width, bias=bias) if norm else nn.Identity()
        self.dense = Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.classifier = Linear(width, classes, bias=bias)

    def forward(self, x_BLD: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Map (B, L, D) to (B, C); padding does not count."""
        mask_BL = batch.get("attention_mask")
        if mask_BL is None:
            mean_BD = x_BLD.mean(1)
        else:
            weight_BL1 = mask_BL[..., None].to(x_BLD.dtype)
            mean_BD = (x_BLD * weight_BL1).sum(1) / weight_BL1.sum(1)
        inner_BD = F.gelu(self.dense(self.dropout(self.norm(mean_BD))))
        scores_BC = self.classifier(self.dropout(inner_BD))
        return F.softplus(scores_BC) if self.positive else scores_BC

    def loss(self, logits: Tensor, labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Give the loss of whole sequences."""
        return sequence_loss(logits, labels, self.problem)
