"""Letters of DNA and RNA, their complements and how many of them a model does not know.

Letter codes: IUPAC-IUB nomenclature for incompletely specified bases (Cornish-Bowden 1985,
Nucleic Acids Research 13:3021-3030).
"""

from dataclasses import dataclass

DNA = "ACGT"
RNA = "ACGU"
DNA_N = "ACGTN"
IUPAC_DNA = "ACGTRYSWKMBDHVN"

COMPLEMENT = dict(zip("ACGTURYSWKMBDHVN", "TGCAAYRSWMKVHDBN", strict=True))


def _translation(pairs: dict[str, str]) -> bytes:
    both_cases = pairs | {k.lower(): v.lower() for k, v in pairs.items()}
    return bytes.maketrans("".join(both_cases).encode(), "".join(both_cases.values()).encode())


_TO_DNA = _translation(COMPLEMENT)
_TO_RNA = _translation(COMPLEMENT | {"A": "U"})


def reverse_complement(sequence: str) -> str:
    """Return the other strand, read 5' to 3', with every letter's case kept.

    Parameters
    ----------
    sequence
        DNA or RNA in IUPAC letters, either case. With a U and no T it is RNA: A becomes U.
        Letters without a complement (gaps, ``*``) stay what they are.

    Raises
    ------
    UnicodeEncodeError
        If `sequence` holds a character outside ASCII.

    Examples
    --------
    >>> reverse_complement("AACgtRN")
    'NYacGTT'
    >>> reverse_complement("AUGC")
    'GCAU'
    """
    letters = sequence.encode("ascii")
    is_rna = (b"U" in letters or b"u" in letters) and not (b"T" in letters or b"t" in letters)
    return letters.translate(_TO_RNA if is_rna else _TO_DNA)[::-1].decode("ascii")


@dataclass(frozen=True)
class LetterCount:
    """How many letters of a sequence are known.

    Parameters
    ----------
    known, unknown
        Numbers of letters.
    examples
        The unknown letters themselves, each once, in order of first appearance.
    """

    known: int
    unknown: int
    examples: str

    @property
    def unknown_share(self) -> float:
        """Unknown letters as a fraction of all; 0 for an empty sequence."""
        total = self.known + self.unknown
        return self.unknown / total if total else 0.0


def count_letters(sequence: str, known: str) -> LetterCount:
    """Count the letters of `sequence` that are in `known`, exactly as cased there.

    Examples
    --------
    >>> count_letters("ACGNNX", known="ACGT")
    LetterCount(known=3, unknown=3, examples='NX')
    """
    if sequence.isascii() and known.isascii():
        left = sequence.encode().translate(None, known.encode()).decode()
    else:
        left = "".join(c for c in sequence if c not in known)
    return LetterCount(len(sequence) - len(left), len(left), "".join(dict.fromkeys(left)))
