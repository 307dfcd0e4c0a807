"""What the readers of sequences yield."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """One sequence with its name and what else its file says of it.

    Parameters
    ----------
    id
        Name, unique within its file where the format has names; else the 1-based number of the
        row or line.
    sequence
        Letters as the file has them, in its case; may be empty.
    description
        The rest of the header line, empty if there is none.
    quality
        Phred letters of a FASTQ record, as long as `sequence`.
    fields
        The other columns of a table, or ``contig``, ``start``, ``end`` (0-based half-open) and
        ``strand`` of a BED interval, as text.
    """

    id: str
    sequence: str
    description: str = ""
    quality: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
