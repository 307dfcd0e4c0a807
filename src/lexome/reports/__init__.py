"""Figures, tables and pages that show results."""

from lexome.reports.figures import (
    Line,
    Mark,
    PrincipalComponents,
    Span,
    bar_chart,
    histogram,
    line_chart,
    map_chart,
    principal_components,
    sequence_strip,
)
from lexome.reports.page import Column, KeyNumber, Page

__all__ = [
    "Column",
    "KeyNumber",
    "Line",
    "Mark",
    "Page",
    "PrincipalComponents",
    "Span",
    "bar_chart",
    "histogram",
    "line_chart",
    "map_chart",
    "principal_components",
    "sequence_strip",
]
