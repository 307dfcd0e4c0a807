import math

import pytest
import torch

import lexome.inference.estimate as module
from lexome.catalog import new
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


def test_a_linear_model_is_not_made_square():
    measured = {64: 64_000, 128: 128_000, 256: 256_000}
    found = Estimate(precision="float32", weight_bytes=0, measured=measured, context=100_000)
    assert found.peak(50_000) == pytest.approx(5e7, rel=1e-6)
    assert found.longest(80e9) == 100_000


def test_longer_inputs_and_more_rows_never_take_less():
    found = estimate(new("dnabert2", **SIZES["dnabert2"]))
    peaks = [found.peak(n) for n in (10, 100, 1000, 10_000)]
    assert peaks == sorted(peaks)
    assert found.peak(100, rows=4) == 4 * found.peak(100)


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
