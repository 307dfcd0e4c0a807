"""Interpolated Markov models of DNA: the honest baseline of every next-letter model.

The probability of letter x after the k letters h is the count c_k(h, x) drawn towards the model
one order lower, as if that model had been seen another m times after h:

    p_k(x | h) = (c_k(h, x) + m p_{k-1}(x | h')) / (n_k(h) + m),   p_{-1} = 1/4

with n_k(h) = sum over x of c_k(h, x) and h' = h without its first letter. This is a Dirichlet
prior centred on the lower order (MacKay & Peto 1995, Natural Language Engineering 1:289). A long
context weighs in only where it has been seen often, so higher orders do not overfit as plain
counts do. m = 300 is near the optimum for bacterial genomes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lexome.core import InputError

MAX_ORDER = 12
"""Order 12 keeps 4**13 counts, 268 MB; every further order needs four times as much."""

_OTHER = 4
_CODE = np.full(256, _OTHER, np.uint8)
for _code, _letters in enumerate((b"Aa", b"Cc", b"Gg", b"TtUu")):
    _CODE[list(_letters)] = _code
_COMPLEMENT = np.array([3, 2, 1, 0, _OTHER], np.uint8)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class MarkovModel:
    """Counts of orders 0 to `order` and the rule that blends them.

    Parameters
    ----------
    order
        Letters of context, at most `MAX_ORDER`.
    counts
        One array per order k, shape (4**k, 4), rows are contexts in base 4 (A C G T = 0 1 2 3, the
        latest letter last), columns the next letter.
    prior_counts
        The m of the formula: how many observations the lower order stands for.

    Examples
    --------
    >>> model = MarkovModel.fit(["ACGTACGTACGT" * 200], order=2)
    >>> round(model.bits_per_base(["ACGTACGT" * 20]), 2)
    0.06
    """

    order: int
    counts: tuple[NDArray[np.uint32], ...]
    prior_counts: float

    @classmethod
    def fit(
        cls,
        sequences: Iterable[str | bytes],
        order: int,
        *,
        both_strands: bool = True,
        prior_counts: float = 300.0,
    ) -> Self:
        """Count every context of up to `order` letters.

        Parameters
        ----------
        sequences
            DNA or RNA, any case. Letters other than A C G T U end a context: nothing that holds
            one is counted. Each sequence is dropped after it is counted.
        order
            Letters of context, 0 to `MAX_ORDER`.
        both_strands
            Count the reverse complement of each sequence too.
        prior_counts
            The m of the formula, above 0.

        Raises
        ------
        InputError
            If `order` or `prior_counts` is out of range, or no letter could be counted.
        """
        if not 0 <= order <= MAX_ORDER:
            raise InputError(
                f"order {order} was asked for; a Markov model here has order 0 to {MAX_ORDER}. "
                "Choose an order in that range."
            )
        if not prior_counts > 0:
            raise InputError(f"prior_counts is {prior_counts}; it must be above 0, e.g. 300.")
        counts = [np.zeros(4 ** (k + 1), np.uint32) for k in range(order + 1)]
        for letters in _encoded(sequences):
            _count(letters, counts)
            if both_strands:
                _count(_COMPLEMENT[letters[::-1]], counts)
        for k in range(order, 0, -1):
            counts[k - 1] += counts[k].reshape(4, -1).sum(0, dtype=np.uint32)
        if not counts[0].any():
            raise InputError(
                "the training sequences hold no letter of A C G T U. "
                "Check that they are nucleotides and not empty."
            )
        return cls(order, tuple(c.reshape(-1, 4) for c in counts), prior_counts)

    def log2_likelihood(self, sequence: str | bytes) -> NDArray[np.float64]:
        """Score each letter of a sequence given the letters before it.

        Parameters
        ----------
        sequence
            DNA or RNA, any case.

        Returns
        -------
        Shape (letters,), log2 p(letter | up to `order` letters before it). After the start and
        after an unknown letter the context is as long as it can be. Unknown letters are NaN.
        """
        (letters,) = _encoded([sequence])
        parts = [
            np.log2(p)
            for k, p in _probabilities(letters, self.counts, self.prior_counts)
            if k == self.order
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def bits_per_base(self, sequences: Iterable[str | bytes]) -> float:
        """Return the mean of -log2 p over all known letters of `sequences`.

        Raises
        ------
        InputError
            If no letter could be scored.
        """
        return float(self._bits_by_order(sequences)[self.order])

    def sample(self, prompts: Sequence[str], length: int, *, seed: int = 0) -> list[str]:
        """Continue sequences letter by letter.

        Parameters
        ----------
        prompts
            DNA or RNA, any case, each with `order` known letters at its end.
        length
            Letters to write for each.
        seed
            Of the random numbers.

        Returns
        -------
        The new letters of each, A C G T.

        Raises
        ------
        InputError
            If a prompt does not end in `order` known letters.
        """
        tails = [each[len(each) - self.order :] for each in _encoded(prompts)]
        for prompt, tail in zip(prompts, tails, strict=True):
            if len(tail) < self.order or (tail == _OTHER).any():
                raise InputError(
                    f"the prompt {prompt[-20:]!r} is to be continued by a model of order "
                    f"{self.order}. Expected that many letters of A C G T U at its end; give more."
                )
        context = np.stack(tails).astype(np.int64) @ 4 ** np.arange(self.order)[::-1]
        chances = np.random.default_rng(seed).random((length, len(prompts), 1))
        written = np.empty((length, len(prompts)), np.uint8)
        for step, chance in enumerate(chances):
            p = np.full((len(prompts), 4), 0.25)
            for k, table in enumerate(self.counts):
                seen = table[context & (4**k - 1)]
                total = seen.sum(1, keepdims=True, dtype=np.float64)
                p = (seen + self.prior_counts * p) / (total + self.prior_counts)
            # The last sum is 1 but for rounding: letter 3 takes what is left.
            written[step] = (p.cumsum(1)[:, :3] <= chance).sum(1)
            context = (context << 2 | written[step]) & (4**self.order - 1)
        letters = np.frombuffer(b"ACGT", np.uint8)[written.T]
        return [row.tobytes().decode() for row in letters]

    def _bits_by_order(self, sequences: Iterable[str | bytes]) -> NDArray[np.float64]:
        bits = np.zeros(self.order + 1)
        scored = 0
        for letters in _encoded(sequences):
            scored += int((letters != _OTHER).sum())
            for k, p in _probabilities(letters, self.counts, self.prior_counts):
                bits[k] -= np.nansum(np.log2(p))
        if not scored:
            raise InputError(
                "the sequences to score hold no letter of A C G T U. "
                "Check that they are nucleotides and not empty."
            )
        return bits / scored


@dataclass(frozen=True)
class MarkovComparison:
    """Bits per base of interpolated Markov models on sequences they were not fitted to.

    Parameters
    ----------
    bits_per_base
        Order to bits per base, ascending order.
    """

    bits_per_base: dict[int, float]

    @property
    def best_order(self) -> int:
        """The order with the fewest bits per base, the lowest of equals."""
        return min(self.bits_per_base, key=lambda order: self.bits_per_base[order])

    @property
    def best_bits_per_base(self) -> float:
        """Bits per base at `best_order`."""
        return self.bits_per_base[self.best_order]


def best_markov(
    train: Iterable[str | bytes],
    test: Iterable[str | bytes],
    orders: Sequence[int] = range(MAX_ORDER + 1),
    *,
    both_strands: bool = True,
    prior_counts: float = 300.0,
) -> MarkovComparison:
    """Fit on `train`, score `test`, for each order; one pass over each serves all orders.

    Choosing the best order on `test` itself favours the baseline, which is the honest side to err
    on when a language model is compared with it.

    Parameters
    ----------
    train, test
        DNA or RNA sequences.
    orders
        Which orders to report, each 0 to `MAX_ORDER`.
    both_strands, prior_counts
        As in `MarkovModel.fit`.
    """
    wanted = sorted(set(orders))
    if not wanted:
        raise InputError("no Markov order was given. Name at least one, e.g. orders=range(13).")
    if wanted[0] < 0:
        raise InputError(f"order {wanted[0]} was asked for; orders start at 0.")
    model = MarkovModel.fit(train, wanted[-1], both_strands=both_strands, prior_counts=prior_counts)
    bits = model._bits_by_order(test)
    return MarkovComparison({order: float(bits[order]) for order in wanted})


def _encoded(sequences: Iterable[str | bytes]) -> Iterator[NDArray[np.uint8]]:
    if isinstance(sequences, str | bytes):
        raise InputError("one sequence was given where several are expected. Pass [sequence].")
    for sequence in sequences:
        # Anything outside Latin-1 becomes "?", an unknown letter like any other.
        raw = sequence.encode("latin-1", "replace") if isinstance(sequence, str) else sequence
        yield _CODE[np.frombuffer(raw, np.uint8)]


def _contexts(
    letters: NDArray[np.uint8], order: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int64]]]:
    """Yield chunks of letters, their (order + 1)-mer codes and the known letters before each."""
    run = 0  # known letters in an unbroken row before the chunk
    tail = np.zeros(order, np.uint8)
    for start in range(0, len(letters), _CHUNK):
        chunk = letters[start : start + _CHUNK]
        known = chunk != _OTHER
        position = np.arange(len(chunk))
        last_unknown = np.maximum.accumulate(np.where(known, -1 - run, position))
        before = np.where(known, position - last_unknown - 1, 0)
        padded = np.concatenate([tail, np.where(known, chunk, 0)])
        codes = np.zeros(len(chunk), np.int32)
        for shift in range(order + 1):
            codes <<= 2
            codes |= padded[shift : shift + len(chunk)]
        yield chunk, codes, before
        run = int(before[-1] + 1) if known[-1] else 0
        tail = padded[len(chunk) :]


def _count(letters: NDArray[np.uint8], counts: list[NDArray[np.uint32]]) -> None:
    """Add each letter once, at the longest context it has; `fit` sums down to shorter ones."""
    order = len(counts) - 1
    for chunk, codes, before in _contexts(letters, order):
        _add(counts[order], codes[(before >= order) & (chunk != _OTHER)])
        for k in range(min(order, int(before.max()) + 1)):
            short = codes[(before == k) & (chunk != _OTHER)]
            if len(short):
                _add(counts[k], short & (4 ** (k + 1) - 1))


def _add(counts: NDArray[np.uint32], codes: NDArray[np.int32]) -> None:
    # Sorting makes the walk over the 268 MB table sequential: 5x faster than np.add.at, and
    # np.bincount would allocate the table a second time, twice as large.
    codes = np.sort(codes)
    first = np.flatnonzero(np.diff(codes, prepend=-1))
    counts[codes[first]] += np.diff(first, append=len(codes)).astype(np.uint32)


def _probabilities(
    letters: NDArray[np.uint8], counts: Sequence[NDArray[np.uint32]], prior_counts: float
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield (order, probability of each letter) for every order, chunk by chunk."""
    order = len(counts) - 1
    for chunk, codes, before in _contexts(letters, order):
        p = np.where(chunk != _OTHER, 0.25, np.nan)
        for k, table in enumerate(counts):
            code = codes & (4 ** (k + 1) - 1)
            rows = table[code >> 2]
            seen = rows[np.arange(len(rows)), code & 3]
            total = rows.sum(1, dtype=np.float64)
            p = np.where(before >= k, (seen + prior_counts * p) / (total + prior_counts), p)
            yield k, p
