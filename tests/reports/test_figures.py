import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lexome.core import InputError
from lexome.reports import (
    Line,
    Mark,
    Span,
    bar_chart,
    histogram,
    line_chart,
    map_chart,
    principal_components,
    sequence_strip,
)


def texts(svg):
    return [t.text for t in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def elements(svg, name, **attributes):
    found = ET.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{name}")
    return [e for e in found if all(e.get(k) == v for k, v in attributes.items())]


def vertices(path):
    return [tuple(map(float, p.split())) for p in path.get("d").removeprefix("M").split("L")]


def test_line_chart_draws_each_line_its_legend_and_its_marks():
    svg = line_chart(
        [
            Line(name="model", x=[0, 1, 2], y=[2.0, 1.9, 1.85], points=True),
            Line(name="raw", x=[0, 1, 2], y=[2.1, 1.8, 1.9], faint=True),
        ],
        x_label="order",
        y_label="bits",
        marks=[Mark(name="best", value=1.92)],
    )
    shown = texts(svg)
    assert {"model", "raw", "order", "bits", "best", "0", "1", "2"} <= set(shown)
    assert len(elements(svg, "path")) == 2
    assert len(elements(svg, "circle")) == 3
    heights = [y for _, y in vertices(elements(svg, "path")[0])]
    assert heights == sorted(heights)  # smaller values stand lower


def test_equal_ratios_are_equally_far_apart_on_a_logarithmic_axis():
    line = Line(name="a", x=[1e9, 1e10, 1e11], y=[3, 2, 1], points=True)
    svg = line_chart([line], x_label="x", y_label="y", log_x=True)
    first, second, third = (float(c.get("cx")) for c in elements(svg, "circle"))
    assert second - first == pytest.approx(third - second, abs=0.02)
    assert {"10⁹", "10¹⁰", "10¹¹"} <= set(texts(svg))


def test_a_line_of_another_has_its_colour_and_no_place_in_the_legend():
    lines = [
        Line(name="a", x=[0, 1], y=[0, 1]),
        Line(name="b", x=[0, 1], y=[1, 0]),
        Line(name="", x=[0, 1], y=[0.1, 1], of="a"),
        Line(name="", x=[0, 1], y=[1, 0.1], of="b", faint=True),
    ]
    svg = line_chart(lines, x_label="x", y_label="y")
    a, b, fit, pale = elements(svg, "path")
    assert a.get("stroke") == fit.get("stroke") != b.get("stroke") == pale.get("stroke")
    assert fit.get("stroke-dasharray")
    assert {"a", "b"} <= set(texts(svg))
    assert len(elements(svg, "line", **{"stroke-width": "2.5"})) == 2


@pytest.mark.parametrize(("y", "side"), [([1.0, 0.0], "end"), ([0.0, 1.0], "start")])
def test_the_name_of_a_mark_stands_where_no_line_passes(y, side):
    lines = [Line(name="a", x=[0, 1], y=y)]
    svg = line_chart(lines, x_label="x", y_label="y", marks=[Mark(name="mark", value=0.9)])
    (name,) = [t for t in elements(svg, "text") if t.text == "mark"]
    assert name.get("text-anchor") == side


def test_a_gap_in_a_line_is_not_bridged():
    y = [1.0, 2.0, float("nan"), 3.0, 4.0]
    svg = line_chart([Line(name="a", x=range(5), y=y)], x_label="x", y_label="y")
    assert [len(vertices(p)) for p in elements(svg, "path")] == [2, 2]


def test_a_long_line_is_thinned_but_keeps_its_extremes():
    y = np.zeros(200_000)
    y[123_456], y[77_777] = 5.0, -5.0
    svg = line_chart([Line(name="a", x=np.arange(len(y)), y=y)], x_label="x", y_label="y")
    (path,) = elements(svg, "path")
    heights = [y for _, y in vertices(path)]
    assert len(heights) < 3000
    assert min(heights) < np.median(heights) - 50
    assert max(heights) > np.median(heights) + 50


def test_bars_start_at_zero_and_are_as_long_as_their_values():
    svg = bar_chart({"a": 10.0, "b": 5.0, "c": -5.0}, value_label="n", decimals=1)
    ten, five, minus_five = (float(r.get("width")) for r in elements(svg, "rect"))
    assert five == pytest.approx(ten / 2, abs=0.02)
    assert minus_five == pytest.approx(five, abs=0.02)
    assert {"10.0", "5.0", "\N{MINUS SIGN}5.0"} <= set(texts(svg))


def test_highlighted_bar_alone_has_colour():
    svg = bar_chart(
        {"a": 1, "b": 2, "c": 3},
        value_label="n",
        highlight=["b"],
        mark=Mark(name="target", value=2.5),
    )
    fills = [r.get("fill") for r in elements(svg, "rect")]
    assert fills[0] == fills[2] != fills[1]
    assert "target" in texts(svg)


def test_map_has_one_named_point_each_in_its_groups_colour():
    points = np.random.default_rng(0).normal(size=(30, 2))
    groups = ["plus", "minus", "none"] * 10
    svg = map_chart(points, groups, x_label="1", y_label="2", names=[f"w{i}" for i in range(30)])
    dots = [c for c in elements(svg, "circle") if c.find("{*}title") is not None]
    tips = {c.findtext("{*}title"): c.get("fill") for c in dots}
    assert len(tips) == 30
    assert len({tips["w0 (plus)"], tips["w1 (minus)"], tips["w2 (none)"]}) == 3
    assert tips["w0 (plus)"] == tips["w3 (plus)"]
    assert "plus (10)" in texts(svg)


def test_histogram_counts_shares_and_says_what_lies_beyond_the_axis():
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(size=1000), "b": np.append(rng.normal(size=99), 50.0), "none": []}
    svg = histogram(values, x_label="score", bins=20, mark=Mark(name="zero", value=0))
    shown = " ".join(t for t in texts(svg) if t)
    assert "a (1,000)" in shown
    assert "none (0)" in shown
    assert "beyond the axis are in the outermost bins" in shown
    assert len(elements(svg, "path")) == 3


