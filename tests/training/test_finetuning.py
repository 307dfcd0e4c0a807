"""Fine-tuning learns what a motif decides, tells what it was worth, and refuses odd data."""

import json
import math

import numpy as np
import pytest
import torch

from lexome.catalog import load, new
from lexome.core import FormatError, InputError, UnknownName
from lexome.inference.prediction import predict
from lexome.inference.predictor import load_predictor
from lexome.sequence import reverse_complement
from lexome.training import tuning
from lexome.training.finetuning import finetune
from lexome.training.labelled import read_labelled
from lexome.training.recipe import bundled_recipes
from lexome.training.tuning import Tuner

MOTIF = "TTGACA"


def examples(count, seed, *, classes=2, length=24):
    """Return (sequence, class) pairs; a class has its number of motifs, whose letters shuffled
    stand in the others, so that single letters tell nothing."""
    generator = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        letters = generator.choice(list("ACGT"), length + int(generator.integers(12)))
        for slot in range(classes - 1):
            word = MOTIF if slot < i % classes else "".join(generator.permutation(list(MOTIF)))
            at = slot * length // (classes - 1) + int(
                generator.integers(length // (classes - 1) - 6 + 1)
            )
            letters[at : at + 6] = list(word)
        pairs.append(("".join(letters), str(i % classes)))
    return pairs


