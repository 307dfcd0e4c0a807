"""VCF and BCF out, with the input's header and rows as they were and INFO fields added.

Format: VCF 4.3, https://samtools.github.io/hts-specs/VCFv4.3.pdf.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import NamedTemporaryFile, TemporaryFile
from types import TracebackType
from typing import IO, NamedTuple, Self

import numpy as np

from lexome.core import InputError, atomic_path
from lexome.formats.streams import Sink, bare_suffix, bgzip_stream
from lexome.formats.vcf import VariantReader, VariantRecord, contig_of

_LOG = logging.getLogger(__name__)
_TABIX_LARGEST_BP = 1 << 29  # beyond it a contig needs the CSI index


class InfoField(NamedTuple):
    """A field that is added to the INFO column of a VCF.

    Parameters
    ----------
    id
        Its key.
    number
        ``"A"`` for one value per alternative allele, ``"1"`` for one per row, ``"."`` for any.
    type
        ``"Float"``, ``"Integer"``, ``"String"`` or ``"Flag"``.
    description
        One line for the header.
    """

    id: str
    number: str
    type: str
    description: str


class VcfWriter:
    r"""Write variants with added INFO fields, each row otherwise as it was.

    Parameters
    ----------
    path
        ``.vcf``, ``.vcf.gz`` (bgzip, with a tabix index if the rows are sorted) or ``.bcf``.
        It appears when the writer is closed without an exception, and is untouched before.
    template
        Where the rows come from. The header of a VCF is kept, a new one is made for other inputs.
    info
        Fields that :meth:`write` will add, as `InfoField` or tuples of the same. A field that the
        input has already is replaced.
    meta
        Lines for the header, without ``##``, such as ``"lexome_release=gpn-brassicales"``.
    contig_lengths
        Contigs to name in the header if the template's header has none.

    Examples
    --------
    >>> import tempfile
    >>> from lexome.formats import read_variants
    >>> variants = read_variants(["chr1:100:A>C"])
    >>> out = Path(tempfile.mkdtemp()) / "scored.vcf"
    >>> with VcfWriter(out, variants, info=[("SCORE", "A", "Float", "how good")]) as writer:
    ...     for record in variants:
    ...         writer.write(record, {"SCORE": [0.5]})
    >>> print(out.read_text().splitlines()[-1].split("\t"))
    ['chr1', '100', 'chr1:100:A>C', 'A', 'C', '.', '.', 'SCORE=0.5']
    """

    def __init__(
        self,
        path: str | Path,
        template: VariantReader,
        info: Sequence[InfoField | tuple[str, str, str, str]] = (),
        meta: Sequence[str] = (),
        *,
        contig_lengths: Mapping[str, int] | None = None,
    ):
        self.path = Path(path)
        self._suffix = bare_suffix(path)
        if self._suffix not in {".vcf", ".bcf"}:
            raise InputError(
                f"{path} does not name a VCF. Expected .vcf, .vcf.gz or .bcf; choose one of them."
            )
        self._info = [InfoField(*field) for field in info]
        self._keys = {field.id for field in self._info}
        self._header = _new_header(template.header, self._info, meta, contig_lengths or {})
        self._stream: Sink | None = None
        self._open: AbstractContextManager[None] | None = None
        self._indexable = True  # rows in order, all with a position
        self._last = ("", -1)
        self._contigs: set[str] = set()
        self._largest_bp = 0

    def __enter__(self) -> Self:
        self._open = self._opened()
        self._open.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._open is not None
        return self._open.__exit__(kind, error, trace)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        index = None
        with atomic_path(self.path) as final:
            if self._suffix == ".bcf":
                with TemporaryFile(dir=self.path.parent) as self._stream:
                    yield
                    self._stream.seek(0)
                    self._convert(self._stream, final)
            elif self.path.suffix == ".vcf":
                with final.open("wb") as self._stream:
                    self._put_header()
                    yield
            else:
                with bgzip_stream(final) as self._stream:
                    self._put_header()
                    yield
                index = self._tabix(final)
        if index is not None:
            index.replace(f"{self.path}{index.suffix}")

    def _convert(self, rows: IO[bytes], final: Path) -> None:
        """Write header and rows as BCF, whose header must name every contig."""
        from pysam import SamtoolsError, bcftools

        lacking = self._contigs - {contig_of(line) for line in self._header}
        self._header[-1:-1] = [f"##contig=<ID={contig}>" for contig in sorted(lacking)]
        with NamedTemporaryFile(dir=self.path.parent, suffix=".vcf") as self._stream:
            self._put_header()
            copyfileobj(rows, self._stream)
            self._stream.flush()
            arguments = "--no-version", "-Ob", "-o", str(final), self._stream.name
            try:
                bcftools.view(*arguments, catch_stdout=False)
            except SamtoolsError:
                raise InputError(
                    f"{self.path} cannot be written as BCF. Expected INFO, FILTER and FORMAT "
                    "fields that the header declares, and sound sample columns; write .vcf.gz "
                    "instead."
                ) from None

    def _put_header(self) -> None:
        for line in self._header:
            self._put(line)

    def _put(self, line: str) -> None:
        assert self._stream is not None, "write within a `with` block"
        self._stream.write((line + "\n").encode("utf-8", "surrogateescape"))

    def _tabix(self, written: Path) -> Path | None:
        """Index the file if it can be, and take away an index of what it replaces."""
        for suffix in (".tbi", ".csi"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        if not self._indexable:
            return None
        from pysam import tabix_index

        csi = self._largest_bp > _TABIX_LARGEST_BP
        try:
            tabix_index(str(written), preset="vcf", force=True, csi=csi)
        except OSError as error:  # the variants are more than their index
            _LOG.warning("%s has no index: %s", self.path, error)
            return None
        return Path(f"{written}{'.csi' if csi else '.tbi'}")

    def write(self, record: VariantRecord, values: Mapping[str, object]) -> None:
        """Write one row with INFO values by field.

        Parameters
        ----------
        record
            A row of the template.
        values
            For a field of Number A a sequence with one entry per alternative allele, for others
            one value or a sequence; None is a missing value, and a Flag is written if true.

        Raises
        ------
        InputError
            If a row with a problem is to go into BCF, which cannot hold it.
        """
        if record.problem:
            self._indexable = False
            if self._suffix == ".bcf":
                raise InputError(
                    f"row {record.row_number_1based:,} is malformed ({record.problem}), and BCF "
                    "cannot hold such a row. Expected sound rows; write .vcf.gz instead."
                )
        else:
            self._follow(record.contig, record.position)
        source = record.source
        cells = source.split("\t") if isinstance(source, str) else _new_row(record)
        if len(cells) < 8:
            cells += ["."] * (8 - len(cells))
        old = [x for x in cells[7].split(";") if x.partition("=")[0] not in {*self._keys, "."}]
        new = [_info_text(f, values[f.id]) for f in self._info if f.id in values]
        cells[7] = ";".join([*filter(None, old), *filter(None, new)]) or "."
        self._put("\t".join(cells))

    def _follow(self, contig: str, position: int) -> None:
        before, last = self._last
        if contig != before:
            self._indexable = self._indexable and contig not in self._contigs
            self._contigs.add(contig)
        elif position < last:
            self._indexable = False
        self._last = (contig, position)
        self._largest_bp = max(self._largest_bp, position + 1)


def _new_header(
    old: Sequence[str],
    info: Sequence[InfoField],
    meta: Sequence[str],
    contig_lengths: Mapping[str, int],
) -> list[str]:
    """Return the old header, or a new one, with what is ours before the column names."""
    replaced = tuple(f"##INFO=<ID={field.id}," for field in info)
    kept = [line for line in old[:-1] if not line.startswith(replaced or "\0")]
    if not kept or not kept[0].startswith("##fileformat="):
        kept.insert(0, "##fileformat=VCFv4.3")
    if not any(line.startswith("##contig=") for line in kept):
        kept += [f"##contig=<ID={id},length={bp}>" for id, bp in contig_lengths.items()]
    kept += [f"##{' '.join(line.splitlines())}" for line in meta]
    for field in info:
        described = field.description.replace("\\", "\\\\").replace('"', '\\"')
        kept.append(
            f"##INFO=<ID={field.id},Number={field.number},Type={field.type},"
            f'Description="{described}">'
        )
    return [*kept, old[-1] if old else "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]


def _new_row(record: VariantRecord) -> list[str]:
    """Return VCF cells for a row that came from a table or a word."""
    id = re.sub(r"[\s;]+", "_", record.id) or "."
    alts = ",".join(record.alts) or "."
    contig, position_1based = record.contig or ".", str(record.position + 1)
    return [contig, position_1based, id, record.ref or "N", alts, ".", ".", "."]


def _info_text(field: InfoField, value: object) -> str:
    if field.type == "Flag":
        return field.id if value else ""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return f"{field.id}={','.join(_info_value(v) for v in value)}"
    return f"{field.id}={_info_value(value)}"


# Characters with a meaning in INFO, by their percent code (VCF 4.3, section 1.2).
_PERCENT_CODES = {ord(c): f"%{ord(c):02X}" for c in "%;=,\t\r\n"} | {ord(" "): "_"}


def _info_value(value: object) -> str:
    if value is None or value == "" or value != value:
        return "."
    if isinstance(value, str):
        return value.translate(_PERCENT_CODES)
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    return str(value)
