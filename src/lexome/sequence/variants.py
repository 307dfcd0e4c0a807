"""Small variants: what kind they are, how they are written, and their normal form."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from lexome.core import InputError
from lexome.sequence.intervals import Reference

Kind = Literal[
    "snv", "mnv", "insertion", "deletion", "delins", "symbolic", "star", "non_acgt", "same"
]

_NOT_ACGT = re.compile("[^ACGTacgt]")
_LEFT_BLOCK_BP = 256


@dataclass(frozen=True, slots=True)
class Variant:
    """One alternative allele at one place.

    Parameters
    ----------
    contig
        Name as the source of the variant spells it.
    position
        0-based position of the first base of `ref`.
    id
        Name of the variant, empty if it has none.
    ref, alt
        Alleles as written, in either case; `alt` may be empty.
    """

    contig: str
    position: int
    id: str
    ref: str
    alt: str

    @property
    def kind(self) -> Kind:
        """What the two alleles, as they are written, say.

        ``snv`` and ``mnv`` are substitutions of one and of several bases; ``insertion`` and
        ``deletion`` keep the shorter allele as the ends of the longer one; ``delins`` is any
        other change of length; ``star`` is VCF's ``*`` (the allele is missing because of another
        deletion); ``symbolic`` is ``<DEL>`` and its like, and breakends; ``non_acgt`` has any
        other letter, N included; ``same`` has equal alleles. Case does not count. An empty ALT is
        a deletion of all of REF; an empty REF does not say on which side of its base the position
        lies and is ``non_acgt``.
        """
        if self.alt == "*":
            return "star"
        if "<" in self.alt or "[" in self.alt or "]" in self.alt:
            return "symbolic"
        if self.alt.strip(".") and (self.alt[0] == "." or self.alt[-1] == "."):
            return "symbolic"  # a single breakend, VCF 4.3 section 5.4.9
        ref, alt = self.ref.upper(), self.alt.upper()
        if not ref or _NOT_ACGT.search(ref) or _NOT_ACGT.search(alt):
            return "non_acgt"
        if ref == alt:
            return "same"
        if len(ref) == len(alt):
            return "snv" if len(ref) == 1 else "mnv"
        shorter, longer = sorted((ref, alt), key=len)
        prefix = _shared_prefix(shorter, longer)
        if longer.endswith(shorter[prefix:]):
            return "insertion" if len(alt) > len(ref) else "deletion"
        return "delins"

    def __str__(self) -> str:
        return f"{self.contig}:{self.position + 1}:{self.ref}>{self.alt}"


def _shared_prefix(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def normalise(variant: Variant, genome: Reference) -> Variant:
    """Return the left-aligned, parsimonious form of a variant, with alleles in upper case.

    Parameters
    ----------
    variant
        Its REF is taken to be what the genome says there; check that first.
    genome
        Read to the left of the variant, in either case.

    Returns
    -------
    The one form that all spellings of the same change share: no base that both alleles could do
    without, and an insertion or deletion as far left as it goes, with one base before it (after
    it at the start of a contig). Kinds that hold no two ACGT alleles come back unchanged, and so
    do equal alleles.

    References
    ----------
    Tan, Abecasis and Kang 2015, Bioinformatics 31:2202-2204.

    Examples
    --------
    >>> class Toy:
    ...     def fetch(self, contig, start, end, *, pad="N"):
    ...         return "GGCACACAGT"[start:end]
    >>> str(normalise(Variant("toy", 5, "", "ACA", "A"), Toy()))
    'toy:2:GCA>G'
    >>> str(normalise(Variant("toy", 0, "", "GGC", "GGT"), Toy()))
    'toy:3:C>T'
    """
    if variant.kind in {"symbolic", "star", "non_acgt", "same"}:
        return variant
    ref, alt, start = variant.ref.upper(), variant.alt.upper(), variant.position
    left, block_bp = "", _LEFT_BLOCK_BP
    while True:
        shared = _shared_prefix(ref[::-1], alt[::-1])
        ref, alt = ref[: len(ref) - shared], alt[: len(alt) - shared]
        if (ref and alt) or start == 0:
            break
        # One allele is used up: put the base before both and try again.
        if not left:
            left = genome.fetch(variant.contig, max(0, start - block_bp), start).upper()
            block_bp *= 2
        ref, alt, start, left = left[-1] + ref, left[-1] + alt, start - 1, left[:-1]
    if not ref or not alt:
        after = start + len(ref)
        base = genome.fetch(variant.contig, after, after + 1).upper()
        ref, alt = ref + base, alt + base
    shared = min(_shared_prefix(ref, alt), len(ref) - 1, len(alt) - 1)
    return replace(variant, position=start + shared, ref=ref[shared:], alt=alt[shared:])


_TEXT = re.compile(
    r"""(?P<contig>\S+?)
    [:_\-\s] (?:g\.)? (?P<position_1based>\d[\d,]*)
    [:_\-\s]* (?P<ref>[A-Za-z]+)
    \s*[>:_\-/\s]\s* (?P<alt>[A-Za-z]+|\*|<[^<>\s]+>)
    (?:_(?:b|hg|GRCh)\d+)?""",
    re.VERBOSE,
)


def parse_variant(text: str) -> Variant:
    """Read a variant written as one word.

    Parameters
    ----------
    text
        Contig, 1-based position, REF and ALT as in the examples, with an optional assembly at
        the end (``_b38``). Thousands may be set off with commas.

    Returns
    -------
    The variant with its 0-based position, the text itself as its id.

    Raises
    ------
    InputError
        If the text is none of these forms.

    Examples
    --------
    >>> forms = "chr22:1024:A>C", "chr22_1024_A_C_b38", "chr22-1024-A-C", "chr22:1,024 A C"
    >>> {str(parse_variant(text)) for text in (*forms, "chr22:g.1024A>C")}
    {'chr22:1024:A>C'}
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None or int(match["position_1based"].replace(",", "")) < 1:
        raise InputError(
            f"{text!r} is not a variant. Expected contig, 1-based position, REF and ALT, such as "
            "chr22:1024:A>C, chr22_1024_A_C_b38, 22-1024-A-C or 'chr22:1024 A C'."
        )
    return Variant(
        contig=match["contig"],
        position=int(match["position_1based"].replace(",", "")) - 1,
        id=text.strip(),
        ref=match["ref"],
        alt=match["alt"],
    )
