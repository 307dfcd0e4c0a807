"""How well a model predicts sequence it was not trained on."""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lexome.model import Model
from lexome.objectives import IGNORED
from lexome.training.datasets import Batch, Examples


@dataclass(frozen=True, kw_only=True)
class Score:
    """Sums over predicted tokens; scores of parts of the windows can be added.

    Only tokens that spell A, C, G, T and U count, so that N and special tokens make no model
    look better.

    Attributes
    ----------
    total_nats
        Weighted sum of the surprise, -ln p.
    weight
        Sum of the weights of the tokens.
    letters
        Weighted sum of the letters that the tokens spell.
    """

    total_nats: float = 0.0
    weight: float = 0.0
    letters: float = 0.0

    def __add__(self, other: "Score") -> "Score":
        """Return the score of both parts."""
        return Score(
            total_nats=self.total_nats + other.total_nats,
            weight=self.weight + other.weight,
            letters=self.letters + other.letters,
        )

    @property
    def nats(self) -> float:
        """Mean surprise of a token; NaN if nothing was predicted."""
        return self.total_nats / self.weight if self.weight else math.nan

    @property
    def bits_per_base(self) -> float:
        """Surprise per letter in bits; a coin with four sides gives 2."""
        return self.total_nats / self.letters / math.log(2) if self.letters else math.nan


def validate(
    model: Model,
    batches: Iterable[Batch],
    examples: Examples,
    *,
    autocast: torch.dtype = torch.float32,
) -> Score:
    """Measure how well a model predicts the targets of some batches.

    Parameters
    ----------
    model
        Left in evaluation mode.
    batches
        As `examples` makes them.
    examples
        What knows how many letters a token spells.
    autocast
        Number type of the matrix products.
    """
    model.eval()
    device = model.device
    narrow = autocast != torch.float32
    context = torch.autocast(device.type, autocast) if narrow else nullcontext()
    letters = torch.from_numpy(np.where(examples.known, examples.letters_per_token, 0)).to(device)
    score = Score()
    with torch.no_grad(), context:
        for batch in batches:
            score += _score(model, _moved(batch, device), letters)
    return score


def _score(model: Model, batch: Batch, letters: Tensor) -> Score:
    targets = batch.pop("targets")
    weights = batch.pop("loss_weight", None)
    logits = model(**batch).logits
    if targets.dim() == 2:  # of a causal model: token t is scored by the position before it
        logits, targets = logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten()
    nats = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
    size = torch.where(targets == IGNORED, 0, letters[targets.clamp(min=0)]).double()
    weight = (size > 0).double()
    if weights is not None:
        weight = weight * weights
    sums = torch.stack([(nats * weight).sum(), weight.sum(), (size * weight).sum()])
    total_nats, total_weight, total_letters = sums.tolist()
    return Score(total_nats=total_nats, weight=total_weight, letters=total_letters)


def _moved(batch: Batch, device: torch.device) -> Batch:
    return {
        key: tuple(part.to(device) for part in value)
        if isinstance(value, tuple)
        else value.to(device)
        for key, value in batch.items()
    }
