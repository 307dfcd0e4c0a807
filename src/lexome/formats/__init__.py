"""Files of sequences, variants and cells in, results out: streamed, checked and atomic.

Every reader is an iterator of small frozen records in the order of the file, and names file and
line when something is wrong. `read_sequences` and `read_variants` choose by suffix and content.
"""

from lexome.formats.bed import read_bed
from lexome.formats.fasta import read_fasta, write_fasta
from lexome.formats.fastq import read_fastq
from lexome.formats.genome import Genome
from lexome.formats.h5ad import CellReader, CellRecord, read_cells
from lexome.formats.lines import read_lines
from lexome.formats.outputs import OUTPUT_WRITERS, writer_for
from lexome.formats.records import SequenceRecord
from lexome.formats.sequences import SEQUENCE_SUFFIXES, read_sequences
from lexome.formats.store import RowStore, Shard, StoredRows, Writer, file_fingerprint
from lexome.formats.table import read_table
from lexome.formats.vcf import VARIANT_SUFFIXES, VariantReader, VariantRecord, read_variants
from lexome.formats.vcf_writer import InfoField, VcfWriter

__all__ = [
    "OUTPUT_WRITERS",
    "SEQUENCE_SUFFIXES",
    "VARIANT_SUFFIXES",
    "CellReader",
    "CellRecord",
    "Genome",
    "InfoField",
    "RowStore",
    "SequenceRecord",
    "Shard",
    "StoredRows",
    "VariantReader",
    "VariantRecord",
    "VcfWriter",
    "Writer",
    "file_fingerprint",
    "read_bed",
    "read_cells",
    "read_fasta",
    "read_fastq",
    "read_lines",
    "read_sequences",
    "read_table",
    "read_variants",
    "write_fasta",
    "writer_for",
]
