"""One sequence of 1 kb to 1 Mb, scored and embedded: time and memory, each in its own process.

HyenaDNA takes a sequence in one pass, and its memory grows with the length. Mamba's goes through in
stretches and does not grow. Evo's grows by the keys and values of its attention, whose time grows
with the square of the length. Last, what it saves to run what stands before a change once: variants
and broken genes against whole windows.

    python benchmarks/length.py [--full]

`--full` adds lengths between, longer sequences for Evo, and `lexome embed` and `lexome likelihood`
of 1 Mb of E. coli. Seconds are of the clock and of the processor, all threads added.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from turns import in_turn, machine, peak_memory_mb

from lexome.catalog import new
from lexome.formats import SequenceRecord, read_fasta, write_fasta
from lexome.inference import variants as scoring
from lexome.inference.embedding import embed
from lexome.inference.likelihood import score_sequences
from lexome.model import Model
from lexome.tasks import bundled_genome
from lexome.tasks import essentiality as breaking

LENGTHS = (1_000, 16_000, 250_000, 1_000_000)
BETWEEN = (4_000, 64_000, 131_072)
MODELS: dict[str, dict[str, Any]] = {
    "hyenadna": {"width": 128, "mlp_width": 512, "depth": 2},
    "mamba": {"width": 64, "depth": 2},
    "evo": {"width": 128, "depth": 4, "heads": 4, "mlp_width": 352, "attention_layers": (2,)},
}
LONGEST = {"evo": (32_000, 131_072)}  # what is worth the time, and in full
SIZES: dict[str, dict[str, Any]] = {  # of two releases, and one that carries a state
    "hyenadna-tiny": {"width": 128, "mlp_width": 512, "depth": 2},
    "hyenadna-small": {"width": 256, "mlp_width": 1024, "depth": 4},
    "mamba-128": {"width": 128, "depth": 4},
}
TASKS: dict[str, Callable[[Model, list[str]], object]] = {
    "likelihood": lambda model, texts: score_sequences(model, texts, progress=False),
    "embed": lambda model, texts: embed(model, texts, pooling="mean", progress=False),
}
WINDOW_BP = 512
SITES = 40
GENE_WINDOW_BP = 8192
GENES = 4
ROUNDS = 2


def build(family: str, length: int, sizes: dict[str, Any] | None = None) -> Model:
    """Make a model with random weights."""
    own: dict[str, Any] = {"length": length + 2} if family == "hyenadna" else {}
    return new(family, **(sizes or MODELS[family]), **own).eval()


def text(length: int, seed: int = 0) -> str:
    """Draw letters."""
    generator = torch.Generator().manual_seed(seed)
    return "".join("ACGT"[i] for i in torch.randint(4, (length,), generator=generator))


def measure(family: str, task: str, length: int) -> dict[str, float]:
    """Score or embed one sequence; meant for a fresh process."""
    model, sequence = build(family, length), text(length)
    TASKS[task](model, ["ACGT" * 8])  # what is made once
    spent: list[float] = []

    def run() -> None:
        began, cpu_began = time.perf_counter(), time.process_time()
        TASKS[task](model, [sequence])
        spent.extend((time.perf_counter() - began, time.process_time() - cpu_began))

    megabytes = peak_memory_mb(run)
    return {"seconds": spent[0], "cpu": spent[1], "megabytes": megabytes or float("nan")}


def curve(*, full: bool) -> None:
    """Print a line for each model, task and length."""
    print(f"{'model':<10}{'task':<12}{'bases':>10}{'seconds':>10}{'cpu':>9}{'memory, MB':>12}")
    for family in MODELS:
        longest = LONGEST.get(family, (LENGTHS[-1],) * 2)[full]
        lengths = {*LENGTHS, longest, *(BETWEEN if full else ())}
        for task in TASKS:
            for length in sorted(n for n in lengths if n <= longest):
                command = [sys.executable, __file__, "--measure", family, task, str(length)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                print(
                    f"{family:<10}{task:<12}{length:>10,}{found['seconds']:>10.2f}"
                    f"{found['cpu']:>9.2f}{found['megabytes']:>+12,.0f}",
                    flush=True,
                )


def megabase(folder: Path) -> None:
    """Print what the commands take for a megabase of E. coli, start and model included."""
    length = LENGTHS[-1]
    genome = next(read_fasta(bundled_genome())).sequence[:length]
    fasta = folder / "megabase.fa"
    write_fasta(fasta, [SequenceRecord("ecoli", genome.upper())])
    for name, sizes in SIZES.items():
        build(name.partition("-")[0], length, sizes).save(folder / name)
        for task, suffix in (("embed", "npz"), ("likelihood", "tsv")):
            out = folder / f"{name}.{suffix}"
            run = [Path(sys.executable).with_name("lexome"), task, folder / name, fasta]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen([*run, "--out", out], **quiet)
            _, status, spent = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"lexome {task} ended with {os.waitstatus_to_exitcode(status)}")
            seconds, gigabytes = spent.ru_utime + spent.ru_stime, spent.ru_maxrss * 1024 / 1e9
            print(
                f"lexome {task} {name}, {length:,} bases: processor {seconds:.0f} s, "
                f"memory {gigabytes:.1f} GB",
                flush=True,
            )


def alleles(folder: Path) -> tuple[Path, list[str]]:
    """Write a genome, and return all substitutions at some of its sites."""
    sequence = text(50_000, seed=1)
    genome = folder / "genome.fa"
    genome.write_text(f">chr\n{sequence}\n")
    places = range(WINDOW_BP, len(sequence) - WINDOW_BP, len(sequence) // SITES)
    found = [f"chr:{p + 1}:{sequence[p]}>{alt}" for p in places for alt in "ACGT"]
    return genome, [v for v in found if v[-1] != v[-3]]


def shared_beginnings(folder: Path) -> None:
    """Print how much time it saves to run what stands before a change once."""
    genome, changes = alleles(folder)
    for family in ("mamba", "evo"):
        model = build(family, WINDOW_BP)

        def score(model: Model = model) -> object:
            return scoring.score_variants(
                model, changes, genome, window_bp=WINDOW_BP, progress=False
            )

        def whole(score=score) -> object:
            with mock.patch.object(scoring, "carries_state", return_value=False):
                return score()

        timings = in_turn({"from the change on": score, "whole windows": whole}, ROUNDS)
        ratio = timings["whole windows"].cpu / timings["from the change on"].cpu
        rate = len(changes) / timings["from the change on"].best
        print(
            f"{family}: {len(changes)} alleles in windows of {WINDOW_BP}, both strands: "
            f"{rate:,.0f} alleles/s from the change on, {ratio:.2f} times as fast as whole windows"
        )


def genes(folder: Path) -> dict[str, Path]:
    """Write a genome, and genes of a thousand bases in it."""
    genome, annotation = folder / "contig.fa", folder / "genes.gff"
    genome.write_text(f">chr\n{text(4 * GENE_WINDOW_BP, seed=2)}\n")
    starts = [GENE_WINDOW_BP + i * GENE_WINDOW_BP // 2 for i in range(GENES)]
    lines = [
        f"chr\tx\tgene\t{start + 1}\t{start + 1002}\t.\t{'+-'[i % 2]}\t0\tID=g{i}\n"
        for i, start in enumerate(starts)
    ]
    annotation.write_text("".join(lines))
    return {"gff": annotation, "fasta": genome}


def broken_genes(folder: Path) -> None:
    """Print the same for genes with stops and without the gene."""
    files = genes(folder)
    for family in ("mamba", "evo"):
        model = build(family, GENE_WINDOW_BP)

        def rank(model: Model = model) -> object:
            return breaking.essentiality(model, **files, kind="gene", progress=False)

        def whole(rank=rank) -> object:
            with mock.patch.object(breaking, "carries_state", return_value=False):
                return rank()

        timings = in_turn({"once": rank, "whole windows": whole}, 1)
        ratio = timings["whole windows"].cpu / timings["once"].cpu
        rate = timings["once"].best / GENES
        print(
            f"{family}: a gene in a window of {GENE_WINDOW_BP:,}, with stops and deleted: "
            f"{rate:.2f} s, {ratio:.2f} times as fast as three whole windows"
        )


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        family, task, length = sys.argv[2:5]
        print(json.dumps(measure(family, task, int(length))))
        return
    print(machine())
    curve(full="--full" in sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        shared_beginnings(Path(folder))
        broken_genes(Path(folder))
        if "--full" in sys.argv:
            megabase(Path(folder))


if __name__ == "__main__":
    main()
