"""What `lexome info --estimate` says that one forward pass takes, against what it took.

Every pass runs in a process of its own, after a short one that makes what is made once. Peaks are
the memory of the process beyond what the weights took. The estimate is of all tensors at a time, as
on a GPU; a CPU takes tokens in parts, so that it may stay below.

    python benchmarks/estimate.py [FAMILY ...]
"""

import json
import subprocess
import sys
from typing import Any

import torch
from turns import machine, peak_memory_mb

from lexome.catalog import new
from lexome.inference.estimate import estimate
from lexome.model import Model

SIZES: dict[str, dict[str, Any]] = {
    "dnabert": {"width": 384, "depth": 3, "heads": 6, "mlp_width": 1536},
    "dnabert2": {"width": 384, "depth": 3, "heads": 6, "mlp_width": 1536},
    "evo": {"width": 256, "depth": 4, "heads": 4, "mlp_width": 688, "attention_layers": (2,)},
    "gpn": {"width": 256, "depth": 6, "mlp_width": 256},
    "helm": {"width": 320, "depth": 3, "heads": 5, "mlp_width": 1280},
    "hyenadna": {"width": 256, "depth": 3, "mlp_width": 1024, "length": 8194},
    "mamba": {"width": 256, "depth": 3},
    "nucleotide_transformer": {"width": 320, "depth": 3, "heads": 5, "mlp_width": 1280},
    "scgpt": {"vocab_size": 4000, "width": 256, "depth": 3, "heads": 4, "mlp_width": 256},
    "seqlens": {"width": 384, "depth": 3, "heads": 6, "mlp_width": 1536},
    "transformer_plus": {"width": 256, "depth": 3, "heads": 4, "mlp_width": 688},
}
SHAPES = ((64, 256), (32, 512), (8, 2000))  # rows and tokens, the latter within the context


def build(family: str, precision: str) -> Model:
    """Make a model with random weights."""
    return new(family, **SIZES[family]).eval().cast(getattr(torch, precision))


def inputs(model: Model, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    """Return a batch of rows that are all equally long."""
    made = {"input_ids": torch.full((rows, tokens), 7)}
    if model.family.inputs == "cell":
        made["values"] = torch.ones(rows, tokens)
    return made


def measure(family: str, precision: str, rows: int, tokens: int) -> dict[str, float]:
    """Run one pass; meant for a fresh process."""
    model = build(family, precision)
    with torch.inference_mode():
        model(**inputs(model, 1, 16))
        batch = inputs(model, rows, tokens)
        megabytes = peak_memory_mb(lambda: model(**batch))
    found = estimate(model, precision=precision)
    expected = found.peak(tokens, rows) + found.cpu_bytes
    return {"measured": megabytes or float("nan"), "expected": expected / 1e6}


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:4], *map(int, sys.argv[4:]))))
        return
    print(machine())
    print(
        f"{'family':<24}{'precision':<10}{'batch':>10}{'estimate':>12}{'measured':>12}{'ratio':>8}"
    )
    for family in sys.argv[1:] or SIZES:
        context = new(family, **SIZES[family]).context
        for precision in ("float32", "bfloat16"):
            for rows, tokens in SHAPES:
                if context is not None and tokens > context:
                    continue
                command = [sys.executable, __file__, "--measure", family, precision]
                command += [str(rows), str(tokens)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                print(
                    f"{family:<24}{precision:<10}{f'{rows} x {tokens:,}':>10}"
                    f"{found['expected']:>9,.0f} MB{found['measured']:>9,.0f} MB"
                    f"{found['expected'] / found['measured']:>8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
