import json
import shutil

import pytest
import torch

from lexome import catalog
from lexome.catalog import families, info, load, models, new, read, releases
from lexome.checkpoints import read_weights, write_weights
from lexome.core import CheckpointError, CheckpointMismatch, InputError, UnknownName


def test_a_folder_needs_no_other_hint(fixtures):
    assert load(fixtures / "gpn" / "bytenet", device="cpu").family.name == "gpn"
    assert load(str(fixtures / "hyenadna" / "hf_tiny"), device="cpu").family.name == "hyenadna"


def test_one_weight_file_can_be_named(fixtures):
    model = load(fixtures / "gpn" / "convnet" / "pytorch_model.bin", device="cpu")
    assert [f.name for f in model.origin.files] == ["pytorch_model.bin"]
    other = load(fixtures / "gpn" / "convnet", device="cpu")
    assert [f.name for f in other.origin.files] == ["model.safetensors"]
    batch = model.tokenizer(["ACGT"])
    assert torch.equal(model(**batch).logits, other(**batch).logits)


def test_a_misspelt_release_gets_suggestions():
    with pytest.raises(UnknownName, match="Did you mean 'dnabert2-117m'"):
        load("dnabert-2-117m")


def test_a_missing_folder_is_said_so():
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load("./not/there")


def test_a_folder_of_something_else_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"It holds: notes\.txt"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="name it with family="):
        load(tmp_path)


def test_a_configuration_without_weights_says_which_are_missing(fixtures, tmp_path):
    shutil.copy(fixtures / "gpn" / "convnet" / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"none of its weight files: model\.safetensors"):
        load(tmp_path)


def test_the_wrong_family_is_an_error_not_random_weights(fixtures):
    with pytest.raises(CheckpointMismatch):
        load(fixtures / "gpn" / "convnet", family="dnabert2")
    with pytest.raises(UnknownName, match="no family named 'gnp'"):
        load(fixtures / "gpn" / "convnet", family="gnp")


def test_a_configuration_with_holes_is_an_error(fixtures, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(fixtures / "gpn" / "convnet", folder)
    (folder / "config.json").write_text('{"model_type": "ConvNet"}')
    with pytest.raises(CheckpointMismatch, match="no whole configuration of GPN"):
        load(folder)


def test_another_size_in_the_configuration_is_an_error(fixtures, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(fixtures / "gpn" / "convnet", folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "hidden_size": 48}))
    with pytest.raises(CheckpointMismatch, match="another shape than the configuration"):
        load(folder)
    (folder / "config.json").write_text(json.dumps({**raw, "n_layers": 9}))
    with pytest.raises(CheckpointMismatch, match="missing"):
        load(folder)


def test_a_folder_that_two_families_claim_asks_for_one(fixtures, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(fixtures / "gpn" / "convnet", folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "alibi_starting_size": 1}))
    with pytest.raises(InputError, match="could be dnabert2 or gpn"):
        load(folder)
    assert load(folder, family="gpn", device="cpu").family.name == "gpn"


def test_a_download_that_is_not_the_published_file_is_refused(fixtures, monkeypatch):
    fetched = fixtures / "scgpt" / "released_2l" / "checkpoint"
    monkeypatch.setattr("lexome.catalog.fetch_hub", lambda source, wanted: fetched)
    with pytest.raises(CheckpointMismatch, match="delete it and try again"):
        load("scgpt-whole-human", device="cpu")


def test_weights_that_do_not_fit_are_refused_with_what_does(fixtures, monkeypatch):
    folder = fixtures / "evo" / "sh_8k_like"
    monkeypatch.setattr("lexome.catalog.free_bytes", lambda: 10_000)
    with pytest.raises(InputError, match=r"float32, and 10 kB of memory are free.*'bfloat16'"):
        load(folder, device="cpu")
    narrow = load(folder, device="cpu", precision="bfloat16")
    wide = read(folder)
    assert narrow.dtype == wide.dtype == torch.bfloat16
    assert not narrow.rounded


def test_mapped_weights_take_nothing(fixtures):
    model = read(fixtures / "evo" / "sh_8k_like")
    held = sum(p.numel() for p in model.parameters())
    wide = {n: p for n, p in model.named_parameters() if n.endswith("filter.bias")}
    wide |= {n: b for n, b in model.named_buffers() if n.endswith("rotary.inv_freq")}
    few = sum(x.numel() for x in wide.values())
    assert model.cast_bytes(torch.bfloat16) == 4 * few  # these are computed with in float32
    narrow = model.cast_bytes(torch.bfloat16, everything=True)
    assert 2 * held < narrow < model.cast_bytes(torch.float32, everything=True)


