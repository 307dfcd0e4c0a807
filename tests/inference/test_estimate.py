import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lexome.inference.estimate as module
from lexome.catalog import families, new
from lexome.core import InputError
from lexome.inference.estimate import (
    Estimate,
    estimate,
    info,
    machine_bytes,
    peak_bytes,
    skeleton,
)

SIZES = {
    "dnabert2": {"width": 64, "depth": 2, "heads": 4, "mlp_width": 256},
    "hyenadna": {"width": 64, "mlp_width": 256, "depth": 2, "length": 4098},
    "gpn": {"width": 64, "depth": 2, "mlp_width": 64},
    "nucleotide_transformer": {"width": 64, "depth": 2, "heads": 4, "mlp_width": 128},
}


@pytest.mark.parametrize("family", list(SIZES))
def test_what_is_counted_is_what_a_real_run_allocates(family, monkeypatch):
    # The same count over real tensors, as they are on a GPU: all rows at once, no oneDNN.
    monkeypatch.setattr("lexome.blocks.linear._FEWEST_TOGETHER", 1 << 60)
    monkeypatch.setattr("lexome.blocks.hyena._FEWEST_TOKENS", 1 << 60)
    monkeypatch.setattr("lexome.blocks.linear._use_onednn", lambda x, weight: False)
    model = new(family, **SIZES[family]).eval()
    tokens, rows = 600, 3
    ids = torch.full((rows, tokens), 7)
    held = [*model.parameters(), *model.buffers(), ids]
    with torch.no_grad(), module._Count(held) as count:
        model(input_ids=ids)
    expected = peak_bytes(skeleton(model), tokens, rows)
    assert expected == pytest.approx(count.most, rel=0.25)


@pytest.mark.parametrize("family", [*SIZES, "evo"])
def test_some_layers_of_a_kind_stand_for_all(family):
    sizes = SIZES.get(family, {"width": 64, "heads": 4, "mlp_width": 128, "attention_layers": (4,)})
    model = new(family, **(sizes | {"depth": 7}))
    found = estimate(model).measured
    for tokens in (256, 1024):
        assert found[tokens] == pytest.approx(peak_bytes(skeleton(model), tokens), rel=0.1)


def test_weights_are_counted_once_and_by_precision():
    model = new("gpn", **SIZES["gpn"])
    held = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    for precision, width in (("float32", 4), ("bfloat16", 2)):
        found = estimate(model, precision=precision).weight_bytes
        assert held * width <= found < held * width * 1.1


def test_a_skeleton_has_shapes_and_no_numbers():
    model = skeleton("evo-1-8k-base", "bfloat16")
    assert model.count_parameters() == 6_452_781_056
    assert all(p.is_meta for p in model.parameters())


def test_attention_is_counted_without_a_matrix_of_pairs():
    model = new("nucleotide_transformer", width=32, depth=1, heads=2, mlp_width=64)
    short, long = (peak_bytes(skeleton(model), n) for n in (500, 1000))
    assert long < 2.2 * short


def test_growth_is_found_and_inverted():
    lengths = [100, 200, 400]
    found = Estimate(
        precision="float32",
        weight_bytes=10**9,
        measured={n: 10**6 + 5000 * n + 40 * n * n for n in lengths},
        context=None,
    )
    assert found.peak(10_000) == pytest.approx(10**6 + 5e7 + 4e9, rel=1e-6)
    longest = found.longest(24e9)
    room = 24e9 * module.USABLE - module.RESERVED_BYTES - 10**9
    assert found.peak(longest) <= room < found.peak(math.ceil(longest * 1.002) + 1)
    assert found.rows(longest, 24e9) == 1
    assert found.longest(1e9) == 0


def test_what_sequences_share_is_counted_once():
    model = new("hyenadna", **SIZES["hyenadna"])
    found, filters = estimate(model), 2 * 64 * 1025 * 8  # of two layers, their spectra at 1,024
    assert filters <= found.shared[1024] < 3 * filters
    expected = peak_bytes(skeleton(model), 1024, 9)
    assert found.peak(1024, rows=9) == pytest.approx(expected, rel=0.05)
    rows = found.rows(1024, 24e9)
    room = 24e9 * module.USABLE - module.RESERVED_BYTES - found.weight_bytes
    assert found.peak(1024, rows) <= room < found.peak(1024, rows + 1)


@pytest.mark.parametrize("family", ["dnabert2", "hyenadna"])
@pytest.mark.parametrize("rows", [16, 200])
def test_what_is_shared_does_not_hide_what_each_sequence_adds(family, rows):
    model = new(family, **SIZES[family])
    expected = peak_bytes(skeleton(model, "bfloat16"), 256, rows)
    assert estimate(model, precision="bfloat16").peak(256, rows) == pytest.approx(expected, rel=0.2)


