"""The report of probes: every probe in the table, every pooling a line, baselines beside them."""

import inspect
import re
import sys

import pytest

import lexome
from lexome.catalog import new
from lexome.reports.probe_page import layer_figure, probe, write_report
from lexome.training.probing import probe_layers


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    rows = [f"{'ACGT' * (1 + i % 3)}{'GA' * (i % 2)}TT{'C' * i},{i % 2}" for i in range(24)]
    (folder / "train.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    model = new("gpn", width=8, depth=2, mlp_width=8).eval()
    return probe_layers(
        model,
        folder / "train.csv",
        out=folder / "run",
        validation_fraction=0.3,
        poolings=["mean", "cls"],
        progress=False,
    )


def test_the_command_takes_what_the_function_takes():
    assert inspect.signature(probe) == inspect.signature(probe_layers)
    assert lexome.probe is probe
    assert probe.__name__ == "probe"


def test_the_figure_has_a_line_for_each_pooling_and_one_for_the_baseline(result):
    figure = layer_figure(result)
    for name in ("mean", "cls", "final state", "regression"):
        assert name in figure
    assert "majority" not in figure, "it would press the lines together"
    tips = re.findall(r"<title>(?:mean|cls) \d: ", figure)
    assert len(tips) == len(result.probes) == 6


def test_the_report_names_every_probe_and_how_it_was_made(result):
    pytest.importorskip("PIL", reason="the report extra is not installed")
    write_report(result)
    html = (result.folder / "report.html").read_text(encoding="utf-8")
    for each in result.probes:
        assert f"{each.scores['mcc']:.3f}" in html
    assert "scores are too good" in html
    assert html.count(">validation mcc</th>") == 1
    assert "gpn" in html
    assert (result.folder / "layers.svg").read_text().startswith("<svg")
    assert (result.folder / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert "http" not in re.sub(r"http://www.w3.org/2000/svg", "", html), "a page needs no network"


def test_without_pillow_the_rest_is_written(result, monkeypatch, capsys):
    (result.folder / "layers.png").unlink(missing_ok=True)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    write_report(result)
    assert "no layers.png: PIL is needed" in capsys.readouterr().err
    assert (result.folder / "report.html").is_file()
    assert not (result.folder / "layers.png").exists()