def test_weights_are_repeatable_by_seed():
    first, second, third = (new("gpn", width=8, depth=1, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.head.decoder.weight, second.head.decoder.weight)
    assert not torch.equal(first.head.decoder.weight, third.head.decoder.weight)


def test_making_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    new("gpn", width=8, depth=1)
    assert torch.equal(torch.rand(1), expected)


def test_a_misspelt_size_gets_suggestions():
    with pytest.raises(UnknownName, match="Did you mean 'width'"):
        new("gpn", widht=8)


def test_the_list_has_a_row_per_release():
    table = models()
    assert len(table.rows) == len(releases())
    assert str(table).count("\n") == len(releases())
    assert {row[1] for row in models(family="gpn").rows} == {"GPN"}
    assert {row[1] for row in models(family="dnabert-2").rows} == {"DNABERT-2"}, "as it is titled"
    with pytest.raises(UnknownName):
        models(family="gnp")


@pytest.mark.parametrize("name", sorted(releases()))
def test_a_card_of_a_release_needs_no_download(name):
    card = info(name)
    assert card.facts["parameters"] == f"{releases()[name][1].parameters:,}"
    assert card.title == name


def test_a_card_of_a_folder_has_its_hash(fixtures):
    card = info(fixtures / "gpn" / "convnet")
    assert len(card.facts["sha256"]) == 64
    assert card.facts["layout"] == "legacy"


def test_families_are_found_by_scanning():
    assert {"gpn", "dnabert2", "hyenadna"} <= set(families())


SMALL_NT = {"vocab_size": 75, "width": 16, "depth": 2, "heads": 4, "mlp_width": 24}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, tmp_path):
    model = new("nucleotide_transformer", **SMALL_NT)
    torch.nn.init.constant_(model.backbone.layers[1].mlp.down.weight[3], value)
    model.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.down\.weight of .* NaN"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_other_types_of_numbers_are_refused(dtype, tmp_path):
    path = new("nucleotide_transformer", **SMALL_NT).save(tmp_path) / "model.safetensors"
    tensors = dict(read_weights(path).tensors)
    tensors["lm_head.bias"] = tensors["lm_head.bias"].to(dtype)
    write_weights(path, tensors)
    with pytest.raises(CheckpointMismatch, match=rf"lm_head\.bias: {str(dtype)[6:]}"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("size", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_attention_heads", 3),
        ("num_attention_heads", 0),
        ("hidden_size", 10**12),
        ("hidden_dropout_prob", 7),
    ],
)
def test_sizes_that_no_model_has_are_refused_at_once(size, value, tmp_path):
    new("nucleotide_transformer", **SMALL_NT).save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {size: value}))
    with pytest.raises(CheckpointMismatch, match="no whole configuration of Nucleotide"):
        load(tmp_path, device="cpu")


EVO = "togethercomputer/evo-1-8k-base"  # its weights are right in one revision alone


@pytest.fixture
def evo_cache(tmp_path):
    """A hub's cache with a small Evo: {name of a revision: its folder}."""
    repository = tmp_path / "models--togethercomputer--evo-1-8k-base"
    sizes = {"width": 16, "depth": 2, "heads": 2, "attention_layers": (1,), "mlp_width": 24}
    model, folders = new("evo", states=4, **sizes), {}
    (repository / "refs").mkdir(parents=True)
    for name, commit in (("main", "a" * 40), ("1.1_fix", "b" * 40), ("", "c" * 40)):
        folders[name] = model.save(repository / "snapshots" / commit)
        if name:
            (repository / "refs" / name).write_text(commit)
    return folders


def test_weights_of_a_revision_that_was_corrected_are_refused(evo_cache):
    with pytest.raises(CheckpointError, match=r"aaaaaaaaaaaa \(main\) .* in revision 1\.1_fix al"):
        load(evo_cache["main"], device="cpu")
    model = load(evo_cache["1.1_fix"], device="cpu")
    assert model.provenance()["revision"] == "bbbbbbbbbbbb (1.1_fix)"
    assert "bbbbbbbbbbbb (1.1_fix)" in str(info(evo_cache["1.1_fix"]))
    with pytest.raises(CheckpointError, match="revision cccccccccccc of togethercomputer"):
        load(evo_cache[""], device="cpu")


def test_a_snapshot_whose_revision_nothing_tells_is_read(evo_cache):
    shutil.rmtree(evo_cache["main"].parents[1] / "refs")
    assert load(evo_cache["main"], device="cpu").provenance()["revision"] == "aaaaaaaaaaaa"
    copied = shutil.copytree(evo_cache["main"], evo_cache["main"].parents[2] / "copy")
    assert "revision" not in load(copied, device="cpu").provenance()


def test_a_hub_id_gives_the_one_right_revision(evo_cache, monkeypatch):
    asked = []

    def fetch(name):
        asked.append(name)
        return evo_cache["1.1_fix"]

    monkeypatch.setattr(catalog, "fetch_hub", fetch)
    for name in (EVO, f"{EVO}@1.1_fix", f"{EVO}@bbbbbbb"):
        assert load(name, device="cpu").name == name.split("/")[1]
    assert asked == [f"{EVO}@1.1_fix", f"{EVO}@1.1_fix", f"{EVO}@bbbbbbb"]
    for other in ("main", "1.0"):
        with pytest.raises(CheckpointError, match=f"is revision {other} of .* 'evo-1-8k-base'"):
            load(f"{EVO}@{other}", device="cpu")
    assert len(asked) == 3


def test_a_file_that_holds_no_weights_is_refused_for_what_it_is(tmp_path):
    (tmp_path / "genome.fa").write_text(">a\nACGT\n")
    with pytest.raises(CheckpointError, match=r"genome\.fa holds no weights \(such end in \.bin"):
        load(tmp_path / "genome.fa")
