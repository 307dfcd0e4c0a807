"""Variants to scores: every row comes out, in order, with a status; bad rows get no number.

Three scores, never mixed in one column. A masked model of single letters, or of k-mers that begin
at every letter, gives substitutions of one base the log-ratio of the two bases at the masked site
(Benegas et al. 2023). Everything else that a
masked model scores is the difference of the pseudo-log-likelihoods of two windows (Salazar et al.
2020), and what a causal model scores is the difference of their log-likelihoods.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from lexome.core import InputError, ReferenceMismatch, free_path
from lexome.core.messages import counted, tab_table
from lexome.formats import (
    Genome,
    InfoField,
    RowStore,
    StoredRows,
    VariantReader,
    VariantRecord,
    VcfWriter,
    file_fingerprint,
    read_variants,
    writer_for,
)
from lexome.formats.duplicates import SeenIds
from lexome.formats.streams import STDIN, bare_suffix
from lexome.inference.batching import progress_bar, token_budget
from lexome.inference.causal_likelihood import change_logliks
from lexome.inference.kmer_likelihood import overlapping_kmers
from lexome.inference.likelihood import score_sequences
from lexome.inference.reading import tokenizer_of
from lexome.inference.runs import fingerprint, loaded, provenance
from lexome.inference.sites import Strands, masked_centre_logits, reads_sites
from lexome.inference.stretches import LengthNote, carries_state
from lexome.model import Model
from lexome.sequence import (
    Variant,
    alternative_window,
    centre_window,
    normalise,
    reverse_complement,
)

SCORED = ("ok", "edge_padded", "duplicate")
"""Statuses of alleles that get a number; the last two are remarks."""

MASK_STRIDE = 8
"""Every so many tokens are masked together in a window: 12.5 %, near the 15 % of pretraining."""

_BLOCK_ALLELES = 4096  # scored together: equal windows run once, a kill costs no more
_BASE = {base: i for i, base in enumerate("ACGT")}
_SIGN = "positive: the model prefers ALT; negative: it prefers REF"
_FORMULAS = {
    "masked_llr": "ln p(ALT) - ln p(REF) at the masked site; single-base substitutions only",
    "pll_delta": "pseudo-log-likelihood of the ALT window minus that of the REF window, in nats",
    "loglik_delta": "log-likelihood of the ALT window minus that of the REF window, in nats",
}


@dataclass(frozen=True, kw_only=True)
class VariantScore:
    """One alternative allele and what the model says of it.

    Attributes
    ----------
    contig, position, id, ref, alt
        As the input spells them; `position` is the 0-based start of REF, -1 if it has none.
    row_1based
        Number of the input row.
    status
        ``ok``; scored with a remark: ``edge_padded`` (the window reaches beyond the contig) or
        ``duplicate`` (the same change came before); without a score: ``malformed``, ``no_alt``,
        ``contig_missing``, ``off_contig``, ``ref_mismatch``, ``ref_swapped`` (ALT is what the
        genome says), ``non_acgt``, ``symbolic``, ``star``, ``same_as_ref``, ``too_long``.
    scores
        {column: score}, natural log; the mean of the strands, and each strand's own. Only columns
        that apply to this allele are in it.
    """

    contig: str
    position: int
    id: str
    ref: str
    alt: str
    row_1based: int
    status: str
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def masked_llr(self) -> float | None:
        """Ln p(ALT) - ln p(REF) at the masked site, or None."""
        return self.scores.get("masked_llr")

    @property
    def pll_delta(self) -> float | None:
        """Difference of the windows' pseudo-log-likelihoods, or None."""
        return self.scores.get("pll_delta")

    @property
    def loglik_delta(self) -> float | None:
        """Difference of the windows' log-likelihoods, or None."""
        return self.scores.get("loglik_delta")


