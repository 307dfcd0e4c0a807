"""The figures of a report, as SVG text: no library, no script, readable in print.

Every function returns one SVG picture, usable inside a page or as a file of its own.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lexome.core import InputError
from lexome.reports.svg import (
    COLOURS,
    INK,
    MONO,
    MUTED,
    PAPER,
    RULE,
    Drawing,
    Scale,
    minus,
    power_label,
    power_scale,
    round_scale,
    text_width,
)

WIDTH = 720
_FAINT = "#a9b4c0"
LETTER_COLOURS = {"A": "#2c8c5a", "C": "#2463a6", "G": "#a3741b", "T": "#c23b3b", "U": "#c23b3b"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Parameters
    ----------
    name
        What the legend calls it; an empty name keeps it out of the legend.
    x, y
        Equally many numbers. A NaN in `y` leaves a gap.
    points
        Whether to mark each value; for few values.
    faint
        Whether to draw it thin and grey, as raw values behind a smoothed line.
    of
        Name of an earlier line to which this one belongs: it has that line's colour and stays out
        of the legend. It is drawn thin and dotted, as a fit, or if `faint` thin and pale.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    points: bool = False
    faint: bool = False
    of: str = ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value to compare with: a dashed line across the chart, with its name on it."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Span:
    """A named stretch of a sequence, 0-based half-open."""

    name: str
    start: int
    end: int


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    height: int = 360,
    log_x: bool = False,
) -> str:
    """Draw values over a common axis, e.g. a loss over steps or bits per base over orders.

    Neither axis starts at zero unless the values do. Lines of more values than the chart has
    pixels keep the least and greatest value of each pixel column. With `log_x`, equal ratios are
    equally far apart along the x axis.
    """
    data = [(line, *_pair(line.x, line.y, line.name, positive=log_x)) for line in lines]
    xs = np.concatenate([x for _, x, _ in data]) if data else np.zeros(0)
    ys = np.concatenate([y[np.isfinite(y)] for _, _, y in data]) if data else np.zeros(0)
    if not len(xs) or not len(ys):
        raise InputError("a line chart was asked for without values. Give at least one line.")
    shown = np.concatenate([ys, [m.value for m in marks]])
    chart = _Chart(f"{y_label} over {x_label}", height)
    bright = iter(COLOURS * (1 + len(data) // len(COLOURS)))
    colours: list[str] = []
    for line, *_ in data:
        earlier = dict(zip((d[0].name for d in data), colours, strict=False))
        colours.append(earlier.get(line.of) or (_FAINT if line.faint else next(bright)))
    named = [
        (d[0].name, c, False)
        for d, c in zip(data, colours, strict=True)
        if d[0].name and not d[0].of
    ]
    chart.legend(named if len(named) > 1 else [])
    chart.axes(
        (float(xs.min()), float(xs.max())),
        (float(shown.min()), float(shown.max())),
        x_label=x_label,
        y_label=y_label,
        whole_x=bool(not log_x and len(np.unique(xs)) < 20 and (xs == xs.round()).all()),
        log_x=log_x,
    )
    for (line, x, y), colour in zip(data, colours, strict=True):
        if line.of and line.faint:
            chart.polyline(x, y, colour, width=1.0, stroke_opacity="0.4")
        elif line.of:
            chart.polyline(x, y, colour, width=1.4, stroke_dasharray="2 4")
        else:
            chart.polyline(x, y, colour, width=1.0 if line.faint else 2.2)
        if line.points:
            for a, b in zip(x, y, strict=True):
                if np.isfinite(b):
                    shown_x = power_label(a) if log_x else f"{a:g}"
                    tip = f"{line.name or line.of} {shown_x}: {b:.6g}".strip()
                    chart.point(a, b, colour, tip, 2.2 if line.faint else 3.5)
    for mark in marks:
        chart.mark(mark, [(x, y) for _, x, y in data])
    return chart.drawing.svg()


def bar_chart(
    values: Mapping[str, float],
    *,
    value_label: str,
    mark: Mark | None = None,
    highlight: Collection[str] = (),
    decimals: int = 2,
) -> str:
    """Draw one horizontal bar for each name, from zero, with its number at the end.

    Parameters
    ----------
    values
        Name to number, drawn from the top in this order.
    value_label
        What the numbers are, with their unit.
    mark
        A value to compare all bars with.
    highlight
        Names to draw in full colour; the others are then grey.
    decimals
        Decimals of the numbers.
    """
    if not values:
        raise InputError("a bar chart was asked for without values. Give at least one bar.")
    numbers = _finite(list(values.values()), "the bars")
    texts = [minus(f"{v:,.{decimals}f}") for v in numbers]
    row, top = 30, 34 if mark else 12
    left = min(260.0, max(text_width(n) for n in values) + 14)
    right = WIDTH - max(text_width(t) for t in texts) - 12
    height = top + row * len(values) + 46
    low = min(0.0, float(numbers.min()), mark.value if mark else 0.0)
    high = max(0.0, float(numbers.max()), mark.value if mark else 0.0)
    scale = round_scale(low, high, left, right, snug=True)
    drawing = Drawing(WIDTH, height, value_label)
    foot = top + row * len(values)
    for tick, label in zip(scale.ticks, scale.labels, strict=True):
        drawing.line(scale(tick), top, scale(tick), foot, stroke=RULE)
        drawing.label(scale(tick), foot + 18, label, anchor="middle")
    for i, (name, value, text) in enumerate(zip(values, numbers, texts, strict=True)):
        y = top + row * i
        colour = COLOURS[0] if not highlight or name in highlight else "#b6c0cc"
        x0, x1 = sorted((scale(0.0), scale(float(value))))
        drawing.add(
            "rect", x=x0, y=y + 5, width=x1 - x0, height=row - 10, fill=colour, rx=2, tip=name
        )
        drawing.label(left - 8, y + row / 2 + 4.5, name, anchor="end", fill=INK)
        drawing.label(x1 + 6, y + row / 2 + 4.5, text, fill=INK)
    drawing.line(scale(0.0), top, scale(0.0), foot, stroke=MUTED)
    drawing.label((left + right) / 2, foot + 40, value_label, anchor="middle")
    if mark:
        x = scale(mark.value)
        drawing.line(x, top - 8, x, foot, stroke=COLOURS[4], stroke_dasharray="5 4")
        anchor = "end" if x > WIDTH / 2 else "start"
        drawing.label(x, top - 14, mark.name, anchor=anchor, fill=COLOURS[4])
    return drawing.svg()


def map_chart(
    points: ArrayLike,
    groups: Sequence[str],
    *,
    x_label: str,
    y_label: str,
    names: Sequence[str] = (),
    height: int = 460,
) -> str:
    """Draw points in the plane, coloured by group, e.g. embeddings on two principal components.

    Parameters
    ----------
    points
        Shape (n, 2). One circle each: choose a sample beyond some ten thousand.
    groups
        The group of each point. Colours follow the order of first appearance.
    x_label, y_label
        What the two axes are.
    names
        What to show when the mouse rests on a point; none by default.
    """
    xy = np.asarray(points, float)
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy) or len(xy) != len(groups):
        raise InputError(
            f"a map was asked for with points of shape {xy.shape} and {len(groups)} groups. "
            "Expected shape (n, 2) and n groups, n above 0."
        )
    _finite(xy, "the points")
    order = list(dict.fromkeys(groups))
    colour = {group: _colour(i) for i, group in enumerate(order)}
    counts = {group: sum(g == group for g in groups) for group in order}
    chart = _Chart(f"{y_label} over {x_label}", height)
    chart.legend([(f"{g} ({counts[g]:,})", colour[g], True) for g in order])
    chart.axes(
        (float(xy[:, 0].min()), float(xy[:, 0].max())),
        (float(xy[:, 1].min()), float(xy[:, 1].max())),
        x_label=x_label,
        y_label=y_label,
    )
    radius = 4.0 if len(xy) < 300 else 3.0 if len(xy) < 1500 else 2.2
    # Drawn in an order without meaning, so that no group lies on top of the others.
    for i in map(int, np.random.default_rng(0).permutation(len(xy))):
        tip = f"{names[i]} ({groups[i]})" if names else ""
        chart.point(xy[i, 0], xy[i, 1], colour[groups[i]], tip, radius)
    return chart.drawing.svg()


def histogram(
    values: Mapping[str, ArrayLike],
    *,
    x_label: str,
    y_label: str = "% of each class",
    bins: int = 40,
    mark: Mark | None = None,
    height: int = 360,
) -> str:
    """Draw how the values of each class spread, as shares of the class.

    Parameters
    ----------
    values
        Class to its numbers; a class without numbers is named in the legend with 0.
    x_label
        What the numbers are, with their unit.
    y_label
        What is counted.
    bins
        Equal bins over the range of all classes together. Values beyond the 0.5 % at either end
        of all values are counted in the outermost bins, and the axis says so.
    mark
        A value to compare with, drawn upright.
    """
    arrays = {name: _finite(v, f"class {name!r}") for name, v in values.items()}
    everything = np.concatenate([a.ravel() for a in arrays.values()]) if arrays else np.zeros(0)
    if not len(everything):
        raise InputError("a histogram was asked for without values. Give at least one number.")
    low, high = np.quantile(everything, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    shares = {
        name: np.histogram(a.clip(low, high), edges)[0] / max(1, a.size) * 100
        for name, a in arrays.items()
    }
    outside = int(((everything < low) | (everything > high)).sum())
    beyond = f"; {outside:,} beyond the axis are in the outermost bins" if outside else ""
    chart = _Chart(f"distribution of {x_label}", height)
    chart.legend(
        [(f"{n} ({a.size:,})", _colour(i), True) for i, (n, a) in enumerate(arrays.items())]
    )
    chart.axes(
        (float(low), float(high)),
        (0.0, max(float(s.max()) for s in shares.values())),
        x_label=x_label + beyond,
        y_label=y_label,
    )
    for i, share in enumerate(shares.values()):
        x = np.repeat(edges, 2)
        y = np.concatenate([[0.0], np.repeat(share, 2), [0.0]])
        chart.area(x, y, _colour(i))
    if mark:
        chart.upright(mark)
    return chart.drawing.svg()


def sequence_strip(
    sequence: str,
    values: ArrayLike | None = None,
    *,
    value_label: str = "",
    spans: Sequence[Span] = (),
    first_1based: int = 1,
    per_row: int = 60,
) -> str:
    """Draw a sequence letter by letter, each on a tint that shows its value.

    Parameters
    ----------
    sequence
        The letters; A C G T U in colour, all others grey.
    values
        One number per letter, e.g. bits; darker is greater. NaN stays white. None for no tint.
    value_label
        What the numbers are; needed for the key.
    spans
        Stretches to underline, 0-based half-open in `sequence`.
    first_1based
        The number that the first letter has in the margin, 1-based.
    per_row
        Letters in a row, a multiple of ten.
    """
    if not sequence:
        raise InputError("a sequence strip was asked for without letters. Give at least one.")
    tint = None if values is None else np.asarray(values, float)
    if tint is not None and tint.shape != (len(sequence),):
        raise InputError(
            f"a sequence strip got {tint.size} values for {len(sequence)} letters. "
            "Expected one value for each letter."
        )
    rows = math.ceil(len(sequence) / per_row)
    last = f"{first_1based + per_row * (rows - 1):,}"
    left = text_width(last) + 14
    cell = (WIDTH - left) / (per_row + per_row // 10 - 1)
    pitch, key = 34, 34 if tint is not None or spans else 0
    drawing = Drawing(WIDTH, rows * pitch + key, f"sequence of {len(sequence)} letters")

    def place(i: int) -> tuple[float, float]:
        column = i % per_row
        return left + (column + column // 10) * cell, key + i // per_row * pitch

    greatest, shift = 1.0, 0.0
    if tint is not None:
        known = tint[np.isfinite(tint)]
        greatest = float(known.max()) if len(known) and known.max() > 0 else 1.0
        shift = 24 + _tint_key(drawing, left, value_label, greatest)
        for i, value in enumerate(tint):
            if np.isfinite(value):
                x, y = place(i)
                position = f"{first_1based + i:,} {sequence[i]}: {value:.3g} {value_label}"
                drawing.add(
                    "rect", x=x, y=y, width=cell, height=20, fill=_tint(value / greatest),
                    tip=position,
                )  # fmt: skip
    for row in range(rows):
        start = row * per_row
        y = place(start)[1] + 15
        drawing.label(left - 10, y, f"{first_1based + start:,}", anchor="end")
        letters = sequence[start : start + per_row]
        for letter in dict.fromkeys(letters):
            where = [start + j for j, other in enumerate(letters) if other == letter]
            drawing.add(
                "text",
                text=letter * len(where),
                x=" ".join(f"{place(i)[0] + cell / 2:.1f}" for i in where),
                y=y,
                fill=LETTER_COLOURS.get(letter.upper(), MUTED),
                font_family=MONO,
                text_anchor="middle",
            )
    for i, span in enumerate(spans):
        colour = _colour(i)
        drawing.line(left + shift, 10, left + shift + 18, 10, stroke=colour, stroke_width=3)
        drawing.label(left + shift + 24, 14.5, span.name, fill=INK)
        shift += 44 + text_width(span.name)
        for start in range(span.start - span.start % per_row, span.end, per_row):
            a, b = max(span.start, start), min(span.end, start + per_row, len(sequence))
            if a < b:
                (x, y), x_end = place(a), place(b - 1)[0] + cell
                drawing.line(x, y + 23, x_end, y + 23, stroke=colour, stroke_width=3)
    return drawing.svg()


@dataclass(frozen=True)
class PrincipalComponents:
    """Coordinates on the directions of greatest spread.

    Parameters
    ----------
    coordinates
        Shape (n, components).
    explained
        Share of the variance that each component holds, 0 to 1.
    """

    coordinates: NDArray[np.float64]
    explained: NDArray[np.float64]


def principal_components(vectors: ArrayLike, count: int = 2) -> PrincipalComponents:
    """Project vectors, shape (n, width), on their first `count` principal components.

    The sign of each component makes its longest coordinate positive, so that a picture does not
    flip between runs. Directions without spread give zeros.
    """
    x = np.asarray(vectors, float)
    if x.ndim != 2 or len(x) < 2:
        raise InputError(
            f"principal components were asked for of an array of shape {x.shape}. "
            "Expected (n, width) with n of at least 2."
        )
    x = _finite(x, "the vectors") - x.mean(0)
    # The smaller of the two Gram matrices has the same non-zero spectrum.
    if x.shape[1] <= len(x):
        squares, axes = np.linalg.eigh(x.T @ x)
        coordinates = x @ axes
    else:
        squares, axes = np.linalg.eigh(x @ x.T)
        coordinates = axes * np.sqrt(squares.clip(0))
    coordinates, squares = coordinates[:, ::-1][:, :count], squares[::-1].clip(0)
    if coordinates.shape[1] < count:
        coordinates = np.pad(coordinates, ((0, 0), (0, count - coordinates.shape[1])))
        squares = np.pad(squares, (0, count))
    longest = coordinates[np.abs(coordinates).argmax(0), np.arange(count)]
    total = float(squares.sum())
    explained = squares[:count] / total if total > 0 else np.zeros(count)
    return PrincipalComponents(coordinates * np.where(longest < 0, -1.0, 1.0), explained)


class _Chart:
    """A drawing with a legend above, two axes and clipped space for data between them."""

    def __init__(self, title: str, height: int):
        self.drawing = Drawing(WIDTH, height, title)
        self.top = 14.0
        self.x = self.y = Scale(0, 1, 0, 1, ())

    def legend(self, entries: Sequence[tuple[str, str, bool]]) -> None:
        """Name colours in rows; each entry is (name, colour, whether it stands for points)."""
        x, y = 0.0, 14.0
        for name, colour, is_dot in entries:
            width = text_width(name) + 40
            if x and x + width > WIDTH:
                x, y = 0.0, y + 22
            if is_dot:
                self.drawing.add("circle", cx=x + 6, cy=y - 4.5, r=5, fill=colour)
            else:
                self.drawing.line(x, y - 4.5, x + 16, y - 4.5, stroke=colour, stroke_width=2.5)
            self.drawing.label(x + (18 if is_dot else 22), y, name, fill=INK)
            x += width
        if entries:
            self.top = y + 27

    def axes(
        self,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        x_label: str,
        y_label: str,
        whole_x: bool = False,
        log_x: bool = False,
    ) -> None:
        """Choose the scales and draw grid, ticks and labels."""
        drawing, foot, head = self.drawing, self.drawing.height - 46, self.top + 22
        self.y = round_scale(*y_range, foot, head, most_ticks=6)
        left = max(text_width(t) for t in self.y.labels) + 12
        pad = (x_range[1] - x_range[0]) * 0.02
        ends = x_range[0] - pad, x_range[1] + pad, left, WIDTH - 14.0
        x = power_scale(*ends) if log_x else round_scale(*ends, snug=True)
        if whole_x:
            ticks = tuple(float(t) for t in range(round(x_range[0]), round(x_range[1]) + 1))
            x = Scale(x.low, x.high, x.start, x.end, ticks)
        self.x = x
        for tick, label in zip(self.y.ticks, self.y.labels, strict=True):
            drawing.line(left, self.y(tick), WIDTH - 14, self.y(tick), stroke=RULE)
            drawing.label(left - 8, self.y(tick) + 4.5, label, anchor="end")
        for tick, label in zip(x.ticks, x.labels, strict=True):
            drawing.line(x(tick), foot, x(tick), foot + 5, stroke=MUTED)
            drawing.label(x(tick), foot + 20, label, anchor="middle")
        drawing.line(left, foot, WIDTH - 14, foot, stroke=MUTED)
        drawing.label(0, self.top, y_label)
        drawing.label((left + WIDTH - 14) / 2, foot + 41, x_label, anchor="middle")

    def polyline(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        colour: str,
        *,
        width: float,
        **more: str,
    ) -> None:
        style = {"stroke": colour, "stroke_width": width, "stroke_linejoin": "round", **more}
        gaps = np.flatnonzero(~np.isfinite(y))
        for piece in np.split(np.arange(len(x)), gaps):
            piece = piece[np.isfinite(y[piece])]
            piece = _thinned(y, piece, most=2 * WIDTH)
            if len(piece) > 1:
                points = [(self.x(a), self.y(b)) for a, b in zip(x[piece], y[piece], strict=True)]
                self.drawing.path(points, **style)

    def area(self, x: NDArray[np.float64], y: NDArray[np.float64], colour: str) -> None:
        points = [(self.x(a), self.y(b)) for a, b in zip(x, y, strict=True)]
        self.drawing.path(points, fill=colour, fill_opacity=0.16, stroke=colour, stroke_width=1.8)

    def point(self, x: float, y: float, colour: str, tip: str, radius: float) -> None:
        self.drawing.add(
            "circle", cx=self.x(x), cy=self.y(y), r=radius, fill=colour, fill_opacity=0.8,
            stroke=PAPER, stroke_width=0.6, tip=tip,
        )  # fmt: skip

    def mark(
        self, mark: Mark, lines: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
    ) -> None:
        """Draw it, with its name at the end where fewer of the lines pass."""
        y, width = self.y(mark.value), text_width(mark.name)
        self.drawing.line(
            self.x.start, y, self.x.end, y, stroke=COLOURS[4], stroke_width=1.8,
            stroke_dasharray="6 4",
        )  # fmt: skip
        at_start = np.linspace(self.x.start, self.x.start + width, 30)
        at_end = np.linspace(self.x.end - width, self.x.end, 30)
        if self._crowd(lines, at_start, y) < self._crowd(lines, at_end, y):
            self._halo(self.x.start + 4, y - 7, mark.name, "start")
        else:
            self._halo(self.x.end - 4, y - 7, mark.name, "end")

    def _crowd(
        self,
        lines: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
        places: NDArray[np.float64],
        y: float,
    ) -> int:
        """Count at how many places, in pixels, lines pass through a label that stands on `y`."""
        count = 0
        for xs, ys in lines:
            order = np.argsort(xs)
            at_x, at_y = self.x(xs[order]), self.y(ys[order])  # type: ignore[arg-type]
            height = np.interp(places, at_x, at_y, left=np.nan, right=np.nan)
            count += int(((height > y - 22) & (height < y + 2)).sum())
        return count

    def upright(self, mark: Mark) -> None:
        x = self.x(mark.value)
        self.drawing.line(x, self.y.start, x, self.y.end, stroke=COLOURS[4], stroke_dasharray="6 4")
        side = "end" if x > WIDTH * 2 / 3 else "middle"
        self._halo(x, self.y.end - 7, mark.name, side)

    def _halo(self, x: float, y: float, text: str, anchor: str) -> None:
        self.drawing.label(
            x, y, text, anchor=anchor, fill=COLOURS[4], stroke=PAPER, stroke_width=4,
            stroke_linejoin="round", paint_order="stroke", font_weight=600,
        )  # fmt: skip


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _pair(
    x: ArrayLike, y: ArrayLike, name: str, *, positive: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x, with `positive` its decimal logarithms, and y."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(
            f"line {name!r} has x of shape {a.shape} and y of shape {b.shape}. "
            "Expected two plain lists of equal length."
        )
    a = _finite(a, f"the x of line {name!r}")
    if positive and (a <= 0).any():
        raise InputError(
            f"line {name!r} has an x of {a.min():g}, which has no logarithm. Expected numbers "
            "above 0, or a chart without log_x."
        )
    return np.log10(a) if positive else a, b


def _finite(values: ArrayLike, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, float)
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(
            f"{what}: {bad} of {array.size} numbers are NaN or infinite. "
            "Expected finite numbers; remove or mark the others first."
        )
    return array


def _thinned(y: NDArray[np.float64], piece: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Keep the least and greatest of each of most / 2 stretches, and both ends."""
    if len(piece) <= most:
        return piece
    kept = {int(piece[0]), int(piece[-1])}
    for part in np.array_split(piece, most // 2):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    return np.array(sorted(kept))


def _tint(share: float) -> str:
    share = min(1.0, max(0.0, share))
    return "#" + "".join(f"{round(255 + (c - 255) * share):02x}" for c in (238, 190, 110))


def _tint_key(drawing: Drawing, x: float, label: str, greatest: float) -> float:
    """Draw what the tints mean, from `x` on; return the width taken."""
    text = f"0 to {greatest:.3g} {label}".rstrip()
    for i in range(24):
        drawing.add("rect", x=x + i * 4, y=3, width=4.2, height=13, fill=_tint(i / 23))
    drawing.label(x + 104, 14.5, text, fill=INK)
    return 104 + text_width(text)
