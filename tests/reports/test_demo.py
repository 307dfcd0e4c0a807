"""The whole demo in seconds: a tiny network, a short held-out region, every file and section."""

import json
import re
from html.parser import HTMLParser

import pytest

from lexome.core import InputError
from lexome.reports import demo as demo_module
from lexome.reports.demo import GoalMissed, Sizes, demo
from lexome.sequence import Interval
from lexome.tasks import ECOLI

SMALL = Sizes(
    network={
        "width": 16,
        "depth": 1,
        "mlp_width": 32,
        "length": 514,
        "tied": False,
        "dropout": 0.0,
    },
    held_out=Interval(ECOLI, 500_000, 560_000),
    orders=range(4),
    windows=20,
    sites=12,
    sequences=4,
    sequence_bp=512,
)
ASKED_FOR = {
    *("bits_per_base", "best_markov_bits_per_base", "markov_order"),
    *("seconds", "parameters", "tokens"),
}


class Balance(HTMLParser):
    """Fails on a tag that is closed and not open."""

    void = frozenset({"meta", "br", "img", "hr", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo's folder; a network this small misses the goal, and says so."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "FULL", SMALL)
        with pytest.raises(GoalMissed, match="give it more time"):
            demo(out=folder, tokens=4 * 4096)
    return folder


def test_the_numbers_that_were_asked_for_are_there(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() >= ASKED_FOR
    assert metrics["parameters"] > 0
    assert metrics["tokens"] >= 4 * 4096
    assert metrics["markov_order"] in range(4)
    assert metrics["best_markov_bits_per_base"] == min(metrics["markov_bits_per_base"].values())
    assert metrics["goal_reached"] is False


def test_the_report_is_one_whole_page_that_loads_nothing(folder):
    page = (folder / "report.html").read_text()
    reader = Balance()
    reader.feed(page)
    assert not reader.open
    assert "<svg" in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    assert "<script" not in page


def test_the_model_loads_again(folder):
    from lexome.catalog import load

    model = load(folder / "model", device="cpu")
    assert model.family.name == "hyenadna"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert model.count_parameters() == metrics["parameters"]


def test_vectors_scores_and_sequences_are_kept(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"embeddings.npz", "generated.fa"} <= names
    assert [name for name in names if name.endswith((".vcf", ".vcf.gz"))]


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="numbers above 0"):
        demo(seconds=0)


def test_files_that_are_not_the_demos_are_left_alone(tmp_path):
    (tmp_path / "report.html").write_text("somebody's")
    with pytest.raises(InputError):
        demo(out=tmp_path)
    assert (tmp_path / "report.html").read_text() == "somebody's"
