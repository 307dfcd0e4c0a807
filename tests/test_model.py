import pytest
import torch

from lexome.catalog import load, new
from lexome.core import CheckpointError, CheckpointMismatch, InputError


@pytest.fixture
def gpn():
    return new("gpn", width=16, depth=2, mlp_width=16).eval()


def test_an_output_has_what_was_asked_for(gpn):
    batch = gpn.tokenizer(["ACGT", "ACGA"])
    out = gpn(**batch)
    assert out.last_hidden_state.shape == (2, 4, 16)
    assert out.logits.shape == (2, 4, 7)
    assert out.loss is None
    assert out.hidden_states == ()
    assert len(gpn(**batch, output_hidden_states=True).hidden_states) == 3


def test_text_in_place_of_ids_is_refused(gpn):
    for text in ("ACGT", ["ACGT"]):
        with pytest.raises(InputError, match=r"model\(\*\*model\.tokenizer"):
            gpn(text)


def test_labels_need_a_head(fixtures):
    model = new("gpn", width=16, depth=1, mlp_width=16)
    model.head = None
    with pytest.raises(InputError, match="no head to make scores"):
        model(torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, 3, dtype=torch.long))


def test_rounded_weights_are_not_saved(fixtures, tmp_path):
    model = load(fixtures / "gpn" / "convnet", device="cpu", precision="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.provenance()["precision"] == "bfloat16"
    with pytest.raises(CheckpointError, match="precision='float32'"):
        model.save(tmp_path)


def test_islands_stay_float32(fixtures):
    model = load(fixtures / "hyenadna" / "hf_tiny", device="cpu", precision="bfloat16")
    assert model.backbone.embed.weight.dtype == torch.bfloat16
    assert model.backbone.layers[0].mixer.filter.z.dtype == torch.float32
    batch = model.tokenizer(["ACGTACGT"])
    exact = load(fixtures / "hyenadna" / "hf_tiny", device="cpu")
    with torch.no_grad():
        rounded, full = model(**batch).logits.float(), exact(**batch).logits
    # Eight bits of mantissa: about 1 % of values up to 20.
    torch.testing.assert_close(rounded, full, atol=0.5, rtol=0.05)


def test_a_tie_that_differs_is_an_error(fixtures, tmp_path):
    from lexome.checkpoints import read_weights, write_weights

    model = load(fixtures / "dnabert2" / "mlm_4heads", device="cpu")
    model.save(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    tensors = dict(read_weights(path).tensors)
    tensors["cls.predictions.decoder.weight"] = tensors["cls.predictions.decoder.weight"] + 1
    write_weights(path, tensors)
    with pytest.raises(CheckpointMismatch, match="two different tensors"):
        load(tmp_path, device="cpu")


def test_ties_survive_loading(fixtures):
    model = load(fixtures / "dnabert2" / "mlm_4heads", device="cpu")
    assert model.head.decoder.weight is model.backbone.embed.weight
    sine = load(fixtures / "hyenadna" / "orig_tiny_ckpt", device="cpu").backbone.layers[0].mixer
    assert sine.filter.net[1].freq is sine.filter.net[5].freq


def test_a_fresh_head_is_saved_in_its_own_official_form(fixtures, tmp_path):
    model = load(fixtures / "dnabert2" / "mlm_4heads", device="cpu", head="classifier")
    assert model.head_name == "classifier"
    again = load(model.save(tmp_path), device="cpu")
    assert again.origin.layout.name == "classifier"
    assert torch.equal(again.head.classifier.weight, model.head.classifier.weight)


def test_provenance_names_the_checkpoint(fixtures):
    facts = load(fixtures / "gpn" / "convnet", device="cpu").provenance()
    assert facts["family"] == "gpn"
    assert facts["model"] == "convnet"
    assert len(facts["checkpoint_sha256"]) == 64


def test_a_model_is_a_plain_module_that_deep_copies(gpn):
    import copy

    twin = copy.deepcopy(gpn)
    batch = gpn.tokenizer(["ACGT"])
    with torch.no_grad():
        torch.testing.assert_close(gpn(**batch).logits, twin(**batch).logits)
    assert twin.backbone.layers[0] is not gpn.backbone.layers[0]


def test_attention_of_any_layers_sums_to_one_and_leaves_padding_out():
    model = new("dnabert", vocab_size=69, width=16, depth=3, heads=4, mlp_width=16).eval()
    batch = model.tokenizer(["ACGTACGT", "ACGT"])
    last, first = model.attention(**batch, layers=(-1, 0))
    assert last.shape == first.shape == (2, 4, 8, 8)
    torch.testing.assert_close(last.sum(-1), torch.ones(2, 4, 8))
    assert not first[1, :, :4, 4:].any()


def test_attention_of_a_model_without_it_is_refused(gpn):
    with pytest.raises(InputError, match="without attention"):
        gpn.attention(**gpn.tokenizer(["ACGT"]))


def test_shared_buffers_are_published_under_all_their_names():
    model = new("nucleotide_transformer", vocab_size=75, width=16, depth=3, heads=4, mlp_width=16)
    names = [n for n in model.published(ties=False) if n.endswith("inv_freq")]
    assert len(names) == 3


def test_widening_is_no_rounding_and_the_file_keeps_its_number_types(fixtures, tmp_path):
    from lexome.checkpoints import read_weights, write_weights

    source = load(fixtures / "gpn" / "convnet", device="cpu")
    folder = source.save(tmp_path / "narrow")
    path = folder / source.origin.files[0].name
    tensors = read_weights(path).tensors
    write_weights(path, {name: t.bfloat16() for name, t in tensors.items()})
    model = load(folder, device="cpu")
    assert model.dtype == torch.float32
    with torch.no_grad():
        model.backbone.layers[0].conv.conv.bias += 1e-4  # needs more than eight bits
    again = read_weights(model.save(tmp_path / "again") / path.name).tensors
    kinds = {name: t.dtype for name, t in again.items()}
    assert sorted(map(str, set(kinds.values()))) == ["torch.bfloat16", "torch.float32"]
    assert sum(kind is torch.float32 for kind in kinds.values()) == 1


def test_shards_are_saved_as_shards(tmp_path, fixtures):
    import json

    from safetensors.torch import save_file

    from lexome.checkpoints import read_weights

    model = load(fixtures / "hyenadna" / "hf_tiny", device="cpu")
    tensors = {k: v.clone().contiguous() for k, v in model.published(ties=False).items()}
    places = {n: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(tensors)}
    (tmp_path / "sharded").mkdir()
    for file in sorted(set(places.values())):
        save_file(
            {n: t for n, t in tensors.items() if places[n] == file}, tmp_path / "sharded" / file
        )
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    config = (model.origin.folder / "config.json").read_bytes()
    (tmp_path / "sharded" / "config.json").write_bytes(config)
    again = load(tmp_path / "sharded", device="cpu").save(tmp_path / "again")
    names = sorted(path.name for path in again.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "sharded").iterdir())
    for file in sorted(set(places.values())):
        before, after = (read_weights(f / file).tensors for f in (tmp_path / "sharded", again))
        assert list(before) == list(after)
        assert all(torch.equal(before[n], after[n]) for n in before)
