"""Which genes a model misses most: premature stops and deletions in genomic context.

After Nguyen et al. 2024 (Evo), Science 386:eado9336: a gene stands in a window of its genome,
several stop codons are put in 12 bases behind its beginning, and the likelihood of the window
falls the more, the more the model expects the protein that follows.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lexome.core import FormatError, InputError, free_path
from lexome.core.json_files import write_json
from lexome.formats import Genome, RowStore, Shard, StoredRows, writer_for
from lexome.formats.gff import CodingSequence, match_names, read_coding_sequences
from lexome.formats.streams import as_text, bare_suffix, byte_blocks, lines_of
from lexome.formats.table import DELIMITERS, PARQUET, open_table
from lexome.inference.batching import progress_bar, token_budget
from lexome.inference.causal_likelihood import per_base_logliks
from lexome.inference.likelihood import LONGEST_MASKED, Likelihoods, score_sequences
from lexome.inference.reading import tokenizer_of
from lexome.inference.runs import fingerprint, loaded, provenance
from lexome.inference.stretches import LengthNote, carries_state
from lexome.model import Model
from lexome.sequence import reverse_complement
from lexome.sequence.genetic_codes import BACTERIAL, GeneticCode
from lexome.sequence.genetic_codes import genetic_code as code_of
from lexome.tasks.separation import Auc, auc

STOPS = "TAATAATAATAGTGA"
"""Stop codons as Evo's authors put them in, behind the first `OFFSET_BP` bases of a gene."""
OFFSET_BP = 12
WINDOW_BP = 8192

_LEAST_WINDOW_BP = 64
_BATCHES_TOGETHER = 8
_TRUE, _FALSE = {"1", "true", "yes", "essential"}, {"0", "false", "no", "nonessential"}


@dataclass(frozen=True, kw_only=True)
class Essentiality:
    """How much a model misses each gene.

    Attributes
    ----------
    rows
        One mapping per gene, with the columns that :func:`essentiality` describes.
    provenance
        Model, checkpoint hash, settings, version.
    areas
        {score: how well it tells essential genes from others}, the model's scores and what needs
        no model; empty without a table of essential genes.
    unmatched
        Names of that table that are no gene of the annotation.
    out
        The output file, if any.
    """

    rows: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, object]
    areas: Mapping[str, Auc]
    unmatched: tuple[str, ...] = ()
    out: Path | None = None

    def __str__(self) -> str:
        """Return the areas, or the genes that are missed most."""
        lines = [f"AUROC {name}: {area}" for name, area in self.areas.items()]
        if not self.areas:
            scored = [row for row in self.rows if row["rank"] is not None]
            first = sorted(scored, key=lambda row: row["rank"])[:10]
            lines = [
                f"{row['rank']:,}. {row['name']} {row['stops_delta']:+.5f} nats per base"
                for row in first
            ]
        return "\n".join([*lines, *([str(self.out)] if self.out else [])])


