"""A vocabulary of words learnt from genomes, in the form that DNABERT-2 published."""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tqdm import tqdm

from lexome.core import InputError, atomic_path
from lexome.core.json_files import write_json
from lexome.formats.bed import read_bed
from lexome.formats.genome import Genome
from lexome.sequence import reverse_complement

SPECIALS = {  # role in tokenizer_config.json: token; ids 0 to 4 in this order
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_PIECE_BP = 512  # ours; the time to learn grows with it, what is learnt hardly changes
_RUST: Any = tokenizers  # type checkers cannot look into it
_LETTERS = re.compile("[ACGTU]+")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What was learnt, and from how much.

    Attributes
    ----------
    folder
        Where ``tokenizer.json`` and ``tokenizer_config.json`` are.
    size
        Number of tokens, the five special ones included.
    bases
        Letters it was learnt from.
    tokens_per_base
        How many tokens a base of these sequences becomes.
    longest
        Letters of the longest token.
    seconds
        Time to learn.
    """

    folder: Path
    size: int
    bases: int
    tokens_per_base: float
    longest: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.size:,} tokens from {self.bases:,} bases in {self.seconds:,.0f} s; "
            f"{self.tokens_per_base:.4f} tokens per base ({1 / self.tokens_per_base:.2f} bases per "
            f"token), the longest of {self.longest}\ntokenizer in {self.folder}"
        )


def train_tokenizer(
    fasta: Sequence[str | Path],
    out: str | Path,
    *,
    size: int = 4096,
    regions: str | Path | None = None,
    max_bases: int = 20_000_000,
    both_strands: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Vocabulary:
    """Learn a byte-pair vocabulary of DNA from FASTA files.

    Pairs of tokens that follow each other most often are joined, again and again (Sennrich et
    al. 2016, arXiv:1508.07909), starting from single letters. The file has DNABERT-2's form:
    [UNK] [CLS] [SEP] [PAD] [MASK] are 0 to 4, the letters come next, and [CLS] and [SEP] stand
    around every sequence. Capital letters only; N and other letters are left out of learning and
    become [UNK].

    Parameters
    ----------
    fasta
        Genomes: FASTA files, plain, gzip or bgzip.
    out
        Folder for ``tokenizer.json`` and ``tokenizer_config.json``; lexome and transformers read
        them.
    size
        Tokens to learn, the special ones included.
    regions
        BED of the regions to learn from; everything by default.
    max_bases
        Letters to learn from at most, in pieces drawn from everywhere. Needs about 80 bytes of
        memory each.
    both_strands
        Whether every other piece, by chance, is a reverse complement.
    seed
        Which pieces and strands.
    progress
        Whether to draw a bar on standard error.

    Raises
    ------
    InputError
        If there are no letters to learn from, or too few for so many tokens.
    """
    if size < len(SPECIALS) + 5:
        raise InputError(
            f"size is {size}. Expected more than the {len(SPECIALS)} special tokens and 4 letters."
        )
    started = time.monotonic()
    generator = np.random.default_rng(seed)
    fasta = [fasta] if isinstance(fasta, str | Path) else list(fasta)
    spans = _spans([Genome(path) for path in fasta], regions)
    if not spans:
        raise InputError(
            f"{', '.join(map(str, fasta))}: there is nothing to learn from. Expected sequences, "
            "and regions that hold some."
        )
    counts = np.cumsum([-(-(end - start) // _PIECE_BP) for _, _, start, end in spans])
    total, wanted = int(counts[-1]), max(1, max_bases // _PIECE_BP)
    pieces = np.arange(total)
    if total > wanted:
        pieces = np.sort(generator.choice(total, wanted, replace=False))
    reverse = generator.random(len(pieces)) < (0.5 if both_strands else 0)
    words: list[str] = []
    for piece, turned in zip(
        tqdm(
            pieces,
            desc="reading",
            unit="piece",
            file=sys.stderr,
            disable=None if progress else True,
        ),
        reverse,
        strict=True,
    ):
        of = int(np.searchsorted(counts, piece, side="right"))
        genome, contig, start, end = spans[of]
        start += (int(piece) - (int(counts[of - 1]) if of else 0)) * _PIECE_BP
        text = genome.fetch(contig, start, min(start + _PIECE_BP, end), pad="").upper()
        words += _LETTERS.findall(reverse_complement(text) if turned else text)
    bases = sum(map(len, words))
    engine = _RUST.Tokenizer(_RUST.models.BPE(unk_token="[UNK]"))
    engine.pre_tokenizer = _RUST.pre_tokenizers.Whitespace()
    trainer = _RUST.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=list("ACGT"),
        show_progress=progress and sys.stderr.isatty(),
    )
    engine.train_from_iterator(words, trainer, length=len(words))
    found = engine.get_vocab_size()
    if found < size:
        raise InputError(
            f"{bases:,} letters of {', '.join(map(str, fasta))} gave {found:,} tokens, but "
            f"{size:,} were asked for. Give more sequence or a smaller size."
        )
    engine.post_processor = _RUST.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "tokenizer.json") as temporary:
        temporary.write_text(engine.to_str(pretty=True) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIALS}
    write_json(folder / "tokenizer_config.json", settings)
    encoded = engine.encode_batch(words[:: len(words) // 2000 + 1], add_special_tokens=False)
    tokens = sum(len(each.ids) for each in encoded)
    letters = sum(each.offsets[-1][1] for each in encoded)
    return Vocabulary(
        folder=folder,
        size=found,
        bases=bases,
        tokens_per_base=tokens / letters,
        longest=max(len(token) for token in engine.get_vocab() if token.isalpha()),
        seconds=round(time.monotonic() - started, 3),
    )


def _spans(
    genomes: Sequence[Genome], regions: str | Path | None
) -> list[tuple[Genome, str, int, int]]:
    """Return the stretches to learn from: genome, contig, start, end."""
    if regions is None:
        return [
            (g, name, 0, length) for g in genomes for name, length in g.contigs.items() if length
        ]
    spans = []
    for each in read_bed(regions):
        holding = [genome for genome in genomes if genome.has(each.contig)]
        if not holding:
            raise InputError(
                f"{regions}: no FASTA file has a contig {each.contig!r}. Check that both are of "
                "one assembly."
            )
        spans += [
            (genome, each.contig, each.start, each.end) for genome in holding[:1] if len(each)
        ]
    return spans
