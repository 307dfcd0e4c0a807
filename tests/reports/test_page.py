from html.parser import HTMLParser

import pytest

from lexome import __version__
from lexome.core import InputError
from lexome.reports import Column, KeyNumber, Line, Page, line_chart

VOID = {"meta", "br", "link", "img"}


class Reader(HTMLParser):
    """Checks that elements nest, and collects what they hold."""

    def __init__(self, html):
        super().__init__()
        self.open, self.cells, self.classes, self.links = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [v for k, v in attrs if k in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")
            self.classes.append(attributes.get("class"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data


def filled_page():
    page = Page("A <title>", "What & why.")
    page.heading("One")
    page.text("Text with <b>markup</b>.")
    page.numbers(KeyNumber(value="1.9", label="bits", detail="of 2", verdict="good"))
    line = Line(name="a", x=[0, 1], y=[0, 1])
    page.figure(line_chart([line], x_label="x", y_label="y"), "Caption")
    page.code(">x\nACGT")
    page.table(
        [
            Column(name="model", values=["ours", "theirs"]),
            Column(name="bits", values=[1.9, None], format=".3f"),
            Column(name="n", values=[12345, float("nan")], format=",.0f"),
            Column(name="share", values=["5 %", "–"], right=True),
        ],
        chosen_row=0,
        caption="Both.",
    )
    return page


def test_page_is_well_nested_and_loads_nothing():
    html = filled_page().html({"data": "x.fa"})
    reader = Reader(html)
    assert reader.links == []
    assert "<script" not in html
    assert "url(" not in html


def test_texts_are_shown_not_obeyed():
    html = filled_page().html()
    assert "<b>markup" not in html
    assert "&lt;b&gt;markup&lt;/b&gt;" in html
    assert "<title>A &lt;title&gt;</title>" in html


def test_numbers_align_right_with_their_decimals_and_missing_ones_are_dashes():
    reader = Reader(filled_page().html())
    assert reader.cells[:8] == ["model", "bits", "n", "share", "ours", "1.900", "12,345", "5 %"]
    assert reader.cells[8:] == ["theirs", "–", "–", "–"]
    assert reader.classes == [None, "number", "number", "number"] * 3


def test_provenance_always_names_the_version():
    html = filled_page().html({"data": "a & b"})
    assert f"<dt>lexome</dt><dd>{__version__}</dd>" in html
    assert "<dt>data</dt><dd>a &amp; b</dd>" in html


def test_written_page_equals_the_built_one(tmp_path):
    page = filled_page()
    page.write(tmp_path / "new" / "report.html", {"k": "v"})
    assert (tmp_path / "new" / "report.html").read_text("utf-8") == page.html({"k": "v"})
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "at least one column"),
        ([Column(name="a", values=[1]), Column(name="b", values=[])], "equally long"),
        ([Column(name="a", values=[1.5], format="d")], "column 'a', row 0"),
    ],
)
def test_tables_that_do_not_fit_are_refused_with_advice(columns, message):
    with pytest.raises(InputError, match=message):
        Page("x").table(columns)
