"""Log-likelihood by causal models at any length: in stretches, or only behind what was changed.

Where all that a model remembers of earlier tokens is a state, or keys and values, a long sequence
goes through in stretches and the memory is carried from one to the next: the numbers are those of
one pass. Memory then does not grow with the length, but for the keys and values of attention.
Hyena's implicit filters are as long as their input and leave no state: such models take a sequence
in one pass, whose memory grows with the length.
Axes: B batch, L tokens, C tokens of a stretch, N scored tokens, D width, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lexome.blocks import DecodeCache
from lexome.inference.batching import collate_rows, enough_memory, plan_batches
from lexome.inference.reading import tokenizer_of
from lexome.inference.stretches import stretch_tokens, stretches
from lexome.model import Model
from lexome.tokenizers import Tokenizer

_TOGETHER = 8192  # tokens whose scores over the vocabulary are made at a time


@dataclass(frozen=True)
class TokenScores:
    """What a causal model says of tokens given all before them.

    Attributes
    ----------
    logprobs_N
        Log-probability of each, float32, natural log.
    entropies_N
        Entropy of the distribution over the whole vocabulary, in nats; None if not asked for.
    """

    logprobs_N: Tensor
    entropies_N: Tensor | None = None


def score_tokens(
    model: Model,
    inputs: Mapping[str, Tensor],
    rows_N: Tensor,
    columns_N: Tensor,
    *,
    stretch: int | None = None,
    entropies: bool = False,
    done: Callable[[float], object] = lambda share: None,
) -> TokenScores:
    """Score tokens of a batch; never holds the scores of more than a few thousand at a time.

    Parameters
    ----------
    model
        A causal model with its token head.
    inputs
        A batch as :func:`lexome.inference.batching.batches` makes it, on the model's device.
    rows_N, columns_N
        The tokens to score. No column may be 0: nothing stands before it.
    stretch
        Let so many columns through at a time and carry the model's memory; see `carries_state`.
    entropies
        Whether to compute these too.
    done
        Told the share of the batch that was done, again and again.
    """
    ids_BL = inputs["input_ids"]
    length = ids_BL.shape[1]
    logprobs_N = torch.empty(len(rows_N), device=ids_BL.device)
    entropies_N = torch.empty_like(logprobs_N) if entropies else None
    with torch.no_grad():
        for first, part in stretches(inputs, stretch):
            hidden_BCD = model.backbone(**part).last
            stop = first + hidden_BCD.shape[1]
            here = ((columns_N > first) & (columns_N <= stop)).nonzero()[:, 0]
            for some in here.split(_TOGETHER):
                rows, columns = rows_N[some], columns_N[some]
                scores_NV = _scores(model, hidden_BCD[rows, columns - 1 - first], inputs)
                targets_N = ids_BL[rows, columns]
                logprobs_N[some] = scores_NV.gather(1, targets_N[:, None])[:, 0]
                if entropies_N is not None:
                    entropies_N[some] = entropies_of(scores_NV)
            done((stop - first) / length)
    return TokenScores(logprobs_N, entropies_N)


def entropies_of(logprobs_NV: Tensor) -> Tensor:
    """Return the entropy of distributions given by their logarithms, in nats, shape (N,)."""
    shares_NV = logprobs_NV.exp()
    return -torch.special.xlogy(shares_NV, shares_NV).sum(-1)


def unscored_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """Return the ids of tokens that stand for no base in particular: the unknown one, and Ns."""
    ids = [i for i, token in enumerate(tokenizer.vocabulary) if token and not token.strip("Nn")]
    return np.array(ids if tokenizer.unknown is None else [*ids, tokenizer.unknown], np.int64)


def token_logprobs(
    model: Model, inputs: Mapping[str, Tensor], rows_N: Tensor, columns_N: Tensor
) -> Tensor:
    """Return the log-probabilities of `score_tokens`, shape (N,)."""
    return score_tokens(model, inputs, rows_N, columns_N).logprobs_N


def _scores(model: Model, hidden_ND: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    assert model.head is not None, "checked by the caller"
    return model.head(hidden_ND, inputs).float().log_softmax(-1)


# --------------------------------------------------------------------------- changes


@dataclass(frozen=True)
class Trunk:
    """A sequence and changed forms of it, as token ids with what the tokenizer puts in front.

    Attributes
    ----------
    ids
        The sequence, shape (L,).
    branches
        The changed ones, of any lengths.
    """

    ids: np.ndarray
    branches: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class TrunkScores:
    """What a model says of a sequence and of changed forms of it.

    Attributes
    ----------
    loglik
        Log-likelihood of the sequence, in nats.
    deltas_N
        That of each changed form minus it, float64.
    """

    loglik: float
    deltas_N: np.ndarray


def branch_logliks(
    model: Model,
    trunks: Sequence[Trunk],
    *,
    unscored: np.ndarray,
    max_tokens: int,
    done: Callable[[int], object] = lambda count: None,
) -> list[TrunkScores]:
    """Score changed sequences by a model that `carries_state`, from the change on.

    What stands before a change is run once for all; there the model's memory is copied for each
    changed form, and only what follows is run. Trunks of one length go through together.

    Parameters
    ----------
    model
        A causal model with its token head.
    trunks
        The sequences.
    unscored
        Ids of tokens that are seen but not scored.
    max_tokens
        Most tokens of a batch.
    done
        Told how many trunks were done, again and again.

    Returns
    -------
    One for each trunk.
    """
    found: dict[int, TrunkScores] = {}
    places = [[_first_difference(t.ids, branch) for branch in t.branches] for t in trunks]
    order = sorted(range(len(trunks)), key=lambda i: (len(trunks[i].ids), places[i]))
    at = 0
    while at < len(order):
        length = len(trunks[order[at]].ids)
        some = [
            i
            for i in order[at : at + max(1, max_tokens // max(1, length))]
            if len(trunks[i].ids) == length
        ]
        with enough_memory([length] * len(some)), torch.no_grad():
            walk = _Walk(model, [trunks[i] for i in some], unscored, max_tokens)
            found.update(zip(some, walk.run([places[i] for i in some]), strict=True))
        done(len(some))
        at += len(some)
    return [found[i] for i in range(len(trunks))]


def change_logliks(
    model: Model, changes: Mapping[str, Sequence[str]], *, max_tokens: int
) -> dict[tuple[str, str], float]:
    """Score changed texts as `branch_logliks` does.

    Parameters
    ----------
    model
        A causal model that `carries_state`, with its token head.
    changes
        {text: its changed forms}, all within the model's context.
    max_tokens
        Most tokens of a batch.

    Returns
    -------
    {(text, changed form): log-likelihood of the latter minus that of the former}, in nats.
    """
    found = _text_scores(model.to_score(), changes, max_tokens)
    return {
        (text, form): float(delta)
        for (text, forms), scores in zip(changes.items(), found, strict=True)
        for form, delta in zip(forms, scores.deltas_N, strict=True)
    }


def per_base_logliks(
    model: Model, changes: Mapping[str, Sequence[str]], *, max_tokens: int
) -> dict[str, float | None]:
    """Score texts and their changed forms as `branch_logliks` does, per letter.

    Parameters
    ----------
    model, changes, max_tokens
        As for `change_logliks`.

    Returns
    -------
    {text or changed form: mean log-likelihood of a scored letter}, in nats; None where none is.
    """
    model = model.to_score()
    found = _text_scores(model, changes, max_tokens)
    logliks: dict[str, float] = {}
    for (text, forms), scores in zip(changes.items(), found, strict=True):
        logliks[text] = scores.loglik
        for form, delta in zip(forms, scores.deltas_N, strict=True):
            logliks[form] = scores.loglik + float(delta)
    bases = {text: _scored_bases(model, text) for text in logliks}
    return {text: loglik / bases[text] if bases[text] else None for text, loglik in logliks.items()}


def _text_scores(
    model: Model, changes: Mapping[str, Sequence[str]], max_tokens: int
) -> list[TrunkScores]:
    tokenizer = tokenizer_of(model)
    texts = list(dict.fromkeys(t for text, forms in changes.items() for t in (text, *forms)))
    encoded = (tokenizer.wrap(e)["input_ids"] for e in tokenizer.encode(texts))
    ids = {t: e[: len(e) - len(tokenizer.suffix)] for t, e in zip(texts, encoded, strict=True)}
    trunks = [Trunk(ids[t], tuple(ids[form] for form in forms)) for t, forms in changes.items()]
    return branch_logliks(model, trunks, unscored=unscored_tokens(tokenizer), max_tokens=max_tokens)


def _scored_bases(model: Model, text: str) -> int:
    """Count the letters of the tokens that are scored: known, with something before them."""
    tokenizer = tokenizer_of(model)
    (encoded,) = tokenizer.encode([text])
    scored_N = ~np.isin(encoded["input_ids"], unscored_tokens(tokenizer))
    if not tokenizer.prefix:
        scored_N[:1] = False
    spans_N2 = tokenizer.spans(text)[scored_N]
    return int((spans_N2[:, 1] - spans_N2[:, 0]).sum())


def _first_difference(one: np.ndarray, other: np.ndarray) -> int:
    shared = min(len(one), len(other))
    differ = np.flatnonzero(one[:shared] != other[:shared])
    return int(differ[0]) if len(differ) else shared


class _Walk:
    """Some trunks of equal length on their way through the model, side by side."""

    def __init__(
        self, model: Model, trunks: Sequence[Trunk], unscored: np.ndarray, max_tokens: int
    ):
        self.model, self.trunks, self.max_tokens = model, trunks, max_tokens
        self.unscored = torch.from_numpy(unscored).to(model.device)
        self.length = len(trunks[0].ids)
        ids_BL = np.stack([trunk.ids for trunk in trunks]).astype(np.int64)
        self.ids_BL = torch.from_numpy(ids_BL).to(model.device)
        longest = max(len(b) for trunk in trunks for b in (trunk.ids, *trunk.branches))
        self.cache = DecodeCache(longest)
        self.last_BD: Tensor | None = None  # hidden state before the next token
        self.stretch = stretch_tokens(model, longest, None, max_tokens)

    def run(self, places: Sequence[Sequence[int]]) -> list[TrunkScores]:
        """Score the trunks, and the branches, which leave them at their places."""
        B, L = self.ids_BL.shape
        own_BL = torch.zeros(B, L, dtype=torch.float64)
        scores = [np.zeros(len(row)) for row in places]
        at = 0
        for stop in sorted({p for row in places for p in row} | {L}):
            if stop > at:
                part_BL = self.ids_BL[:, at:stop]
                own_BL[:, at:stop], self.last_BD = self._pass(
                    {"input_ids": part_BL}, self.cache, self.last_BD
                )
                at = stop
            leaving = [(b, k) for b, row in enumerate(places) for k, p in enumerate(row) if p == at]
            for (b, k), score in zip(leaving, self._leave(leaving, at), strict=True):
                scores[b][k] = score
        behind_BL = torch.cat([own_BL, own_BL.new_zeros(B, 1)], 1).flip(1).cumsum(1).flip(1)
        return [
            TrunkScores(
                float(behind_BL[b, 0]), scores[b] - behind_BL[b, [int(p) for p in row]].numpy()
            )
            for b, row in enumerate(places)
        ]

    def _leave(self, leaving: Sequence[tuple[int, int]], at: int) -> list[float]:
        """Return the log-likelihood of branches from the place on at which they leave."""
        ends = [self.trunks[b].branches[k][at:] for b, k in leaving]
        scores = [0.0] * len(ends)
        for batch in plan_batches([len(end) for end in ends], self.max_tokens):
            if not len(ends[batch[0]]):
                continue  # nothing stands behind; longest come first
            rows_B = torch.tensor([leaving[i][0] for i in batch], device=self.model.device)
            cache = self.cache.fork(rows_B)
            last_BD = None if self.last_BD is None else self.last_BD[rows_B]
            rows = [{"input_ids": ends[i]} for i in batch]
            inputs = collate_rows(tokenizer_of(self.model), rows, self.model.device)
            found_BL, _ = self._pass(inputs, cache, last_BD)
            for i, row in zip(batch, found_BL.tolist(), strict=True):
                scores[i] = sum(row[: len(ends[i])])
        return scores

    def _pass(
        self, inputs: Mapping[str, Tensor], cache: DecodeCache, last_BD: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run tokens behind those that the cache has seen; 0 where one is not scored.

        Returns
        -------
        Log-probabilities (B, L), float64 on the CPU, and the hidden state of the last column.
        """
        ids_BL = inputs["input_ids"]
        B, L = ids_BL.shape
        found_BL = torch.zeros(B, L, dtype=torch.float64)
        for first, part in stretches(inputs, self.stretch, cache):
            hidden_BCD = self.model.backbone(**part).last
            before_BCD = hidden_BCD[:, :-1]
            if last_BD is not None:
                before_BCD = torch.cat([last_BD[:, None], before_BCD], 1)
            stop = first + hidden_BCD.shape[1]
            start = stop - before_BCD.shape[1]
            targets_BC = ids_BL[:, start:stop]
            logprobs = self._of(before_BCD.flatten(0, 1), targets_BC.flatten(), inputs)
            scored_BC = ~torch.isin(targets_BC, self.unscored)
            if "attention_mask" in inputs:
                scored_BC &= inputs["attention_mask"][:, start:stop] > 0
            found_BL[:, start:stop] = (logprobs.view(B, -1) * scored_BC).cpu().double()
            last_BD = hidden_BCD[:, -1]
        assert last_BD is not None, "there is at least one token"
        return found_BL, last_BD

    def _of(self, hidden_ND: Tensor, targets_N: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        parts = [
            _scores(self.model, hidden, inputs).gather(1, targets[:, None])[:, 0]
            for hidden, targets in zip(
                hidden_ND.split(_TOGETHER), targets_N.split(_TOGETHER), strict=True
            )
        ]
        return torch.cat(parts) if parts else hidden_ND.new_zeros(0)
