"""Everyone is judged on the same sequences, nothing is done twice, and nothing is hidden."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lexome.core import InputError, UnknownName
from lexome.tasks import evaluation
from lexome.tasks.evaluation import (
    Plan,
    check_settings,
    contenders_of,
    read_recipe,
    run_suite,
    settings_for,
)
from lexome.tasks.suites import read_suite


def planned(small_suite: Path, out: Path, models=(), **given) -> Plan:
    return Plan(
        **{
            "suite": read_suite(small_suite),
            "contenders": contenders_of(models),
            "data": small_suite.parent / "data",
            "out": out,
            "baselines": ("majority", "kmer"),
            "settings": {"epochs": 1},
            "device": "cpu",
        }
        | given
    )


def silent(_: str) -> None:
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def made(small_suite, small_models, folder):
    plan = planned(small_suite, folder, [small_models("first")])
    return run_suite(plan, silent, progress=False)


def test_models_and_baselines_are_judged_best_first_with_intervals(made):
    result = made.results["motif"]
    assert {s.kind for s in result.scores} == {"model", "baseline"}
    values = [s.value for s in result.scores]
    assert values == sorted(values, reverse=True)
    for score in result.scores:
        assert score.interval.low <= score.value <= score.interval.high
    words = next(s for s in result.scores if s.key == "kmer")
    assert words.value > 0.8
    model = next(s for s in result.scores if s.kind == "model")
    assert model.name == "first, fine-tuned"
    assert model.verdict is not None
    assert model.verdict.against == words.name
    assert model.verdict.difference == pytest.approx(model.value - words.value)


def test_duplicates_are_counted_and_left_out_beside(made):
    result = made.results["motif"]
    assert result.test_duplicates == 1
    majority = next(s for s in result.scores if s.key == "majority")
    assert majority.metrics["accuracy"] == 0.5
    assert all(np.isfinite(s.unshared) for s in result.scores)


def test_what_is_published_stands_apart_and_only_for_the_same_metric(made):
    published = made.results["motif"].published
    assert [(m, v) for m, v, _ in published] == [("theirs", 0.9), ("other", 0.2)]
    assert "published: theirs 0.900, other 0.200" in str(made)


def test_tasks_that_are_not_there_are_named_and_means_are_over_those_that_are(made):
    assert made.missing == ("absent",)
    assert "not in the data folder:\n  absent: train and test (.csv" in str(made)
    assert made.metrics == ("mcc", "spearman")
    rows = made.means("mcc")
    assert {name for name, kind, *_ in rows if kind == "published"} == {"theirs", "other"}
    assert {count for *_, count in rows} == {1}
    assert "mean mcc" not in str(made)  # of one task, it would only say it again


def test_who_has_no_score_on_a_task_is_in_no_mean(made):
    assert "majority" in {name for name, *_ in made.means("mcc")}
    assert "majority" not in {name for name, *_ in made.means("spearman")}


def test_published_settings_give_way_to_arguments(small_suite, small_models, tmp_path, monkeypatch):
    asked = []
    original = evaluation.finetune

    def watched(**arguments):
        asked.append(arguments)
        return original(**arguments)

    monkeypatch.setattr(evaluation, "finetune", watched)
    plan = planned(small_suite, tmp_path, [small_models("first")], tasks=("motif",), baselines=())
    run_suite(plan, silent, progress=False)
    assert asked[0]["epochs"] == 1
    assert asked[0]["learning_rate"] == 0.01
    assert asked[0]["metric"] == "mcc"


def test_what_is_done_is_not_done_again(made, small_suite, small_models, folder, monkeypatch):
    trained, fitted = [], []
    finetune, run_baselines = evaluation.finetune, evaluation.run_baselines
    monkeypatch.setattr(
        evaluation, "finetune", lambda **given: trained.append(given["model"]) or finetune(**given)
    )
    monkeypatch.setattr(
        evaluation, "run_baselines", lambda *given: fitted.append(given) or run_baselines(*given)
    )
    models = [small_models("first"), small_models("second")]
    again = run_suite(planned(small_suite, folder, models), silent, progress=False)
    assert trained == [str(models[1])] * 2
    assert fitted == []
    for task, result in made.results.items():
        kept = {s.key: s.value for s in again.results[task].scores}
        for score in result.scores:
            assert kept[score.key] == score.value or np.isnan(score.value)


def test_a_model_that_fails_costs_nobody_else_anything(
    small_suite, small_models, tmp_path, monkeypatch
):
    finetune = evaluation.finetune

    def failing(**given):
        if "second" in given["model"]:
            raise InputError("it cannot read them. Correct them.")
        return finetune(**given)

    monkeypatch.setattr(evaluation, "finetune", failing)
    models = [small_models("second"), small_models("first")]
    plan = planned(small_suite, tmp_path, models, tasks=("motif",))
    made = run_suite(plan, silent, progress=False)
    assert made.failures == [("motif", "second", "it cannot read them. Correct them.")]
    assert "first" in {s.key for s in made.results["motif"].scores}
    assert "failed: second on motif" in str(made)


def test_seeds_and_folds_are_runs_whose_mean_counts(small_suite, small_models, tmp_path):
    plan = planned(
        small_suite, tmp_path, [small_models("first")], tasks=("motif",), folds=2, seeds=2
    )
    result = run_suite(plan, silent, progress=False).results["motif"]
    model = next(s for s in result.scores if s.kind == "model")
    assert model.runs == 4
    assert model.spread is not None
    assert len(list((tmp_path / "runs" / "motif").glob("first-*"))) == 4
    assert "models are means of 4 runs, baselines of the first alone" in result.notes


def test_a_named_task_has_to_be_there(small_suite, tmp_path):
    with pytest.raises(InputError, match=r"has no absent of A small suite.*train and test \("):
        run_suite(planned(small_suite, tmp_path, tasks=("motif", "absent")), silent)
    with pytest.raises(InputError, match="has no motif, values, absent"):
        run_suite(planned(small_suite, tmp_path, data=tmp_path), silent)


def test_models_are_named_after_their_folders(small_models):
    first, second = small_models("first"), small_models("second")
    names = [c.name for c in contenders_of([first, f"mine={second}"])]
    assert names == ["first", "mine"]
    with pytest.raises(InputError, match="two models are called 'first'"):
        contenders_of([first, f"first={second}"])


def test_rna_is_written_with_the_letters_that_a_model_knows(
    small_suite, small_models, tmp_path, monkeypatch
):
    read, seen = evaluation.load_task, []

    def as_rna(*given, **more):
        data = read(*given, **more)
        parts = {part: getattr(data, part).spelt("U") for part in ("train", "validation", "test")}
        return replace(data, **parts)

    def watched(**given):
        seen.extend(given[part] for part in ("train", "validation", "test"))
        raise InputError("That is all.")

    monkeypatch.setattr(evaluation, "load_task", as_rna)
    monkeypatch.setattr(evaluation, "finetune", watched)
    plan = planned(small_suite, tmp_path, [small_models("first")], tasks=("motif",), baselines=())
    run_suite(plan, silent, progress=False)
    assert len(seen) == 3
    assert not any("U" in text for part in seen for text in part.letters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"epoch": 1}, "Did you mean 'epochs'"), ({"seed": 1}, "decides itself")],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UnknownName, match=words):
        check_settings(settings)


def test_a_published_recipe_gives_way_to_the_task_and_both_to_what_is_asked(tmp_path):
    suite = read_suite("gue")
    plan = Plan(suite=suite, contenders=(), data=tmp_path, out=tmp_path, settings={"dropout": 0.3})
    made = settings_for(plan, suite.tasks["prom_core_tata"], "dnabert2")
    recipe = read_recipe("gue-dnabert2")
    assert made["learning_rate"] == recipe["learning_rate"]
    assert made["epochs"] == 10
    assert made["dropout"] == 0.3
    assert settings_for(plan, suite.tasks["tf_0"], "gpn")["metric"] == "mcc"
    other = replace(plan, precision="bfloat16", suite=read_suite("seqlens"))
    made = settings_for(other, other.suite.tasks["H2AFZ"], "seqlens")
    assert made["precision"] == "bfloat16"
    assert "folds" not in made
