"""Variants from VCF, BCF, tables and words.

VCF lines are kept as text, so that every row can be written again with all its columns, whatever
a stricter parser would think of them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lexome.core import FormatError, InputError, nearest
from lexome.formats.streams import (
    STDIN,
    as_text,
    bare_suffix,
    byte_blocks,
    existing_file,
    lines_of,
    refuse_frame,
)
from lexome.formats.table import DELIMITERS, PARQUET, open_table
from lexome.sequence import Variant, parse_variant

if TYPE_CHECKING:
    from pysam import VariantFile

VARIANT_SUFFIXES = (".vcf", ".bcf", *DELIMITERS, *PARQUET, ".txt")

_BARE_HEADER = ("##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
_COLUMN_NAMES = {
    "contig": ("chrom", "chr", "contig", "chromosome", "seqname", "seqnames", "seqid"),
    "position": ("pos", "position", "bp", "base_pair_location", "pos_1based"),
    "ref": ("ref", "reference", "ref_allele", "reference_allele"),
    "alt": ("alt", "alternate", "alternative", "alt_allele", "alternate_allele"),
}
_ID_NAMES = ("id", "variant_id", "variant", "rsid", "rs_id", "snp", "snpid", "name")
_WORD_NAMES = ("variant", "variant_id", "varid", "markername", "snp", "id")


@dataclass(frozen=True, slots=True)
class VariantRecord:
    """One row of an input of variants.

    Parameters
    ----------
    contig
        Name as the input spells it.
    position
        0-based position of the first base of `ref`; -1 if the row has none that can be read.
    id
        Name of the variant, empty if it has none.
    ref
        Reference allele as written.
    alts
        Alternative alleles as written; none for a site without (``.``).
    row_number_1based
        The row's number among the rows, not counting headers and blank lines.
    source
        What the row was: the line of a VCF, or the cells of a table by column.
    problem
        Why the row cannot be used, empty if it can.
    """

    contig: str
    position: int
    id: str
    ref: str
    alts: tuple[str, ...]
    row_number_1based: int
    source: str | Mapping[str, str]
    problem: str = ""

    def variants(self) -> tuple[Variant, ...]:
        """Return one variant for each alternative allele; none if the row has a problem.

        The ALT ``-`` of some tables, a deletion without the base before it, becomes empty.
        """
        if self.problem:
            return ()
        alts = ("" if alt == "-" else alt for alt in self.alts)
        return tuple(Variant(self.contig, self.position, self.id, self.ref, alt) for alt in alts)


class VariantReader:
    """The rows of an input of variants, with what its header says. Made by `read_variants`.

    Attributes
    ----------
    path
        Where the rows come from; ``"-"`` for stdin, ``"variants"`` for a list.
    header
        Lines of a VCF's header, the ``#CHROM`` line last; empty for other inputs.
    samples
        Names of a VCF's sample columns.
    columns
        Names of a table's columns; empty for other inputs.
    contig_lengths
        Lengths that a VCF's header states, by contig.
    """

    def __init__(self, source: str | Path | Iterable[str | Variant]):
        self.header: tuple[str, ...] = ()
        self.columns: tuple[str, ...] = ()
        self._first_pass: Iterator[str] | None = None
        self._words: tuple[str | Variant, ...] = ()
        if not isinstance(source, str | Path):
            refuse_frame(source, "lines such as 'chr22:1024:A>C'")
            self.path, self._words, self._kind = "variants", tuple(source), "words"
            self.columns = ("variant",)
            return
        self.path = str(source)
        suffix = ".vcf" if self.path == STDIN else bare_suffix(existing_file(source))
        if suffix not in VARIANT_SUFFIXES:
            raise InputError(
                f"variants cannot be read from {source}: its suffix says no known format. Expected "
                f"one of: {', '.join(VARIANT_SUFFIXES)} (with .gz where it is text)."
            )
        if suffix == ".bcf":
            self._kind = "bcf"
            self.header = _bcf_header(self.path)
        elif suffix == ".vcf":
            self._kind = "vcf"
            self._first_pass, self.header = _split_header(self.path)
        elif suffix == ".txt":
            self._kind = "words"
            self.columns = ("variant",)
        else:
            self._kind = "table"
            self.columns = open_table(source).columns
            self._roles = _roles(self.columns, self.path)

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of the sample columns of a VCF."""
        return tuple(self.header[-1].split("\t")[9:]) if self.header else ()

    @property
    def contig_lengths(self) -> dict[str, int]:
        """Lengths in bases that the header of a VCF states, by contig."""
        lengths = {}
        for line in self.header:
            contig = contig_of(line)
            length = re.search(r"[<,]length=(\d+)", line)
            if contig and length:
                lengths[contig] = int(length[1])
        return lengths

    def __iter__(self) -> Iterator[VariantRecord]:
        if self._kind == "vcf":
            lines = self._first_pass
            if lines is None:
                if self.path == STDIN:
                    raise InputError(
                        "stdin was read once and cannot be read again. Expected a file here; save "
                        "the variants first."
                    )
                lines, _ = _split_header(self.path)
            self._first_pass = None
            return _vcf_records(lines)
        if self._kind == "bcf":
            return _vcf_records(_bcf_lines(self.path))
        if self._kind == "table":
            return _table_records(self.path, self._roles)
        if self._words:
            return _word_records(self._words)
        return _word_records(_stripped_lines(self.path))


