"""The genome that comes with the package, and the region of it that no model may train on."""

from pathlib import Path

from lexome.sequence import Interval

ECOLI = "gi|110640213|ref|NC_008253.1|"
"""Name of the one contig of the bundled genome, as its FASTA header spells it."""

ECOLI_LENGTH = 4_938_920

ECOLI_HELD_OUT = Interval(ECOLI, 500_000, 1_000_000)
"""The half megabase least like the rest: of all 31-mers in it 0.14 % also occur outside it on
either strand, against 0.4 to 7 % in other windows; it holds no rRNA operon."""


def bundled_genome() -> Path:
    """Return the gzipped FASTA of Escherichia coli 536, RefSeq NC_008253.1, 4,938,920 bases.

    Its provenance and licence are in the text file beside it.
    """
    return Path(__file__).parents[1] / "data" / "ecoli_NC_008253.fna.gz"
