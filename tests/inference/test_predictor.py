"""A fine-tuned model comes back from its folder as it was, on the very same base."""

import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from lexome.catalog import load, new
from lexome.core import CheckpointError, CheckpointMismatch, InputError
from lexome.inference.adapters import AdapterSettings, add_adapter
from lexome.inference.heads import Head
from lexome.inference.prediction import predict
from lexome.inference.predictor import Predictor, load_predictor

TEXTS = ["ACGTACGTTGCATTG", "TTTTGCGC"]


@pytest.fixture
def base(tmp_path):
    return new("gpn", width=16, depth=2, mlp_width=16).save(tmp_path / "base")


def predictor(base, method):
    model = load(base)
    return Predictor(
        model=model,
        head=Head(16, 2),
        task="classification",
        classes=("a", "b"),
        pooling="mean",
        piece_tokens=128,
        overlap_tokens=16,
        method=method,
        base={"source": str(base), "sha256": model.checkpoint_sha256()},
    )


def adapted(base):
    made = predictor(base, "lora")
    add_adapter(made.model, "lora", AdapterSettings(rank=4, alpha=8.0, dropout=0.0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.backbone.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    made.model.eval()
    return made


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_what_is_saved_predicts_the_same(base, method, tmp_path):
    if method == "lora":
        pytest.importorskip("peft", reason="the train extra is not installed")
    made = adapted(base) if method == "lora" else predictor(base, method)
    ids = made.model.tokenizer(TEXTS[0])
    with torch.no_grad():
        expected = made.head(made.model.backbone(**ids).last.mean(1)).softmax(-1)
    folder = made.save(tmp_path / "saved")
    found = predict(folder, TEXTS).rows[0]
    assert_close(torch.tensor([[found["p_a"], found["p_b"]]]), expected, atol=1e-6, rtol=1e-5)
    assert (folder / "model.safetensors").exists() == (method == "full")


def test_an_adapter_is_read_by_peft_itself(base, tmp_path):
    peft = pytest.importorskip("peft", reason="the train extra is not installed")
    made = adapted(base)
    folder = made.save(tmp_path / "saved")
    fresh = load(base)
    wrapped = peft.PeftModel.from_pretrained(fresh.backbone, str(folder)).eval()
    ids = fresh.tokenizer(TEXTS[0])
    with torch.no_grad():
        assert_close(wrapped(**ids).last, made.model.backbone(**ids).last)


def test_another_base_is_refused(base, tmp_path):
    folder = predictor(base, "head").save(tmp_path / "saved")
    other = new("gpn", width=16, depth=2, mlp_width=16, seed=1).save(tmp_path / "other")
    with pytest.raises(CheckpointMismatch, match=r"was trained on .* but .*other has"):
        load_predictor(folder, base=other)


def test_a_base_that_has_moved_can_be_named(base, tmp_path):
    folder = predictor(base, "head").save(tmp_path / "saved")
    moved = shutil.move(str(base), tmp_path / "moved")
    with pytest.raises(CheckpointError) as error:
        load_predictor(folder)
    assert "give base=" in error.value.__notes__[0]
    assert load_predictor(folder, base=moved).classes == ("a", "b")


def test_a_whole_model_needs_no_base(base, tmp_path):
    folder = predictor(base, "full").save(tmp_path / "saved")
    with pytest.raises(InputError, match="holds a whole model"):
        load_predictor(folder, base=base)


def test_a_folder_without_a_fine_tuned_model_is_refused(base, tmp_path):
    with pytest.raises(CheckpointError, match="no fine-tuned model"):
        load_predictor(base)
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_predictor(tmp_path / "nowhere")
    folder = predictor(base, "head").save(tmp_path / "saved")
    settings = json.loads((folder / "finetune.json").read_text())
    del settings["classes"]
    (folder / "finetune.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"no whole fine-tuned model \(KeyError: 'classes'\)"):
        load_predictor(folder)
