"""Generation with remembered layers against a loop that runs the whole forward for every token.

The loop's time for a sequence is added up from forwards at a few lengths, since running it whole
takes minutes; its tokens are counted at the full length of the sequence.

    python benchmarks/generation.py
"""

import time

import torch
from turns import in_turn, machine

from lexome.catalog import new
from lexome.inference.generation import generate

SIZES = {
    "d128, 2 layers": {"width": 128, "mlp_width": 512, "depth": 2},
    "d256, 4 layers": {"width": 256, "mlp_width": 1024, "depth": 4},
}
LENGTHS = (1_000, 4_000, 16_000)
MOST_IN_ROWS = 4_000
SAMPLED = 5  # lengths at which the loop's forward is timed


def loop_seconds(model: torch.nn.Module, length: int) -> float:
    """Estimate the time of a forward per token, for all tokens of a sequence."""
    places = [round(length * (i + 0.5) / SAMPLED) for i in range(SAMPLED)]
    with torch.inference_mode():
        ids = torch.randint(7, 11, (1, length))
        forwards = {str(n): lambda n=n: model(ids[:, :n]).logits[:, -1] for n in places}
        timings = in_turn(forwards, rounds=3)
    return length * sum(t.best for t in timings.values()) / SAMPLED


def main() -> None:
    print(machine())
    for name, sizes in SIZES.items():
        print(f"\nHyenaDNA, {name}")
        for length in LENGTHS:
            model = new("hyenadna", length=length + 8, **sizes).eval()
            generate(model, ["ACGT"], length=100, letters="ACGT", progress=False)
            speed = {}
            for samples in (1, 16) if length <= MOST_IN_ROWS else (1,):
                start = time.perf_counter()
                generate(
                    model, ["ACGT"], length=length, samples=samples, letters="ACGT", progress=False
                )
                speed[samples] = samples * length / (time.perf_counter() - start)
            loop = length / loop_seconds(model, length)
            rows = f", {speed[16]:8,.0f} in 16 rows" if 16 in speed else ""
            print(
                f"  {length:6,} tokens: {speed[1]:7,.0f} tokens/s alone{rows}; whole forwards "
                f"{loop:6,.1f} tokens/s: {speed[1] / loop:6,.0f}x"
            )


if __name__ == "__main__":
    main()
