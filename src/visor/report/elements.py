"""Elements of the page: cells that name the metric they show, tables without empty rows, figures and sections."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from visor.core.tables import EMPTY, Cell, CellGroup, Row, Table


class Figure(NamedTuple):
    """An image of ``plots/`` by its path there, with its caption and its alternative text."""

    path: str
    caption: str
    alt: str


class Section(NamedTuple):
    """One part of the page; ``name`` is its anchor, ``lead`` its first paragraph."""

    name: str
    title: str
    lead: str
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]


SCALED = ("percent", "points")  # shown times 100
FORMATS = {
    "percent": "{:.1f} %",
    "points": "{:+.1f} pp",
    "three": "{:.3f}",
    "signed": "{:+.3f}",
    "four": "{:.4f}",
    "one": "{:.1f}",
    "whole": "{:.0f}",
    "six": "{:.6g}",
}


def format_value(value: float, form: str) -> str:
    """Return ``value`` rounded as ``FORMATS`` says, with a typographic minus; a rounded zero has no sign."""
    if not math.isfinite(value):
        return "not finite"
    text = FORMATS[form].format(100 * value if form in SCALED else value)
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("-+")


def metric_cell(metrics: Mapping[str, float], metric: str, form: str) -> CellGroup:
    """Return the cell of a metric, ``FILE:KEY``, or a dash where the run has none."""
    return (Cell(format_value(metrics[metric], form), metric),) if metric in metrics else EMPTY


def interval_cells(
    metrics: Mapping[str, float], metric: str, form: str, ends: tuple[str, str] | None = None
) -> CellGroup:
    """Return a metric and the ends of its interval; by default their keys are its own, then ``_low``, ``_high``."""
    low, high = ends or (f"{metric}_low", f"{metric}_high")
    if not {metric, low, high} <= metrics.keys():
        return metric_cell(metrics, metric, form)
    lower = Cell(f"({format_value(metrics[low], form)} to", low, "low")
    upper = Cell(f"{format_value(metrics[high], form)})", high, "high")
    return (*metric_cell(metrics, metric, form), lower, upper)


def reference_cell(text: str) -> CellGroup:
    """Return the cell of a number that the authors of an original system published, or a dash."""
    return (Cell(text, kind="original"),) if text else EMPTY


def table(caption: str, corner: str, columns: Iterable[str], rows: Iterable[Row], note: str = "") -> Table:
    """Return a table without its empty rows and columns; without any row if none has a metric of this run."""
    filled = [row for row in rows if any(map(_has_content, row.groups))]
    if not any(cell.metric for row in filled for group in row.groups for cell in group):
        filled = []
    heads = tuple(columns)
    shown = [place for place in range(len(heads)) if any(_has_content(row.groups[place]) for row in filled)]
    lines = tuple(Row(row.head, tuple(row.groups[place] for place in shown)) for row in filled)
    return Table(caption, corner, tuple(heads[place] for place in shown), lines, note)


def section(name: str, title: str, lead: str, tables: Iterable[Table], figures: Iterable[Figure]) -> Section:
    """Return a section with those tables that have rows."""
    return Section(name, title, lead, tuple(each for each in tables if each.rows), tuple(figures))


def _has_content(group: CellGroup) -> bool:
    return any(cell.metric or cell.kind for cell in group)