def essentiality(
    model: Model | str | Path,
    *,
    gff: str | Path,
    fasta: str | Path | Genome,
    out: str | Path | None = None,
    essential: str | Path | None = None,
    window_bp: int | None = None,
    stops: str = STOPS,
    offset_bp: int = OFFSET_BP,
    kind: str = "CDS",
    circular: bool = False,
    genetic_code: int = BACTERIAL,
    mask_stride: int | None = None,
    max_tokens_per_batch: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Essentiality:
    """Rank genes by how much a model's likelihood falls when they are broken.

    Each gene is scored three times in a window of its genome, read in the gene's direction: as
    it is, with stop codons behind its first bases, and without it. All three windows have the
    same number of letters: what an insertion adds goes off the end, and what a deletion takes is
    refilled from behind the gene. The score is the difference of the mean log-likelihood of a
    letter, changed minus unchanged: the more negative, the more the model misses the gene. That
    of a deletion also depends on how predictable the letters are that come instead.

    Parameters
    ----------
    model
        A causal or masked model, or what `lexome.load` takes.
    gff
        GFF3 or GTF, plain or gzip.
    fasta
        The genome.
    out
        ``.tsv``, ``.csv`` or ``.parquet``; beside it ``<out>.json`` with the areas. Without it,
        the rows are returned only.
    essential
        Which genes are known to be essential: a text file with one name a line, all other genes
        being not essential, or a TSV, CSV or Parquet table whose first column holds names and
        whose column ``essential`` says 1 or 0. Names may be any that the annotation has.
    window_bp
        Letters of a window. By default 8,192, or as many as the model takes; 512 for masked
        models, which need a pass for every letter.
    stops
        What is put into the gene.
    offset_bp
        Bases of the gene that stay before it.
    kind
        Features to take, such as ``gene`` for annotations without coding sequences.
    circular
        Whether contigs are circles, so that windows run over their ends.
    genetic_code
        NCBI's number of the genetic code, for remarks on genes that are no whole coding sequence.
    mask_stride
        For masked models, see `lexome.score_sequences`.
    max_tokens_per_batch
        By default what suits the machine.
    resume
        Continue an interrupted run of the same arguments.
    overwrite
        Replace `out`, and rows of an interrupted run with other arguments.
    progress
        Whether to show a progress bar; by default on a terminal.
    device, precision
        For a model that is still to be loaded, see `lexome.load`.

    Returns
    -------
    Columns: ``id``, ``name``; ``contig``, ``start``, ``end`` (0-based half-open) and ``strand``;
    ``status`` (``ok``, ``unknown contig``, ``outside the contig``, ``parts on two strands``, ``too
    short``, ``unknown letters``); ``length`` of the coding sequence; ``gc``; ``remark`` on
    what is odd about it; ``window_bp``; ``wild_type``, ``stops`` and ``deletion``, mean
    log-likelihoods in nats per base; ``stops_delta``, ``deletion_delta``; ``essential``, where
    known; ``rank`` by `stops_delta`, 1 for the most negative.

    Raises
    ------
    InputError
        If the window does not fit the model or the change, or not one gene could be scored.
    FormatError
        If a file is not what its name says.
    """
    model = loaded(model, device, precision)
    genome = fasta if isinstance(fasta, Genome) else Genome(fasta)
    genes = read_coding_sequences(gff, kind=kind)
    labels = _read_labels(essential) if essential is not None else {}
    known, unmatched = match_names(genes, labels)
    # A bare list names all that are essential; a table may leave genes open.
    others = None if essential is None or _is_table(essential) else False
    window_bp = _window(model, window_bp)
    LengthNote(model).tell(window_bp, "a window", "a smaller window_bp stays within")
    change = _Change(window_bp=window_bp, stops=stops.upper(), offset_bp=offset_bp)
    bases = _Bases(genome=genome, circular=circular)
    settings: dict[str, Any] = {
        "window_bp": window_bp,
        "stops": change.stops,
        "offset_bp": offset_bp,
        "kind": kind,
        "circular": circular,
        "genetic_code": genetic_code,
        "mask_stride": mask_stride,
    }
    if not any(bases.contig(gene) for gene in genes):
        raise InputError(
            f"none of the {len(genes):,} features lies on a contig of {genome.path}: the "
            f"annotation names {genes[0].contig!r}, the genome {next(iter(genome.contigs))!r}. "
            "Give the genome that the annotation was made for."
        )
    made = provenance(model, "essentiality", settings)
    code = code_of(genetic_code)
    budget = token_budget(model, max_tokens_per_batch)
    together = max(1, _BATCHES_TOGETHER * budget // (3 * window_bp))
    rows: list[Mapping[str, Any]] = []
    with ExitStack() as stack:
        store, writer = None, None
        if out is not None:
            writer = writer_for(out)
            free_path(out, overwrite=overwrite)
            inputs = {"gff": gff, "essential": essential}
            decides = fingerprint(model, gff, genome.path, made) | {"labels": sorted(labels)}
            decides |= {name: str(value) for name, value in inputs.items()}
            store = RowStore(out, decides, resume=resume, overwrite=overwrite)
            stack.enter_context(store)
        done = store.rows_done if store else 0
        left = islice(genes, done, None)
        bar = stack.enter_context(progress_bar("genes", total=len(genes) - done, show=progress))
        while some := list(islice(left, together)):
            windows = [_windows(bases, gene, change) for gene in some]
            scores = _scores(model, windows, window_bp, mask_stride, budget)
            new = []
            for gene, window in zip(some, windows, strict=True):
                label = labels[known[gene.id]] if gene.id in known else others
                new.append(_row(gene, bases, window, scores, code) | {"essential": label})
            if store is None:
                rows += new
            else:
                store.append(new)
            bar.update(len(some))
        if store is not None and writer is not None:
            rows = list(store.stored().rows())
            ranks = _ranks(rows)

            def ranked(path: Path, stored: StoredRows, told: Mapping[str, object]) -> None:
                shards = [
                    _RankedShard(s.path, s.first_row, s.count, ranks) for s in stored.shards()
                ]
                writer(path, StoredRows(shards), told)

            store.finish(ranked, provenance=made)
    rows = [{**row, "rank": rank} for row, rank in zip(rows, _ranks(rows), strict=True)]
    _tell_of_refused(rows, genome, out)
    areas = _areas(rows) if essential is not None else {}
    if out is not None and essential is not None:
        _write_areas(Path(out), areas, unmatched, made)
    odd = [row["remark"] for row in rows if row["remark"]]
    if kind == "CDS" and 2 * len(odd) > len(rows):
        print(
            f"{len(odd):,} of {len(rows):,} genes are no whole coding sequences; of the first, "
            f"{odd[0]}. Check that the annotation is the genome's and counts from 1.",
            file=sys.stderr,
        )
    if unmatched:
        print(
            f"{len(unmatched):,} of the {len(labels):,} names in {essential} are no gene of {gff}: "
            f"{', '.join(unmatched[:3])}{', ...' if len(unmatched) > 3 else ''}",
            file=sys.stderr,
        )
    return Essentiality(
        rows=tuple(rows),
        provenance=made,
        areas=areas,
        unmatched=tuple(unmatched),
        out=None if out is None else Path(out),
    )


def _tell_of_refused(
    rows: Sequence[Mapping[str, Any]], genome: Genome, out: str | Path | None
) -> None:
    """Say how many genes have no score, and why; that none has one is an error."""
    refused = Counter(row["status"] for row in rows if row["status"] != "ok")
    if not refused:
        return
    why = ", ".join(f"{count:,} {status}" for status, count in refused.most_common())
    if refused.total() < len(rows):
        print(f"{refused.total():,} of {len(rows):,} genes not scored ({why})", file=sys.stderr)
        return
    holds = "" if out is None else f" {out} holds the statuses."
    raise InputError(
        f"none of the {len(rows):,} genes could be scored in {genome.path} ({why}). Give the "
        f"genome that the annotation was made for.{holds}"
    )


def _window(model: Model, asked: int | None) -> int:
    """Return how many letters a window has."""
    tokenizer = tokenizer_of(model)
    sample = "ACGT" * 256
    per_token = len(sample) // max(1, len(tokenizer.spans(sample)))
    around = len(tokenizer.prefix) + len(tokenizer.suffix)
    most = None if model.context is None else (model.context - around) * max(1, per_token)
    default = WINDOW_BP if model.objective == "causal" else LONGEST_MASKED
    window = asked or min(default, most or default)
    if most is not None and window > most:
        raise InputError(
            f"window_bp is {window:,}, and {model.name} takes {most:,} letters at most. Give at "
            "most that."
        )
    if window < _LEAST_WINDOW_BP:
        raise InputError(f"window_bp is {window}. Expected at least {_LEAST_WINDOW_BP}.")
    return window


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What is done to a gene, checked."""

    window_bp: int
    stops: str
    offset_bp: int

    def __post_init__(self) -> None:
        if not self.stops or set(self.stops) - set("ACGT"):
            raise InputError(f"stops is {self.stops!r}. Expected letters of A C G T.")
        most = self.window_bp // 2 - len(self.stops) - 1
        if not 0 <= self.offset_bp <= most:
            raise InputError(
                f"offset_bp is {self.offset_bp:,}, and a window has {self.window_bp:,} letters. "
                f"Expected 0 to {most:,}."
            )


@dataclass(frozen=True, kw_only=True)
class _Bases:
    """A genome whose contigs may be circles, and which an annotation of one need not name."""

    genome: Genome
    circular: bool

    def contig(self, gene: CodingSequence) -> str | None:
        """Return the contig of a gene as the genome calls it."""
        if gene.contig == "." and len(self.genome.contigs) == 1:
            return next(iter(self.genome.contigs))
        return self.genome.resolve(gene.contig)

    def fetch(self, contig: str, start: int, end: int, *, pad: str = "N") -> str:
        """Return bases as a genome does, on a circle also those over its end."""
        contig = next(iter(self.genome.contigs)) if contig == "." else contig
        if not self.circular:
            return self.genome.fetch(contig, start, end, pad=pad)
        bases = self.genome.contigs[self.genome.resolve(contig) or contig]
        pieces = []
        while start < end:
            here = start % bases
            taken = min(end - start, bases - here)
            pieces.append(self.genome.fetch(contig, here, here + taken))
            start += taken
        return "".join(pieces)


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """The three windows of a gene, or why there are none."""

    id: str
    status: str
    letters: Mapping[str, str] = field(default_factory=dict)


def _windows(bases: _Bases, gene: CodingSequence, change: _Change) -> _Windows:
    contig = bases.contig(gene)
    if contig is None:
        return _Windows(id=gene.id, status="unknown contig")
    length = bases.genome.contigs[contig]
    if gene.strand == ".":
        return _Windows(id=gene.id, status="parts on two strands")
    if gene.start >= length or (gene.end > length and not bases.circular):
        return _Windows(id=gene.id, status="outside the contig")
    if len(gene) <= change.offset_bp:
        return _Windows(id=gene.id, status="too short")
    backwards = gene.strand == "-"
    span, origin = gene.end - gene.start, gene.end if backwards else gene.start

    def letters(first: int, last: int) -> str:
        """Return bases on the gene's strand, counted from the gene's first."""
        if last <= first:
            return ""
        if backwards:
            return reverse_complement(bases.fetch(contig, origin - last, origin - first)).upper()
        return bases.fetch(contig, origin + first, origin + last).upper()

    if bases.circular:
        first, last = -length, length
    elif backwards:
        first, last = gene.end - length, gene.end
    else:
        first, last = -gene.start, length - gene.start
    window = min(change.window_bp, length)
    before = min(max((window - span) // 2, window // 4), -first)
    before = max(before, window - last)  # near the end of the contig the window begins earlier
    end = window - before
    place = gene.place(change.offset_bp)
    cut = min(origin - 1 - place if backwards else place - origin, end)
    return _Windows(
        id=gene.id,
        status="ok",
        letters={
            "wild_type": letters(-before, end),
            "stops": (letters(-before, cut) + change.stops + letters(cut, end))[:window],
            "deletion": letters(-before, 0) + letters(span, min(span + end, last)),
        },
    )


def _scores(
    model: Model,
    windows: Sequence[_Windows],
    window_bp: int,
    mask_stride: int | None,
    budget: int,
) -> dict[tuple[str, str], float | None]:
    """Return the mean log-likelihood of a letter of each window, by gene and kind.

    Where the model carries a state, what stands before the changes is run once for the three.
    """
    tokenizer = tokenizer_of(model.to_score())
    keys = [(w.id, kind) for w in windows for kind in w.letters]
    texts = [text for w in windows for text in w.letters.values()]
    if not texts:
        return {}
    if carries_state(model) and window_bp + len(tokenizer.prefix) <= (model.context or math.inf):
        changes: dict[str, list[str]] = {}  # genes of a small contig may have one window
        for letters in (w.letters for w in windows if w.letters):
            unchanged, *changed = letters.values()
            changes.setdefault(unchanged, []).extend(changed)
        per_base = per_base_logliks(model, changes, max_tokens=budget)
        return dict(zip(keys, (per_base[text] for text in texts), strict=True))
    room = window_bp + len(tokenizer.prefix) + len(tokenizer.suffix)
    found = score_sequences(
        model,
        texts,
        mask_stride=mask_stride,
        max_tokens=room if model.context is None else None,
        max_tokens_per_batch=budget,
        max_unknown=1.0,
        progress=False,
    )
    assert isinstance(found, Likelihoods), "no output was asked for"
    return dict(zip(keys, (row["loglik_per_base"] for row in found.rows), strict=True))


def _row(
    gene: CodingSequence,
    bases: _Bases,
    window: _Windows,
    scores: Mapping[tuple[str, str], float | None],
    code: GeneticCode,
) -> dict[str, Any]:
    status, letters, remark = window.status, "", ""
    if status in {"ok", "too short"}:
        letters = gene.sequence(bases).upper()
        remark = code.fault(letters[gene.phase :], whole=not gene.phase)
    kinds = ("wild_type", "stops", "deletion")
    per_base: dict[str, float | None] = dict.fromkeys(kinds)
    if status == "ok":
        per_base = {kind: scores[gene.id, kind] for kind in kinds}
    unchanged, stops, deletion = (per_base[kind] for kind in kinds)
    deltas: dict[str, float | None] = {"stops_delta": None, "deletion_delta": None}
    if unchanged is not None and stops is not None and deletion is not None:
        deltas = {"stops_delta": stops - unchanged, "deletion_delta": deletion - unchanged}
    elif status == "ok":
        status = "unknown letters"
    known = [letter in "GC" for letter in letters if letter in "ACGT"]
    return {
        "id": gene.id,
        "name": gene.names[0],
        "contig": gene.contig,
        "start": gene.start,
        "end": gene.end,
        "strand": gene.strand,
        "status": status,
        "length": len(gene),
        "gc": float(np.mean(known)) if known else None,
        "remark": remark,
        "window_bp": len(window.letters.get("wild_type", "")),
        **per_base,
        **deltas,
    }


def _ranks(rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    scored = [i for i, row in enumerate(rows) if row["stops_delta"] is not None]
    ranks: list[int | None] = [None] * len(rows)
    for rank_1based, i in enumerate(sorted(scored, key=lambda i: rows[i]["stops_delta"]), 1):
        ranks[i] = rank_1based
    return ranks


@dataclass(frozen=True)
class _RankedShard(Shard):
    """A shard whose rows have their rank among all."""

    ranks: Sequence[int | None]

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, each a dict by column."""
        own = self.ranks[self.first_row : self.first_row + self.count]
        return [{**row, "rank": rank} for row, rank in zip(super().rows(), own, strict=True)]


def _areas(rows: Sequence[Mapping[str, Any]]) -> dict[str, Auc]:
    """Say how well scores tell essential genes from others; higher must mean essential."""
    used = [row for row in rows if row["stops_delta"] is not None and row["essential"] is not None]
    scores = {
        "stop codons": [-row["stops_delta"] for row in used],
        "deletion": [-row["deletion_delta"] for row in used],
        "likelihood of the gene as it is": [row["wild_type"] for row in used],
        "length of the gene, no model": [row["length"] for row in used],
        "GC of the gene, no model": [row["gc"] for row in used],
    }
    member = np.array([row["essential"] for row in used], bool)
    if not member.any() or member.all():
        raise InputError(
            f"of the {len(used):,} genes that were scored and are in the table, {member.sum():,} "
            "are essential. Expected essential genes and others."
        )
    return {
        name: auc(np.array(values, float)[member], np.array(values, float)[~member])
        for name, values in scores.items()
    }


def _write_areas(
    out: Path, areas: Mapping[str, Auc], unmatched: Sequence[str], made: Mapping[str, object]
) -> None:
    told = {
        "auroc": {
            name: {"value": area.value, "standard_error": area.standard_error}
            for name, area in areas.items()
        },
        "names_not_found": list(unmatched),
        **made,
    }
    write_json(out.with_name(f"{out.name}.json"), told, default=str)


def _is_table(path: str | Path) -> bool:
    return bare_suffix(path) in {*DELIMITERS, *PARQUET}


def _read_labels(path: str | Path) -> dict[str, bool]:
    """Return which genes are essential, by name."""
    if not _is_table(path):
        lines = (as_text(line).strip() for line in lines_of(byte_blocks(path)))
        return {line.split()[0]: True for line in lines if line and not line.startswith("#")}
    return dict(_table_labels(path))


def _table_labels(path: str | Path) -> Iterator[tuple[str, bool]]:
    table = open_table(path)
    if "essential" not in table.columns:
        raise FormatError(
            path,
            f"has the columns {', '.join(table.columns)}. Expected one named 'essential' with 1 "
            "or 0; rename it, or give a text file with the names of essential genes.",
        )
    at = table.columns.index("essential")
    for line_1based, cells in table.rows:
        said = cells[at].strip().lower() if at < len(cells) else ""
        if said in _TRUE | _FALSE:
            yield cells[0].strip(), said in _TRUE
        elif said not in {"", "na", "nan", "unknown"}:
            raise FormatError(
                path, f"essential is {said!r}. Expected 1 or 0, or nothing.", line_1based
            )
