"""One front for every source of sequences."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from lexome.core import InputError, UnknownName
from lexome.core.messages import teller
from lexome.formats.bed import parse_bed
from lexome.formats.duplicates import SeenIds
from lexome.formats.fasta import parse_fasta
from lexome.formats.fastq import parse_fastq
from lexome.formats.genome import Genome
from lexome.formats.lines import parse_lines
from lexome.formats.records import SequenceRecord
from lexome.formats.streams import (
    STDIN,
    as_text,
    bare_suffix,
    byte_blocks,
    existing_file,
    refuse_frame,
)
from lexome.formats.table import DELIMITERS, PARQUET, open_table, parse_table, table_sequences
from lexome.sequence import Interval, reverse_complement

Source = str | Path | Mapping[str, str] | Iterable[str | tuple[str, str] | SequenceRecord]

SEQUENCE_SUFFIXES: dict[str, str] = {
    **dict.fromkeys((".fa", ".fasta", ".fna", ".ffn", ".frn", ".fas", ".fsa"), "FASTA"),
    **dict.fromkeys((".fq", ".fastq"), "FASTQ"),
    **dict.fromkeys((*DELIMITERS, *PARQUET), "table"),
    ".bed": "BED",
    ".txt": "lines",
}

_OTHER_SUFFIXES = {
    ".vcf": "It holds variants, not sequences: use `lexome score`.",
    ".bcf": "It holds variants, not sequences: use `lexome score`.",
    ".bam": "Turn its reads into FASTQ with `samtools fastq`.",
    ".cram": "Turn its reads into FASTQ with `samtools fastq`.",
    ".sam": "Turn its reads into FASTQ with `samtools fastq`.",
    ".h5ad": "It holds cells, not sequences: give it to a model of cells.",
    **dict.fromkeys(
        (".gff", ".gff3", ".gtf"),
        "It holds features, not sequences: give the genome, or a BED of them with a genome.",
    ),
    ".gb": "Turn it into FASTA, e.g. with `seqret`.",
    ".gbk": "Turn it into FASTA, e.g. with `seqret`.",
    ".2bit": "Turn it into FASTA with `twoBitToFa`.",
    ".xlsx": "Save the sheet as .csv.",
}


def read_sequences(
    source: Source,
    *,
    sequence_column: str = "sequence",
    id_column: str | None = None,
    genome: str | Path | Genome | None = None,
    upper: bool = False,
    unique_names: bool = True,
) -> Iterator[SequenceRecord]:
    """Yield sequences from a file of any format, from stdin, or from Python.

    Parameters
    ----------
    source
        A file, its format told by the suffix (and where that says nothing, by the content):
        FASTA, FASTQ, BED with `genome`, TSV, CSV, Parquet, or ``.txt`` with one sequence a line;
        ``"-"`` for stdin; or a list of sequences, of pairs (name, sequence), or of records; or a
        mapping of names to sequences.
        Sequences from a list are taken as they are and, if nameless, named by their number from 1.
    sequence_column, id_column
        For tables, see :func:`lexome.formats.read_table`.
    genome
        For BED, where the bases come from. Bases beyond a contig's end are N; the reverse strand
        is complemented. Records are named by their place and keep it in `fields`.
    upper
        Give all letters in upper case.
    unique_names
        Refuse a name that comes twice, since results are joined by it.

    Raises
    ------
    InputError
        If there is no such file, its format is unknown, or something is missing to read it.
    FormatError
        If the file is not what its format demands; with file and line.

    Examples
    --------
    >>> [record.id for record in read_sequences(["ACGT", ("mine", "TTT")])]
    ['1', 'mine']
    """
    if isinstance(source, str | Path):
        columns = sequence_column, id_column
        records = _from_file(source, columns, genome, unique_names=unique_names)
    else:
        records = _from_python(source, unique_names=unique_names)
    if upper:
        return (replace(record, sequence=record.sequence.upper()) for record in records)
    return records


def _from_file(
    path: str | Path,
    columns: tuple[str, str | None],
    genome: str | Path | Genome | None,
    *,
    unique_names: bool,
) -> Iterator[SequenceRecord]:
    suffix = "" if str(path) == STDIN else bare_suffix(path)
    if str(path) != STDIN:
        try:
            existing_file(path)
        except InputError as error:
            if not suffix:
                error.add_note(
                    "To give sequences themselves, pass a list of them, or write them to - (stdin)."
                )
            raise
        if suffix in _OTHER_SUFFIXES:
            raise InputError(
                f"sequences cannot be read from {path}. {_OTHER_SUFFIXES[suffix]} "
                f"Expected one of: {', '.join(SEQUENCE_SUFFIXES)}."
            )
    if suffix in PARQUET:
        return table_sequences(open_table(path), path, *columns, unique_names=unique_names)
    blocks = byte_blocks(path)
    kind = SEQUENCE_SUFFIXES.get(suffix)
    if kind is None:
        first = next(blocks)
        blocks = chain([first], blocks)
        kind = _kind_by_content(first, guess_text=str(path) == STDIN)
    if kind == "table":
        table = parse_table(blocks, path, DELIMITERS.get(suffix, ","))
        return table_sequences(table, path, *columns, unique_names=unique_names)
    if kind == "BED":
        return _bed_sequences(parse_bed(blocks, path), path, genome)
    if kind == "FASTA":
        return parse_fasta(blocks, path, unique_names=unique_names)
    if kind == "FASTQ":
        return parse_fastq(blocks, path, unique_names=unique_names)
    if kind == "lines":
        return parse_lines(blocks, path)
    raise InputError(
        f"{path} has a suffix that says no format, and its content looks like none. Expected one "
        f"of: {', '.join(SEQUENCE_SUFFIXES)} (with .gz where it is text); rename the file."
    )


def _kind_by_content(first: bytes, *, guess_text: bool) -> str:
    line = as_text(first.lstrip()[:65536].split(b"\n")[0])
    if line.startswith(">"):
        return "FASTA"
    if line.startswith("@"):
        return "FASTQ"
    if not guess_text:
        return ""
    cells = line.split("\t")
    if len(cells) > 2 and cells[1].isdecimal() and cells[2].strip().isdecimal():
        return "BED"
    return "table" if "\t" in line or "," in line else "lines"


def _bed_sequences(
    intervals: Iterator[Interval], path: str | Path, genome: str | Path | Genome | None
) -> Iterator[SequenceRecord]:
    if genome is None:
        raise InputError(
            f"{path} holds intervals and no bases. Expected the genome too; pass genome=FASTA."
        )
    bases = genome if isinstance(genome, Genome) else Genome(genome)

    def records() -> Iterator[SequenceRecord]:
        told = False
        for interval in intervals:
            known = bases.resolve(interval.contig)
            length = bases.contigs[known] if known is not None else interval.end
            if interval.end > length:
                _check_the_end(interval, length, path, aloud=not told)
                told = True
            try:
                sequence = bases.fetch(interval.contig, interval.start, interval.end)
            except UnknownName as error:
                error.add_note(f"The interval is {interval} in {path}.")
                raise
            if interval.strand == "-":
                sequence = reverse_complement(sequence)
            place = {
                "contig": interval.contig,
                "start": str(interval.start),
                "end": str(interval.end),
                "name": interval.name,
                "strand": interval.strand,
            }
            yield SequenceRecord(str(interval), sequence, fields=place)

    return records()


def _check_the_end(interval: Interval, length: int, path: str | Path, *, aloud: bool) -> None:
    """Say that an interval reaches beyond its contig; one that begins there is an error."""
    where = f"{interval} in {path}"
    if interval.start >= length > 0:
        raise InputError(
            f"{where} begins behind the end of {interval.contig}, which has {length:,} letters. "
            "Expected intervals of this genome, counted from 0; check the assembly."
        )
    teller(aloud=aloud)(
        f"note: {where} ends behind {interval.contig}, which has {length:,} letters; N stands "
        "there, and in all others alike"
    )


def _from_python(
    source: Mapping[str, str] | Iterable[str | tuple[str, str] | SequenceRecord],
    *,
    unique_names: bool,
) -> Iterator[SequenceRecord]:
    refuse_frame(source, "zip(frame['id'], frame['sequence'])")
    items: Iterable[Any] = source.items() if isinstance(source, Mapping) else source
    seen = SeenIds()
    for number_1based, item in enumerate(items, 1):
        if isinstance(item, SequenceRecord):
            record = item
        elif isinstance(item, str):
            record = SequenceRecord(str(number_1based), item)
        elif isinstance(item, tuple) and len(item) == 2 and all(isinstance(x, str) for x in item):
            record = SequenceRecord(*item)
        else:
            raise InputError(
                f"item {number_1based} of the sequences is {item!r:.80}. Expected a string, a pair "
                "(name, sequence) of strings, or a SequenceRecord."
            )
        if unique_names and not seen.add(record.id):
            raise InputError(
                f"item {number_1based} of the sequences has the name {record.id!r} again. Expected "
                "different names, since results are joined by them; rename one."
            )
        yield record
