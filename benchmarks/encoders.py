"""Embedding with the attention encoders, against transformers' classes with the same weights.

DNABERT is `BertModel`, Nucleotide Transformer v1 `EsmModel`, seqLens `DebertaV2Model`. Each model
is made here with random weights, saved in its official layout and read by both sides. The loop is
what a user of transformers writes: 32 or 64 rows at a time, padded to the longest, masked, mean of
the tokens; in the order given, and sorted by length, longest first. It gets token ids ready-made,
while `embed` reads strings. Memory is the peak of a process of its own, above what it holds when
libraries and weights are in place, and in all.

    python benchmarks/encoders.py [--full] [--families dnabert ...]

One layer and mixed lengths by default; with --full also sequences of one length, two layers, and
more of them, which takes about half an hour of one core. Ratios hardly depend on the layers.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import in_turn, machine, peak_memory_mb

from lexome.catalog import load, new
from lexome.core.precision import native_bfloat16_cpu
from lexome.formats import Genome
from lexome.inference.embedding import embed
from lexome.inference.reading import tokenizer_of
from lexome.model import Model
from lexome.tasks.genomes import ECOLI, ECOLI_LENGTH, bundled_genome
from lexome.training.vocabulary import train_tokenizer

_BASE = {"width": 768, "heads": 12, "mlp_width": 3072}


@dataclass(frozen=True)
class Family:
    """A family here, the class of transformers that is the same network, and the sizes of both."""

    reference: str
    sizes: dict[str, Any]
    letters_per_token: float
    most_tokens: int = 512


FAMILIES = {
    "dnabert": Family("BertModel", {**_BASE, "vocab_size": 4101, "dropout": 0.0}, 1.0),
    "nucleotide_transformer": Family(
        "EsmModel",
        {
            **{"wiring": "v1", "vocab_size": 4105, "width": 1280, "heads": 20, "mlp_width": 5120},
            **{"positions": 1002, "token_dropout": True, "norm_eps": 1e-12},
        },
        6.0,
    ),
    "seqlens": Family("DebertaV2Model", {**_BASE, "vocab_size": 4096, "dropout": 0.0}, 4.7),
}
COUNTS = {"mixed": 64, "quick": 32, "fixed": 32}  # sequences; at least a batch of the loop's
WAYS = {  # of the loop: rows at a time, whether they are sorted, and in which numbers
    "given order, 32 rows": (32, False, torch.float32),
    "sorted, 32 rows": (32, True, torch.float32),
    "sorted, 64 rows": (64, True, torch.float32),
    "sorted, 32, bfloat16": (32, True, torch.bfloat16),
}


def make(name: str, depth: int, folder: Path) -> None:
    """Save a model with random weights where both sides can read it."""
    family = FAMILIES[name]
    if name == "seqlens":
        train_tokenizer([bundled_genome()], folder, size=4096, max_bases=1_000_000, progress=False)
    new(name, depth=depth, **family.sizes).save(folder)


def draw(name: str, kind: str) -> list[str]:
    """Cut windows from the bundled genome: of lengths from a tenth of the context on, or of one."""
    family, count = FAMILIES[name], COUNTS[kind]
    most = int(family.letters_per_token * (family.most_tokens - 16))
    generator = np.random.default_rng(0)
    lengths = generator.integers(most // 10, most, count) if kind != "fixed" else [most] * count
    starts = generator.integers(0, ECOLI_LENGTH - most, count)
    bases = Genome(bundled_genome())
    return [bases.fetch(ECOLI, s, s + int(n)) for s, n in zip(starts, lengths, strict=True)]


def reference(name: str, folder: Path, kind: torch.dtype) -> torch.nn.Module:
    """Return transformers' model of these weights, in numbers of this kind."""
    import transformers

    transformers.logging.set_verbosity_error()
    network = getattr(transformers, FAMILIES[name].reference)
    pooler = {} if name == "seqlens" else {"add_pooling_layer": False}
    return network.from_pretrained(folder, **pooler).eval().to(kind)


def token_rows(model: Model, texts: Sequence[str]) -> list[np.ndarray]:
    """Return the ids of sequences, special tokens included."""
    tokenizer = tokenizer_of(model)
    return [tokenizer.wrap(e)["input_ids"] for e in tokenizer.encode(texts)]