def test_histogram_of_one_value_is_drawn():
    assert elements(histogram({"a": [2.0, 2.0]}, x_label="x"), "path")


def test_strip_shows_every_letter_once_at_its_place():
    sequence = "ACGTN" * 31
    svg = sequence_strip(sequence, first_1based=1001)
    rows = {}
    for text in elements(svg, "text"):
        if text.get("font-family"):
            xs = map(float, text.get("x").split())
            rows.setdefault(float(text.get("y")), []).extend(zip(xs, text.text, strict=True))
    drawn = "".join(letter for y in sorted(rows) for _, letter in sorted(rows[y]))
    assert drawn == sequence
    assert {"1,001", "1,061", "1,121"} <= set(texts(svg))


def test_strip_tints_values_and_leaves_nan_white():
    svg = sequence_strip("ACGT", [0.0, 2.0, float("nan"), 1.0], value_label="bits")
    tips = {r.findtext("{*}title"): r.get("fill") for r in elements(svg, "rect", height="20")}
    assert list(tips) == ["1 A: 0 bits", "2 C: 2 bits", "4 T: 1 bits"]
    assert tips["1 A: 0 bits"] == "#ffffff"
    assert len(set(tips.values())) == 3
    assert "0 to 2 bits" in texts(svg)


def test_span_over_a_row_end_is_underlined_on_both_rows():
    svg = sequence_strip("A" * 120, spans=[Span(name="gene", start=50, end=70)])
    lines = elements(svg, "line")
    assert len(lines) == 3  # the key and two rows
    assert len({line.get("y1") for line in lines}) == 3


def test_principal_components_find_the_longest_axis():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3)) * [10, 1, 0.1] + 7
    found = principal_components(x)
    assert abs(np.corrcoef(found.coordinates[:, 0], x[:, 0])[0, 1]) > 0.999
    assert found.explained[0] == pytest.approx(x.var(0)[0] / x.var(0).sum(), abs=0.01)


def test_principal_components_agree_for_wide_and_tall_arrays():
    x = np.random.default_rng(2).normal(size=(20, 20))
    tall = principal_components(x, 5)
    wide = principal_components(np.pad(x, ((0, 0), (0, 10))), 5)
    np.testing.assert_allclose(wide.coordinates, tall.coordinates, atol=1e-8)
    np.testing.assert_allclose(wide.explained, tall.explained, atol=1e-10)


def test_principal_components_without_spread_are_zero():
    found = principal_components(np.ones((5, 1)))
    assert not found.coordinates.any()
    assert found.coordinates.shape == (5, 2)
    assert not found.explained.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: line_chart([], x_label="x", y_label="y"), "without values"),
        (
            lambda: line_chart(
                [Line(name="a", x=[0, 1], y=[1, 2])], x_label="x", y_label="y", log_x=True
            ),
            "no logarithm",
        ),
        (
            lambda: line_chart([Line(name="a", x=[1, 2], y=[1])], x_label="x", y_label="y"),
            "equal length",
        ),
        (lambda: bar_chart({}, value_label="n"), "at least one bar"),
        (lambda: bar_chart({"a": float("inf")}, value_label="n"), "1 of 1 numbers"),
        (lambda: map_chart([[1, 2]], [], x_label="x", y_label="y"), "0 groups"),
        (lambda: histogram({"a": []}, x_label="x"), "at least one number"),
        (lambda: sequence_strip(""), "without letters"),
        (lambda: sequence_strip("ACG", [1.0]), "1 values for 3 letters"),
        (lambda: principal_components([[1.0, 2.0]]), "n of at least 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_advice(call, message):
    with pytest.raises(InputError, match=message):
        call()