def write(path, pairs):
    path.write_text("sequence,label\n" + "".join(f"{s},{label}\n" for s, label in pairs))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    sizes = {"train": 240, "validation": 60, "test": 60}
    return {n: write(folder / f"{n}.csv", examples(c, i)) for i, (n, c) in enumerate(sizes.items())}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    model = new("gpn", width=24, depth=3, mlp_width=24, first_kernel=7, rest_kernel=7)
    return model.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Return a model with attention and a limited context."""
    model = new("dnabert", vocab_size=69, width=16, depth=2, heads=2, mlp_width=32, positions=40)
    return model.save(tmp_path_factory.mktemp("models") / "words")


def tuned(base, data, out, **given):
    return finetune(**{"model": base, **data, "out": out, "progress": False, "epochs": 4, **given})


@pytest.fixture(scope="module")
def full(base, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "full"
    return tuned(base, data, out, pooling="max", batch_size=16, learning_rate=2e-3)


def test_a_motif_is_learnt_and_the_baselines_stand_beside_it(full):
    who = list(full.scores)
    assert who[0] == "tiny, fine-tuned"
    assert "-mer" in who[1]
    assert who[1].endswith("logistic regression")
    assert who[2] == "majority"
    assert full.scores[who[0]]["mcc"] > 0.8
    assert full.scores["majority"]["accuracy"] == 0.5
    assert full.trained == full.parameters
    text = str(full)
    assert all(name in text for name in who)
    assert "on test" in text


def test_the_kept_epoch_is_the_best_on_validation(full):
    scores = [each.validation["mcc"] for each in full.history]
    assert full.best_epoch == int(np.argmax(scores))
    assert full.validation["mcc"] == max(scores)
    lines = (full.model.parent / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(len(scores)))


def test_predictions_of_the_saved_model_give_the_scores_that_were_told(full, data):
    found = predict(full.model, data["test"], progress=False)
    hits = [row["prediction"] == row["label"] for row in found.rows]
    assert np.mean(hits) == full.scores["tiny, fine-tuned"]["accuracy"]
    assert load(full.model).family.name == "gpn"  # the official layout


def test_the_head_of_a_frozen_backbone_leaves_it_as_it_was(base, data, tmp_path):
    found = tuned(base, data, tmp_path / "run", method="head")
    assert found.trained == 24 * 2 + 2
    assert found.best_epoch == 0
    assert len(found.history) == 1
    assert not (found.model / "config.json").exists()
    again = tuned(base, data, tmp_path / "again", method="head")
    assert found.scores == again.scores


def test_lora_trains_few_parameters_and_keeps_an_adapter(base, data, tmp_path):
    pytest.importorskip("peft", reason="the train extra is not installed")
    found = tuned(
        base,
        data,
        tmp_path / "run",
        method="lora",
        pooling="max",
        batch_size=16,
        learning_rate=2e-2,
    )
    assert found.trained < found.parameters / 2
    assert (found.model / "adapter_model.safetensors").is_file()
    assert found.scores["tiny, LoRA"]["mcc"] > 0.6
    made = predict(found.model, data["test"], progress=False)
    hits = [row["prediction"] == row["label"] for row in made.rows]
    assert np.mean(hits) == pytest.approx(found.scores["tiny, LoRA"]["accuracy"], abs=1e-9)


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_the_factor_of_lora_is_kept_with_the_adapter(base, data, tmp_path, rank_stabilised):
    pytest.importorskip("peft", reason="the train extra is not installed")
    found = tuned(
        base,
        data,
        tmp_path / "run",
        method="lora",
        lora_rank=4,
        lora_alpha=6.0,
        lora_rank_stabilised=rank_stabilised,
        max_steps=1,
    )
    scalings = {
        layer.scaling["default"]
        for layer in load_predictor(found.model).model.backbone.modules()
        if hasattr(layer, "scaling")
    }
    assert scalings == {6.0 / 2 if rank_stabilised else 6.0 / 4}


def test_values_are_predicted_in_their_own_unit(base, data, tmp_path):
    files = {}
    for name, path in data.items():
        pairs = [line.split(",") for line in path.read_text().splitlines()[1:]]
        files[name] = write(
            tmp_path / path.name,
            [(s, f"{1000 + 50 * s.count('A') + i % 7 / 10}") for i, (s, _) in enumerate(pairs)],
        )
    found = tuned(base, files, tmp_path / "run", method="head")
    assert found.task == "regression"
    scores = found.scores["tiny, frozen with head"]
    assert scores["rmse"] < found.scores["mean"]["rmse"]
    assert math.isnan(found.scores["mean"]["pearson"])
    made = predict(found.model, files["test"], progress=False)
    truth = np.array([float(row["label"]) for row in made.rows])
    values = np.array([row["prediction"] for row in made.rows])
    assert math.sqrt(((truth - values) ** 2).mean()) == pytest.approx(scores["rmse"])
    json.loads((tmp_path / "run" / "scores.json").read_text(), parse_constant=pytest.fail)


def test_three_classes_and_parts_drawn_from_one_file(base, tmp_path):
    path = write(tmp_path / "all.csv", examples(150, 5, classes=3))
    given = {"train": path, "test_fraction": 0.2, "validation_fraction": 0.2}
    found = tuned(base, given, tmp_path / "run", method="head", balance_classes=True)
    assert found.classes == ("0", "1", "2")
    assert found.sizes == {"train": 90, "validation": 30, "test": 30}


def test_without_a_test_the_table_says_that_its_scores_are_too_good(base, data, tmp_path):
    found = tuned(base, {"train": data["train"]}, tmp_path / "run", method="head")
    assert found.judged_on == "validation"
    assert "also chose the model" in str(found)


def test_duplicates_are_told(base, data, tmp_path):
    pairs = [line.split(",") for line in data["train"].read_text().splitlines()[1:]]
    test = write(tmp_path / "test.csv", [*pairs[:3], *examples(20, 9)])
    found = tuned(base, {**data, "test": test}, tmp_path / "run", method="head")
    assert found.shared["test in train"] == 3
    assert "3 of 23 test sequences are also in train" in str(found)


def test_long_sequences_are_cut_and_said_not_shortened(words, data, tmp_path, capsys):
    long = write(tmp_path / "long.csv", [(s * 5, label) for s, label in examples(60, 4)])
    found = tuned(words, {"train": long}, tmp_path / "run", epochs=1, progress=True, batch_size=16)
    assert "60 sequences are cut into overlapping pieces" in capsys.readouterr().err
    assert load_predictor(found.model).piece_tokens == 40


def test_the_seed_decides_everything(base, data, tmp_path):
    def weights(out, **given):
        torch.manual_seed(sum(map(ord, out)))
        small = {"train": data["validation"], "test": data["test"]}
        found = tuned(base, small, tmp_path / out, epochs=1, learning_rate=1e-2, **given)
        return load_predictor(found.model).head.out.weight

    first = weights("a")
    assert torch.equal(first, weights("b"))
    assert not torch.equal(first, weights("c", seed=1))


def test_a_step_is_the_same_however_it_is_cut(base, data, tmp_path):
    def weights(out, **given):
        small = {"train": data["validation"], "test": data["test"]}
        rate = {"epochs": 1, "learning_rate": 1e-3, "dropout": 0.0, "metric": "auc"}
        found = tuned(base, small, tmp_path / out, **rate, **given)
        return [each.loss for each in found.history[1:]]

    assert weights("a") == pytest.approx(weights("b", max_tokens_per_batch=100), rel=1e-4)


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        ([("ACGT" * 5, "0")] * 9, {}, "have the label '0'. Expected at least two classes"),
        ([("ACGT" * 5, "0"), ("GG", "1")] * 9, {"task": "regresion"}, "Did you mean 'regression'"),
        (examples(40, 0), {"metric": "r2"}, "no metric of classification"),
        ([("ACGT" * 5, "0"), ("", "1")] * 9, {}, "none is left|empty"),
        ([("ACGT" * 5, "0"), ("GG", "1")] * 9, {"label_column": "lable"}, "Did you mean 'label'"),
        ([("ACGT" * 5, "0"), ("GG", "1")] * 9, {"epochs": 0}, "epochs is 0"),
        ([("ACGT" * 5, "0"), ("GG", "1")] * 9, {"validation_fraction": 0}, "no validation"),
        ([("ACGT" * 5, "0.5"), ("GG", "1.5")] * 9, {"balance_classes": True}, "these are values"),
    ],
)
def test_what_cannot_be_trained_on_is_explained(rows, given, message, base, tmp_path):
    path = write(tmp_path / "train.csv", rows)
    with pytest.raises((InputError, FormatError, UnknownName), match=message):
        tuned(base, {"train": path}, tmp_path / "run", **given)


def test_a_label_of_validation_that_training_lacks_is_an_error(base, data, tmp_path):
    odd = write(tmp_path / "odd.csv", [*examples(10, 0), ("ACGTACGT", "7")])
    with pytest.raises(InputError, match=r"odd.csv has the label '7' 1 times.*no training"):
        tuned(base, {**data, "validation": odd}, tmp_path / "run")


def test_sequences_that_the_model_cannot_read_are_refused_by_name(words, tmp_path):
    rows = [*examples(40, 0), ("AC", "1")]
    path = write(tmp_path / "train.csv", rows)
    with pytest.raises(InputError, match=r"cannot read 1 of the .*named '41': too short \(AC\)"):
        tuned(words, {"train": path}, tmp_path / "run")


def test_another_run_is_not_overwritten_unless_asked(full, base, data):
    with pytest.raises(InputError, match=r"is there already. Pass overwrite=True"):
        tuned(base, data, full.model.parent)


def test_a_model_in_the_place_of_the_recipe_is_explained():
    with pytest.raises(UnknownName, match="no recipe named 'gpn-brassicales'"):
        finetune("gpn-brassicales", train="train.csv", out="run")


@pytest.mark.parametrize("recipe", bundled_recipes("finetune"))
def test_a_bundled_recipe_runs_with_a_small_model_of_its_family(recipe, data, tmp_path):
    small = {"width": 8, "depth": 1, "heads": 2, "mlp_width": 16, "vocab_size": 75}
    model = new("nucleotide_transformer", **small).save(tmp_path / "model")
    fast = {"max_steps": 2, "progress": False, "baselines": (), "precision": "float32"}
    held = {name: data[name] for name in ("train", "test")}
    if "ia3" in bundled_recipes("finetune")[recipe].read_text() or "lora" in recipe:
        pytest.importorskip("peft", reason="the train extra is not installed")
    found = finetune(recipe, model=model, **held, out=tmp_path / "run", **fast)
    assert found.history[-1].step == 2
    assert len(found.runs) in {0, 10}


def test_labels_in_several_columns_are_learnt_and_predicted(base, data, tmp_path):
    rows = [line.split(",")[0] for line in data["train"].read_text().splitlines()[1:]]
    path = tmp_path / "train.csv"
    cells = (f"{s},{int(s.count('G') > 8)},{int('TT' in s)}" for s in rows)
    path.write_text("sequence,rich,tt\n" + "\n".join(cells) + "\n")
    found = tuned(
        base,
        {"train": path, "test_fraction": 0.2},
        tmp_path / "run",
        label_column="rich,tt",
        pooling="max",
        method="head",
    )
    assert (found.task, found.classes) == ("multilabel", ("rich", "tt"))
    scores = found.scores["tiny, frozen with head"]
    assert scores["macro_auc"] > 0.6 > found.scores["frequency"]["macro_auc"]
    row = predict(found.model, [rows[0]]).rows[0]
    chosen = [name for name in ("rich", "tt") if row[f"p_{name}"] > 0.5]
    assert row["prediction"] == (";".join(chosen) or "-")


def test_several_values_are_learnt_and_predicted_in_their_units(base, data, tmp_path):
    rows = [line.split(",")[0] for line in data["train"].read_text().splitlines()[1:]]
    path = tmp_path / "train.csv"
    cells = (f"{s},{s.count('A') / len(s)},{1000 + 50 * len(s)}" for s in rows)
    path.write_text("sequence,share,weight\n" + "\n".join(cells) + "\n")
    given = {"train": path, "test_fraction": 0.2}
    how = {"label_column": ["share", "weight"], "method": "head"}
    found = tuned(base, given, tmp_path / "run", **how)
    assert (found.task, found.columns) == ("regression", ("share", "weight"))
    assert found.outputs.shape == found.truth.shape == (found.sizes["test"], 2)
    row = predict(found.model, [rows[0]]).rows[0]
    assert 0 < row["prediction_share"] < 1
    assert 1000 < row["prediction_weight"] < 5000


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("family", ["gpn", "dnabert", "nucleotide_transformer"])
def test_a_class_of_every_letter_is_learnt_whatever_the_tokens(family, kind, data, tmp_path):
    sizes = {
        "gpn": {"first_kernel": 5, "rest_kernel": 5, "mlp_width": 24},
        "dnabert": {"vocab_size": 69, "heads": 2, "mlp_width": 48, "dropout": 0.0},
        "nucleotide_transformer": {"vocab_size": 75, "heads": 2, "mlp_width": 48},
    }[family]
    model = new(family, width=24, depth=2, **sizes).save(tmp_path / "model")
    texts = [line.split(",")[0] for line in data["train"].read_text().splitlines()[1:]]
    marked = [(s, "-" + "".join("w" if x in "AT" else "s" for x in s[1:])) for s in texts]
    path = write(tmp_path / "train.csv", marked)
    given = {"train": path, "test_fraction": 0.2, "head": kind, "epochs": 8}
    found = tuned(model, given, tmp_path / "run", learning_rate=5e-3, batch_size=8, clip=0.0)
    assert found.task == "token_classification"
    assert found.scores["model, fine-tuned"]["mcc"] > 0.9
    rows = predict(found.model, [("a", texts[0]), ("b", "")]).rows
    assert len(rows[0]["prediction"]) == len(texts[0])
    assert rows[1]["prediction"] is None


@pytest.mark.parametrize("family", ["gpn", "dnabert", "nucleotide_transformer"])
def test_values_of_every_letter_are_learnt_whatever_the_tokens(family, data, tmp_path):
    sizes = {
        "gpn": {"first_kernel": 5, "rest_kernel": 5, "mlp_width": 24},
        "dnabert": {"vocab_size": 69, "heads": 2, "mlp_width": 48, "dropout": 0.0},
        "nucleotide_transformer": {"vocab_size": 75, "heads": 2, "mlp_width": 48},
    }[family]
    model = new(family, width=24, depth=2, **sizes).save(tmp_path / "model")
    texts = [line.split(",")[0] for line in data["train"].read_text().splitlines()[1:]]
    path = tmp_path / "train.tsv"
    lines = ["sequence\tstrong\tpurine"]
    for s in texts:  # the last eight letters were not measured, nor every fifth of a column
        strong = [f"{200 + 50 * (x in 'CG')}" for x in s[:-8]]
        purine = ["-" if i % 5 == 0 else f"{0.1 * (x in 'AG')}" for i, x in enumerate(s[:-8])]
        lines.append("\t".join([s, " ".join(strong), " ".join(purine)]))
    path.write_text("\n".join(lines) + "\n")
    given = {"train": path, "test_fraction": 0.2, "label_column": "strong,purine", "epochs": 10}
    found = tuned(model, given, tmp_path / "run", learning_rate=5e-3, batch_size=8, clip=0.0)
    assert (found.task, found.metric, found.columns) == (
        *("token_regression", "rmse"),
        ("strong", "purine"),
    )
    assert found.scores["model, fine-tuned"]["r2"] > 0.9
    assert found.history[1].loss is not None
    assert found.history[1].loss < 2  # half the squares of two columns, in units of their spread
    letters = len(found.truth)
    assert found.outputs.shape == found.truth.shape == (letters, 2)
    assert 200 < found.outputs[:, 0].mean() < 250
    rows = predict(found.model, [("a", texts[0]), ("b", "")]).rows
    told = [float(word) for word in rows[0]["prediction_strong"].split()]
    assert np.corrcoef(told, [x in "CG" for x in texts[0]])[0, 1] > 0.9
    assert rows[1]["prediction_strong"] is None


def test_a_fine_tuned_model_is_gone_on_from_if_it_is_whole(full, base, data, tmp_path):
    again = tuned(full.model, data, tmp_path / "again", method="head", pooling="max")
    assert again.scores["model, frozen with head"]["mcc"] > 0.8
    with pytest.raises(InputError, match="is the folder of a fine-tuning"):
        tuned(full.model.parent, data, tmp_path / "no")
    with pytest.raises(InputError, match=r"method 'head'.*no whole model.*lexome merge"):
        tuned(again.model, data, tmp_path / "no")


def test_equal_sequences_with_other_labels_are_told(base, data, tmp_path, capsys):
    twins = [("ACGTTGCAACGTTGCA", "0"), ("acgttgcaacgttgca", "1")] * 2
    train = write(tmp_path / "train.csv", [*examples(40, 2), *twins])
    given = {"method": "head", "progress": True, "upper": True}
    tuned(base, {**data, "train": train}, tmp_path / "run", **given)
    said = capsys.readouterr().err
    assert "4 training sequences have an equal one with another label" in said


def test_letters_that_the_model_does_not_know_are_told(base, data, tmp_path, capsys):
    rna = write(tmp_path / "rna.csv", [(s.replace("T", "U"), y) for s, y in examples(40, 2)])
    tuned(base, {"train": rna}, tmp_path / "run", method="head", progress=True)
    said = capsys.readouterr().err
    assert "of the training letters are unknown to " in said
    assert "This model knows no U; turn it into T." in said


def test_memory_that_runs_out_in_a_step_is_explained(base, data, tmp_path, monkeypatch):
    def full_up(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried too much")

    monkeypatch.setattr(Tuner, "scores", full_up)
    with pytest.raises(InputError, match=r"memory ran out.*Pass max_tokens_per_batch="):
        tuned(base, data, tmp_path / "run")


def test_both_strands_of_a_sequence_get_one_prediction(base, data, tmp_path):
    found = tuned(base, data, tmp_path / "run", both_strands=True, pooling="max", epochs=6)
    assert found.scores["tiny, fine-tuned"]["mcc"] > 0.5
    sequence = examples(1, 9)[0][0] + "TTGACATT"
    one, other, single = predict(
        tmp_path / "run", [sequence, reverse_complement(sequence), "ACGT" * 8]
    ).rows
    assert one["p_1"] == pytest.approx(other["p_1"], abs=1e-6)
    assert one["p_1"] != pytest.approx(single["p_1"], abs=1e-3)
    told = np.load(tmp_path / "run" / "outputs.npz")["outputs"]
    again = predict(tmp_path / "run", data["test"])
    np.testing.assert_allclose([row["p_1"] for row in again.rows], told[:, 1], atol=1e-6)


def test_letters_have_one_strand(base, data, tmp_path):
    letters = write(tmp_path / "letters.csv", [(s, s.lower()) for s, _ in examples(9, 0)])
    with pytest.raises(InputError, match="both_strands is for whole sequences"):
        tuned(
            base,
            {"train": letters},
            tmp_path / "run",
            task="token_classification",
            both_strands=True,
        )


def test_large_steps_begin_with_a_random_head_and_small_ones_with_a_solved_one(
    base, data, tmp_path
):
    first = {
        rate: tuned(base, data, tmp_path / str(rate), learning_rate=rate, epochs=1).history[0]
        for rate in (1e-4, 1e-3)
    }
    assert first[1e-4].validation["mcc"] > first[1e-3].validation["mcc"]
    solved = tuned(
        base, data, tmp_path / "asked", learning_rate=1e-3, epochs=1, head_start="solved"
    )
    assert solved.history[0].validation == first[1e-4].validation


def test_letters_have_no_pooling(base, data, tmp_path):
    path = write(tmp_path / "train.csv", [("ACGT" * 4, "abcd" * 4), ("AACC" * 4, "aabb" * 4)] * 9)
    with pytest.raises(InputError, match="each letter is predicted from its own vector"):
        tuned(base, {"train": path}, tmp_path / "run", pooling="max")


@pytest.mark.parametrize("method", ["ia3", "prompt"])
def test_other_adapters_are_trained_saved_and_predict(words, data, tmp_path, method):
    pytest.importorskip("peft", reason="the train extra is not installed")
    found = tuned(words, data, tmp_path / "run", method=method, epochs=1, prompt_tokens=4)
    assert found.trained < found.parameters / 3
    made = predict(found.model, data["test"], progress=False)
    shares = [row["p_1"] for row in made.rows]
    np.testing.assert_allclose(shares, found.outputs[:, 1], atol=1e-5)


def test_labelled_sequences_can_be_given_from_python(base, data, tmp_path):
    parts = {name: read_labelled(path) for name, path in data.items()}
    one = tuned(base, parts, tmp_path / "one", method="head")
    two = tuned(base, data, tmp_path / "two", method="head")
    assert one.scores == two.scores


def test_rare_classes_weigh_more_when_asked(base, data, tmp_path):
    rows = [line.split(",") for line in data["train"].read_text().splitlines()[1:]]
    few = write(tmp_path / "few.csv", [r for i, r in enumerate(rows) if r[1] == "0" or i % 9 < 2])
    recall = {}
    for balanced in (False, True):
        found = tuned(
            base,
            {"train": few, "test": data["test"]},
            tmp_path / str(balanced),
            method="head",
            balance_classes=balanced,
        )
        recall[balanced] = (found.outputs.argmax(1) == 1).mean()
    assert recall[True] > recall[False]


def test_a_missing_argument_is_named():
    with pytest.raises(InputError, match="train is missing"):
        finetune(model="gpn-brassicales", out="run")


@pytest.mark.parametrize("method", ["head", "full"])
def test_a_head_of_all_tokens_finds_a_motif_anywhere(base, data, tmp_path, method):
    found = tuned(
        base,
        data,
        tmp_path / "run",
        **{"method": method, "head": "textcnn", "dropout": 0.2, "learning_rate": 3e-3},
        **{"epochs": 6, "batch_size": 16},
    )
    who = next(iter(found.scores))
    assert found.scores[who]["mcc"] > 0.8
    backbone = 0 if method == "head" else found.parameters
    if not backbone:  # dense to twice the width, three kernels of 100 channels, two scores
        assert found.trained == (24 + 1) * 48 + sum((48 * k + 1) * 100 for k in (3, 4, 5)) + 602
    made = predict(found.model, data["test"], progress=False)
    hits = [row["prediction"] == row["label"] for row in made.rows]
    assert np.mean(hits) == found.scores[who]["accuracy"]


def test_tokens_that_are_too_many_to_keep_are_computed_again(base, data, tmp_path, monkeypatch):
    given = {"method": "head", "head": "textcnn", "epochs": 1, "batch_size": 16}
    kept = tuned(base, data, tmp_path / "kept", **given)
    monkeypatch.setattr(tuning, "_MOST_KEPT", 0)
    made = tuned(base, data, tmp_path / "made", **given)
    assert made.history[-1].loss == pytest.approx(kept.history[-1].loss, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"pooling": "max"}, "pooling was given"),
        ({"both_strands": True}, "both_strands was given"),
        ({"head_start": "solved"}, "head_start='solved' was given"),
    ],
)
def test_what_does_not_go_with_a_head_of_all_tokens_is_refused(given, reason, base, data, tmp_path):
    with pytest.raises(InputError, match=reason):
        tuned(base, data, tmp_path / "run", head="textcnn", **given)


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    model = new("hyenadna", width=16, depth=1, mlp_width=16, length=80)
    return model.save(tmp_path_factory.mktemp("models") / "causal")


def test_tuning_in_context_learns_soft_tokens_only_and_answers_in_letters(causal, data, tmp_path):
    pytest.importorskip("peft", reason="the train extra is not installed")
    given = {"method": "prompt", "head": "letters", "prompt_tokens": 4, "epochs": 1}
    found = tuned(causal, data, tmp_path / "run", **given)
    assert found.trained == 4 * 16
    made = predict(found.model, data["test"], progress=False)
    np.testing.assert_allclose([row["p_1"] for row in made.rows], found.outputs[:, 1], atol=1e-5)


def test_letters_without_learning_are_the_next_token_of_the_model(causal, data, tmp_path):
    found = tuned(causal, data, tmp_path / "run", method="head", head="letters", label_letters="GT")
    assert found.trained == 0
    model = load(causal)
    texts = [line.split(",")[0] for line in data["test"].read_text().splitlines()[1:]]
    for text, shares in list(zip(texts, found.outputs, strict=True))[:5]:
        ids = model.tokenizer.encode([text])[0]["input_ids"].astype(int)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids)[None]).logits[0, -1]
        expected = logits[model.tokenizer.encode(["GT"])[0]["input_ids"].astype(int)].softmax(-1)
        np.testing.assert_allclose(shares, expected.numpy(), atol=1e-5)


def test_letters_as_classes_are_refused_where_they_mean_nothing(causal, base, data, tmp_path):
    for model, given, why in (
        (base, {"head": "letters"}, "predicts none"),
        (causal, {"label_letters": "AN"}, "head is 'linear'"),
        (causal, {"head": "letters", "label_letters": "ANG"}, "there are 2 classes"),
        (causal, {"head": "letters", "pooling": "mean"}, "pooling is 'mean'"),
        (causal, {"head": "letters", "head_start": "solved"}, "head_start is 'solved'"),
    ):
        with pytest.raises(InputError, match=why):
            tuned(model, data, tmp_path / "run", overwrite=True, **given)


def test_coding_sequences_with_letters_left_over_are_told(tmp_path, capsys):
    codons = new("helm", width=8, depth=1, heads=2, mlp_width=8).save(tmp_path / "codons")
    made = [
        ("ATG" + "GCC" * (i % 2) + "AAA" * (1 + i // 2) + "A" * (i % 4 == 0), i % 2)
        for i in range(40)
    ]
    train = write(tmp_path / "train.csv", made)
    finetune(model=codons, train=train, out=tmp_path / "run", method="head", progress=True)
    assert "10 sequences are no multiple of 3 letters long" in capsys.readouterr().err
