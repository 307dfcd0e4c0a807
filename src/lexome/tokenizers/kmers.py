"""K-mers, overlapping or side by side, by arithmetic on byte look-ups."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lexome.core import FormatError, InputError
from lexome.tokenizers.base import Encoded, Tokenizer

_PARTING = 5  # code of letters at which BERT's tokenizer may part a word, or that it drops


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
class KmerVocabulary:
    """What a published list of k-mers says.

    Attributes
    ----------
    specials
        Tokens before the k-mers.
    letters
        The four letters in the order in which it counts.
    k
        Letters per k-mer.
    rest
        Tokens after the k-mers.
    """

    specials: tuple[str, ...]
    letters: str
    k: int
    rest: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.specials) + 4**self.k + len(self.rest)


def find_kmers(folder: Path | None) -> Path | None:
    """Return the file of a release folder that lists its k-mers; None where it has none."""
    names = ("vocab.txt", "tokenizer.json")  # slow tokenizers save the first, fast ones the second
    paths = [folder / name for name in names] if folder else []
    return next((path for path in paths if path.is_file()), None)


def read_kmers(path: Path) -> KmerVocabulary:
    """Read a ``vocab.txt`` or ``tokenizer.json``: special tokens, all k-mers in order, and more.

    Raises
    ------
    FormatError
        If the words are not those.
    """
    try:
        text = path.read_text(encoding="utf-8")
        words = _words_of(json.loads(text)) if path.suffix == ".json" else tuple(text.splitlines())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(
            path, f"is no text ({error}). Get it from the publisher again."
        ) from error
    first = next((i for i, word in enumerate(words) if word.isalpha()), len(words))
    k = len(words[first]) if first < len(words) else 0
    letters = "".join(word[-1] for word in words[first : first + 4])
    stop = first + 4**k
    if words[first:stop] != tuple(map("".join, product(letters, repeat=k))) or not k:
        raise FormatError(
            path,
            "does not count through k-mers. Expected special tokens, then all k-mers of four "
            "letters in order, the last letter changing first, such as AAA, AAT, AAC, AAG, ATA. "
            "Get the publisher's file.",
        )
    return KmerVocabulary(specials=words[:first], letters=letters, k=k, rest=words[stop:])


def _words_of(content: Any) -> tuple[str, ...]:
    """Return the words of a ``tokenizer.json`` in the order of their ids; none if it has gaps."""
    content = content if isinstance(content, dict) else {}
    vocabulary = (content.get("model") or {}).get("vocab")
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    ids |= {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    words = tuple(sorted(ids, key=ids.__getitem__))
    return words if [ids[word] for word in words] == list(range(len(words))) else ()


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
    rest
        Tokens after the k-mers.
    pad, unknown, mask, layout
        As in `LetterPreset`. A k-mer that holds another letter is one `unknown`.
    fold_case
        Whether lower-case letters count as upper-case ones.
    uracil
        Whether U counts as T.
    words
        Whether the authors write the k-mers as words of a text that BERT's tokenizer reads: white
        space and punctuation in a k-mer part it into several unknown words.
    max_tokens
        Longest input including special tokens.
    piece_tokens
        Where the authors put special tokens around every piece of a long item: tokens of a piece,
        special tokens included.
    """

    name: str
    k: int
    stride: int = 1
    letters: str = "ACGT"
    specials: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    rest: tuple[str, ...] = ()
    pad: str = "[PAD]"
    unknown: str = "[UNK]"
    mask: str | None = "[MASK]"
    layout: str = "[CLS] {sequence} [SEP]"
    fold_case: bool = False
    uracil: bool = False
    words: bool = False
    max_tokens: int | None = None
    piece_tokens: int | None = None


