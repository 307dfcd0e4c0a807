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
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def labels(self) -> tuple[str, ...]:
        """The ticks as text, all with equally many decimals."""
        return tick_labels(self.ticks)


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
