"""Cells to gene ids and binned expression values."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from lexome.core import InputError, pick
from lexome.formats.h5ad import CellRecord
from lexome.tokenizers.base import Encoded, Tokenizer

Ties = Literal["middle", "random"]


def bin_values(values: np.ndarray, bins: int, draws: np.ndarray | None = None) -> np.ndarray:
    """Bin a cell's expression values by their own quantiles, as scGPT does.

    The ``bins - 1`` edges are the quantiles 0 to 1 of the values, evenly spaced. A value falls into
    the bin whose number is the count of edges up to and including it; equal values that lie on
    several edges may be in any bin from the first of these edges to the last.

    Parameters
    ----------
    values
        Values other than zero, shape (genes,), at least one. Zero is bin 0 and not given here.
    bins
        Number of bins, zero's included.
    draws
        Numbers from 0 (included) to 1 (excluded), one per value: a tie takes that share of the way
        through its range, as the authors do at random. None takes the middle of the range, the
        lower one of two.

    Returns
    -------
    Bins 1 to ``bins - 1``, shape (genes,), float32.

    References
    ----------
    Cui et al. 2024, Nature Methods 21, 1470, methods, "Input embeddings".

    Examples
    --------
    >>> bin_values(np.array([1.0, 2.0, 3.0], np.float32), bins=5).tolist()
    [1.0, 2.0, 4.0]
    >>> bin_values(np.array([1.0, 1.0, 1.0, 9.0], np.float32), bins=5).tolist()
    [2.0, 2.0, 2.0, 4.0]
    """
    edges = np.quantile(values, np.linspace(0, 1, bins - 1))
    high = np.searchsorted(edges, values, side="right")
    low = np.searchsorted(edges, values, side="left")  # below the first bin that may be taken
    if draws is None:
        chosen = (low + high + 1) // 2
    else:
        chosen = high - np.floor(draws * (high - low)).astype(np.int64)
    return np.where(high > low, chosen, high).astype(np.float32)


class CellTokenizer(Tokenizer):
    """One token per expressed gene: its id and its bin among the cell's values.

    Genes are matched by exact, case-sensitive name; those that the vocabulary does not have are
    left out before binning, and `measure_unknown` counts them. A name that stands twice makes two
    tokens, as in the authors' code. The authors draw the bins of equal values, and the genes of a
    cell that has too many, from a global random generator. Here both depend on the cell alone, not
    on its place in the file, its batch or the order of its genes.

    Parameters
    ----------
    vocabulary
        {token: id}, genes and special tokens.
    bins
        Number of bins, that of zero included.
    max_tokens
        A cell with more tokens keeps a draw of its genes.
    pad, cls
        The special tokens by name.
    pad_value, mask_value
        Values at padding and at the ``cls`` token, and at genes whose value is to be predicted.
    ties
        ``"middle"`` gives equal values the middle of the bins that they could have;
        ``"random"`` draws for each gene, as the authors do.
    seed
        Another number gives other draws.

    Examples
    --------
    >>> from lexome.formats.h5ad import CellRecord
    >>> tokenizer = CellTokenizer({"<pad>": 0, "<cls>": 1, "CD4": 2, "MS4A1": 3}, max_tokens=10)
    >>> cell = CellRecord("c1", np.array(["MS4A1", "cd4", "CD4"]), np.array([0, 1, 2]),
    ...                   np.array([7.0, 1.0, 2.0], np.float32), {})
    >>> batch = tokenizer(cell)
    >>> batch["input_ids"].tolist(), batch["values"].tolist()
    ([[1, 3, 2]], [[-2.0, 50.0, 1.0]])
    >>> tokenizer.measure_unknown(cell)
    (1, 3)
    """

    item: ClassVar[str] = "cell"
    makes_remarks: ClassVar[bool] = True

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        *,
        bins: int = 51,
        max_tokens: int = 1200,
        pad: str = "<pad>",
        cls: str = "<cls>",
        pad_value: float = -2.0,
        mask_value: float = -1.0,
        ties: Ties = "middle",
        seed: int = 0,
    ):
        super().__init__(
            pad=vocabulary[pad],
            prefix=[vocabulary[cls]],
            max_tokens=max_tokens,
            padding={"values": pad_value},
            special={"values": pad_value},
        )
        self.bins, self.mask_value = bins, mask_value
        self.ties, self.seed = pick("rule for ties", ties, ("middle", "random")), seed
        self._index = dict(vocabulary)
        self._matched: tuple[np.ndarray | None, np.ndarray] = (None, np.zeros(0, np.int64))

    @property
    def vocabulary(self) -> Sequence[str]:
        """Tokens in id order; an id without a token is an empty string."""
        tokens = [""] * (max(self._index.values()) + 1)
        for token, i in self._index.items():
            tokens[i] = token
        return tokens

    def match(self, genes: np.ndarray) -> np.ndarray:
        """Return the id of each gene name, -1 where the vocabulary has none, shape (genes,)."""
        known, ids = self._matched
        if known is not genes:  # all cells of a file share one array
            ids = np.array([self._index.get(str(gene), -1) for gene in genes], np.int64)
            self._matched = (genes, ids)
        return ids

    def encode(self, items: Sequence[CellRecord]) -> list[Encoded]:
        """Turn cells into gene ids and bins, in the order of their genes.

        Raises
        ------
        InputError
            If a value is negative or no number: such values are not counts.
        """
        return [self._encode(cell) for cell in items]

    def _encode(self, cell: CellRecord) -> Encoded:
        values = np.asarray(cell.values, np.float32)
        ids = self.match(cell.genes)[cell.indices]
        if len(values) and not (values.min() >= 0 and np.isfinite(values.max())):
            raise InputError(
                f"cell {cell.id} has the value {values[~(values >= 0) | ~np.isfinite(values)][0]}. "
                "Expected counts of at least 0; name the layer that holds raw counts."
            )
        kept = (ids >= 0) & (values > 0)
        ids, values = ids[kept], values[kept]
        if len(ids):
            draws = _draws(ids, values, 2 * self.seed) if self.ties == "random" else None
            values = bin_values(values, self.bins, draws)
        encoded = {"input_ids": ids.astype(np.int32), "values": values}
        room = None if self.max_tokens is None else self.max_tokens - len(self.prefix)
        return encoded if room is None else self.truncate(encoded, room)

    def truncate(self, encoded: Encoded, tokens: int) -> Encoded:
        """Keep a draw of so many genes; which ones depends on the cell and the seed alone."""
        ids, values = encoded["input_ids"], encoded["values"]
        if len(ids) <= tokens:
            return encoded
        order = np.lexsort((values, _draws(ids, values, 2 * self.seed + 1)))
        kept = np.sort(order[:tokens])
        return {"input_ids": ids[kept], "values": values[kept]}

    def measure_unknown(self, item: CellRecord, encoded: Encoded | None = None) -> tuple[int, int]:
        """Count the expressed genes that the vocabulary does not have, and all expressed genes."""
        ids = self.match(item.genes)[item.indices[item.values != 0]]
        return int(np.count_nonzero(ids < 0)), len(ids)

    def remarks(self, item: CellRecord, encoded: Encoded) -> tuple[str, ...]:
        """Say whether genes were left out by a draw and whether the values look like counts."""
        unknown, expressed = self.measure_unknown(item)
        drawn = len(encoded["input_ids"]) < expressed - unknown
        return (
            *(["a draw of their genes"] if drawn else []),
            *(["apparently log-normalised values"] if looks_logged(item.values) else []),
        )

    def settings(self) -> dict[str, object]:
        """Return the limit, the rule for ties and the seed."""
        return {"max_tokens": self.max_tokens, "ties": self.ties, "seed": self.seed}

    def files(self) -> dict[str, bytes]:
        """Return ``vocab.json``."""
        return {"vocab.json": (json.dumps(self._index, indent=2) + "\n").encode()}


def looks_logged(values: np.ndarray) -> bool:
    """Tell whether a cell's values look like log-normalised expression and not like counts.

    True if they are not all whole numbers and none is above 20, which is e^20 counts per cell.
    Binning keeps their ranks, so that a result is still close to that of counts.

    Examples
    --------
    >>> looks_logged(np.array([0.7, 1.1, 3.2])), looks_logged(np.array([1.0, 3.0]))
    (True, False)
    """
    return bool(len(values) and values.max() <= 20 and (values != np.rint(values)).any())


def _draws(ids: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray:
    """Return a number from 0 to 1 for each gene, made from the cell, the gene and the seed.

    Made by hashing, not by a generator, so that it holds for any order of the genes and for any
    version of numpy.
    """
    genes = _mix(ids.astype(np.uint64) + _mix(np.ascontiguousarray(values).view(np.uint32)))
    cell = _mix(genes.sum(keepdims=True) + np.array([seed % 2**64], np.uint64))
    return (_mix(genes ^ cell) >> np.uint64(11)) * 2.0**-53


def _mix(numbers: np.ndarray) -> np.ndarray:
    """Scatter 64-bit numbers: the finaliser of SplitMix64 (Steele et al. 2014, OOPSLA)."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def read_vocabulary(content: Mapping[str, Any], specials: Sequence[str]) -> dict[str, int]:
    """Check a ``vocab.json`` and add the special tokens it lacks at its end, as scGPT does."""
    vocabulary = {str(token): int(i) for token, i in content.items()}
    for token in specials:
        vocabulary.setdefault(token, len(vocabulary))
    return vocabulary