class KmerTokenizer(Tokenizer):
    """One token per k-mer; where k-mers do not overlap, letters left over at the end have none.

    Examples
    --------
    >>> preset = KmerPreset(name="x", k=2, letters="ATCG")
    >>> KmerTokenizer(preset)(["AATN"])["input_ids"].tolist()
    [[2, 5, 6, 1, 3]]
    >>> preset = KmerPreset(name="x", k=2, letters="ATCG", words=True)
    >>> KmerTokenizer(preset)(["AA-T"])["input_ids"].tolist()
    [[2, 5, 1, 1, 1, 1, 3]]
    """

    def __init__(self, preset: KmerPreset):
        if not 1 <= preset.k <= 12:
            raise InputError(f"k is {preset.k}; k-mer tables are made for 1 to 12 letters.")
        index = {token: i for i, token in enumerate(preset.specials)}
        index |= {token: len(index) + 4**preset.k + i for i, token in enumerate(preset.rest)}
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
        if preset.words:
            table = bytearray(4 if chr(i).isalnum() else _PARTING for i in range(128))
            table += bytearray([_PARTING] * 128)
        for place, letter in enumerate(preset.letters):
            for same in (letter, "U") if preset.uracil and letter == "T" else (letter,):
                table[ord(same)] = place
                if preset.fold_case:
                    table[ord(same.lower())] = place
        self._table = bytes(table)

    @cached_property
    def _words(self) -> tuple[str, ...]:
        kmers = map("".join, product(self.preset.letters, repeat=self.preset.k))
        return (*self.preset.specials, *kmers, *self.preset.rest)

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
        parted = _PARTING in letters
        rows = []
        for text, start, end in zip(items, starts, ends, strict=True):
            row = ids[start : max(start, end - k + 1) : stride]
            if parted and _PARTING in letters[start:end]:
                places, pieces = self._part(text)
                row = row[places[:, 0]]
                row[places[:, 1] >= 0] = pieces[:, 2]
            rows.append({"input_ids": row})
        return rows

    def spans(self, item: str) -> np.ndarray:
        """Return the letters that each token covers, shape (tokens, 2)."""
        k, stride = self.preset.k, self.preset.stride
        starts = np.arange(0, len(item) - k + 1, stride, dtype=np.int64)
        spans = np.stack([starts, starts + k], axis=1).reshape(-1, 2)
        if _PARTING not in item.encode("ascii", "replace").translate(self._table):
            return spans
        places, pieces = self._part(item)
        spans = spans[places[:, 0]]
        inside = places[:, 1] >= 0
        spans[inside] = spans[inside][:, :1] + pieces[:, :2]
        return spans

    def wrap_whole(self, encoded: Encoded) -> Encoded:
        """Put the special tokens around one item, or around its pieces where the authors do so.

        An item that fills its last piece is followed by an empty one, as in the authors' code.
        """
        if self.preset.piece_tokens is None:
            return self.wrap(encoded)
        ids = encoded["input_ids"]
        room = self.preset.piece_tokens - len(self.prefix) - len(self.suffix)
        pieces = [ids[start : start + room] for start in range(0, len(ids) + 1, room)]
        return {
            "input_ids": np.concatenate([self.wrap({"input_ids": p})["input_ids"] for p in pieces])
        }

    def files(self) -> dict[str, bytes]:
        """Return ``vocab.txt`` and ``tokenizer_config.json``, where BERT's tokenizer reads them."""
        if not self.preset.words:
            return {}
        settings = {"do_lower_case": self.preset.fold_case, "model_max_length": self.max_tokens}
        return {
            "vocab.txt": "".join(f"{word}\n" for word in self.vocabulary).encode(),
            "tokenizer_config.json": (json.dumps(settings) + "\n").encode(),
        }

    def _part(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the k-mers of a text that holds white space, punctuation or the like.

        Returns
        -------
        (k-mer, piece or -1 where the k-mer is whole) of each token, and (start, stop, id) of the
        pieces, in letters of their k-mer.
        """
        k, stride = self.preset.k, self.preset.stride
        letters = text.encode("ascii", "replace").translate(self._table)
        before = np.cumsum([0, *(np.frombuffer(letters, np.uint8) == _PARTING)])
        starts = np.arange(0, len(text) - k + 1, stride)
        odd = before[starts + k] > before[starts]
        read: dict[str, list[tuple[int, int, int]]] = {}
        pieces: list[tuple[int, int, int]] = []
        counts = np.ones(len(starts), np.int64)
        for i in np.flatnonzero(odd).tolist():
            word = text[starts[i] : starts[i] + k]
            if word not in read:
                read[word] = self._words_in(word)
            pieces += read[word]
            counts[i] = len(read[word])
        kmer = np.repeat(np.arange(len(starts)), counts)
        piece = np.full(len(kmer), -1)
        piece[odd[kmer]] = np.arange(len(pieces))
        return np.stack([kmer, piece], axis=1), np.array(pieces, np.int64).reshape(-1, 3)

    def _words_in(self, text: str) -> list[tuple[int, int, int]]:
        """Part a few letters as BERT's tokenizer does; gives (start, stop, id) of each word."""
        words: list[tuple[int, int, int]] = []
        at, is_open = 0, False
        while at < len(text):
            special = next((t for t in self.preset.specials if text.startswith(t, at)), None)
            stop = at + len(special or " ")
            kind = "alone" if special else _kind(text[at])
            if kind == "letter" and is_open:
                words[-1] = (words[-1][0], stop, self.unknown or 0)
            elif kind in {"letter", "alone"}:
                number = self.preset.specials.index(special) if special else self.unknown or 0
                words.append((at, stop, number))
            if kind != "gone":
                is_open = kind == "letter"
            at = stop
        return words


def _kind(letter: str) -> str:
    """Say what BERT's tokenizer makes of a letter: a word's, a word of its own, a gap, nothing."""
    category = unicodedata.category(letter)
    if letter in "\t\n\r" or category[0] == "Z":
        return "space"
    if letter == "\ufffd" or category[0] == "C":
        return "gone"
    is_symbol = letter.isascii() and not letter.isalnum()
    is_cjk = unicodedata.name(letter, "").startswith("CJK ")
    return "alone" if is_symbol or is_cjk or category[0] == "P" else "letter"
