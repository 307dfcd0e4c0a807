"""Evo's forward pass and decoding against the authors' package, with the same random weights.

Their `stripedhyena` wants flash-attn, which needs a GPU. Its own classes are run as they are, with
a stand-in for flash-attn's attention that calls PyTorch's. Their decoding is the recurrent mode,
which goes on from cached states. Put the package into a folder of its own, without what it asks
for, and name the folder:

    python -m pip install --no-deps --target FOLDER stripedhyena==0.2.2 einops
    python benchmarks/evo.py FOLDER [TOKENS]

Decoding is timed twice. First single steps on given tokens, after the prompt and, here, after the
weights were brought into the order of their products: both read all weights once a token. Then
whole sequences drawn letter by letter from A, C, G and T, all included: here two letters of few
sequences come for reading the weights once. How many go together matters, so there are several
counts.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import Timing, in_turn, machine, peak_memory_mb

from lexome.blocks import DecodeCache, packed
from lexome.catalog import new
from lexome.inference.generation import generate
from lexome.model import Model

SIZES: dict[str, Any] = {
    **{"width": 256, "depth": 8, "heads": 2, "mlp_width": 688},
    "attention_layers": (4,),
}
WIDE: dict[str, Any] = {
    **{"width": 1024, "depth": 3, "heads": 8, "mlp_width": 2736},
    "attention_layers": (1,),
}
TOKENS = 4096
ROUNDS = 3
PROMPT, STEPS, ROWS = 128, 20, (1, 16, 64)
WRITTEN, WRITTEN_ROWS = 200, (1, 4, 16, 64)
LETTERS = "ACGT"
LONG_PROMPT = 1024
CAPACITY = LONG_PROMPT + STEPS * (ROUNDS + 3)


class StandInRotary(nn.Module):
    """Turns pairs of channels, half a head apart, by angles that grow with the position."""

    inv_freq: Tensor

    def __init__(self, width: int, base: float):
        super().__init__()
        self.register_buffer("inv_freq", base ** (-torch.arange(0, width, 2) / width))

    def forward(self, x_BLHE: Tensor, start: int) -> Tensor:
        """Turn the tokens from position `start` on."""
        place = torch.arange(start, start + x_BLHE.shape[1], dtype=torch.float32)
        angle = torch.outer(place, self.inv_freq.float())[:, None]
        cos, sin = angle.cos(), angle.sin()
        left, right = x_BLHE.chunk(2, -1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


class StandInAttention(nn.Module):
    """What the package uses of flash-attn's attention: names, rotary positions, cached keys."""

    def __init__(self, embed_dim: int, num_heads: int, *, layer_idx: int, **options: Any):
        super().__init__()
        self.heads, self.layer = num_heads, layer_idx
        self.Wqkv = nn.Linear(embed_dim, 3 * embed_dim, bias=options["qkv_proj_bias"])
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=options["out_proj_bias"])
        self.rotary_emb = StandInRotary(embed_dim // num_heads, options["rotary_emb_base"])

    def forward(self, x_BLD: Tensor, inference_params: Any = None) -> Tensor:
        """Attend to the tokens before, those of earlier calls too."""
        q, k, v = self.Wqkv(x_BLD).unflatten(-1, (3, self.heads, -1)).unbind(2)
        seen = 0 if inference_params is None else inference_params.seqlen_offset
        q, k = self.rotary_emb(q, seen), self.rotary_emb(k, seen)
        if inference_params is not None:
            memory = inference_params.key_value_memory_dict
            if self.layer not in memory:
                room = (len(x_BLD), inference_params.max_seqlen, *k.shape[2:])
                memory[self.layer] = k.new_empty(2, *room)
            stop = seen + k.shape[1]
            memory[self.layer][0][:, seen:stop], memory[self.layer][1][:, seen:stop] = k, v
            k, v = memory[self.layer][:, :, :stop]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Settings(dict):
    """A configuration that is read both ways, by key and by attribute."""

    __getattr__ = dict.__getitem__


def package() -> type[nn.Module] | None:
    """Import the authors' network over the stand-in; None where it is not installed."""
    for name in ("flash_attn", "flash_attn.modules", "flash_attn.modules.mha"):
        sys.modules[name] = ModuleType(name)
    sys.modules["flash_attn.modules.mha"].MHA = StandInAttention  # type: ignore[attr-defined]
    try:
        return importlib.import_module("stripedhyena.model").StripedHyena
    except ModuleNotFoundError:
        return None


def reference(network: type[nn.Module], model: Model) -> nn.Module:
    """Make the authors' network and give it a model's weights."""
    raw = model.family.write_config(model.config)
    settings = Settings(
        raw,
        model_parallel_size=1,
        params_dtype=torch.float32,
        use_flash_attn=False,
        use_flash_depthwise=False,
        use_flash_rmsnorm=False,
        use_flashfft=False,
        max_seqlen=CAPACITY,
        max_batch_size=max(ROWS),
        attn_block_dtype=torch.float32,
        hyena_block_dtype=torch.float32,
        mlp_dtype=torch.float32,
    )
    theirs = network(settings).float().eval()
    weights = model.published(model.family.layout("repository"))
    theirs.load_state_dict(weights, strict=True)
    return theirs


class TheirDecoder:
    """Goes on from a prompt, by the package's recurrent mode."""

    def __init__(self, network: Any, prompt_BL: Tensor):
        self.network, self.memory = network, network.initialize_inference_params()
        self.logits_BLV = network(prompt_BL, inference_params_dict=self.memory)[0]
        self._move(prompt_BL.shape[1])

    def __call__(self, ids_BL: Tensor) -> Tensor:
        """Take tokens one by one; return the logits (B, L, V)."""
        parts = []
        for one in ids_BL.split(1, 1):
            parts.append(self.network(one, inference_params_dict=self.memory)[0])
            self._move(1)
        return torch.cat(parts, 1)

    def _move(self, tokens: int) -> None:
        for part in self.memory.values():
            part.seqlen_offset += tokens


class OurDecoder:
    """Goes on from a prompt."""

    def __init__(self, model: Model, prompt_BL: Tensor):
        self.model, self.cache = model, DecodeCache(CAPACITY)
        model(prompt_BL, cache=self.cache)

    def __call__(self, ids_BL: Tensor) -> Tensor:
        """Take tokens one by one; return the logits (B, L, V)."""
        parts = [self.model(one, cache=self.cache).logits for one in ids_BL.split(1, 1)]
        return torch.cat(parts, 1)  # type: ignore[arg-type]


def write_as_authors(network: Any, prompt_BL: Tensor, count: int) -> Tensor:
    """Draw letters by the package's recurrent mode; return their ids (B, count)."""
    letters = torch.tensor(list(LETTERS.encode()))
    decoder, drawn = TheirDecoder(network, prompt_BL), []
    logits_BV = decoder.logits_BLV[:, -1]
    while True:
        shares = logits_BV[:, letters].softmax(-1)
        drawn.append(letters[torch.multinomial(shares, 1)])
        if len(drawn) == count:
            return torch.cat(drawn, 1)
        logits_BV = decoder(drawn[-1])[:, -1]


def compare(what: str, tokens: int, contestants: Mapping[str, Callable[[], Tensor]]) -> None:
    """Time two and print it; the first is the reference."""
    theirs, ours = (run() for run in contestants.values())
    timings = in_turn(contestants, ROUNDS)
    slow, fast = timings.values()
    print(
        f"{what}: {_speed(slow, tokens)} by the authors, {_speed(fast, tokens)} here: "
        f"{slow.best / fast.best:.1f}x (processor {slow.cpu / fast.cpu:.1f}x); largest difference "
        f"of logits {(theirs - ours).abs().max():.0e}, their spread {theirs.std():.1f}"
    )


def _speed(timing: Timing, tokens: int) -> str:
    return f"{tokens / timing.best:,.0f} tokens/s"


def decode(theirs: nn.Module, model: Model, ids_BL: Tensor, rows: int) -> None:
    """Compare tokens that come one by one."""
    prompt, more = ids_BL[:, :PROMPT].expand(rows, -1), ids_BL[:, -STEPS:].expand(rows, -1)
    steps = {
        "authors": partial(TheirDecoder(theirs, prompt), more),
        "here": partial(OurDecoder(model, prompt), more),
    }
    with packed(model):
        compare(f"  decoding, {rows} at a time", rows * STEPS, steps)


def write(theirs: nn.Module, model: Model, prompt_BL: Tensor, rows: int) -> None:
    """Compare sequences that are drawn from four letters."""
    text = bytes(prompt_BL[0].tolist()).decode()
    options: dict[str, Any] = {"length": WRITTEN, "samples": rows, "letters": LETTERS}
    contestants: dict[str, Callable[[], object]] = {
        "authors": partial(write_as_authors, theirs, prompt_BL.expand(rows, -1), WRITTEN),
        "here": partial(generate, model, [text], progress=False, **options),
    }
    timings = in_turn(contestants, ROUNDS)
    slow, fast = timings.values()
    one = generate(model, [text], **options | {"samples": 1})[0]
    ids = torch.tensor([list((text + one.sequence).encode())])
    logprobs = theirs(ids)[0][0, PROMPT - 1 : -1].log_softmax(-1)
    theirs_L = logprobs.gather(1, ids[0, PROMPT:, None])[:, 0]
    worst = (theirs_L - torch.from_numpy(one.logprobs)).abs().max()
    tokens = rows * WRITTEN
    print(
        f"  {WRITTEN} letters, {rows} at a time: {_speed(slow, tokens)} by the authors, "
        f"{_speed(fast, tokens)} here: {slow.best / fast.best:.1f}x (processor "
        f"{slow.cpu / fast.cpu:.1f}x); largest difference of log-probabilities {worst:.0e}"
    )


def main() -> None:
    folder, tokens = [*sys.argv[1:], "", ""][:2]
    sys.path.insert(0, folder)
    network = package()
    if network is None:
        print(f"The authors' package is not here.\n\n{__doc__}")
        return
    print(machine())
    length = int(tokens or TOKENS)
    ids = torch.randint(65, 85, (1, length), generator=torch.Generator().manual_seed(0))
    model, wide = new("evo", **SIZES).eval(), new("evo", **WIDE).eval()
    theirs, theirs_wide = (reference(network, one) for one in (model, wide))
    with torch.inference_mode():
        print(f"width {SIZES['width']}, {SIZES['depth']} layers")
        forward: dict[str, Any] = {
            "authors": lambda: theirs(ids)[0],
            "here": lambda: model(ids).logits,
        }
        compare(f"  forward, {length:,} tokens", length, forward)
        memory = [peak_memory_mb(run) for run in forward.values()]
        print(f"  memory beside the weights: {memory[0] or 0:,.0f} and {memory[1] or 0:,.0f} MB")
        prompt, more = ids[:, :LONG_PROMPT], ids[:, -STEPS:]
        whole: dict[str, Callable[[], Tensor]] = {
            "authors": lambda: TheirDecoder(theirs, prompt)(more),
            "here": lambda: OurDecoder(model, prompt)(more),
        }
        what = f"  prompt of {LONG_PROMPT:,} tokens and {STEPS} more"
        compare(what, LONG_PROMPT + STEPS, whole)
        decode(theirs, model, ids, 1)
        print(f"width {WIDE['width']}, {WIDE['depth']} layers")
        for rows in ROWS:
            decode(theirs_wide, wide, ids, rows)
        for rows in WRITTEN_ROWS:
            write(theirs_wide, wide, ids[:, :PROMPT], rows)


if __name__ == "__main__":
    main()