def test_what_is_kept_on_a_cpu_is_what_the_convolution_keeps():
    model = new("gpn", width=128, depth=2).eval()
    with torch.inference_mode():
        model(input_ids=torch.full((4, 600), 3))
    kept = [m._turned[1] for m in model.modules() if getattr(m, "_turned", None)]
    working = max(m.cpu_bytes(torch.float32)[1] for m in model.modules() if hasattr(m, "cpu_bytes"))
    assert estimate(model).cpu_bytes - working == sum(t.nbytes for t in kept) > 0
    assert estimate(model, precision="bfloat16").cpu_bytes == 0


RUN = """
import sys, torch
from pathlib import Path
from lexome.catalog import new
def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1e3
torch.set_num_threads(1)
model = new("{family}", **{sizes}).eval().cast(torch.{precision})
with torch.inference_mode():
    model(input_ids=torch.full((1, 16), 7))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present state again
    before = megabytes("VmRSS")
    model(input_ids=torch.full(({rows}, {tokens}), 7))
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="peaks are Linux's to tell")
@pytest.mark.parametrize(
    ("family", "precision", "sizes"),
    [
        ("helm", "float32", {"width": 128, "depth": 2, "heads": 2, "mlp_width": 512}),
        (
            "nucleotide_transformer",
            "float32",
            {"width": 128, "depth": 2, "heads": 2, "mlp_width": 512, "vocab_size": 4107},
        ),
        ("hyenadna", "bfloat16", {"width": 128, "depth": 2, "mlp_width": 512, "length": 1026}),
    ],
)
def test_a_real_run_takes_what_was_estimated_or_less(family, precision, sizes):
    rows, tokens = 64, 256
    text = RUN.format(family=family, precision=precision, sizes=sizes, rows=rows, tokens=tokens)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    expected = estimate(new(family, **sizes), precision=precision).peak(tokens, rows) / 1e6
    assert 0.3 * expected < float(done.stdout) < 1.25 * expected + 20  # code and small remains


def test_a_linear_model_is_not_made_square():
    measured = {64: 64_000, 128: 128_000, 256: 256_000}
    found = Estimate(precision="float32", weight_bytes=0, measured=measured, context=100_000)
    assert found.peak(50_000) == pytest.approx(5e7, rel=1e-6)
    assert found.longest(80e9) == 100_000


def test_longer_inputs_and_more_rows_never_take_less():
    found = estimate(new("dnabert2", **SIZES["dnabert2"]))
    peaks = [found.peak(n) for n in (10, 100, 1000, 10_000)]
    assert peaks == sorted(peaks)
    many = [found.peak(100, rows) for rows in (1, 10, 100, 1000)]
    assert many == sorted(many)


def test_a_card_says_what_fits_without_weights():
    card = info("hyenadna-tiny-1k-seqlen", estimate=True)
    assert "1,026 tokens (its context)" in card.facts["24 GB GPU"]
    assert "bfloat16" in card.facts["one pass"]
    assert f"this machine, {machine_bytes() / 1e9:.0f} GB" in card.facts
    plain = info("hyenadna-tiny-1k-seqlen")
    assert "24 GB GPU" not in plain.facts
    assert plain.facts.items() <= card.facts.items()


def test_a_model_that_does_not_fit_is_called_too_large():
    found = Estimate(
        precision="float32", weight_bytes=26 * 10**9, measured={64: 10**6}, context=None
    )
    assert module._capacity(found, 24e9) == "float32: too small"
    assert "1 x" in module._capacity(found, 48e9)


@pytest.mark.parametrize("name", sorted(families()))
def test_there_is_an_estimate_for_every_family(name):
    width = {"width": 64} | ({"heads": 2} if name not in {"gpn", "hyenadna", "mamba"} else {})
    found = estimate(new(name, depth=2, **width), precision="bfloat16")
    assert found.longest(24e9) <= found.longest(48e9) <= found.longest(80e9)
    assert found.rows(64, 24e9) < found.rows(64, 48e9) < found.rows(64, 80e9)


def test_cells_are_estimated_too():
    found = estimate("scgpt-whole-human")
    assert found.measured
    assert found.weight_bytes > 2e8


def test_another_precision_is_refused():
    with pytest.raises(InputError, match="float32 or bfloat16"):
        estimate("gpn-brassicales", precision="int8")


def test_a_folder_is_estimated_by_its_own_sizes(fixtures):
    card = info(fixtures / "gpn" / "convnet", estimate=True)
    assert "tokens" in card.facts["80 GB GPU"]
