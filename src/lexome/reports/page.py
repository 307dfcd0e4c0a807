"""One self-contained HTML page: text, key numbers, figures, tables and provenance.

No script and no network; light, printable, readable on a phone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from lexome import __version__
from lexome.core import InputError, atomic_path

_STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True, kw_only=True)
class KeyNumber:
    """A number that a reader should see first.

    Parameters
    ----------
    value
        The number as text, with as many digits as it deserves.
    label
        What it is.
    detail
        What to compare it with.
    verdict
        Whether it counts as good or bad; plain otherwise.
    """

    value: str
    label: str
    detail: str = ""
    verdict: Literal["", "good", "bad"] = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    name
        Its heading.
    values
        Its cells. Numbers stand to the right; None and NaN show as a dash.
    format
        Python format of the numbers, e.g. ``".4f"`` or ``",d"``: equal decimals line up.
    right
        Whether text stands to the right too, such as numbers that are written in several ways.
    """

    name: str
    values: Sequence[object]
    format: str = ""
    right: bool = False


class Page:
    """A report, filled from top to bottom.

    All texts are plain: markup characters are shown, not obeyed.

    Parameters
    ----------
    title
        The heading.
    lead
        One or two sentences below it: what was done, and what came out.
    """

    def __init__(self, title: str, lead: str = ""):
        self.title = title
        self._body = [f"<h1>{escape(title)}</h1>"]
        if lead:
            self._body.append(f'<p class="lead">{escape(lead)}</p>')

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._body.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add lines to be read as typed, e.g. a command or a FASTA record."""
        self._body.append(f"<pre>{escape(text)}</pre>")

    def numbers(self, *numbers: KeyNumber) -> None:
        """Add a row of key numbers."""
        cards = (
            f'<div class="{n.verdict}"><b>{escape(n.value)}</b><span>{escape(n.label)}</span>'
            f"<small>{escape(n.detail)}</small></div>"
            for n in numbers
        )
        self._body.append(f'<div class="numbers">{"".join(cards)}</div>')

    def figure(self, svg: str, caption: str = "") -> None:
        """Add a picture, SVG text as the functions of `lexome.reports.figures` return it."""
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._body.append(f'<figure><div class="wide">{svg}</div>{below}</figure>')

    def table(
        self, columns: Sequence[Column], *, caption: str = "", chosen_row: int | None = None
    ) -> None:
        """Add a table.

        Parameters
        ----------
        columns
            Equally long columns, from the left.
        caption
            What the table shows.
        chosen_row
            The row to stress, 0-based.

        Raises
        ------
        InputError
            If the columns differ in length, or a cell does not fit its column's format.
        """
        lengths = {column.name: len(column.values) for column in columns}
        if len(set(lengths.values())) != 1:
            raise InputError(
                f"a table was asked for with columns of lengths {lengths}. "
                "Expected at least one column, and all equally long."
            )
        numeric = [c.right or all(v is None or _is_number(v) for v in c.values) for c in columns]
        heads = "".join(
            f'<th scope="col"{_ALIGN[right]}>{escape(c.name)}</th>'
            for c, right in zip(columns, numeric, strict=True)
        )
        rows = []
        for i in range(len(columns[0].values)):
            cells = "".join(
                f"<td{_ALIGN[right]}>{escape(_cell(c, i))}</td>"
                for c, right in zip(columns, numeric, strict=True)
            )
            rows.append(
                f'<tr class="chosen">{cells}</tr>' if i == chosen_row else f"<tr>{cells}</tr>"
            )
        below = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._body.append(
            f'<div class="wide"><table>{below}<thead><tr>{heads}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def html(self, provenance: Mapping[str, str] | None = None) -> str:
        """Return the page.

        Parameters
        ----------
        provenance
            What the numbers come from: files, checksums, settings, dates. The version of lexome
            is added.
        """
        facts = {"lexome": __version__} | dict(provenance or {})
        entries = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n"
            f"<body>\n<main>\n{chr(10).join(self._body)}\n"
            f"<footer><dl>{entries}</dl></footer>\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | Path, provenance: Mapping[str, str] | None = None) -> None:
        """Write the page to `path`, whole or not at all; arguments as in `html`."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.html(provenance), encoding="utf-8")


_ALIGN = {True: ' class="number"', False: ""}


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__float__")


def _cell(column: Column, row: int) -> str:
    value = column.values[row]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not _is_number(value):
        return str(value)
    try:
        return format(value, column.format)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"column {column.name!r}, row {row} (0-based) holds {value!r}, which does not fit the "
            f"format {column.format!r}. Choose another format, e.g. '.4f'."
        ) from error
