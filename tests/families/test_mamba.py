"""Mamba-1 and Mamba-2 against the authors' and transformers' outputs; generation step by step."""

import math

import pytest
import torch

from lexome.blocks import DecodeCache, state_space
from lexome.catalog import families, load, new
from lexome.core import CheckpointError
from lexome.inference.generation import generate

SYSTEM = "mamba"
CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # 1e-6 at 20 tokens; 3e-5 at 2,000, where sums are long
SIZES = {
    1: {"width": 16, "depth": 2, "states": 4},
    2: {"generation": 2, "width": 16, "depth": 2, "states": 4, "head_width": 8},
}


def transformers_446_scan(chunk):
    """Return the scan of transformers 4.46, which made the stored outputs of Mamba-2.

    It gave the state at the end of a chunk to the next one times the sum of all decays after it,
    and forgot the chunks before (transformers pull request 35154 corrected it). Groups followed
    each other from head to head. The released kernels and later versions do what `paired_scan`
    does.
    """

    def scan(u, dt, rate, into, out, state):
        repeats = u.shape[2] // into.shape[2]
        into, out = into.repeat(1, 1, repeats, 1), out.repeat(1, 1, repeats, 1)
        pieces = [x.split(chunk, dim=1) for x in (u, dt, into, out)]
        ends = [(p * rate).sum(1) for p in pieces[1]]
        states = [
            state,
            *(
                state_space.paired_scan(*p[:2], rate, *p[2:], state)[1]
                for p in zip(*pieces, strict=True)
            ),
        ]
        outputs = []
        for c, piece in enumerate(zip(*pieces, strict=True)):
            factor = sum(
                sum(ends[c:p], torch.zeros_like(ends[0])).exp() for p in range(c, len(states))
            )
            given = states[c] * factor[..., None, None]
            outputs.append(state_space.paired_scan(*piece[:2], rate, *piece[2:], given)[0])
        return torch.cat(outputs, 1), given

    return scan


def follow_transformers_446(case, model):
    """Let a Mamba-2 do what transformers 4.46 did: its steps, scan, and norm over all groups."""
    raw, mixers = model.origin.raw_config, [block.mixer for block in model.backbone.layers]
    for mixer in mixers:
        mixer.steps = (raw["time_step_min"], math.inf)
    if model.config.groups == 1:  # its scan of the first chunk was right
        for name in sorted({n.split(".")[0] for n in case.tensors}):
            with torch.no_grad():
                ours = model(case.take(f"{name}.input_ids")).logits[:, : raw["chunk_size"]]
            stored = case.take(f"{name}.logits")[:, : raw["chunk_size"]]
            torch.testing.assert_close(ours, stored, **CLOSE)
    for mixer in mixers:
        mixer.scan = transformers_446_scan(raw["chunk_size"])
        mixer.norm.groups = 1


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    if model.config.generation == 2 and "transformers 4.46" in case.io["reference"]:
        follow_transformers_446(case, model)
    for name in sorted({n.split(".")[0] for n in case.tensors}):
        ids = case.take(f"{name}.input_ids")
        with torch.no_grad():
            out = model(ids, labels=ids)
        case.check(f"{name}.hidden_last", out.last_hidden_state, **CLOSE)
        case.check(f"{name}.logits", out.logits, **CLOSE)
        if case.has(f"{name}.loss_next_token"):
            case.check(f"{name}.loss_next_token", out.loss)
    case.finish()


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("step", [1, 7, 100])
def test_what_comes_piece_by_piece_equals_all_at_once(generation, step):
    model = new("mamba", **SIZES[generation]).eval()
    ids = torch.randint(7, 12, (2, 150), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(ids).logits
        cache = DecodeCache(150)
        parts = [model(part, cache=cache).logits for part in ids.split(step, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    states = [slot["state"].numel() for slot in cache._slots.values() if "state" in slot]
    assert len(states) == 2
    assert max(states) == 2 * 32 * 4  # rows, channels, states: nothing grows with the length


@pytest.mark.parametrize("generation", [1, 2])
def test_generation_does_not_depend_on_batch_mates(generation):
    model = new("mamba", **SIZES[generation]).eval()
    prompts = [("a", "ACGTACGTAC"), ("b", "GG")]
    together = generate(model, prompts, length=12, letters="ACGT")
    alone = [generate(model, [p], length=12, letters="ACGT")[0] for p in prompts]
    assert [one.sequence for one in together] == [one.sequence for one in alone]


def test_layers_that_are_not_known_are_refused(tmp_path):
    new("mamba", **SIZES[1]).save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"d_intermediate": 0', '"d_intermediate": 8'))
    with pytest.raises(CheckpointError, match="d_intermediate"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("generation", [1, 2])
def test_convolutions_without_a_bias_are_read_and_written(generation, tmp_path):
    model = new("mamba", conv_bias=False, **SIZES[generation]).eval()
    again = load(model.save(tmp_path), device="cpu")
    assert again.config == model.config
    assert not any("conv1d.bias" in name for name in again.published())
    ids = torch.randint(7, 12, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cache = model(ids).logits, DecodeCache(20)
        parts = [again(part, cache=cache).logits for part in ids.split(9, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_bounds_of_the_step_are_kept_with_infinity_in_both_forms(tmp_path):
    model = new("mamba", least_step=0.01, **SIZES[2])
    assert load(model.save(tmp_path), device="cpu").config == model.config
    family, sizes = model.family, {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 2}
    for high in (math.inf, {"__float__": "Infinity"}, 0.5):
        raw = {"model_type": "mamba2", **sizes, "time_step_limit": [0.01, high]}
        found = family.read_config(raw, {})
        wanted = math.inf if isinstance(high, dict) else high
        assert (found.least_step, found.largest_step) == (0.01, wanted)


@pytest.mark.parametrize(
    "raw",
    [
        {"model_type": "mamba", "hidden_act": "gelu"},
        {"d_model": 16, "n_layer": 2, "ssm_cfg": {"layer": "Mamba3"}},
        {"d_model": 16, "n_layer": 2, "ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}},
        {"d_model": 16, "n_layer": 2, "ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}},
        {"d_model": 16, "n_layer": 2, "ssm_cfg": {}, "attn_layer_idx": [1]},
    ],
)
def test_settings_that_are_not_followed_are_refused(raw):
    with pytest.raises(CheckpointError, match="not known here"):
        families()["mamba"].read_config({"vocab_size": 16, **raw}, {})
