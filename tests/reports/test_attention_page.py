"""The page shows the records, layers and heads that were asked for, with the stored numbers."""

import re

import numpy as np
import pytest

from lexome.catalog import load
from lexome.core import InputError
from lexome.formats import CellRecord
from lexome.reports.attention_page import attention, map_figure, show_attention

TEXT = "ACGTTGCAACGGTACGATCGATCGATTTAGCCATGACCA"


@pytest.fixture
def dnabert(fixtures):
    return load(fixtures / "dnabert/mlm_k6_tiny", device="cpu")


def test_the_page_shows_the_first_records_with_scores(dnabert, tmp_path):
    records = [("none", ""), *((f"chr1:{i}", TEXT[i:]) for i in range(5))]
    summary = attention(
        dnabert, records, out=tmp_path / "out", layers=(0, -1), png=True, progress=False
    )
    page = (tmp_path / "out/report.html").read_text()
    assert str(summary) == str(tmp_path / "out/report.html")
    assert re.findall("<h2>(.*?)</h2>", page) == ["chr1:0", "chr1:1", "chr1:2"]
    assert page.count("<svg") == 3 * 2 * 2  # letters and a map, for each of two layers
    assert "checkpoint_sha256" in page
    assert re.findall("letters 1 to ([0-9]+): what", page) == [
        str(len(TEXT) - i) for i in (0, 0, 1, 1, 2, 2)
    ]
    made = sorted(p.suffix for p in (tmp_path / "out/figures").iterdir())
    assert made == [".png"] * 12 + [".svg"] * 12


def test_it_can_be_drawn_again_for_other_records_and_heads(dnabert, tmp_path):
    records = [(f"r{i}", TEXT[i:]) for i in range(5)]
    attention(dnabert, records, out=tmp_path / "out", progress=False)
    page = show_attention(tmp_path / "out", show=["r4"], head=1).read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == ["r4"]
    assert "head 1" in page
    with pytest.raises(InputError, match="head is 99"):
        show_attention(tmp_path / "out", head=99)
    with pytest.raises(InputError, match="'r9'"):
        show_attention(tmp_path / "out", show=["r9"])


def test_a_map_shows_the_head_that_was_asked_for():
    rng = np.random.default_rng(0)
    heads = rng.random((3, 5, 5))
    cells = re.findall(r"<title>b, c: ([\d.]+)", map_figure(heads, list("abcde"), 2))
    assert cells == [f"{heads[2, 1, 2]:.3g}"]
    cells = re.findall(r"<title>b, c: ([\d.]+)", map_figure(heads, list("abcde")))
    assert cells == [f"{heads[:, 1, 2].mean():.3g}"]


def test_without_maps_letters_are_shown_alone(dnabert, tmp_path):
    attention(dnabert, [("a", TEXT)], out=tmp_path / "out", maps=False, progress=False)
    assert (tmp_path / "out/report.html").read_text().count("<svg") == 1


def test_cells_are_shown_by_their_genes(fixtures, tmp_path):
    model = load(fixtures / "scgpt/released_2l/checkpoint", device="cpu")
    names = [g for g in model.tokenizer.vocabulary if g and "<" not in g][:12]
    cell = CellRecord("c1", np.array(names), np.arange(12), np.arange(1, 13, dtype=np.float32), {})
    attention(model, [cell], out=tmp_path / "out", progress=False)
    page = (tmp_path / "out/report.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in names)


def test_a_page_of_nothing_says_so(dnabert, tmp_path):
    attention(dnabert, [("a", ""), ("b", TEXT)], out=tmp_path / "out", show=["a"], progress=False)
    assert "No record has scores" in (tmp_path / "out/report.html").read_text()
