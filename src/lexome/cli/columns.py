"""Help in two aligned columns: the same text in a terminal, in a pipe and in a log."""

import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

WIDTH = 100  # the longest line that still reads well
_NAMES_WIDTH = 28  # a longer name stands on a line of its own
_SECTION = re.compile(r"\n\s*\w[\w ]*\n\s*-{3,}\s*(\n|$)")


def prose(docstring: str) -> str:
    r"""Return what a numpydoc docstring says before its first section, one line per paragraph.

    Examples
    --------
    >>> prose("Do it.\n\nWith `care`,\nalways.\n\nParameters\n----------\nx\n    It.")
    'Do it.\n\nWith care, always.'
    """
    before = _SECTION.split(f"\n{docstring}", maxsplit=1)[0]
    return "\n\n".join(_plain(each) for each in before.split("\n\n") if each.strip())


def _plain(text: str) -> str:
    """Join wrapped lines, keep list items apart, and drop the marks of code."""
    lines = re.sub(r"\n\s*(?=[-*] )", "\0", text.strip())
    plain = "\n".join(" ".join(line.split()) for line in lines.split("\0"))
    return re.sub(r":\w+:(?=`)", "", plain).replace("`", "")  # :func:`f` is Sphinx's way of `f`


class Columns:
    """A help formatter for cyclopts.

    Parameters
    ----------
    description
        What the command does, one line per paragraph or list item.
    """

    def __init__(self, description: str):
        self.description = description

    def render_usage(self, console: "Console", _options: "ConsoleOptions", usage: object) -> None:
        """Print the line that shows how the command is called."""
        usage_line = textwrap.fill(f"Usage: {usage}", _width(console), subsequent_indent="  ")
        _print(console, f"{usage_line}\n")

    def render_description(
        self, console: "Console", _options: "ConsoleOptions", _description: object
    ) -> None:
        """Print what the command does."""
        for line in self.description.split("\n"):
            _print(console, textwrap.fill(line, _width(console), subsequent_indent=_hang(line)))
        _print(console, "")

    def __call__(self, console: "Console", _options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print the arguments and the options, each name beside its meaning."""
        longest = max((len(_names(entry)) for entry in panel.entries), default=0)
        for title, positional in (("Arguments", True), ("Options", False)):
            entries = [e for e in panel.entries if bool(e.positional_label) is positional]
            if entries:
                _print(console, title, style="bold underline")
                for entry in entries:
                    _print_entry(console, entry, min(longest, _NAMES_WIDTH))
                _print(console, "")


def _print_entry(console: "Console", entry: "HelpEntry", names_width: int) -> None:
    names = _names(entry)
    indent = " " * (names_width + 4)
    wrapped = textwrap.wrap(_meaning(entry), _width(console) - len(indent)) or [""]
    if len(names) > names_width:
        _print(console, f"  {names}", bold=names)
    else:
        _print(console, f"  {names:<{names_width}}  {wrapped.pop(0)}".rstrip(), bold=names)
    for line in wrapped:
        _print(console, indent + line)


def _print(console: "Console", text: str, *, style: str = "", bold: str = "") -> None:
    from rich.text import Text

    line = Text(text, style=style)
    if bold:
        line.highlight_words([bold], "bold")
    console.print(line, soft_wrap=True)


def _width(console: "Console") -> int:
    return min(console.width, WIDTH)


def _hang(line: str) -> str:
    return "  " if line.startswith(("- ", "* ")) else ""


def _names(entry: "HelpEntry") -> str:
    if entry.positional_label:
        return ", ".join((entry.positional_label, *entry.positive_names))
    shown = ", ".join((*entry.positive_shorts, *entry.positive_names))
    if entry.negative_names and entry.default != "False":
        return shown.replace("--", "--[no-]", 1)
    return f"{shown} {_value(entry)}".rstrip()


def _value(entry: "HelpEntry") -> str:
    return (entry.metavar or "").replace("STR|PATH", "PATH").replace("CHOICE", "WORD")


def _meaning(entry: "HelpEntry") -> str:
    description = getattr(entry.description, "primary_renderable", entry.description)
    facts = []
    if entry.choices:
        facts.append(f"one of {', '.join(entry.choices)}")
    if entry.metavar and entry.default not in (None, "()", "[]", "{}"):
        facts.append(f"default {entry.default}")
    if entry.required and not entry.positional_label:
        facts.append("required")
    meaning = _plain(str(description or "")).replace("\n", " ")
    return f"{meaning} [{'; '.join(facts)}]".strip() if facts else meaning
