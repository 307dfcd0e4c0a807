"""Scoring single-base variants with GPN, at the sizes of gpn-brassicales, against plain loops.

The loops run two forwards per strand, one for each allele, on a plain network written from the
paper: one variant at a time, and in batches as large as ours. What is ours includes reading
windows from a genome on disk, tokens, and rows with statuses.

    python benchmarks/variants.py [VARIANTS]
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from turns import Timing, in_turn, machine, matmul_peak, peak_memory_mb

from lexome.catalog import new
from lexome.formats import Genome, SequenceRecord, write_fasta
from lexome.inference.variants import score_variants
from lexome.model import Model
from lexome.sequence import reverse_complement

WINDOW_BP = 512
VARIANTS = 16
BATCH = 8
ROUNDS = 2
GENOME_BP = 100_000


def plain_scores(model: Model, ids_BL: Tensor, column: int) -> Tensor:
    """Return the scores (B, V) of one masked column."""
    c = model.config
    x = F.one_hot(ids_BL, c.width).float().transpose(1, 2)
    for layer in model.backbone.layers:
        conv, norm = layer.conv.conv, layer.conv_norm
        h = F.conv1d(x, conv.weight, conv.bias, padding="same", dilation=conv.dilation)
        h = F.layer_norm(F.gelu(h).transpose(1, 2), (c.width,), norm.weight, norm.bias)
        x = x.transpose(1, 2) + h
        h = F.gelu(F.linear(x, layer.mlp.weight, layer.mlp.bias))
        x = x + F.layer_norm(h, (c.width,), layer.mlp_norm.weight, layer.mlp_norm.bias)
        x = x.transpose(1, 2)
    head = model.head
    h = F.gelu(F.linear(x[:, :, column], head.dense.weight, head.dense.bias))
    h = F.layer_norm(h, (c.width,), head.norm.weight, head.norm.bias)
    return F.linear(h, head.decoder.weight, head.decoder.bias)


def loop(model: Model, genome: str, variants: list[tuple[int, str, str]], batch: int) -> Tensor:
    """Score variants (position, REF, ALT) by two forwards per strand."""
    ids_of = {letter: i for i, letter in enumerate("ACGT", start=3)}
    scores = []
    for start in range(0, len(variants), batch):
        some = variants[start : start + batch]
        both = []
        for turn, column in ((str, WINDOW_BP // 2), (reverse_complement, WINDOW_BP // 2 - 1)):
            texts = [turn(genome[p - WINDOW_BP // 2 : p + WINDOW_BP // 2]) for p, _, _ in some]
            ids = torch.tensor([[ids_of[letter] for letter in text] for text in texts])
            ids[:, column] = 1
            ref, alt = (
                plain_scores(model, ids, column).log_softmax(-1)[
                    range(len(some)), [ids_of[turn(variant[allele])] for variant in some]
                ]
                for allele in (1, 2)
            )
            both.append(alt - ref)
        scores.append(torch.stack(both).mean(0))
    return torch.cat(scores)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else VARIANTS
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ACGT"), GENOME_BP))
    places = rng.choice(np.arange(WINDOW_BP, GENOME_BP - WINDOW_BP), count, replace=False)
    one_each = [
        (int(p), text[p], "ACGT"[("ACGT".index(text[p]) + 1 + i % 3) % 4])
        for i, p in enumerate(sorted(places))
    ]
    all_alleles = [(p, ref, a) for p, ref, _ in one_each for a in "ACGT" if a != ref]
    model, narrow = new("gpn").eval(), new("gpn").eval().cast(torch.bfloat16)
    peak = matmul_peak(torch.float32)
    print(machine())
    print(f"matrix-multiply peak: {peak / 1e9:.0f} Gflop/s in float32")
    print(
        f"GPN, {model.count_parameters():,} parameters, windows of {WINDOW_BP} bp, both strands\n"
    )
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "genome.fa"
        write_fasta(path, [SequenceRecord("chr1", text)])
        genome = Genome(path)

        def ours(model: Model, variants: list[tuple[int, str, str]]) -> Callable[[], Tensor]:
            words = [f"chr1:{p + 1}:{ref}>{alt}" for p, ref, alt in variants]

            def run() -> Tensor:
                rows = score_variants(model, words, genome, window_bp=WINDOW_BP, progress=False)
                return torch.tensor([row.masked_llr for row in rows])

            return run

        contestants = {
            "loop, one at a time": lambda: loop(model, text, one_each, 1),
            f"loop, {BATCH} at a time": lambda: loop(model, text, one_each, BATCH),
            "lexome, float32": ours(model, one_each),
            "lexome, bfloat16": ours(narrow, one_each),
        }
        expected, *others = (run() for run in contestants.values())
        timings = in_turn(contestants, ROUNDS)
        memory = {name: peak_memory_mb(run) for name, run in contestants.items()}
        saturated = in_turn({"three": ours(model, all_alleles)}, ROUNDS)["three"]
    single, batched = list(timings.values())[:2]
    # Both loops do the same products: two alleles, two strands.
    flops = (
        4
        * count
        * WINDOW_BP
        * 2
        * sum(
            layer.conv.conv.weight.numel() + layer.mlp.weight.numel()
            for layer in model.backbone.layers
        )
    )

    def line(name: str, timing: Timing, difference: float) -> str:
        mb = memory[name]
        return (
            f"{name:<20} {timing.best:7.2f} s  {count / timing.best:6.2f} variants/s  "
            f"{single.best / timing.best:5.2f}x, {batched.best / timing.best:5.2f}x the loops "
            f"(processor {single.cpu / timing.cpu:.2f}x, {batched.cpu / timing.cpu:.2f}x)  "
            f"{flops / timing.best / peak:4.0%} of the peak if it did the loop's products  "
            + ("" if mb is None else f"+{mb:,.0f} MB  ")
            + f"largest difference {difference:.1e}"
        )

    for (name, timing), scores in zip(timings.items(), [expected, *others], strict=True):
        print(line(name, timing, float((scores - expected).abs().max())))
    print(f"all three alleles of each site, float32: {3 * count / saturated.best:.2f} variants/s")


if __name__ == "__main__":
    main()
