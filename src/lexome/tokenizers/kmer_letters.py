"""K-mers side by side and single letters where no k-mer fits, for whole batches at once."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np

from lexome.tokenizers.base import Encoded, Tokenizer

_KMER, _LETTER, _UNKNOWN, _SPACE = range(4)  # kinds of letters
_NO_LETTER, _IS_SPACE = 254, 255  # codes beside those of the letters


@dataclass(frozen=True, kw_only=True)
class KmerLetterPreset:
    """A vocabulary of k-mers and letters as data.

    Attributes
    ----------
    name
        Name of the preset.
    k
        Letters per k-mer.
    letters
        The four letters in the order in which the published vocabulary counts, e.g. ``"ATCG"``.
    specials
        Special tokens, ids 0, 1, ...; the k-mers follow, then the single letters.
    singles
        Letters that are tokens of their own.
    pad, unknown, mask, layout
        As in `LetterPreset`.
    max_tokens
        Longest input including special tokens.
    """

    name: str
    k: int
    letters: str = "ATCG"
    specials: tuple[str, ...] = ("<unk>", "<pad>", "<mask>", "<cls>")
    singles: tuple[str, ...] = ("A", "T", "C", "G", "N")
    pad: str = "<pad>"
    unknown: str = "<unk>"
    mask: str = "<mask>"
    layout: str = "<cls> {sequence}"
    max_tokens: int | None = None


class KmerLetterTokenizer(Tokenizer):
    """From left to right the longest token that fits: k-mers, then what is left over as letters.

    Other letters, lower case among them, are one unknown token as long as they stand together;
    k-mers begin anew behind them, and behind single letters such as N. White space vanishes.
    Special tokens written out in the text are recognised.

    Examples
    --------
    >>> tokenizer = KmerLetterTokenizer(KmerLetterPreset(name="x", k=2))
    >>> tokenizer(["AATNAAxxA"])["input_ids"].tolist()
    [[3, 4, 21, 24, 4, 0, 20]]
    >>> tokenizer.spans("AATNAAxxA").tolist()
    [[0, 2], [2, 3], [3, 4], [4, 6], [6, 8], [8, 9]]
    """

    def __init__(self, preset: KmerLetterPreset):
        index = {token: i for i, token in enumerate(preset.specials)}
        before, after = preset.layout.split("{sequence}")
        super().__init__(
            pad=index[preset.pad],
            unknown=index[preset.unknown],
            mask=index[preset.mask],
            prefix=[index[t] for t in before.split()],
            suffix=[index[t] for t in after.split()],
            max_tokens=preset.max_tokens,
        )
        self.preset = preset
        codes, kinds = bytearray([_NO_LETTER] * 256), bytearray([_UNKNOWN] * 256)
        for letter in filter(str.isspace, map(chr, range(128))):
            codes[ord(letter)], kinds[ord(letter)] = _IS_SPACE, _SPACE
        ids = np.zeros(256, np.int32)
        first = len(preset.specials) + 4**preset.k
        others = [letter for letter in preset.singles if letter not in preset.letters]
        for code, letter in enumerate([*preset.letters, *others]):
            codes[ord(letter)] = code
            kinds[ord(letter)] = _KMER if letter in preset.letters else _LETTER
            ids[code] = first + preset.singles.index(letter)
        ids[_NO_LETTER] = index[preset.unknown]
        self._codes, self._kinds, self._ids = bytes(codes), bytes(kinds), ids
        self._special = re.compile("(" + "|".join(map(re.escape, preset.specials)) + ")")

    @cached_property
    def _words(self) -> tuple[str, ...]:
        kmers = map("".join, product(self.preset.letters, repeat=self.preset.k))
        return (*self.preset.specials, *kmers, *self.preset.singles)

    @property
    def vocabulary(self) -> Sequence[str]:
        """Tokens in id order."""
        return self._words

    def encode(self, items: Sequence[str]) -> list[Encoded]:
        """Turn sequences into ids."""
        if any("<" in text for text in items):
            return [{"input_ids": self._read_special(text)[0]} for text in items]
        ids, spans = self._read(items)
        ends = np.cumsum([0, *map(len, items)])
        cuts = np.searchsorted(spans[:, 0], ends).tolist()
        return [{"input_ids": ids[start:stop]} for start, stop in pairwise(cuts)]

    def spans(self, item: str) -> np.ndarray:
        """Return the letters that each token covers, shape (tokens, 2)."""
        return self._read_special(item)[1]

    def measure_unknown(self, item: str, encoded: Encoded) -> tuple[int, int]:
        """Count unknown letters, and all letters: one unknown token may hide very many."""
        if not self.count_unknown(encoded):
            return 0, len(item)
        letters = np.diff(self.spans(item))[:, 0]
        return int(letters[encoded["input_ids"] == self.unknown].sum()), len(item)

    def files(self) -> dict[str, bytes]:
        """Return ``vocab.txt`` and ``tokenizer_config.json``."""
        settings = {
            "eos_token": None,
            "model_max_length": self.max_tokens,
            "tokenizer_class": "EsmTokenizer",
        }
        return {
            "vocab.txt": "\n".join(self.vocabulary).encode(),
            "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode(),
        }

    def _read_special(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Read one text in which special tokens may be written out."""
        ids, spans, at = [], [], 0
        for place, part in enumerate(self._special.split(text)):
            if place % 2:
                read = np.array([self.preset.specials.index(part)], np.int32)
                where = np.array([[0, len(part)]])
            else:
                read, where = self._read([part])
            ids.append(read)
            spans.append(where + at)
            at += len(part)
        return np.concatenate(ids), np.concatenate(spans)

    def _read(self, items: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and spans of all tokens of all texts, laid end to end."""
        k, text = self.preset.k, "".join(items)
        if not text.isascii():
            text = "".join(" " if letter.isspace() else letter for letter in text)
        raw = text.encode("ascii", "replace")
        codes = np.frombuffer(raw.translate(self._codes), np.uint8)
        kinds = np.frombuffer(raw.translate(self._kinds), np.uint8)
        # Runs of letters of one kind, within one item; each makes its tokens by arithmetic.
        borders = np.cumsum([0, *map(len, items)])[:-1]
        if kinds.any():
            borders = np.concatenate([borders, np.flatnonzero(np.diff(kinds)) + 1])
        start_R = np.unique(borders[borders < len(codes)])
        length_R = np.diff(start_R, append=len(codes))
        kind_R = kinds[start_R]
        kmers_R = np.where(kind_R == _KMER, length_R // k, 0)
        letters_R = np.where(
            kind_R == _KMER, length_R % k, np.where(kind_R == _LETTER, length_R, 0)
        )
        count_R = kmers_R + letters_R + (kind_R == _UNKNOWN)
        first_R = np.cumsum(count_R) - count_R
        nth = np.arange(count_R.sum()) - np.repeat(first_R, count_R)
        kmers = np.repeat(kmers_R, count_R)
        is_kmer = nth < kmers
        starts = np.repeat(start_R, count_R) + nth + (k - 1) * np.minimum(nth, kmers)
        widths = np.where(is_kmer, k, 1)
        unknown = np.repeat(kind_R == _UNKNOWN, count_R)
        widths[unknown] = length_R[kind_R == _UNKNOWN]
        ids = self._ids[codes[starts]]
        ids[is_kmer] = self._numbers(codes, starts[is_kmer])
        return ids, np.stack([starts, starts + widths], axis=1)

    def _numbers(self, codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        numbers = np.zeros(len(starts), np.int32)
        for place in range(self.preset.k):
            numbers = (numbers << 2) | codes[starts + place]
        return numbers + len(self.preset.specials)
