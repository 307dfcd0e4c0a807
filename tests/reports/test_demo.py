import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lexome.core import InputError
from lexome.reports import demo as module
from lexome.reports.demo import DemoResult, GoalMissed, Pace, Sizes, demo
from lexome.sequence import Interval
from lexome.tasks import ECOLI

SMALL = Sizes(
    network={
        **{"width": 16, "depth": 1, "mlp_width": 32},
        **{"length": 514, "tied": False, "dropout": 0.0},
    },
    held_out=Interval(ECOLI, 500_000, 560_000),
    orders=range(4),
    windows=20,
    sites=12,
    sequences=4,
    sequence_bp=512,
)
TOKENS = 3 * SMALL.step_tokens


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of a demo that is far too small to reach its goal, and what it said."""
    folder = tmp_path_factory.mktemp("work") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FULL", SMALL)
        with pytest.raises(GoalMissed) as missed:
            demo(out=folder, tokens=TOKENS)
    return folder, str(missed.value)


def test_every_file_is_there_and_listed(made):
    folder, _ = made
    listed = (folder / "about.txt").read_text()
    for name in module._FILES:
        assert (folder / name).exists(), name
        assert name in listed


def test_metrics_hold_what_is_promised(made):
    folder, _ = made
    metrics = json.loads((folder / "metrics.json").read_text())
    promised = [
        *("bits_per_base", "best_markov_bits_per_base", "markov_order"),
        *("seconds", "parameters", "tokens"),
    ]
    assert list(metrics)[:6] == promised
    assert metrics["tokens"] == TOKENS
    assert metrics["markov_order"] == 3
    assert 1.9 < metrics["best_markov_bits_per_base"] < 2 < metrics["bits_per_base"] < 5
    assert metrics["goal_reached"] is False


def test_a_missed_goal_is_said_plainly(made):
    folder, message = made
    assert "the goal was missed" in message
    assert "--seconds 900" in message
    assert str(folder / "report.html") in message
    assert "The goal was missed" in (folder / "report.html").read_text()


class Reader(HTMLParser):
    """Checks that elements nest and that nothing is loaded."""

    def __init__(self, html):
        super().__init__()
        self.open, self.seen = [], set()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_well_formed_and_stands_alone(made):
    folder, _ = made
    reader = Reader((folder / "report.html").read_text())
    assert {"svg", "table", "footer", "figure"} <= reader.seen
    assert "script" not in reader.seen


def test_the_model_loads_and_has_the_bits_that_were_reported(made):
    from lexome.catalog import load
    from lexome.inference.likelihood import score_sequences

    folder, _ = made
    how = {"max_tokens": 512, "overlap_tokens": 256, "progress": False}
    found = score_sequences(
        load(folder / "model"), folder / "held_out.bed", genome=folder / "genome.fa", **how
    )
    bits = json.loads((folder / "metrics.json").read_text())["bits_per_base"]
    assert found.column("bits_per_base")[0] == pytest.approx(bits, rel=1e-6)


def test_scores_and_vectors_are_complete(made):
    from pysam import VariantFile

    folder, _ = made
    with VariantFile(str(folder / "scored.vcf")) as rows:
        scored = list(rows)
    assert len(scored) == SMALL.sites
    assert all(row.info["LEXOME_status"] == ("ok",) * 3 for row in scored)
    with np.load(folder / "embeddings.npz") as file:
        vectors = file["embedding"]
    assert vectors.shape == (len((folder / "windows.bed").read_text().splitlines()), 16)
    assert np.isfinite(vectors).all()


def test_commands_in_the_report_fit_the_functions(made):
    import html
    import re
    import shlex
    from importlib import import_module

    from lexome.cli.arguments import bind
    from lexome.cli.main import COMMANDS

    folder, _ = made
    page = (folder / "report.html").read_text()
    lines = html.unescape(re.findall(r"<pre>(cd .*?)</pre>", page, re.DOTALL)[0]).splitlines()
    assert shlex.split(lines[0]) == ["cd", str(folder)]
    assert len(lines) == 6
    for line in lines[1:]:
        program, command, *tokens = shlex.split(line)
        path, _, name = COMMANDS[command][0].partition(":")
        assert program == "lexome"
        assert bind(getattr(import_module(path), name), tokens, f"lexome {command}")


def test_the_recipe_is_one(made):
    import inspect

    from lexome.core.arguments import read_arguments
    from lexome.training.pretraining import pretrain

    folder, _ = made
    known = inspect.signature(pretrain).parameters
    recipe = read_arguments(folder / "recipe.yaml", known)
    assert recipe["steps"] == 3
    assert Path(recipe["fasta"][0]) == folder / "genome.fa"


def test_a_second_run_replaces_its_own_files_and_gives_the_same(made, monkeypatch):
    folder, message = made
    before = json.loads((folder / "metrics.json").read_text())
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(module, "FULL", SMALL)
    with pytest.raises(GoalMissed) as missed:
        demo(out=folder, tokens=TOKENS)
    assert str(missed.value) == message
    after = json.loads((folder / "metrics.json").read_text())
    times = {"seconds", "cpu_seconds", "training_seconds"}
    assert {k: v for k, v in after.items() if k not in times} == {
        k: v for k, v in before.items() if k not in times
    }
    assert (folder / "notes.txt").read_text() == "mine"


def test_files_that_are_not_the_demos_are_left_alone(tmp_path):
    (tmp_path / "genome.fa").write_text(">mine\nACGT\n")
    with pytest.raises(InputError, match=r"holds genome\.fa, not written by a demo"):
        demo(out=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["genome.fa"]
    with pytest.raises(InputError, match="is a file"):
        demo(out=tmp_path / "genome.fa")


def test_an_old_report_goes_before_new_files_come(tmp_path):
    module._claim(tmp_path)
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "genome.fa").write_text("old")
    module._claim(tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "genome.fa").exists()


@pytest.mark.parametrize("given", [{"seconds": 0.0}, {"seconds": float("nan")}, {"tokens": 0}])
def test_no_time_and_no_tokens_are_refused(given, tmp_path):
    with pytest.raises(InputError, match="Expected numbers above 0"):
        demo(out=tmp_path / "demo", **given)
    assert not (tmp_path / "demo").exists()


def pace(rates, *, seconds=300.0, tokens=None, monkeypatch=None, cores=2, asked=None):
    """Choose threads and steps on a machine of this speed, by number of threads."""
    import torch

    now = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", now.append)

    def timed(recipe, folder, least):
        if asked is not None:
            asked.append((now[-1], least))
        return rates[now[-1]]

    monkeypatch.setattr(module, "_tokens_per_second", timed)
    account = module._Account()
    found = module._pace({}, Path(), Sizes(), account, seconds=seconds, tokens=tokens)
    assert now[-1] == found.threads
    return found


def test_a_fast_machine_trains_on_no_more_than_is_needed(monkeypatch):
    found = pace({1: 20_000, 2: 30_000}, monkeypatch=monkeypatch)
    assert (found.threads, found.limit) == (2, "enough")
    assert found.steps == round(Sizes().most_tokens / Sizes().step_tokens)


def test_threads_that_fight_over_cores_are_left_out(monkeypatch):
    asked = []
    found = pace({1: 15_000, 2: 700, 4: 600}, monkeypatch=monkeypatch, cores=4, asked=asked)
    assert (found.threads, found.limit) == (1, "time")
    assert asked == [(1, 0), (2, 15_000), (4, 15_000)]
    expected = 300 * 15_000 - Sizes().after_tokens
    assert found.steps * Sizes().step_tokens == pytest.approx(expected, rel=0.01)


def test_a_slow_machine_takes_longer_instead_of_missing_the_goal(monkeypatch):
    found = pace({1: 3_000}, monkeypatch=monkeypatch, cores=1)
    assert found.limit == "least"
    assert found.steps == round(Sizes().least_tokens / Sizes().step_tokens)


def test_tokens_that_are_asked_for_are_trained_on(monkeypatch):
    found = pace({1: 3_000}, monkeypatch=monkeypatch, cores=1, tokens=8_000_000)
    assert (found.limit, found.steps) == ("asked", round(8_000_000 / Sizes().step_tokens))


def test_timing_stops_when_it_cannot_win(tmp_path):
    recipe = module._recipe(
        module.read_data(tmp_path, SMALL.held_out, 0), replace(SMALL, batch=2), 0
    )
    rate = module._tokens_per_second(recipe, tmp_path / "run", least=1e12)
    assert 0 < rate < 1e12
    history = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(history) < module._TIMED_STEPS / module._WARM_STEPS


def test_a_result_prints_the_three_numbers_and_the_report():
    result = DemoResult(
        report=Path("demo/report.html"),
        bits_per_base=1.887,
        best_markov_bits_per_base=1.9203,
        markov_order=12,
        seconds=200.0,
        parameters=655_040,
        tokens=4_000_000,
    )
    assert result.is_reached
    assert str(result).splitlines() == [
        "model        1.8870 bits per base",
        "best Markov  1.9203 bits per base, order 12",
        "gain         0.0333 bits per base; the goal was 0.01",
        "report       demo/report.html",
    ]
    assert not replace(result, bits_per_base=1.911).is_reached


def test_a_reached_goal_is_returned(monkeypatch, tmp_path):
    result = DemoResult(
        report=tmp_path / "report.html",
        bits_per_base=1.9,
        best_markov_bits_per_base=1.92,
        markov_order=12,
        seconds=1.0,
        parameters=1,
        tokens=1,
    )
    monkeypatch.setattr(module, "_make", lambda *_, **__: result)
    assert demo(out=tmp_path) is result


def test_importing_the_demo_imports_no_torch():
    code = "import sys, lexome.reports.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pace_says_why():
    assert set(module._LIMITS) == {"asked", "enough", "time", "least"}
    assert (
        Pace(tokens_per_second={1: 1.0}, threads=1, limit="time", steps=2).limit in module._LIMITS
    )
