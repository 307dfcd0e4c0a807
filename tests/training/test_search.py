"""Settings are chosen on validation alone, and what was done is not done again."""

import json

import numpy as np
import pytest

from lexome.catalog import new
from lexome.core import InputError, UnknownName
from lexome.training import attempt, search
from lexome.training.finetuning import finetune
from lexome.training.search import combinations

CHOICES = {"learning_rate": [1e-9, 1e-2], "batch_size": [16]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    model = new("gpn", width=16, depth=2, mlp_width=16, first_kernel=5, rest_kernel=5)
    return model.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Return tables; A stands in one class and T in the other, but labels of the test are turned
    round, so that whoever chose by it would choose otherwise."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    files = {}
    for name, count in {"train": 64, "validation": 32, "test": 32}.items():
        lines = ["sequence,label"]
        for i in range(count):
            letters = "".join(generator.choice(list("ACGT"), 12))
            label = 1 - i % 2 if name == "test" else i % 2
            lines.append(f"{letters}{'TA'[i % 2] * 4}{letters[::-1]},{label}")
        files[name] = folder / f"{name}.csv"
        files[name].write_text("\n".join(lines) + "\n")
    return files


def tuned(base, parts, out, **given):
    how = {"head_start": "random", "epochs": 4, "baselines": ["majority"], "search": CHOICES}
    return finetune(**{"model": base, **parts, "out": out, "progress": False, **how, **given})


def test_the_best_on_validation_is_taken_whatever_the_test_says(base, parts, tmp_path):
    found = tuned(base, parts, tmp_path / "run")
    assert dict(found.chosen) == {"learning_rate": 1e-2, "batch_size": 16}
    assert found.validation["mcc"] > 0.5
    assert found.scores["tiny, fine-tuned"]["mcc"] < -0.5
    assert "chosen on validation: learning_rate 0.01, batch_size 16" in str(found)
    rows = json.loads((tmp_path / "run/search/candidates.json").read_text())
    assert [row["learning_rate"] for row in rows] == CHOICES["learning_rate"]
    assert rows[0]["validation"]["mcc"] < rows[1]["validation"]["mcc"]
    assert not list((tmp_path / "run/search").rglob("*.safetensors"))


def test_the_chosen_one_equals_a_run_that_was_told_so(base, parts, tmp_path):
    found = tuned(base, parts, tmp_path / "searched")
    told = tuned(base, parts, tmp_path / "told", search=None, learning_rate=1e-2, batch_size=16)
    np.testing.assert_array_equal(found.outputs, told.outputs)


def test_folds_choose_once_and_without_what_they_are_judged_on(base, parts, tmp_path, monkeypatch):
    trained = []

    def spy(each, plan, **how):
        trained.append((set(each.parts), plan.rate(1), each.name))
        return run(each, plan, **how)

    run = search.run_attempt
    monkeypatch.setattr(search, "run_attempt", spy)
    only = {"train": parts["train"]}
    found = tuned(base, only, tmp_path / "folds", folds=2, seeds=2)
    assert [rate for _, rate, _ in trained] == CHOICES["learning_rate"]
    assert all(names == {"train", "validation"} for names, *_ in trained)
    assert {name for *_, name in trained} == {"fold-01-seed-0"}
    assert found.chosen["learning_rate"] == 1e-2
    assert len(found.runs) == 4


def test_a_stopped_search_goes_on(base, parts, tmp_path, monkeypatch):
    out, calls = tmp_path / "run", []

    def stop_at_second(*of, **how):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return load(*of, **how)

    load = attempt.load
    monkeypatch.setattr(attempt, "load", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        tuned(base, parts, out)
    monkeypatch.setattr(attempt, "load", load)
    first = (out / "search/001/scores.json").stat().st_mtime_ns
    found = tuned(base, parts, out)
    assert (out / "search/001/scores.json").stat().st_mtime_ns == first
    assert found.chosen["learning_rate"] == 1e-2


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 1e-3}, {"batch_size": []}, {"batch_size": [8, 8]}, {"schedule": "linear"}],
)
def test_what_is_no_list_of_different_values_is_refused(wrong):
    with pytest.raises(InputError, match="Expected a list of different values"):
        combinations(wrong)


def test_what_cannot_be_chosen_is_refused_before_anything_trains(base, parts, tmp_path):
    with pytest.raises(UnknownName, match="learning_rate"):
        tuned(base, parts, tmp_path / "run", search={"learning_rat": [1, 2]})
    with pytest.raises(InputError, match="batch_size is 0"):
        tuned(base, parts, tmp_path / "run", search={"batch_size": [8, 0]})
    assert not (tmp_path / "run").exists()
