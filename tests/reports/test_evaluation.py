"""The command judges, writes its tables and its page, and says when something failed."""

import csv
import json

import numpy as np
import pytest

from lexome.catalog import new
from lexome.cli.main import main
from lexome.core import InputError, UnknownName
from lexome.reports import evaluation as command
from lexome.reports.evaluation import EvaluationIncomplete, evaluate
from lexome.tasks.suites import suites

SUITE = """
title: A small suite
about: made here
defaults: {metric: mcc, classes: 2}
tasks:
  motif: {title: a motif anywhere}
published:
  - {source: a paper, known: recalled, scores: {theirs: {motif: 0.9}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite")
    (path / "small.yaml").write_text(SUITE)
    (path / "data" / "motif").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", 60), ("dev", 20), ("test", 40)):
        rows = [
            f"{''.join(generator.choice(list('ACGT'), 20))}{'TTGACA' * (i % 2)},{i % 2}"
            for i in range(count)
        ]
        text = "\n".join(["sequence,label", *rows]) + "\n"
        (path / "data" / "motif" / f"{part}.csv").write_text(text)
    new("gpn", width=8, depth=2, mlp_width=8).save(path / "tiny")
    return path


@pytest.fixture(scope="module")
def made(folder):
    return evaluate(
        folder / "small.yaml",
        models=[folder / "tiny"],
        data=folder / "data",
        out=folder / "out",
        baselines=["kmer", "majority"],
        settings={"epochs": 1},
        progress=False,
        device="cpu",
    )


def test_the_table_has_everyone_and_marks_what_is_published(made, folder):
    with (folder / "out" / "results.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["kind"] for row in rows].count("published") == 1
    assert {row["who"] for row in rows} == {"tiny", "kmer", "majority", "theirs"}
    theirs = next(row for row in rows if row["kind"] == "published")
    assert theirs["source"].startswith("a paper (recalled")
    model = next(row for row in rows if row["who"] == "tiny")
    assert float(model["low"]) <= float(model["score"]) <= float(model["high"])
    assert model["verdict"] in {"beats", "ties with", "loses to"}


def test_the_summary_says_what_it_comes_from(made, folder):
    summary = json.loads((folder / "out" / "results.json").read_text())
    assert summary["suite"] == "A small suite, version 1"
    assert summary["model tiny"].startswith(str(folder / "tiny"))
    assert summary["settings"] == '{"epochs": 1}'
    assert {s["who"] for s in summary["tasks"]["motif"]["scores"]} == {"tiny", "kmer", "majority"}
    assert summary["means"]["mcc"][0]["tasks"] == 1


def test_the_report_is_one_page_of_its_own(made, folder):
    page = (folder / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "A small suite" in page
    assert "tiny, fine-tuned" in page


def test_the_command_line_runs_baselines_alone_and_prints_the_table(folder, tmp_path, capsys):
    words = ["evaluate", folder / "small.yaml", "--data", folder / "data", "--out", tmp_path]
    assert main([*map(str, words), "--baselines", "majority", "--no-progress"]) == 0
    assert "majority" in capsys.readouterr().out


def test_what_failed_is_said_after_all_else_is_written(folder, tmp_path, monkeypatch):
    def failing(**_):
        raise InputError("no such letter. Correct it.")

    monkeypatch.setattr("lexome.tasks.evaluation.finetune", failing)
    with pytest.raises(EvaluationIncomplete, match=r"first of tiny on motif: no such letter"):
        evaluate(
            folder / "small.yaml",
            models=[folder / "tiny"],
            data=folder / "data",
            out=tmp_path,
            baselines=["majority"],
            progress=False,
        )
    assert "could not be judged" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"seeds": 0}, InputError, "seeds is 0"),
        ({"folds": True}, InputError, "folds is True"),
        ({"baselines": ["kmers"]}, UnknownName, "Did you mean 'kmer'"),
        ({"baselines": []}, InputError, "nothing to judge"),
        ({"tasks": ["motifs"]}, UnknownName, "Did you mean 'motif'"),
        ({"settings": {"epoch": 1}}, UnknownName, "Did you mean 'epochs'"),
        ({"recipe": "none.yaml"}, InputError, "there is no file"),
    ],
)
def test_arguments_are_checked_before_anything_runs(
    folder, tmp_path, monkeypatch, given, kind, words
):
    monkeypatch.setattr(command, "run_suite", None)
    with pytest.raises(kind, match=words):
        evaluate(folder / "small.yaml", data=folder / "data", out=tmp_path, **given)


def test_a_recipe_gives_way_to_settings(folder, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("epochs: 3\nbatch_size: 8\nfolds: 5\n")
    plans = []

    def stopped(plan, *_, **__):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_suite", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            folder / "small.yaml",
            data=folder / "data",
            out=tmp_path,
            recipe=tmp_path / "recipe.yaml",
            settings={"epochs": 4},
            method="head",
        )
    assert plans[0].folds == 5
    assert plans[0].settings == {"epochs": 4, "batch_size": 8, "method": "head"}


def test_the_help_names_every_suite():
    assert all(f"``{name}``" in (evaluate.__doc__ or "") for name in suites())
