"""Letters, intervals, variants and windows: what a sequence is before any file or token."""

from lexome.sequence.alphabets import (
    COMPLEMENT,
    DNA,
    DNA_N,
    IUPAC_DNA,
    RNA,
    count_letters,
    reverse_complement,
)
from lexome.sequence.intervals import Interval, Reference
from lexome.sequence.variants import Variant, normalise, parse_variant
from lexome.sequence.windows import alternative_window, centre_window

__all__ = [
    "COMPLEMENT",
    "DNA",
    "DNA_N",
    "IUPAC_DNA",
    "RNA",
    "Interval",
    "Reference",
    "Variant",
    "alternative_window",
    "centre_window",
    "count_letters",
    "normalise",
    "parse_variant",
    "reverse_complement",
]
