import itertools
import xml.etree.ElementTree as ET

import pytest

from lexome.core import InputError
from lexome.reports.svg import Drawing, minus, round_scale, tick_labels


def test_scale_maps_its_ends_to_pixels_and_covers_the_values():
    scale = round_scale(1.893, 1.997, 300, 20)
    assert scale(scale.low) == 300
    assert scale(scale.high) == 20
    assert scale.low <= 1.893
    assert scale.high >= 1.997
    assert scale.labels == ("1.88", "1.90", "1.92", "1.94", "1.96", "1.98", "2.00")


def test_snug_scale_ends_at_the_values_and_has_no_tick_outside():
    scale = round_scale(-0.3, 10.2, 0, 100, snug=True)
    assert (scale.low, scale.high) == (-0.3, 10.2)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0, 1e-9])
def test_a_single_value_still_gets_an_axis(value):
    scale = round_scale(value, value, 0, 100)
    assert scale.low < value < scale.high
    assert len(scale.ticks) >= 2


@pytest.mark.parametrize("spread", [1e-7, 0.013, 1.0, 37, 1e6, 3e9])
def test_ticks_are_few_even_and_round(spread):
    ticks = round_scale(0, spread, 0, 100).ticks
    steps = {round((b - a) / spread, 6) for a, b in itertools.pairwise(ticks)}
    assert 3 <= len(ticks) <= 8
    assert len(steps) == 1


def test_not_a_number_is_refused():
    with pytest.raises(InputError, match="nan"):
        round_scale(float("nan"), 1, 0, 100)


def test_tick_labels_shorten_thousands_and_use_a_minus_sign():
    assert tick_labels([0, 5000, 10_000]) == ("0", "5k", "10k")
    assert tick_labels([-1000, 0, 1000]) == (minus("-1,000"), "0", "1,000")
    assert tick_labels([]) == ()


def test_drawing_is_well_formed_and_shows_markup_as_text():
    drawing = Drawing(100, 50.5, 'a < b & "c"')
    drawing.label(1, 2, "<script>", font_weight=600)
    drawing.add("circle", cx=1.23456, cy=2, r=3, tip="x > y")
    root = ET.fromstring(drawing.svg())
    text = root.find("{*}text")
    circle = root.find("{*}circle")
    assert root.get("viewBox") == "0 0 100 50.5"
    assert root.findtext("{*}title") == 'a < b & "c"'
    assert text is not None
    assert (text.text, text.get("font-weight")) == ("<script>", "600")
    assert circle is not None
    assert (circle.get("cx"), circle.findtext("{*}title")) == ("1.23", "x > y")