def loop(
    network: torch.nn.Module, rows: Sequence[np.ndarray], pad: int, size: int, *, ordered: bool
) -> np.ndarray:
    """Embed as a user of transformers does."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i])) if ordered else range(len(rows))
    vectors: list[np.ndarray] = [np.zeros(0)] * len(rows)
    for first in range(0, len(order), size):
        some = order[first : first + size]
        longest = max(len(rows[i]) for i in some)
        ids = torch.full((len(some), longest), pad)
        mask = torch.zeros(len(some), longest, dtype=torch.long)
        for row, i in enumerate(some):
            ids[row, : len(rows[i])] = torch.from_numpy(rows[i])
            mask[row, : len(rows[i])] = 1
        with torch.inference_mode():
            x = network(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        for i, vector in zip(some, mean.float().numpy(), strict=True):
            vectors[i] = vector
    return np.stack(vectors)


def contestants(
    name: str, folder: Path, texts: list[str], only: str | None = None
) -> dict[str, Callable[[], np.ndarray]]:
    """Return what is to be timed; with `only`, that one alone, and nothing else in memory."""
    runs: dict[str, Callable[[], np.ndarray]] = {}
    exact = load(folder, device="cpu") if only in (None, "lexome, float32") else None
    if exact is not None:
        runs["lexome, float32"] = lambda: embed(exact, texts, pooling="mean").vectors  # type: ignore[union-attr]
    if native_bfloat16_cpu() and only in (None, "lexome, auto"):
        narrow = load(folder, device="cpu", precision="bfloat16")
        runs["lexome, auto"] = lambda: embed(narrow, texts, pooling="mean").vectors  # type: ignore[union-attr]
    if only is None or only in WAYS:
        tokenizer = load(folder, device="cpu").tokenizer if exact is None else exact.tokenizer
        networks = {
            kind: reference(name, folder, kind)
            for kind in dict.fromkeys(
                kind for way, (*_, kind) in WAYS.items() if only in (None, way)
            )
        }
        rows = [tokenizer.wrap(e)["input_ids"] for e in tokenizer.encode(texts)]  # type: ignore[union-attr]
        pad = tokenizer.pad  # type: ignore[union-attr]
        for way, (size, ordered, kind) in WAYS.items():
            if kind in networks:
                runs[way] = partial(loop, networks[kind], rows, pad, size, ordered=ordered)
    return runs if only is None else {only: runs[only]}


def memory(name: str, folder: Path, kind: str, which: str) -> tuple[float, float]:
    """Return the peak memory of one contestant in megabytes: for the work, and in all."""
    command = [sys.executable, __file__, "--memory", name, str(folder), kind, which]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    work, whole = map(float, done.stdout.split()[-2:])
    return work, whole


def print_memory(name: str, folder: str, kind: str, which: str) -> None:
    """Run one contestant and print its memory, for :func:`memory`."""
    run = contestants(name, Path(folder), draw(name, kind), which)[which]
    work = peak_memory_mb(run) or 0.0
    status = Path("/proc/self/status").read_text().splitlines()
    whole = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(work, whole / 1e3)


def compare(name: str, kind: str, folder: Path, rounds: int) -> None:
    """Time one family and print a table."""
    texts = draw(name, kind)
    runs = contestants(name, folder, texts)
    vectors: dict[str, np.ndarray] = {}

    def keeping(label: str) -> Callable[[], None]:
        return lambda: vectors.update({label: runs[label]()})

    timings = in_turn({label: keeping(label) for label in runs}, rounds)
    measured = {label: memory(name, folder, kind, label) for label in runs}
    lengths = "one length" if kind == "fixed" else "mixed lengths"
    print(f"\n{name}, {lengths}: {len(texts)} sequences, {sum(map(len, texts)):,} letters")
    for label in runs:
        timing, (work, whole) = timings[label], measured[label]
        line = (
            f"  {label:<22} {timing.best:6.2f} s (processor {timing.cpu:6.2f})  +{work:5.0f} MB, "
        )
        line += f"{whole:5.0f} in all"
        if label.startswith("lexome"):
            off = np.abs(vectors[label] - vectors["sorted, 32 rows"]).max()
            line += f"  differs by {off:.0e}"
            for way in WAYS:
                share = work / max(1.0, measured[way][0])
                faster = timings[way].cpu / timing.cpu
                line += f"\n      against {way:<22} {faster:5.2f}x as fast, {share:.2f}x the memory"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="two layers, one length too")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        print_memory(*given.memory)
        return
    print(machine())
    for name in given.families:
        with tempfile.TemporaryDirectory() as folder:
            make(name, 2 if given.full else 1, Path(folder))
            for kind in ("mixed", "fixed") if given.full else ("quick",):
                compare(name, kind, Path(folder), rounds=2 if given.full else 1)


if __name__ == "__main__":
    main()
