"""Suites are complete, agree with the catalog, and say what is wrong with a file."""

from inspect import signature
from pathlib import Path

import pytest

from lexome.catalog import families
from lexome.core import FormatError, InputError, UnknownName
from lexome.tasks.suites import read_suite, suites
from lexome.training.finetuning import finetune
from lexome.training.recipe import find_recipe

SMALL = """
title: Mine
defaults: {metric: mcc, classes: 2}
tasks:
  one:
    folders: [here]
published:
  - {source: a paper, known: read, scores: {m: {one: 0.5}}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "standard", "all_of_them"),
    [
        ("gue", 28, 36),
        ("nt-original", 18, 18),
        ("nt-revised", 18, 18),
        ("seqlens", 19, 20),
        ("genomic-benchmarks", 9, 9),
        ("dnabert-sample", 1, 1),
        ("mrna", 9, 10),
    ],
)
def test_a_suite_has_all_its_tasks(name, standard, all_of_them):
    suite = read_suite(name)
    assert len(suite.chosen(None)) == standard
    assert len(suite.tasks) == all_of_them
    assert suite.version >= 1
    assert all(task.title != task.name for task in suite.tasks.values())


def test_published_scores_stand_with_their_source():
    suite = read_suite("gue")
    scores = {m: v for m, v, _ in suite.published_scores("emp_H3")}
    assert scores["dnabert2-117m"] == 0.7827
    assert scores["dnabert-3"] == 0.7415
    assert {m: v for m, v, _ in suite.published_scores("virus_covid")}["dnabert2-117m"] == 0.7102
    assert dict.fromkeys(b.metric for b in suite.published) == dict.fromkeys(
        ["mcc", "macro_f1", "auc"]
    )
    for name in suites():
        assert all(block.source and block.scores for block in read_suite(name).published)


def test_published_settings_are_those_of_the_task_beside_those_of_the_suite():
    task = read_suite("gue").tasks["prom_core_tata"]
    assert task.settings_of("dnabert2") == {"recipe": "gue-dnabert2", "epochs": 10}
    assert task.settings_of("gpn") == {"epochs": 10}


def test_settings_are_for_families_that_exist_and_recipes_and_arguments_of_finetune():
    known = set(signature(finetune).parameters)
    for name in suites():
        for task in read_suite(name).tasks.values():
            assert set(task.settings) <= {"any", *families()}
            for settings in task.settings.values():
                assert set(settings) <= known
                if "recipe" in settings:
                    find_recipe(settings["recipe"], "finetune")


def test_a_suite_of_ones_own_is_read_by_its_path(tmp_path):
    suite = read_suite(written(tmp_path, SMALL))
    assert (suite.name, suite.title) == ("mine", "Mine")
    assert suite.tasks["one"].metric == "mcc"
    assert suite.published_scores("one")[0][:2] == ("m", 0.5)


@pytest.mark.parametrize(
    ("wrong", "right", "kind", "words"),
    [
        ("tasks:", "taks:", UnknownName, "Did you mean 'tasks'"),
        ("folders:", "folder:", UnknownName, "'folders'.*"),
        ("metric: mcc", "metric: mc", UnknownName, "'mcc'"),
        ("metric: mcc, ", "", FormatError, "tasks: one: metric is missing"),
        ("classes: 2", "classes: two", FormatError, "Expected a whole number"),
        ("[here]", "[1]", FormatError, "Expected a list of texts"),
        ("{one: 0.5}", "{two: 0.5}", UnknownName, "Known: one"),
        ("{one: 0.5}", "{one: 50}", FormatError, "write 78.3 % as 0.783"),
        ("known: read", "known: heard", UnknownName, "recalled"),
        ("folders: [here]", "sizes: [1, 2]", FormatError, "three whole numbers"),
        ("folders: [here]", "test_fraction: 1", FormatError, "from 0 to below 1"),
        ("folders: [here]", "folds: 0", FormatError, "from 1 up"),
        ("folders: [here]", "settings: {gpn: 3}", FormatError, "'key: value'"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said(tmp_path, wrong, right, kind, words):
    path = written(tmp_path, SMALL.replace(wrong, right))
    with pytest.raises(kind, match=words):
        read_suite(path)


def test_strange_names_are_met_with_the_near_ones(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'gue'"):
        read_suite("geu")
    with pytest.raises(InputError, match="there is no file"):
        read_suite(tmp_path / "none.yaml")
    with pytest.raises(UnknownName, match="emp_H3"):
        read_suite("gue").chosen(["emp_h3"])


def test_a_task_says_which_files_it_cannot_do_without():
    mrna, gue = read_suite("mrna"), read_suite("gue")
    assert mrna.tasks["fungal"].files_wanted.startswith("Fungal_expression (.csv")
    assert mrna.tasks["mlos"].files_wanted.startswith("MLOS (.csv")
    assert mrna.tasks["openvaccine-letters"].files_wanted == "openvaccine_ryos107 (.jsonl)"
    assert gue.tasks["tf_0"].files_wanted.startswith("train and test (.csv")