@dataclass(frozen=True, kw_only=True)
class VariantSummary:
    """What became of the alleles of a run; `str` of it is the output's path.

    Attributes
    ----------
    alleles
        How many there were.
    statuses
        {status: how many}.
    seconds
        Wall time of this run.
    out
        The output file, if any.
    """

    alleles: int
    statuses: Mapping[str, int]
    seconds: float
    out: Path | None = None

    def __str__(self) -> str:
        return str(self.out)

    def line(self) -> str:
        """Return the numbers as one line for people.

        Examples
        --------
        >>> VariantSummary(alleles=3, statuses={"ok": 2, "star": 1}, seconds=2.0).line()
        '3 alleles, 2 scored, 1 without a score (1 star) in 2.0 s, 1 alleles/s'
        """
        scored = sum(self.statuses.get(status, 0) for status in SCORED)
        rest = {k: n for k, n in self.statuses.items() if k not in SCORED}
        parts = [counted(self.alleles, "allele"), f"{scored:,} scored"]
        remarks = {k: n for k, n in self.statuses.items() if k in SCORED and k != "ok"}
        parts += [f"{n:,} of them {k}" for k, n in remarks.items()]
        if rest:
            why = ", ".join(f"{n:,} {k}" for k, n in rest.items())
            parts.append(f"{sum(rest.values()):,} without a score ({why})")
        speed = scored / max(self.seconds, 1e-9)
        return f"{', '.join(parts)} in {self.seconds:.1f} s, {speed:,.0f} alleles/s"


@dataclass(frozen=True, kw_only=True)
class VariantScores:
    """Scores of variants, one per alternative allele, in the order of the input.

    Attributes
    ----------
    rows
        The alleles.
    columns
        Names of the scores that there can be.
    provenance
        Model, checkpoint hash, precision, genome, window, strands, formula and sign, version.
    summary
        The run in numbers.
    """

    rows: tuple[VariantScore, ...]
    columns: tuple[str, ...]
    provenance: Mapping[str, object]
    summary: VariantSummary

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[VariantScore]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> VariantScore:
        return self.rows[index]

    def __str__(self) -> str:
        """Return the rows as a tab-separated table, positions 1-based."""
        rows = [_row(_Allele(score=score), self.columns) for score in self.rows]
        names = ["chrom", "pos", "id", "ref", "alt", "row", "status", *self.columns]
        return tab_table(rows, names)


@dataclass(frozen=True, kw_only=True)
class _Allele:
    """An allele on its way: the row that comes out, and what is scored."""

    score: VariantScore
    variant: Variant | None = None  # normal form, on the genome's contig
    cells: Mapping[str, str] = field(default_factory=dict)  # columns of a table


