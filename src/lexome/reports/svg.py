"""A drawing made of SVG elements, and the scales and axes that figures share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lexome.core import InputError

INK, MUTED, RULE, PAPER = "#1f2933", "#5f6b7a", "#e3e7ec", "#ffffff"
COLOURS = (
    "#2463a6",  # blue
    "#d97a1f",  # orange
    "#2c8c5a",  # green
    "#8a5aa8",  # purple
    "#c23b3b",  # red
    "#1f8f98",  # teal
    "#a3841b",  # ochre
    "#6b7280",  # grey
)
"""Told apart in print and by most colour-blind readers; groups beyond the eighth start again."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
FONT_SIZE = 13
_CHARACTER_WIDTH = 0.56  # of the font size; digits and lower case of common sans-serif fonts


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Estimate the width of `text` in pixels."""
    return len(text) * size * _CHARACTER_WIDTH


class Drawing:
    """SVG elements in the order they were added, later ones on top.

    Parameters
    ----------
    width, height
        Size in pixels of the coordinate system; the picture scales with its frame.
    title
        What the picture shows, for readers who cannot see it.
    """

    def __init__(self, width: float, height: float, title: str):
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def add(self, element: str, *, tip: str = "", text: str = "", **attributes: Any) -> None:
        """Add one element; `tip` shows on hovering, ``_`` in attribute names stands for ``-``."""
        written = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
            for name, value in attributes.items()
        )
        inner = (f"<title>{escape(tip)}</title>" if tip else "") + escape(text)
        self._parts.append(
            f"<{element}{written}>{inner}</{element}>" if inner else f"<{element}{written}/>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, **attributes: Any) -> None:
        """Add a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)

    def label(
        self, x: float, y: float, text: str, *, anchor: str = "start", **attributes: Any
    ) -> None:
        """Add text with its baseline at `y`; `anchor` is start, middle or end."""
        attributes = {"fill": MUTED, "text_anchor": anchor} | attributes
        self.add("text", x=x, y=y, text=text, **attributes)

    def path(self, points: Sequence[tuple[float, float]], **attributes: Any) -> None:
        """Add a polyline."""
        d = "M" + "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)
        self.add("path", d=d, **({"fill": "none"} | attributes))

    def svg(self) -> str:
        """Return the picture, complete in itself: usable in a page or as a file."""
        size = f"{_plain(self.width)} {_plain(self.height)}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" '
            f'font-family="{escape(FONT)}" font-size="{FONT_SIZE}">'
            f"<title>{escape(self.title)}</title>{''.join(self._parts)}</svg>"
        )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


@dataclass(frozen=True)
class Scale:
    """A straight map from data to pixels.

    Parameters
    ----------
    low, high
        Ends of the axis in data units.
    start, end
        The same ends in pixels.
    ticks
        Round numbers between them.
    powers
        Whether data units are decimal logarithms, and labels are to be what they are of.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    powers: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def labels(self) -> tuple[str, ...]:
        """The ticks as text, all with equally many decimals, or as powers of ten."""
        return tuple(map(power_label, self.ticks)) if self.powers else tick_labels(self.ticks)


def round_scale(
    low: float, high: float, start: float, end: float, *, most_ticks: int = 6, snug: bool = False
) -> Scale:
    """Choose a scale whose ticks are 1, 2, 2.5 or 5 times a power of ten.

    Parameters
    ----------
    low, high
        Least and greatest value to show.
    start, end
        Pixels of the two ends.
    most_ticks
        How many ticks there is room for.
    snug
        End the axis at `low` and `high` instead of at the next tick.

    Examples
    --------
    >>> round_scale(1.893, 2.0, 0, 100).ticks
    (1.88, 1.9, 1.92, 1.94, 1.96, 1.98, 2.0)
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            f"a figure was asked to show values from {low} to {high}. "
            "Expected finite numbers; remove or mark the others first."
        )
    if low == high:
        margin = abs(low) * 0.05 or 1.0
        low, high = low - margin, high + margin
    least_step = (high - low) / most_ticks
    power = 10.0 ** math.floor(math.log10(least_step))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= least_step * (1 - 1e-9))
    within = 1e-9
    first = math.ceil(low / step - within) if snug else math.floor(low / step + within)
    last = math.floor(high / step + within) if snug else math.ceil(high / step - within)
    ticks = tuple(round(i * step, 12) + 0.0 for i in range(first, last + 1))
    if not snug:
        low, high = ticks[0], ticks[-1]
    return Scale(low, high, start, end, ticks)


def power_scale(low: float, high: float, start: float, end: float) -> Scale:
    """Choose a snug scale for decimal logarithms, with ticks at 1, 2 and 5 times powers of ten.

    Fewer where the range is wide, more where it holds less than two of these.

    Parameters
    ----------
    low, high
        Logarithms of the least and greatest value to show.
    start, end
        Pixels of the two ends.

    Examples
    --------
    >>> power_scale(9.9, 11.1, 0, 100).labels
    ('10¹⁰', '2·10¹⁰', '5·10¹⁰', '10¹¹')
    >>> power_scale(2, 8, 0, 100).labels
    ('100', '1,000', '10,000', '100,000', '10⁶', '10⁷', '10⁸')
    """
    if low == high:
        low, high = low - 0.2, high + 0.2
    ticks: tuple[float, ...] = ()
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        every = max(1, math.ceil((high - low) / 7))
        powers = range(math.floor(low), math.ceil(high) + 1)
        places = [p + math.log10(f) for p in powers if not p % every for f in factors]
        ticks = tuple(place for place in places if low - 1e-9 <= place <= high + 1e-9)
        if len(ticks) > 3:
            break
    return Scale(low, high, start, end, ticks, powers=True)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_label(power: float) -> str:
    """Write the number that has this decimal logarithm, from a million on as a power of ten.

    Examples
    --------
    >>> import math
    >>> [power_label(math.log10(x)) for x in (0.2, 25_000, 3e11, 1e12)]
    ['0.2', '25,000', '3·10¹¹', '10¹²']
    """
    if -3 < power < 6 - 1e-9:
        return f"{round(10**power, 4):,.10g}"
    whole = math.floor(power + 1e-9)
    factor = f"{10 ** (power - whole):.3g}"
    raised = f"10{str(whole).translate(_RAISED)}"
    return raised if factor == "1" else f"{factor}·{raised}"


def tick_labels(ticks: Sequence[float]) -> tuple[str, ...]:
    """Write numbers as axis labels: equal decimals, thousands as k, millions as M.

    Examples
    --------
    >>> tick_labels([-0.5, 0, 0.5])
    ('−0.5', '0', '0.5')
    >>> tick_labels([0, 500_000, 1_000_000, 1_500_000])
    ('0', '0.5M', '1.0M', '1.5M')
    """
    greatest = max((abs(t) for t in ticks), default=0)
    unit, suffix = (1e6, "M") if greatest >= 1e6 else (1e3, "k") if greatest >= 1e4 else (1, "")
    scaled = [t / unit for t in ticks]
    decimals = next((d for d in range(9) if all(abs(round(t, d) - t) < 1e-9 for t in scaled)), 9)
    return tuple("0" if t == 0 else minus(f"{t:,.{decimals}f}{suffix}") for t in scaled)


def minus(number: str) -> str:
    """Write a number's hyphen as a minus sign."""
    return number.replace("-", "\N{MINUS SIGN}")
