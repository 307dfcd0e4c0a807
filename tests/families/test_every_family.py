"""What holds for every family: written once, run over the catalog and over every fixture."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lexome.catalog import families, load, new, releases
from lexome.checkpoints import read_weights, write_weights
from lexome.core import CheckpointMismatch
from lexome.model import Model

SMALL = {  # sizes of a tiny model, with everything switched on that a release can switch on
    "dnabert": {"vocab_size": 69, "width": 16, "depth": 2, "heads": 4, "mlp_width": 24},
    "dnabert2": {"vocab_size": 40, "width": 16, "depth": 2, "heads": 4, "mlp_width": 24},
    "evo": {
        "width": 16,
        "depth": 3,
        "heads": 2,
        "attention_layers": (1,),
        "mlp_width": 24,
        "states": 4,
        "stretch": 16.0,
    },
    "gpn": {"width": 16, "depth": 3, "mlp_width": 16},
    "helm transformer": {"width": 16, "depth": 2, "mlp_width": 24, "heads": 4, "positions": 40},
    "helm hyena": {
        "mixer": "hyena",
        "objective": "causal",
        "width": 16,
        "depth": 2,
        "mlp_width": 24,
        "length": 40,
        "filter_width": 8,
    },
    "helm mamba": {
        "mixer": "mamba",
        "width": 16,
        "depth": 2,
        "mlp_width": 24,
        "positions": 40,
        "states": 4,
    },
    "hyenadna": {"width": 16, "depth": 2, "mlp_width": 32, "length": 64, "filter_width": 8},
    "mamba": {"width": 16, "depth": 2, "states": 4},
    "mamba 2": {"generation": 2, "width": 16, "depth": 2, "states": 4, "head_width": 8},
    "nucleotide_transformer": {
        "vocab_size": 75,
        "width": 16,
        "depth": 2,
        "heads": 4,
        "mlp_width": 24,
    },
    "scgpt": {"vocab_size": 40, "width": 16, "depth": 2, "heads": 4, "mlp_width": 16},
    "scgpt of batches": {
        "vocab_size": 40,
        "width": 16,
        "depth": 2,
        "heads": 4,
        "mlp_width": 16,
        "zeros": True,
        "batches": 3,
        "domains": 3,
        "modalities": 2,
        "joint_queries": True,
    },
    "scgpt of perturbations": {
        "vocab_size": 40,
        "width": 16,
        "depth": 2,
        "heads": 4,
        "mlp_width": 16,
        "perturbations": True,
    },
    "seqlens": {
        "vocab_size": 40,
        "width": 16,
        "depth": 2,
        "heads": 4,
        "mlp_width": 24,
        "positions": 32,
        "buckets": 8,
    },
    "transformer_plus": {"width": 16, "depth": 2, "heads": 4, "mlp_width": 24},
}
MANIFESTS = {  # shapes that the manifest itself calls not established
    "scGPT_CP": ("cls_decoder.out_layer.weight", "cls_decoder.out_layer.bias"),
}


def small(name: str) -> Model:
    """Make the small model of a family, or of one of its kinds: a family, a space, a word."""
    return new(name.split()[0], seed=1, **SMALL[name]).eval()


def batch_for(model: Model, lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = {"input_ids": torch.zeros(len(lengths), max(lengths), dtype=torch.long)}
    if model.family.inputs == "cell":
        rows["values"] = torch.zeros(len(lengths), max(lengths))
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, n in enumerate(lengths):
        ids = torch.randint(3, 7, (n,), generator=generator)
        rows["input_ids"][row, :n] = ids
        if "values" in rows:
            rows["values"][row, :n] = torch.rand(n, generator=generator) * 50
        mask[row, :n] = 1
    rows |= {"attention_mask": mask}
    sizes = {  # of the conditions that some cell models ask for
        "batch_labels": (getattr(model.config, "batches", 0), mask.shape[:1]),
        "mod_types": (getattr(model.config, "modalities", 0), mask.shape),
        "pert_flags": (2 * getattr(model.config, "perturbations", False), mask.shape),
    }
    return rows | {
        name: torch.randint(count, shape, generator=generator)
        for name, (count, shape) in sizes.items()
        if count
    }


def one_row(batch: dict[str, torch.Tensor], row: int, n: int) -> dict[str, torch.Tensor]:
    """Return the first n tokens of one row, without a mask."""
    kept = {k: v[row : row + 1] for k, v in batch.items() if k != "attention_mask"}
    return {k: v[:, :n] if v.dim() > 1 else v for k, v in kept.items()}


def test_every_family_has_fixtures_and_a_small_size(fixtures: Path):
    # Other fixtures than the house's need not hold the systems that it made itself.
    own = Path(__file__).parents[1] / "fixtures"
    without = [
        name
        for name in families()
        if not any(list(f.glob(f"{name}/*/io.json")) for f in (fixtures, own))
    ]
    assert not without, f"families without a fixture: {without}"
    assert {name.split()[0] for name in SMALL} == set(families())


def test_a_saved_checkpoint_is_the_loaded_one_bit_for_bit(checkpoint_case, tmp_path):
    model = checkpoint_case.load()
    model.save(tmp_path)
    state = model.origin.layout.state
    before = read_weights(model.origin.files[0], state).tensors
    after = read_weights(tmp_path / model.origin.files[0].name, state).tensors
    assert list(before) == list(after)
    for name in before:
        assert before[name].dtype == after[name].dtype
        assert torch.equal(before[name], after[name]), name
    config = model.family.config_file
    original = json.loads((model.origin.folder / config).read_text())
    assert json.loads((tmp_path / config).read_text()) == original
    for name, content in model.origin.side_files.items():
        assert (tmp_path / name).read_bytes() == content


def test_a_saved_model_computes_the_same(checkpoint_case, tmp_path):
    model = checkpoint_case.load()
    again = load(model.save(tmp_path), device="cpu")
    batch = batch_for(model, [9, 9])
    with torch.no_grad():
        first, second = model(**batch), again(**batch)
    torch.testing.assert_close(first.last_hidden_state, second.last_hidden_state)


def test_a_missing_key_is_named_with_its_nearest(checkpoint_case, tmp_path):
    model = checkpoint_case.load()
    model.save(tmp_path)
    path = tmp_path / model.origin.files[0].name
    state = model.origin.layout.state
    tensors = dict(read_weights(path, state).tensors)
    layers = [n for n in tensors if n not in model.origin.unused and ".0." in n]
    lost = next(n for n in layers if n.endswith(("weight", "bias")))
    odd = lost.replace("weight", "wait").replace("bias", "buyas")
    tensors[odd] = tensors.pop(lost)
    write_weights(path, tensors, state)
    for index in tmp_path.glob("*.index.json"):  # of shards, which it must agree with
        index.write_text(index.read_text().replace(f'"{lost}"', f'"{odd}"'))
    with pytest.raises(CheckpointMismatch) as caught:
        load(tmp_path, device="cpu")
    assert lost in str(caught.value)
    assert "unexpected" in str(caught.value)


def test_a_wrong_shape_is_an_error(checkpoint_case, tmp_path):
    model = checkpoint_case.load()
    model.save(tmp_path)
    path = tmp_path / model.origin.files[0].name
    state = model.origin.layout.state
    tensors = dict(read_weights(path, state).tensors)
    name = next(n for n in tensors if n not in model.origin.unused and ".0." in n)
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    write_weights(path, tensors, state)
    with pytest.raises(CheckpointMismatch, match="shape"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("family", sorted(SMALL))
def test_batch_mates_and_padding_change_nothing(family):
    model = small(family)
    batch = batch_for(model, [23, 5, 1, 14])
    with torch.no_grad():
        together = model.backbone(**batch).last
        for row, n in enumerate([23, 5, 1, 14]):
            alone = one_row(batch, row, n)
            torch.testing.assert_close(
                model.backbone(**alone).last[0], together[row, :n], atol=1e-5, rtol=0
            )


def test_batch_mates_and_padding_change_nothing_in_fixtures(checkpoint_case):
    model = checkpoint_case.load()
    lengths = [min(n, model.context or n) for n in (23, 5, 1, 14)]
    batch = batch_for(model, lengths)
    with torch.no_grad():
        together = model.backbone(**batch).last
        for row, n in enumerate(lengths):
            alone = one_row(batch, row, n)
            # Random weights of unit size make states of up to 40; 2e-5 is their rounding.
            torch.testing.assert_close(
                model.backbone(**alone).last[0], together[row, :n], atol=2e-5, rtol=1e-5
            )


@pytest.mark.parametrize("family", sorted(SMALL))
def test_padding_on_the_left_changes_nothing_either(family):
    model = small(family)
    batch = batch_for(model, [12, 7])
    shifted = {k: torch.stack([v[0], v[1].roll(5)]) for k, v in batch.items()}
    with torch.no_grad():
        right = model.backbone(**batch).last[1, :7]
        left = model.backbone(**shifted).last[1, 5:]
    torch.testing.assert_close(right, left, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", sorted(SMALL))
def test_every_parameter_gets_a_gradient(family):
    model = small(family).train()
    batch = batch_for(model, [12, 12])
    labels = batch["values"] if "values" in batch else batch["input_ids"]
    model(**batch, labels=labels).loss.backward()
    # What published files hold and this head does not read is frozen.
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    without = [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]
    # A row of an additive table that no input selects, and one-way scales, may stay untouched.
    assert not without, without


@pytest.mark.parametrize("family", sorted(SMALL))
def test_early_exit_gives_the_stream_of_the_full_run(family):
    model = small(family)
    batch = batch_for(model, [12, 12])
    with torch.no_grad():
        full = model.backbone(keep=True, **batch)
        assert len(full.states) == len(model.backbone.layers) + 1
        for depth, state in enumerate(full.states):
            assert torch.equal(model.backbone(depth=depth, **batch).last, state)


@pytest.mark.parametrize("family", sorted(SMALL))
def test_the_head_at_chosen_positions_equals_the_head_everywhere(family):
    model = small(family)
    batch = batch_for(model, [12, 12])
    rows, columns = torch.tensor([0, 1, 1]), torch.tensor([3, 0, 11])
    if model.family.objective == "expression":
        pytest.skip("the expression heads read the whole cell")
    with torch.no_grad():
        everywhere = model(**batch).logits[rows, columns]
        chosen = model(**batch, positions=(rows, columns)).logits
    torch.testing.assert_close(everywhere, chosen)


@pytest.mark.parametrize("family", sorted(SMALL))
def test_a_new_model_is_saved_in_a_form_that_loads(family, tmp_path):
    model = small(family)
    if model.tokenizer is None:
        pytest.skip("its tokenizer is trained first; tests/training does the whole way")
    again = load(model.save(tmp_path), device="cpu")
    batch = batch_for(model, [9, 9])
    with torch.no_grad():
        first, second = model(**batch).last_hidden_state, again(**batch).last_hidden_state
    torch.testing.assert_close(first, second)  # equal weights; memory alignment moves a last bit


@pytest.mark.parametrize("name", sorted(releases()))
def test_a_release_has_the_published_keys_shapes_and_size(name, fixtures):
    family, release = releases()[name]
    path = fixtures / "manifest" / f"{release.published_name}.json"
    assert path.is_file(), f"no manifest for {name}: {path.name}"
    manifest = json.loads(path.read_text())
    layout = family.layout(release.layout)
    shapes = {k: tuple(v) for k, v in manifest["tensors"].items()}
    for raw in (release.config, manifest["config"]):
        raw = {**release.config, **raw}
        with torch.device("meta"):
            model = Model(family, family.read_config(raw, shapes), head=layout.head)
        # Pickled files store a tied tensor under all its names, safetensors under one.
        forms = [model.published(layout, ties=ties) for ties in (True, False)]
        ours = next((f for f in forms if set(f) == set(shapes)), forms[0])
        ours = {key: tuple(tensor.shape) for key, tensor in ours.items()}
        doubtful = MANIFESTS.get(release.published_name, ())
        assert set(ours) == set(shapes)
        assert {n: s for n, s in ours.items() if n not in doubtful} == {
            n: s for n, s in shapes.items() if n not in doubtful
        }
        if not doubtful:
            assert model.count_parameters() == release.parameters == manifest["params"]


@pytest.mark.parametrize("family", sorted(SMALL))
def test_narrow_numbers_serve_inference_and_training(family):
    model = small(family)
    batch = batch_for(model, [12, 7])
    labels = batch["values"] if "values" in batch else batch["input_ids"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.train()(**batch, labels=labels).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        exact = model.eval()(**batch).last_hidden_state
        narrow = model.cast(torch.bfloat16)(**batch).last_hidden_state
    assert narrow.dtype == torch.bfloat16
    real = batch["attention_mask"] > 0
    # Eight bits of mantissa.
    torch.testing.assert_close(narrow.float()[real], exact[real], atol=0.1, rtol=0.05)


def test_no_family_needs_pytorchs_compiler_to_know_its_shapes():
    """Arithmetic on tensors without numbers imports it, which takes a second of every start."""
    code = (
        "import sys\n"
        "from lexome.blocks.initialise import shapes_only\n"
        "from lexome.catalog import families\n"
        "from lexome.model import Model\n"
        f"for name, sizes in {SMALL!r}.items():\n"
        "    family = families()[name.split()[0]]\n"
        "    kind = family.backbone.__init__.__annotations__['config']\n"
        "    with shapes_only():\n"
        "        Model(family, kind(**sizes), head=family.pretraining_head(kind(**sizes)))\n"
        "    assert 'torch._dynamo' not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