def score_variants(
    model: Model | str | Path,
    variants: str | Path | Iterable[str | Variant],
    genome: str | Path | Genome,
    *,
    out: str | Path | None = None,
    window_bp: int = 512,
    centre: int | None = None,
    centre_reverse: int | None = None,
    both_strands: bool = True,
    mask_stride: int | None = MASK_STRIDE,
    strict: bool = False,
    info_prefix: str = "LEXOME",
    max_tokens_per_batch: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> VariantScores | VariantSummary:
    """Score the variants of a VCF or a table with a language model.

    Every alternative allele of every row comes out, in the order of the input, with a status; an
    allele that cannot be scored gets a status and no number, and never ends the run. Positive
    scores mean that the model prefers the alternative allele.

    Parameters
    ----------
    model
        A masked or causal model, or what `lexome.load` takes: a release name, a hub id, a folder.
    variants
        VCF (also .gz), BCF, TSV, CSV or Parquet with chrom, pos, ref and alt, text with one
        variant a line such as chr22:1024:A>C, - for a VCF on stdin, or from Python a list.
    genome
        FASTA of the assembly that the variants are on, plain or bgzip. Names of contigs may
        differ in a leading chr.
    out
        .vcf, .vcf.gz or .bcf (the input's rows with INFO fields, one value per allele), .tsv,
        .csv or .parquet (one row per allele). Without it, the scores are returned.
    window_bp
        Bases around a variant that the model sees; N stands outside a contig.
    centre
        Index in the window, from 0, at which REF begins; by default window_bp // 2.
    centre_reverse
        Index of that base in the reverse strand's window. By default window_bp - 1 - centre: the
        same bases, reverse complemented; another index shifts that window along the genome.
    both_strands
        Average the scores of both strands.
    mask_stride
        For windows that a masked model scores token by token: mask every so many-th token
        together, which takes as many passes as the stride. None masks each alone: exact, slow.
    strict
        Raise at the first allele that cannot be scored, naming it.
    info_prefix
        What the names of the INFO fields begin with.
    max_tokens_per_batch
        By default what suits the machine. It changes speed and memory only.
    resume
        Continue an interrupted run of the same arguments.
    overwrite
        Replace out, and rows of an interrupted run with other arguments.
    progress
        Whether to show a progress bar and a last line of numbers on stderr. By default on a
        terminal; the line also where there is an output.
    device, precision
        As for `lexome.load`, where the model is not loaded yet.

    Returns
    -------
    `VariantScores`, or with `out` a `VariantSummary`.

    Raises
    ------
    ReferenceMismatch
        If not one allele agrees with the genome (after the output is written), or with `strict`.
    InputError
        If arguments contradict each other or the model.
    FormatError
        If a file is not what its name says, with file and line.

    References
    ----------
    Benegas et al. 2023, PNAS 120(44) e2311219120 (masked log-ratio); Salazar et al. 2020,
    arXiv:1910.14659 (pseudo-log-likelihood).
    """
    model = loaded(model, device, precision)
    columns = _columns(model)
    kmers = overlapping_kmers(tokenizer_of(model))
    befores = _befores(model, window_bp, centre, centre_reverse, both_strands=both_strands)
    LengthNote(model).tell(window_bp, "a window", "a smaller window_bp stays within")
    reference = genome if isinstance(genome, Genome) else Genome(genome)
    reader = variants if isinstance(variants, VariantReader) else read_variants(variants)
    settings: dict[str, object] = {
        "score": "; ".join(f"{name}: {_FORMULAS[name]}" for name in columns),
        "sign": _SIGN,
        "genome": reference.path.name,
        "window_bp": window_bp,
        "centre": _centre_text(window_bp, befores),
        "strands": "forward and reverse complement averaged" if both_strands else "forward",
        **({"mask_stride": mask_stride} if "pll_delta" in columns else {}),
        **({"masked": "all k-mers that cover the site"} if kmers else {}),
    }
    _compare_builds(reader, reference)
    scorer = _Scorer(
        model=model,
        genome=reference,
        window_bp=window_bp,
        befores=befores,
        mask_stride=mask_stride,
        max_tokens=max_tokens_per_batch,
        columns=columns,
    )
    names = tuple(n for c in columns for n in _strand_names(c, both_strands=both_strands))
    alleles = partial(_alleles, reader, reference, window_bp, befores, strict=strict)
    made = provenance(model, "score", settings)
    if out is None:
        scores: list[VariantScore] = []

        def collect(block: Sequence[_Allele]) -> None:
            scores.extend(allele.score for allele in block)

        summary = _run(alleles(), scorer, collect, progress=progress)
        _refuse_wrong_genome(summary, reference)
        return VariantScores(rows=tuple(scores), columns=names, provenance=made, summary=summary)
    write = _writer(out, reader, columns, reference, info_prefix, both_strands=both_strands)
    free_path(out, overwrite=overwrite)
    source = variants if isinstance(variants, str | Path) else None
    marks = fingerprint(model, source, None, made)
    marks["genome_file"] = file_fingerprint(reference.path)
    with RowStore(out, marks, resume=resume, overwrite=overwrite) as store:

        def keep(block: Sequence[_Allele]) -> None:
            store.append([_row(allele, names) for allele in block])

        try:
            summary = _run(alleles(), scorer, keep, done=store.rows_done, progress=progress)
        except BaseException:
            if store.rows_done:
                print(
                    f"{store.rows_done:,} alleles are safe in {store.folder}; the same command "
                    "continues there.",
                    file=sys.stderr,
                )
            raise
        store.finish(write, provenance=made)
    summary = replace(summary, out=Path(out))
    if progress is not False:
        print(summary.line(), file=sys.stderr)
    _refuse_wrong_genome(summary, reference)
    return summary


def _columns(model: Model) -> tuple[str, ...]:
    """Return the scores that a model gives."""
    objective = model.objective
    if objective not in {"masked", "causal"} or model.family.inputs != "sequence":
        raise InputError(
            f"{model.family.title} gives no probabilities of bases (its objective is "
            f"{objective}). Variants are scored by masked and causal models of sequences."
        )
    if model.head_name != objective:
        raise InputError(
            f"{model.name} has {model.head_name or 'no'} head, and scoring needs the {objective} "
            "one that it was pretrained with. Load the pretrained checkpoint."
        )
    if objective == "causal":
        return ("loglik_delta",)
    return ("masked_llr", "pll_delta") if reads_sites(model) else ("pll_delta",)


def _befores(
    model: Model,
    window_bp: int,
    centre: int | None,
    centre_reverse: int | None,
    *,
    both_strands: bool,
) -> tuple[int, ...]:
    """Return how many bases of the forward strand stand before REF in each strand's window."""
    _check_window(model, window_bp)
    for name, index in (("centre", centre), ("centre_reverse", centre_reverse)):
        if index is not None and not 0 <= index < window_bp:
            raise InputError(
                f"{name} is {index} in a window of {window_bp:,} bases. Expected 0 to "
                f"{window_bp - 1:,}."
            )
    if centre_reverse is not None and not both_strands:
        raise InputError("centre_reverse was given for one strand. Leave it out.")
    forward = window_bp // 2 if centre is None else centre
    reverse = forward if centre_reverse is None else window_bp - 1 - centre_reverse
    return (forward, reverse) if both_strands else (forward,)


def _centre_text(window_bp: int, befores: Sequence[int]) -> str:
    text = f"REF begins at index {befores[0]}, 0-based"
    if len(befores) > 1:
        text += f"; on the reverse strand that base has index {window_bp - 1 - befores[1]}"
    return text


def _check_window(model: Model, window_bp: int) -> None:
    tokenizer = tokenizer_of(model)
    limit = model.context
    special = len(tokenizer.prefix) + len(tokenizer.suffix)
    kmers = overlapping_kmers(tokenizer)
    special -= kmers.k - 1 if kmers else 0  # so many fewer k-mers than letters
    if window_bp < 2:
        raise InputError(f"window_bp is {window_bp}. Expected at least 2.")
    if limit is not None and reads_sites(model) and window_bp + special > limit:
        raise InputError(
            f"window_bp is {window_bp:,}, and {model.name} takes at most {limit:,} tokens, special "
            f"ones included. Give at most {limit - special:,}."
        )


def _compare_builds(reader: VariantReader, genome: Genome) -> None:
    """Say so if the VCF's header states other lengths of contigs than the genome has."""
    differing = []
    for name, length in reader.contig_lengths.items():
        contig = genome.resolve(name)
        if contig is not None and genome.contigs[contig] != length:
            differing.append(f"{name} is {length:,} there and {genome.contigs[contig]:,} here")
    if differing:
        print(
            f"note: the header of {reader.path} states other lengths than {genome.path.name}: "
            f"{'; '.join(differing[:3])}. Check that both are of one assembly.",
            file=sys.stderr,
        )


def _alleles(
    reader: VariantReader,
    genome: Genome,
    window_bp: int,
    befores: Sequence[int],
    *,
    strict: bool,
) -> Iterator[_Allele]:
    """Yield every allele of every row with its status, and its normal form if it can be scored."""
    seen = SeenIds()
    told = False
    for record in reader:
        contig = genome.resolve(record.contig) if record.contig else None
        if contig is not None and contig != record.contig and not told:
            told = True
            print(
                f"note: {reader.path} calls {record.contig!r} what {genome.path.name} calls "
                f"{contig!r}; such names are taken as the same.",
                file=sys.stderr,
            )
        for allele in _record_alleles(record, contig, genome, window_bp, befores):
            if allele.variant is not None and not seen.add(str(allele.variant)):
                allele = replace(allele, score=replace(allele.score, status="duplicate"))
            if strict and allele.score.status not in SCORED:
                raise ReferenceMismatch(
                    f"{reader.path}, row {record.row_number_1based:,}: {record.contig}:"
                    f"{record.position + 1} {record.ref}>{allele.score.alt} is "
                    f"{allele.score.status}{_detail(record, contig, genome)}. Correct the row, or "
                    "leave strict out to keep such rows with their status."
                )
            yield allele


def _detail(record: VariantRecord, contig: str | None, genome: Genome) -> str:
    if record.problem:
        return f" ({record.problem})"
    if contig is None or record.position < 0:
        return ""
    here = genome.fetch(contig, record.position, record.position + max(1, len(record.ref)))
    return f" (the genome has {here[:20].upper()} there)"


def _record_alleles(
    record: VariantRecord,
    contig: str | None,
    genome: Genome,
    window_bp: int,
    befores: Sequence[int],
) -> Iterator[_Allele]:
    cells = record.source if isinstance(record.source, Mapping) else {}
    blank = VariantScore(
        contig=record.contig,
        position=record.position,
        id=record.id,
        ref=record.ref,
        alt=",".join(record.alts),
        row_1based=record.row_number_1based,
        status="malformed" if record.problem else "no_alt",
    )
    variants = record.variants()
    if not variants:
        yield _Allele(score=blank, cells=cells)
        return
    for variant, alt in zip(variants, record.alts, strict=True):
        score = replace(blank, alt=alt)
        if contig is None:
            yield _Allele(score=replace(score, status="contig_missing"), cells=cells)
            continue
        variant = replace(variant, contig=contig, ref=variant.ref.upper(), alt=variant.alt.upper())
        status = _status(variant, genome, window_bp, befores)
        if status in SCORED:
            variant = normalise(variant, genome)
            status = _status(variant, genome, window_bp, befores)
        scored = status in SCORED
        yield _Allele(
            score=replace(score, status=status), variant=variant if scored else None, cells=cells
        )


def _status(variant: Variant, genome: Genome, window_bp: int, befores: Sequence[int]) -> str:
    kind = variant.kind
    if kind in {"symbolic", "star", "non_acgt"}:
        return kind
    length = genome.contigs[variant.contig]
    end = variant.position + len(variant.ref)
    if variant.position < 0 or end > length:
        return "off_contig"
    here = genome.fetch(variant.contig, variant.position, end).upper()
    if here != variant.ref:
        reach = variant.position + len(variant.alt)
        there = genome.fetch(variant.contig, variant.position, reach).upper()
        return "ref_swapped" if variant.alt and there == variant.alt else "ref_mismatch"
    if kind == "same":
        return "same_as_ref"
    if max(len(variant.ref), len(variant.alt)) > window_bp - max(befores):
        return "too_long"
    starts = [variant.position - before for before in befores]
    inside = min(starts) >= 0 and max(starts) + window_bp <= length
    return "ok" if inside else "edge_padded"


@dataclass(frozen=True, kw_only=True)
class _Scorer:
    """Scores blocks of alleles; equal windows of a block are run once."""

    model: Model
    genome: Genome
    window_bp: int
    befores: tuple[int, ...]  # bases before the variant in the window of each strand
    mask_stride: int | None
    max_tokens: int | None
    columns: tuple[str, ...]

    def __call__(self, block: Sequence[_Allele]) -> list[_Allele]:
        """Return the alleles of a block with their scores."""
        todo = {i: allele.variant for i, allele in enumerate(block) if allele.variant is not None}
        sites = {i: v for i, v in todo.items() if "masked_llr" in self.columns and v.kind == "snv"}
        others = {i: v for i, v in todo.items() if i not in sites}
        scores = self._at_sites(sites) | self._by_windows(others)
        return [
            replace(allele, score=replace(allele.score, scores=scores[i]))
            if i in scores
            else allele
            for i, allele in enumerate(block)
        ]

    def _at_sites(self, variants: Mapping[int, Variant]) -> dict[int, dict[str, float]]:
        """Score single-base substitutions; all alleles of a site share its masked passes."""
        if not variants:
            return {}
        sites = list(dict.fromkeys((v.contig, v.position) for v in variants.values()))
        place = {site: k for k, site in enumerate(sites)}
        forward, reverse = (
            [centre_window(self.genome, *site, self.window_bp, b).upper() for site in sites]
            for b in (self.befores[0], self.befores[-1])
        )
        windows = Strands(
            forward=forward,
            reverse=[reverse_complement(window) for window in reverse],
            forward_centre=self.befores[0],
            reverse_centre=self.window_bp - 1 - self.befores[-1],
        )
        strands = masked_centre_logits(self.model, windows, max_tokens=self.max_tokens)
        out = {}
        for i, variant in variants.items():
            k = place[variant.contig, variant.position]
            alt, ref = _BASE[variant.alt], _BASE[variant.ref]
            out[i] = self._joined(
                "masked_llr", [float(s[k, alt]) - float(s[k, ref]) for s in strands]
            )
        return out

    def _by_windows(self, variants: Mapping[int, Variant]) -> dict[int, dict[str, float]]:
        """Score by the likelihood of both windows."""
        if not variants:
            return {}
        pairs = {}
        for i, variant in variants.items():
            site = variant.contig, variant.position
            pair = []
            for strand, before in enumerate(self.befores):
                ref = centre_window(self.genome, *site, self.window_bp, before).upper()
                alt = alternative_window(self.genome, variant, self.window_bp, before).upper()
                if strand:
                    ref, alt = reverse_complement(ref), reverse_complement(alt)
                pair.append((ref, alt))
            pairs[i] = pair
        different = dict.fromkeys(pair for strands in pairs.values() for pair in strands)
        context = self.model.context or math.inf
        longest = self.window_bp + len(tokenizer_of(self.model).prefix)
        if carries_state(self.model) and longest <= context:
            deltas = self._from_changes_on(list(different))
        else:
            deltas = self._by_whole_windows(list(different))
        name = self.columns[-1]
        return {i: self._joined(name, [deltas[p] for p in pair]) for i, pair in pairs.items()}

    def _by_whole_windows(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        texts = {text: n for n, text in enumerate(dict.fromkeys(t for p in pairs for t in p))}
        found = score_sequences(
            self.model,
            list(texts),
            mask_stride=self.mask_stride if self.columns[-1] == "pll_delta" else None,
            max_tokens=self.model.context or 2 * self.window_bp + 8,
            max_unknown=1.0,
            max_tokens_per_batch=self.max_tokens,
            progress=False,
        )
        loglik = found.column("loglik")  # type: ignore[union-attr]
        return {(ref, alt): loglik[texts[alt]] - loglik[texts[ref]] for ref, alt in pairs}

    def _from_changes_on(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Run what stands before a change once for REF and all its ALTs, as whole windows give."""
        alts: dict[str, list[str]] = {}
        for ref, alt in pairs:
            alts.setdefault(ref, []).append(alt)
        budget = token_budget(self.model, self.max_tokens)
        return change_logliks(self.model, alts, max_tokens=budget)

    def _joined(self, name: str, strands: Sequence[float]) -> dict[str, float]:
        if len(self.befores) == 1:
            return {name: float(strands[0])}
        forward, reverse = map(float, strands)
        values = ((forward + reverse) / 2, forward, reverse)
        return dict(zip(_strand_names(name, both_strands=True), values, strict=True))


def _strand_names(column: str, *, both_strands: bool) -> tuple[str, ...]:
    return (column, f"{column}_forward", f"{column}_reverse") if both_strands else (column,)


def _run(
    alleles: Iterator[_Allele],
    scorer: _Scorer,
    keep: Callable[[Sequence[_Allele]], object],
    *,
    done: int = 0,
    progress: bool | None = None,
) -> VariantSummary:
    """Score all alleles behind the first `done`, in blocks, and hand them on in order."""
    began = time.perf_counter()
    statuses: Counter[str] = Counter()
    for allele in islice(alleles, done):
        statuses[allele.score.status] += 1
    with progress_bar("alleles", show=progress) as bar:
        while block := list(islice(alleles, _block_size(scorer))):
            scored = scorer(block)
            statuses.update(allele.score.status for allele in scored)
            keep(scored)
            bar.update(len(scored))
    return VariantSummary(
        alleles=statuses.total(),
        statuses=dict(statuses.most_common()),
        seconds=time.perf_counter() - began,
    )


def _block_size(scorer: _Scorer) -> int:
    """Return how many alleles to score together: some batches' worth."""
    budget = token_budget(scorer.model, scorer.max_tokens)
    return max(64, min(_BLOCK_ALLELES, 64 * budget // scorer.window_bp))


def _refuse_wrong_genome(summary: VariantSummary, genome: Genome) -> None:
    wrong = sum(
        summary.statuses.get(s, 0) for s in ("ref_mismatch", "contig_missing", "off_contig")
    )
    if summary.alleles and wrong == summary.alleles:
        why = ", ".join(f"{n:,} {status}" for status, n in summary.statuses.items())
        holds = f" {summary.out} holds the statuses." if summary.out else ""
        raise ReferenceMismatch(
            f"no variant agrees with {genome.path.name} ({why}), so none was scored. Its contigs "
            f"are {', '.join(list(genome.contigs)[:3])} ... Give the assembly that the variants "
            f"were called on.{holds}"
        )


def _row(allele: _Allele, names: Sequence[str]) -> dict[str, object]:
    score = allele.score
    own: dict[str, object] = {
        "chrom": score.contig,
        "pos": score.position + 1,
        "id": score.id,
        "ref": score.ref,
        "alt": score.alt,
        "row": score.row_1based,
        "status": score.status,
        **{name: _number(score.scores.get(name)) for name in names},
    }
    known = {"chrom", "pos", "ref", "alt", "variant", "id"}
    rest = {k: v for k, v in allele.cells.items() if k.lower().lstrip("#") not in known}
    return own | {f"input_{k}" if k in own else k: v for k, v in rest.items()}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _writer(
    out: str | Path,
    reader: VariantReader,
    columns: Sequence[str],
    genome: Genome,
    prefix: str,
    *,
    both_strands: bool,
) -> Any:
    """Return what makes the output of stored rows, after checking that it can."""
    if bare_suffix(out) not in {".vcf", ".bcf"}:
        return writer_for(out)
    if reader.path == STDIN:
        raise InputError(
            "a VCF from stdin is read once, and a scored VCF needs its rows a second time. Save "
            "the variants to a file first, or write .tsv."
        )
    names = [n for column in columns for n in _strand_names(column, both_strands=both_strands)]
    described = {
        n: f"{_FORMULAS[column]}{n.removeprefix(column).replace('_', ', ')}"
        + (" strand" if n != column else "")
        + f"; {_SIGN}"
        for column in columns
        for n in _strand_names(column, both_strands=both_strands)
    }
    fields = {n: InfoField(f"{prefix}_{n}", "A", "Float", described[n]) for n in names}
    status = InfoField(f"{prefix}_status", "A", "String", "ok, or why there is no score")

    def write(path: Path, stored: StoredRows, made: Mapping[str, object]) -> None:
        meta = [f"lexome_{key.replace('lexome', 'version')}={value}" for key, value in made.items()]
        rows = stored.rows()
        info = [status, *fields.values()]
        lengths = genome.contigs
        with VcfWriter(path, reader, info, meta, contig_lengths=lengths) as writer:
            for record in reader:
                count = max(1, len(record.variants()))
                of_record = list(islice(rows, count))
                values: dict[str, object] = {status.id: [row["status"] for row in of_record]}
                for name, info_field in fields.items():
                    column = [row[name] for row in of_record]
                    if any(value is not None for value in column):
                        values[info_field.id] = column
                writer.write(record, values)

    return write
