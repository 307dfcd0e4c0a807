"""GPN against the authors' outputs."""

import json

import pytest
import torch

from lexome.catalog import load, new
from lexome.checkpoints import read_weights
from lexome.core import CheckpointError, InputError, UnknownName
from lexome.formats import Genome
from lexome.inference.sites import influence, inner_products, site_logits
from lexome.inference.variants import score_variants
from lexome.sequence import Variant, reverse_complement

SYSTEM = "gpn"


def test_tokens_are_the_authors(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    for item in checkpoint_case.io["items"]:
        assert tokenizer([item["sequence"]])["input_ids"][0].tolist() == item["input_ids"]


def test_outputs_are_the_authors(checkpoint_case):
    case, model = checkpoint_case, checkpoint_case.load()
    for number, item in enumerate(case.io["items"]):
        name = item.get("name", f"s{number}")
        with torch.no_grad():
            out = model(**model.tokenizer([item["sequence"]]), output_hidden_states=True)
        case.check(f"{name}.logits", out.logits)
        if case.has(f"{name}.hidden_last"):
            # States reach 30 here: 1.5e-5 is the rounding of float32 through 8 layers.
            case.check(f"{name}.hidden_last", out.last_hidden_state, atol=2e-5)
        for layer, state in enumerate(out.hidden_states[1:]):
            if case.has(f"{name}.layer{layer}"):
                case.check(f"{name}.layer{layer}", state, atol=2e-5)
    check_losses(case, model)
    case.finish()


def check_losses(case, model):
    ids, labels = case.take("mlm.input_ids"), case.take("mlm.labels")
    lower = case.take("mlm.is_lower").bool()
    with torch.no_grad():
        case.check("mlm.loss.unweighted", model(ids, labels=labels).loss)
        for name in [n for n in case.tensors if n.startswith("mlm.loss.weight")]:
            weight = torch.where(lower, float(name.removeprefix("mlm.loss.weight")), 1.0)
            case.check(name, model(ids, labels=labels, loss_weight=weight).loss)


def test_masked_loss_ignores_case_in_ids(checkpoint_case):
    tokenizer = checkpoint_case.load().tokenizer
    for sequence in checkpoint_case.io["mlm_sequences"]:
        upper, lower = tokenizer([sequence.upper()]), tokenizer([sequence.lower()])
        assert torch.equal(upper["input_ids"], lower["input_ids"])


def test_variant_scores_are_the_authors(case):
    if "variants" not in case.io:
        pytest.skip("no variants in this case")
    model = case.load()
    genome, vcf = case.folder / "genome.fa", case.folder / "variants.vcf"
    for window in case.io["windows"]:
        rows = score_variants(model, vcf, genome, window_bp=window)
        assert len(rows) == len(case.io["variants"])
        for row, variant in zip(rows, case.io["variants"], strict=True):
            assert (row.contig, row.position + 1) == (variant["chrom"], variant["pos"])
            assert (row.ref, row.alt) == (variant["ref"], variant["alt"])
        # REF letters beyond ACGT get a status here and a number from the authors' script.
        good = torch.tensor([v["ref"] in "ACGT" for v in case.io["variants"]])
        assert [row.status in {"ok", "edge_padded"} for row in rows] == good.tolist()
        nan = float("nan")
        for name, column in (
            (f"llr.w{window}", "masked_llr"),
            (f"llr_fwd.w{window}", "masked_llr_forward"),
            (f"llr_rev.w{window}", "masked_llr_reverse"),
        ):
            values = [row.scores.get(column) for row in rows]
            scores = torch.tensor([nan if v is None else v for v in values], dtype=torch.float32)
            case.check(name, scores, atol=1e-4, where=good)
    sites = [(p["chrom"], p["pos"] - 1) for p in case.io["logits_positions"]]
    for name in [n for n in case.tensors if n.startswith("acgt_logits.w")]:
        window = int(name.split(".w")[1])
        scores = torch.as_tensor(site_logits(model, Genome(genome), sites, window))
        case.check(name, scores, atol=1e-4)
    check_whole_window_scores(case, model, Genome(genome))


def check_whole_window_scores(case, model, genome):
    variants = [
        Variant(v["chrom"], v["pos"] - 1, "", v["ref"], v["alt"]) for v in case.io["variants"]
    ]
    for kind, function in (("influence", influence), ("inner_products", inner_products)):
        for name in [n for n in case.tensors if n.startswith(f"{kind}.w")]:
            window = int(name.split(".w")[1])
            values = torch.as_tensor(function(model, genome, variants, window))
            case.check(name, values, atol=1e-4, rtol=1e-5)


def test_window_embeddings_are_the_authors(case):
    if "embedding" not in case.io:
        pytest.skip("no embeddings in this case")
    model, spec = case.load(), case.io["embedding"]
    genome, middle = Genome(case.folder / "genome.fa"), spec["center_window_size"]
    rows = []
    for contig, start, end in spec["windows"]:
        text = genome.fetch(contig, start, end).upper()
        both = []
        for strand in (text, reverse_complement(text)):
            with torch.no_grad():
                hidden = model(**model.tokenizer([strand])).last_hidden_state[0]
            left = len(text) // 2 - middle // 2
            both.append(hidden[left : left + middle].mean(0))
        rows.append(torch.stack(both).mean(0))
    case.check("embeddings", torch.stack(rows), atol=1e-4)


@pytest.mark.parametrize("wiring", ["legacy", "convnet", "bytenet"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("taps", [5, 4])
@pytest.mark.parametrize("column", [0, 37, 149])
def test_one_column_is_that_of_the_whole(wiring, column, taps):
    kernels = {"first_kernel": 9, "rest_kernel": 9 if wiring == "legacy" else taps}
    sizes = {**kernels, "dilation_cycle": 3, "dilation_max": 4}
    model = new("gpn", wiring=wiring, width=16, mlp_width=16, depth=7, **sizes).eval()
    ids = torch.randint(3, 7, (3, 150))
    mask = torch.ones_like(ids)
    mask[1, 120:] = 0
    with torch.no_grad():
        for inputs in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
            state = model.backbone.state_at(column, **inputs)
            expected = model.backbone(**inputs).last[:, column]
            torch.testing.assert_close(state, expected)


def test_what_the_legacy_form_cannot_hold_is_refused_before_training():
    with pytest.raises(InputError, match="rest_kernel is 5, not 7"):
        new("gpn", width=8, depth=2, first_kernel=7, rest_kernel=5)
    with pytest.raises(InputError, match="mlp_width is 32, not 8"):
        new("gpn", width=8, depth=2, mlp_width=32)


@pytest.mark.parametrize(
    "sizes",
    [
        {"first_kernel": 5, "rest_kernel": 5},
        {"wiring": "convnet", "first_kernel": 7, "rest_kernel": 5, "slim": True},
        {"wiring": "bytenet", "one_hot": False, "bias": False},
    ],
    ids=["legacy", "convnet", "bytenet"],
)
def test_a_new_model_of_any_wiring_loads_again(sizes, tmp_path):
    model = new("gpn", width=8, depth=2, **sizes)
    again = load(model.save(tmp_path / "m"), device="cpu")
    assert again.config == model.config


def test_dilations_begin_anew_with_every_cycle():
    sizes = {"wiring": "convnet", "width": 8, "depth": 9}
    config = new("gpn", **sizes, dilation_cycle=5, dilation_double_every=2).config
    assert [config.dilation(i) for i in range(9)] == [1, 1, 2, 2, 4, 1, 1, 2, 2]
    config = new("gpn", **sizes, dilation_cycle=3, dilation_base=3, dilation_max=4).config
    assert [config.dilation(i) for i in range(4)] == [1, 3, 4, 1]


@pytest.mark.parametrize("wiring", ["convnet", "bytenet"])
def test_the_first_layer_is_never_depthwise(wiring):
    model = new("gpn", wiring=wiring, width=8, depth=3, depthwise=True)
    assert [layer.conv.conv.groups for layer in model.backbone.layers] == [1, 8, 8]


def test_a_configuration_may_leave_out_what_the_authors_class_fills_in(tmp_path):
    """The authors' defaults: 2048 wide inside, and a base of 2 in the legacy form."""
    model = new("gpn", wiring="convnet", width=8, depth=2, mlp_width=2048)
    model.save(tmp_path / "new")
    config = tmp_path / "new" / "config.json"
    raw = json.loads(config.read_text())
    for name in ("intermediate_size", "dilation_base", "encoder", "embedding", "slim"):
        del raw[name]
    config.write_text(json.dumps(raw))
    assert load(tmp_path / "new", device="cpu").config.mlp_width == 2048
    model = new("gpn", width=8, depth=4, dilation_base=3)
    assert load(model.save(tmp_path / "old"), device="cpu").config.dilation(2) == 9


def test_parts_that_are_not_built_here_are_refused(tmp_path):
    new("gpn", wiring="convnet", width=8, depth=2).save(tmp_path)
    config = tmp_path / "config.json"
    raw = json.loads(config.read_text())
    for name, value in (("encoder", "roformer"), ("embedding", "learned")):
        config.write_text(json.dumps(raw | {name: value}))
        with pytest.raises(CheckpointError, match=f"{name} '{value}', which is not known here"):
            load(tmp_path)
    with pytest.raises(UnknownName, match="no wiring named 'convent'"):
        new("gpn", wiring="convent")


WIRINGS = [
    {"first_kernel": 5, "rest_kernel": 5},
    {"wiring": "convnet", "bias": True, "positive": True, "problem": "regression"},
    {"wiring": "bytenet", "one_hot": False, "bias": False, "problem": "multi_label_classification"},
]


@pytest.mark.parametrize("sizes", WIRINGS, ids=["legacy", "convnet", "bytenet"])
def test_sequence_classifiers_come_back_from_their_files(sizes, tmp_path):
    model = new("gpn", head="mean-classifier", width=8, depth=2, classes=3, **sizes).eval()
    again = load(model.save(tmp_path), device="cpu")
    assert (again.head_name, again.config) == ("mean-classifier", model.config)
    names = set(read_weights(tmp_path / "model.safetensors").tensors)
    assert ("classifier.ln.weight" in names) == ("wiring" in sizes)
    ids = torch.randint(3, 7, (2, 30), generator=torch.Generator().manual_seed(0))
    labels = torch.rand(2, 3) if "problem" in sizes else torch.tensor([2, 0])
    out = model(ids, labels=labels)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    torch.testing.assert_close(again(ids, labels=labels).loss, out.loss)


@pytest.mark.parametrize("sizes", WIRINGS, ids=["legacy", "convnet", "bytenet"])
def test_the_bare_encoder_loads(sizes, tmp_path):
    model = new("gpn", width=8, depth=2, **sizes).eval()
    model.head_name, model.head = None, None
    again = load(model.save(tmp_path), device="cpu")
    assert again.head is None
    assert not any(name.startswith("model.") for name in again.published())
    ids = torch.tensor([[3, 4, 5, 6, 2]])
    torch.testing.assert_close(again(ids).last_hidden_state, model(ids).last_hidden_state)


def test_other_classification_heads_are_refused(tmp_path):
    new("gpn", wiring="convnet", width=8, depth=2).save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"classification_head": "lightweight_cnn"})
    )
    with pytest.raises(CheckpointError, match="classification_head 'lightweight_cnn', which"):
        load(tmp_path)
