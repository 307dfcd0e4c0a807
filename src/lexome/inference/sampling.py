"""How the next token is chosen from a model's scores.

Axes: B rows, V vocabulary, A tokens that may be drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    Attributes
    ----------
    length
        Most tokens of a sequence.
    temperature, top_k, top_p
        As for :func:`generate`.
    allowed
        Ids that may be drawn.
    end
        Id that ends a sequence and may be drawn too; None for none.
    stop
        Strings that end a sequence.
    least
        Tokens before which nothing ends a sequence.
    penalty
        What scores of tokens that came before are divided by, or multiplied with if negative.
    distinct
        Tokens of which none that lie side by side may come twice.
    """

    length: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    allowed: Sequence[int]
    end: int | None = None
    stop: tuple[str, ...] = ()
    least: int = 0
    penalty: float | None = None
    distinct: int | None = None


def draw(scores_BV: Tensor, allowed_A: Tensor, chance_B: Tensor, how: Sampling) -> Tensor:
    """Choose one token for each row.

    Parameters
    ----------
    scores_BV
        Unnormalised scores.
    allowed_A
        Ids to choose from.
    chance_B
        Random numbers, even over [0, 1): where in the cumulative distribution to choose. A row's
        choice depends on its own number alone.
    how
        Its temperature, `top_k` and `top_p`, applied in this order to the allowed tokens.

    Returns
    -------
    Ids, shape (B,).

    Examples
    --------
    >>> scores, ids = torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([0, 2])
    >>> half = Sampling(length=1, allowed=[0, 2])
    >>> [draw(scores, ids, torch.tensor([c]), half).item() for c in (0.4, 0.6)]
    [0, 2]
    """
    scores_BA = scores_BV[:, allowed_A]
    if how.temperature == 0:
        return allowed_A[scores_BA.argmax(-1)]
    scores_BA = scores_BA.double() / how.temperature
    if how.top_k is not None and how.top_k < len(allowed_A):
        least = scores_BA.topk(how.top_k).values[:, -1:]
        scores_BA = scores_BA.masked_fill(scores_BA < least, -math.inf)
    shares_BA = scores_BA.softmax(-1)
    if how.top_p is not None:
        ordered = shares_BA.sort(dim=-1, descending=True, stable=True)
        before = ordered.values.cumsum(-1) - ordered.values
        dropped = ordered.values.masked_fill(before >= how.top_p, 0.0)
        shares_BA = torch.zeros_like(shares_BA).scatter(-1, ordered.indices, dropped)
    sums_BA = shares_BA.cumsum(-1)
    place_B = (sums_BA <= chance_B[:, None] * sums_BA[:, -1:]).sum(-1)
    return allowed_A[place_B.clamp_(max=len(allowed_A) - 1)]


class Restraint:
    """What keeps tokens from being drawn that would repeat others or end a sequence too early.

    Parameters
    ----------
    sampling
        How tokens are chosen.
    histories
        Ids that came before, of each row.
    drawn
        How many of these count as part of the new sequence.
    """

    def __init__(
        self, sampling: Sampling, histories: Sequence[Sequence[int]], drawn: Sequence[int]
    ):
        self.how, self._counts = sampling, list(drawn)
        self._history = [list(tokens) for tokens in histories]
        self._after: list[dict[tuple[int, ...], set[int]]] = [{} for _ in histories]
        if sampling.distinct is not None:
            for row, tokens in enumerate(self._history):
                for end in range(sampling.distinct, len(tokens) + 1):
                    self._note(row, tokens[end - sampling.distinct : end])

    def __call__(self, scores_BV: Tensor) -> Tensor:
        """Return the scores to draw from; those given stay as they are."""
        how = self.how
        early = [row for row, count in enumerate(self._counts) if count < how.least]
        holds_end = how.end is not None and early
        if how.penalty is None and how.distinct is None and not holds_end:
            return scores_BV
        scores_BV = scores_BV.clone()
        if how.penalty is not None:
            for row, tokens in enumerate(self._history):
                ids = torch.tensor(sorted(set(tokens)), device=scores_BV.device)
                seen = scores_BV[row, ids]
                softer = torch.where(seen > 0, seen / how.penalty, seen * how.penalty)
                scores_BV[row, ids] = softer
        if holds_end:
            scores_BV[early, how.end] = -math.inf
        if how.distinct is not None:
            for row, tokens in enumerate(self._history):
                last = tuple(tokens[len(tokens) - how.distinct + 1 :])
                banned = self._after[row].get(last, set())
                if banned and not banned >= set(how.allowed):
                    scores_BV[row, sorted(banned)] = -math.inf
        return scores_BV

    def take(self, ids_B: Tensor) -> None:
        """Remember what was drawn."""
        self._counts = [count + 1 for count in self._counts]
        if self.how.penalty is None and self.how.distinct is None:
            return
        for row, (tokens, id) in enumerate(zip(self._history, ids_B.tolist(), strict=True)):
            tokens.append(id)
            if self.how.distinct is not None and len(tokens) >= self.how.distinct:
                self._note(row, tokens[-self.how.distinct :])

    def _note(self, row: int, word: list[int]) -> None:
        self._after[row].setdefault(tuple(word[:-1]), set()).add(word[-1])
