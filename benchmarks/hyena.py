"""HyenaDNA's forward pass against a plain loop written from the papers' formulas.

The loop recomputes its filters in every call, as the published code does, keeps channels last
between the layers and transposes around the convolutions, and takes FFTs of twice the length.

    python benchmarks/hyena.py [TOKENS]
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor
from turns import in_turn, machine, matmul_peak, peak_memory_mb

from lexome.catalog import new
from lexome.model import Model

SIZES = {  # of the published releases; the length is the release's
    "small-32k": {"width": 256, "mlp_width": 1024, "depth": 4},
    "tiny-16k": {"width": 128, "mlp_width": 512, "depth": 2},
}
TOKENS = 32_768
ROUNDS = 4


def filter_of(layer: torch.nn.Module, length: int) -> Tensor:
    """Compute a filter (D, L): a sine network of positions times an exponential window."""
    implicit = layer.mixer.filter
    z, t = implicit.z[:, :length], implicit.t[:, :length]
    h = z
    for part in implicit.net:
        linear = isinstance(part, torch.nn.Linear)
        h = F.linear(h, part.weight, part.bias) if linear else torch.sin(part.freq * h)
    return (h * (torch.exp(-t * implicit.deltas.abs()) + implicit.shift))[0].T


def plain_forward(model: Model, ids_BL: Tensor) -> Tensor:
    """Return the logits (B, L, V)."""
    L = ids_BL.shape[1]
    x = F.embedding(ids_BL, model.backbone.embed.weight)
    D = x.shape[-1]
    for layer in model.backbone.layers:
        mixer = layer.mixer
        h = F.layer_norm(x, (D,), layer.norm1.weight, layer.norm1.bias)
        u = F.linear(h, mixer.in_proj.weight, mixer.in_proj.bias).transpose(1, 2)
        u = F.conv1d(u, mixer.short.weight, mixer.short.bias, padding=2, groups=3 * D)[..., :L]
        gate, inner, value = u.split(D, dim=1)
        value = value * inner
        taps_f = torch.fft.rfft(filter_of(layer, L), n=2 * L) / (2 * L)
        value_f = torch.fft.rfft(value, n=2 * L)
        y = torch.fft.irfft(value_f * taps_f, n=2 * L, norm="forward")[..., :L]
        y = (y + value * mixer.filter.bias[:, None]) * gate
        x = x + F.linear(y.transpose(1, 2), mixer.out_proj.weight, mixer.out_proj.bias)
        h = F.layer_norm(x, (D,), layer.norm2.weight, layer.norm2.bias)
        h = F.gelu(F.linear(h, layer.mlp.up.weight, layer.mlp.up.bias), approximate="tanh")
        x = x + F.linear(h, layer.mlp.down.weight, layer.mlp.down.bias)
    x = F.layer_norm(x, (D,), model.backbone.norm.weight, model.backbone.norm.bias)
    return F.linear(x, model.head.decoder.weight)


def multiplications(model: Model, tokens: int) -> float:
    """Count the flops of the matrix products, FFTs not included."""
    return sum(
        2 * tokens * m.weight.numel()
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and ".filter." not in name
    )


def main() -> None:
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else TOKENS
    peak = matmul_peak(torch.float32)
    print(machine())
    print(f"matrix-multiply peak: {peak / 1e9:.0f} Gflop/s in float32")
    for name, sizes in SIZES.items():
        model = new("hyenadna", length=tokens + 2, **sizes).eval()
        narrow = new("hyenadna", length=tokens + 2, **sizes).eval().cast(torch.bfloat16)
        ids = torch.randint(7, 11, (1, tokens), generator=torch.Generator().manual_seed(0))
        contestants = {
            "plain loop, float32": lambda model=model, ids=ids: plain_forward(model, ids),
            "lexome, float32": lambda model=model, ids=ids: model(ids).logits,
            "lexome, bfloat16": lambda model=narrow, ids=ids: model(ids).logits,
        }
        with torch.inference_mode():
            results = [run().float() for run in contestants.values()]
            timings = in_turn(contestants, ROUNDS)
            memory = {label: peak_memory_mb(run) for label, run in contestants.items()}
        print(f"\n{name} sizes, one sequence of {tokens:,} tokens")
        plain, *_ = timings.values()
        for (label, timing), result in zip(timings.items(), results, strict=True):
            share = multiplications(model, tokens) / timing.best / peak
            mb = memory[label]
            print(
                f"  {label:<20} {timing.best:7.3f} s (median {timing.median:.3f})  "
                f"{plain.best / timing.best:5.2f}x (processor {plain.cpu / timing.cpu:.2f}x)  "
                f"{tokens / timing.best:9,.0f} tokens/s  "
                f"{share:4.0%} of the float32 peak  "
                + ("" if mb is None else f"+{mb:,.0f} MB  ")
                + f"largest difference {(result - results[0]).abs().max():.1e}"
            )


if __name__ == "__main__":
    main()
