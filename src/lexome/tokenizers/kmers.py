"""K-mers, overlapping or side by side, by arithmetic on byte look-ups."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from lexome.core import InputError
from lexome.tokenizers.base import Encoded, Tokenizer


def kmer_codes(letters: np.ndarray, k: int) -> np.ndarray:
    """Give every k-mer of a sequence its number.

    Parameters
    ----------
    letters
        0 to 3 for each letter, shape (n,), uint8; larger numbers are letters without a place.
    k
        Letters per k-mer, 1 to 15.

    Returns
    -------
    Base-4 numbers of all n - k + 1 k-mers, first letter most significant; 4^k for a k-mer that
    holds a letter without a place. uint16 up to k = 7, int32 above.

    Examples
    --------
    >>> kmer_codes(np.array([0, 1, 2, 3, 4, 0, 1], np.uint8), k=2).tolist()
    [1, 6, 11, 16, 16, 1]
    """
    kind = np.uint16 if k <= 7 else np.int32
    count = len(letters) - k + 1
    if count <= 0:
        return np.zeros(0, kind)
    odd = letters > 3
    clean = letters & 3 if odd.any() else letters
    # Numbers of 1, 2, 4, ... letters are built from those of half the length and put together.
    width, codes, done, numbers = 1, clean.astype(kind), 0, None
    while True:
        if k & width:
            piece = codes[done : done + count]
            numbers = piece if numbers is None else (numbers << (2 * width)) | piece
            done += width
        if done == k:
            break
        codes = (codes[:-width] << (2 * width)) | codes[width:]
        width *= 2
    assert numbers is not None
    if odd.any():
        numbers = numbers.copy() if numbers.base is not None else numbers
        covered = np.zeros(len(letters) + 1, np.int32)
        places = np.flatnonzero(odd)
        np.add.at(covered, np.maximum(places - k + 1, 0), 1)
        np.add.at(covered, places + 1, -1)
        numbers[np.cumsum(covered)[:count] > 0] = 4**k
    return numbers


@dataclass(frozen=True, kw_only=True)
class KmerPreset:
    """A k-mer vocabulary as data.

    Attributes
    ----------
    name
        Name of the preset.
    k, stride
        Letters per token, and letters from one token to the next: 1 overlaps, k lies side by side.
    letters
        The four letters in the order in which the published vocabulary counts, e.g. ``"ATCG"``.
    specials
        Special tokens, ids 0, 1, ...; the k-mers follow.
    pad, unknown, mask, layout
        As in `LetterPreset`. A k-mer that holds another letter is one `unknown`.
    fold_case
        Whether lower-case letters count as upper-case ones.
    max_tokens
        Longest input including special tokens.
    """

    name: str
    k: int
    stride: int = 1
    letters: str = "ACGT"
    specials: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    pad: str = "[PAD]"
    unknown: str = "[UNK]"
    mask: str | None = "[MASK]"
    layout: str = "[CLS] {sequence} [SEP]"
    fold_case: bool = False
    max_tokens: int | None = None


class KmerTokenizer(Tokenizer):
    """One token per k-mer; where k-mers do not overlap, letters left over at the end have none.

    Examples
    --------
    >>> preset = KmerPreset(name="x", k=2, letters="ATCG")
    >>> KmerTokenizer(preset)(["AATN"])["input_ids"].tolist()
    [[2, 5, 6, 1, 3]]
    """

    def __init__(self, preset: KmerPreset):
        if not 1 <= preset.k <= 12:
            raise InputError(f"k is {preset.k}; k-mer tables are made for 1 to 12 letters.")
        index = {token: i for i, token in enumerate(preset.specials)}
        before, after = preset.layout.split("{sequence}")
        super().__init__(
            pad=index[preset.pad],
            unknown=index[preset.unknown],
            mask=index[preset.mask] if preset.mask else None,
            prefix=[index[t] for t in before.split()],
            suffix=[index[t] for t in after.split()],
            max_tokens=preset.max_tokens,
        )
        self.preset = preset
        table = bytearray([4] * 256)
        for place, letter in enumerate(preset.letters):
            table[ord(letter)] = place
            if preset.fold_case:
                table[ord(letter.lower())] = place
        self._table = bytes(table)

    @cached_property
    def _words(self) -> tuple[str, ...]:
        kmers = map("".join, product(self.preset.letters, repeat=self.preset.k))
        return (*self.preset.specials, *kmers)

    @property
    def vocabulary(self) -> Sequence[str]:
        """Tokens in id order."""
        return self._words

    def encode(self, items: Sequence[str]) -> list[Encoded]:
        """Turn sequences into ids, one per k-mer."""
        # One pass over all items laid end to end; k-mers across a border are left out.
        k, stride = self.preset.k, self.preset.stride
        letters = "".join(items).encode("ascii", "replace").translate(self._table)
        ids = kmer_codes(np.frombuffer(letters, np.uint8), k)
        odd = ids == 4**k
        ids = ids + ids.dtype.type(len(self.preset.specials))
        ids[odd] = self.unknown
        ends = np.cumsum([len(text) for text in items]).tolist()
        starts = [end - len(text) for text, end in zip(items, ends, strict=True)]
        return [
            {"input_ids": ids[start : max(start, end - k + 1) : stride]}
            for start, end in zip(starts, ends, strict=True)
        ]

    def spans(self, item: str) -> np.ndarray:
        """Return the letters that each token covers, shape (tokens, 2)."""
        starts = np.arange(0, len(item) - self.preset.k + 1, self.preset.stride, dtype=np.int64)
        return np.stack([starts, starts + self.preset.k], axis=1).reshape(-1, 2)