def contig_of(header_line: str) -> str:
    """Return the contig that a line of a VCF header declares, empty if it declares none.

    Examples
    --------
    >>> contig_of("##contig=<ID=chr1,length=248956422>")
    'chr1'
    """
    match = re.match(r"##contig=<(?:.*,)?ID=([^,>]+)", header_line)
    return match[1] if match else ""


def read_variants(source: str | Path | Iterable[str | Variant]) -> VariantReader:
    """Open an input of variants of any form.

    Parameters
    ----------
    source
        VCF (plain, gzip, bgzip; ``"-"`` for stdin), also its rows without any header; BCF; TSV,
        CSV or Parquet with columns for contig, 1-based position, REF and ALT under any usual name,
        or with one column of words such as ``chr22_1024_A_C_b38``; ``.txt`` with one word a line;
        or a list of words or of variants.

    Returns
    -------
    A reader to iterate over, more than once if it is not stdin. It gives one record for each row
    of the input, in order; a row that cannot be understood gives a record with a `problem`.

    Raises
    ------
    InputError
        If there is no such file or its suffix is unknown.
    FormatError
        If the file is empty, not text, cut off, or lacks its header or columns; with file and
        line. A cut-off file is noticed only where it ends.

    Examples
    --------
    >>> for record in read_variants(["chr22:1024:A>C", "nonsense"]):
    ...     print(record.row_number_1based, record.variants() or record.problem[:23])
    1 (Variant(contig='chr22', position=1023, id='chr22:1024:A>C', ref='A', alt='C'),)
    2 'nonsense' is not a var
    """
    return VariantReader(source)


def _is_bare_row(line: str) -> bool:
    """Tell whether a first line is a row of a VCF without any header, as GPN's authors give."""
    cells = line.split("\t")
    return 5 <= len(cells) <= 8 and cells[1].isdecimal() and cells[3].isalpha()


def _split_header(path: str) -> tuple[Iterator[str], tuple[str, ...]]:
    """Return the lines after the header, and the header."""
    lines = (raw.decode("utf-8", "surrogateescape") for raw in lines_of(byte_blocks(path)))
    header: list[str] = []
    line_1based = 0
    for line in lines:
        line_1based += 1
        if line.startswith("##"):
            header.append(line)
        elif line.startswith("#"):
            names = line.split("\t")
            if names[:5] != ["#CHROM", "POS", "ID", "REF", "ALT"]:
                raise FormatError(
                    path,
                    f"the line of column names begins with {line[:40]!r}. Expected #CHROM, POS, "
                    "ID, REF and ALT with tabs between them; correct it.",
                    line_1based,
                )
            return lines, (*header, line)
        elif line_1based == 1 and _is_bare_row(line):
            return chain([line], lines), _BARE_HEADER
        elif line.strip():
            break
    raise FormatError(
        path,
        f"the line of column names is missing, {line[:40]!r} stands in its place. Expected a "
        "header that ends with '#CHROM POS ID REF ALT QUAL FILTER INFO', tabs in between; add it, "
        "or give a table with column names as .tsv.",
        line_1based,
    )


def _bcf_header(path: str) -> tuple[str, ...]:
    with _open_bcf(path) as file:
        return tuple(str(file.header).rstrip("\n").split("\n"))


def _bcf_lines(path: str) -> Iterator[str]:
    with _open_bcf(path) as file:
        rows = iter(file)
        number_1based = 0
        while True:
            number_1based += 1
            try:
                row = next(rows, None)
            except (OSError, ValueError) as error:
                raise FormatError(
                    path,
                    f"row {number_1based:,} cannot be read ({error}). Expected a whole BCF file; "
                    "copy or download it again.",
                ) from None
            if row is None:
                return
            yield str(row).rstrip("\n")


def _open_bcf(path: str) -> "VariantFile":
    from pysam import VariantFile, set_verbosity

    verbosity = set_verbosity(0)  # htslib complains on stderr that there is no index
    try:
        return VariantFile(path)
    except (OSError, ValueError) as error:
        raise FormatError(
            path, f"cannot be opened as BCF ({error}). Expected a BCF file; check what it is."
        ) from None
    finally:
        set_verbosity(verbosity)


def _vcf_records(lines: Iterator[str]) -> Iterator[VariantRecord]:
    number_1based = 0
    for line in lines:
        if line and not line.isspace():
            number_1based += 1
            yield _vcf_record(line, number_1based)


