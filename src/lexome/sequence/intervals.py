"""Stretches of a genome, and what can read them."""

from dataclasses import dataclass
from typing import Protocol

from lexome.core import InputError


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of one contig, 0-based and half-open: the bases `start` to `end` - 1.

    Parameters
    ----------
    contig
        Name as the source of the interval spells it.
    start, end
        Bases, 0-based half-open; `start` may be negative where a window overhangs the contig.
    name
        Free text, empty if there is none.
    strand
        ``"+"``, ``"-"``, or ``"."`` where the source says that it is unknown.

    Raises
    ------
    InputError
        If `end` lies before `start`, or `strand` is none of the three.

    Examples
    --------
    >>> len(Interval("chr1", 10, 15))
    5
    """

    contig: str
    start: int
    end: int
    name: str = ""
    strand: str = "+"

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise InputError(
                f"interval {self.contig}:{self.start}-{self.end} ends before it starts. "
                "Expected 0-based half-open coordinates with start <= end; swap the two."
            )
        if self.strand not in {"+", "-", "."}:
            raise InputError(
                f"interval {self.contig}:{self.start}-{self.end} has strand {self.strand!r}. "
                "Expected '+', '-' or '.'."
            )

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.contig}:{self.start}-{self.end}({self.strand})"


class Reference(Protocol):
    """A genome: gives any stretch of any contig, padded beyond the ends."""

    def fetch(self, contig: str, start: int, end: int, *, pad: str = "N") -> str:
        """Return bases `start` to `end` (0-based half-open) with `pad` outside the contig."""
        ...
