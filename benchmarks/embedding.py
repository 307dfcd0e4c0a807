"""Embedding sequences of mixed lengths, against a length-sorted loop over transformers' BertModel.

Both read the same strings with the same words (a BPE vocabulary learnt here from the bundled
genome) and give the mean of each sequence's tokens, special ones included. The loop is what a
careful user writes: longest first, 16 rows at a time, padded and masked, scaled-dot-product
attention. BertModel has DNABERT-2's sizes but a plain MLP of two matrices, so that DNABERT-2
multiplies 4/3 as much; the last column is the ratio per multiplication.

    python benchmarks/embedding.py [--quick]
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel
from turns import in_turn, machine, matmul_peak, peak_memory_mb

from lexome.catalog import new
from lexome.core.precision import native_bfloat16_cpu
from lexome.formats import Genome
from lexome.inference.embedding import embed
from lexome.model import Model
from lexome.tasks.genomes import ECOLI, ECOLI_LENGTH, bundled_genome
from lexome.tokenizers import PublishedTokenizer, read_tokenizer
from lexome.training.vocabulary import train_tokenizer

SEQUENCES = 200
LENGTHS_BP = (50, 950)
WORDS = 4096
ROWS = 16
SIZES = {
    "4 layers of 256": {"width": 256, "depth": 4, "heads": 4, "mlp_width": 1024},
    "12 layers of 768 (DNABERT-2)": {"width": 768, "depth": 12, "heads": 12, "mlp_width": 3072},
}


def draw_sequences(genome: Path) -> list[str]:
    """Cut windows of mixed lengths from anywhere in the genome."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(*LENGTHS_BP, SEQUENCES, endpoint=True)
    starts = generator.integers(0, ECOLI_LENGTH - LENGTHS_BP[1], SEQUENCES)
    bases = Genome(genome)
    return [bases.fetch(ECOLI, s, s + n) for s, n in zip(starts, lengths, strict=True)]


def reference_loop(
    bert: BertModel, tokenizer: PublishedTokenizer, texts: Sequence[str]
) -> np.ndarray:
    """Embed with plain transformers, sorted by length."""
    rows = [tokenizer.wrap(e)["input_ids"] for e in tokenizer.encode(texts)]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    vectors = np.empty((len(rows), bert.config.hidden_size), np.float32)
    for first in range(0, len(order), ROWS):
        some = order[first : first + ROWS]
        longest = len(rows[some[0]])
        ids = torch.full((len(some), longest), tokenizer.pad)
        mask = torch.zeros(len(some), longest, dtype=torch.long)
        for row, i in enumerate(some):
            ids[row, : len(rows[i])] = torch.from_numpy(rows[i])
            mask[row, : len(rows[i])] = 1
        with torch.inference_mode():
            x = bert(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors[some] = mean.float().numpy()
    return vectors


def flops(sizes: dict[str, int], lengths: Sequence[int], matrices: int) -> float:
    """Count two for each multiply-add of the products, for an MLP of so many matrices."""
    width, tokens = sizes["width"], sum(lengths)
    layer = tokens * (4 * width**2 + matrices * width * sizes["mlp_width"])
    return 2 * sizes["depth"] * (layer + 2 * width * sum(n * n for n in lengths))


def compare(name: str, tokenizer: PublishedTokenizer, texts: list[str], rounds: int) -> None:
    """Time one size and print a table."""
    sizes = SIZES[name]
    lengths = [len(tokenizer.wrap(e)["input_ids"]) for e in tokenizer.encode(texts)]
    bert = BertModel(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["heads"],
            intermediate_size=sizes["mlp_width"],
            max_position_embeddings=max(lengths),
            attn_implementation="sdpa",
        ),
        add_pooling_layer=False,
    ).eval()

    def ours(dtype: torch.dtype) -> Model:
        model = new("dnabert2", vocab_size=WORDS, **sizes).eval().cast(dtype)
        model.tokenizer = tokenizer
        return model

    models = {"float32": ours(torch.float32)}
    if native_bfloat16_cpu():
        models["bfloat16"] = ours(torch.bfloat16)
    contestants = {"transformers, float32": lambda: reference_loop(bert, tokenizer, texts)}
    for precision, model in models.items():
        contestants[f"lexome, {precision}"] = lambda model=model: embed(model, texts).vectors
    vectors = {label: run() for label, run in contestants.items()}
    timings = in_turn(contestants, rounds)
    memory = {label: peak_memory_mb(run) for label, run in contestants.items()}

    print(f"\n{name}: {len(texts)} sequences, {sum(map(len, texts)):,} bp, {sum(lengths):,} tokens")
    loop, exact = timings["transformers, float32"], vectors["lexome, float32"]
    for label, timing in timings.items():
        precision = torch.bfloat16 if label.endswith("bfloat16") else torch.float32
        plain = label.startswith("transformers")
        work = flops(sizes, lengths, matrices=2 if plain else 3)
        extra = 1.0 if plain else work / flops(sizes, lengths, matrices=2)
        ratio, cpu_ratio = loop.best / timing.best, loop.cpu / timing.cpu
        mb = memory[label]
        distance = np.abs(vectors[label] - exact).max() if not plain else 0.0
        off = f"  {distance:.0e} from float32" if distance else ""
        print(
            f"  {label:<22} {timing.best:7.2f} s (median {timing.median:.2f})  "
            f"{len(texts) / timing.best:7.1f} sequences/s  {ratio:5.2f}x "
            f"(processor {cpu_ratio:.2f}x, per multiplication {cpu_ratio * extra:.2f}x)  "
            f"{work / timing.best / PEAKS[precision]:4.0%} of the {precision} peak"
            + ("" if mb is None else f"  +{mb:,.0f} MB")
            + off
        )


PEAKS: dict[torch.dtype, float] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small size only, two rounds")
    quick = parser.parse_args().quick
    print(machine())
    for dtype in (torch.float32, torch.bfloat16):
        PEAKS[dtype] = matmul_peak(dtype)
        print(f"matrix-multiply peak: {PEAKS[dtype] / 1e9:,.0f} Gflop/s in {dtype}")
    with tempfile.TemporaryDirectory() as folder:
        genome = bundled_genome()
        train_tokenizer([genome], folder, size=WORDS, max_bases=1_000_000, progress=False)
        tokenizer = read_tokenizer(Path(folder))
    assert isinstance(tokenizer, PublishedTokenizer)
    texts = draw_sequences(genome)
    for name in list(SIZES)[: 1 if quick else None]:
        compare(name, tokenizer, texts, rounds=2 if quick else 4)


if __name__ == "__main__":
    main()