def _vcf_record(line: str, number_1based: int) -> VariantRecord:
    cells = line.split("\t", 5)
    if len(cells) < 5:
        return VariantRecord(
            cells[0].strip(),
            -1,
            "",
            "",
            (),
            number_1based,
            line,
            f"{len(cells)} columns separated by tabs, expected at least 5 (CHROM POS ID REF ALT)",
        )
    contig, position, id, ref, alt = cells[:5]
    return _record(contig, position, "" if id == "." else id, ref, alt, number_1based, line)


def _record(
    contig: str,
    position: str,
    id: str,
    ref: str,
    alt: str,
    number_1based: int,
    source: str | Mapping[str, str],
) -> VariantRecord:
    """Make a record of cells; what is wrong with them becomes its problem."""
    problem = ""
    start = -1
    if position.isascii() and position.isdecimal():
        start = int(position) - 1
        if start < 0:
            problem = "position 0 lies before the first base, expected 1 or more"
    else:
        problem = f"position {position!r} is not a whole number"
    alts = () if alt in {".", ""} else tuple(alt.split(","))
    if not contig:
        problem = "no contig"
    elif not ref:
        problem = "no REF allele"
    elif not alt:
        problem = "no ALT allele"
    elif not all(alts):
        problem = f"an empty allele in ALT {alt!r}"
    return VariantRecord(contig, start, id, ref, alts, number_1based, source, problem)


class _Roles(NamedTuple):
    """Indices of a table's columns; -1 for none."""

    contig: int
    position: int
    ref: int
    alt: int
    id: int
    word: int


def _roles(columns: tuple[str, ...], path: str) -> _Roles:
    folded = [c.casefold().lstrip("#") for c in columns]

    def first(names: Sequence[str]) -> int:
        return next((folded.index(name) for name in names if name in folded), -1)

    found = {role: first(names) for role, names in _COLUMN_NAMES.items()}
    missing = [role for role, at in found.items() if at < 0]
    id_at = first(_ID_NAMES)
    if not missing:
        return _Roles(**found, id=id_at, word=-1)
    word_at = first(_WORD_NAMES)
    if word_at >= 0 and {"contig", "position"} <= set(missing):
        return _Roles(-1, -1, -1, -1, id_at, word_at)
    wanted = [f"{role} ({', '.join(_COLUMN_NAMES[role])})" for role in missing]
    close = [c for role in missing for c in nearest(_COLUMN_NAMES[role][0], columns, 1)]
    hint = f" Rename {' and '.join(map(repr, close))}?" if close else ""
    raise FormatError(
        path,
        f"no column for the {' nor for the '.join(wanted)}; it has "
        f"{', '.join(map(repr, columns))}. Expected chrom, pos (1-based), ref and alt, or one "
        f"column 'variant' with words like chr22:1024:A>C.{hint}",
    )


def _table_records(path: str, roles: _Roles) -> Iterator[VariantRecord]:
    table = open_table(path)
    width = len(table.columns)
    for number_1based, (_, cells) in enumerate(table.rows, 1):
        if len(cells) == width:
            source = dict(zip(table.columns, cells, strict=True))
            yield _table_record(cells, roles, number_1based, source)
        else:
            padded = [*cells, *[""] * width]
            yield VariantRecord(
                padded[max(roles.contig, 0)],
                -1,
                "",
                "",
                (),
                number_1based,
                dict(zip(table.columns, padded, strict=False)),
                f"{len(cells)} cells, expected {width}: {', '.join(cells)}",
            )


def _table_record(
    cells: Sequence[str], roles: _Roles, number_1based: int, source: Mapping[str, str]
) -> VariantRecord:
    if roles.word >= 0:
        return _word_record(cells[roles.word], number_1based, source)
    contig, position, ref, alt = (cells[at].strip() for at in roles[:4])
    id = cells[roles.id].strip() if roles.id >= 0 else ""
    # pandas writes whole numbers of a column with gaps as 1024.0
    position = position.removesuffix(".0").replace(",", "")
    return _record(contig, position, "" if id == "." else id, ref, alt, number_1based, source)


def _stripped_lines(path: str) -> Iterator[str]:
    for raw in lines_of(byte_blocks(path)):
        line = as_text(raw).strip()
        if line:
            yield line


def _word_records(words: Iterable[str | Variant]) -> Iterator[VariantRecord]:
    for number_1based, word in enumerate(words, 1):
        if isinstance(word, Variant):
            v, source = word, {"variant": str(word)}
            yield VariantRecord(v.contig, v.position, v.id, v.ref, (v.alt,), number_1based, source)
        else:
            yield _word_record(word, number_1based, {"variant": word})


def _word_record(word: str, number_1based: int, source: Mapping[str, str]) -> VariantRecord:
    try:
        v = parse_variant(word)
    except InputError as error:
        return VariantRecord("", -1, word, "", (), number_1based, source, str(error))
    return VariantRecord(v.contig, v.position, v.id, v.ref, (v.alt,), number_1based, source)
