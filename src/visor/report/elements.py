"""What a page is made of: cells that name where their number stands, tables and sections."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell: ``metric`` is ``FILE:KEY`` of a number, ``kind`` one of ``KINDS`` or nothing."""

    text: str
    metric: str = ""
    kind: str = ""


# Ends of an interval; what others published; what params say; whom a face is taken for; verdicts of a gate.
KINDS = ("low", "high", "original", "param", "name", "kept", "breach")
CellGroup = tuple[Cell, ...]
EMPTY = (Cell("–"),)
MERGE_LEFT: CellGroup = ()  # the column belongs to the cell before


class Row(NamedTuple):
    """A line of a table: what heads it, then a group of cells for each column: a number, or one with its interval."""

    head: str
    groups: tuple[CellGroup, ...]


class Table(NamedTuple):
    """``corner`` heads the column of the row heads, ``columns`` the groups; ``note`` says how to read it."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def spans(self) -> tuple[int, ...]:
        """How many cells wide each column is."""
        return tuple(max(len(row.groups[place]) for row in self.rows) for place in range(len(self.columns)))

    def laid_out(self, row: Row) -> list[tuple[Cell, int]]:
        """Return the cells of a row, and how many columns of the page each takes."""
        cells: list[tuple[Cell, int]] = []
        for group, span in zip(row.groups, self.spans, strict=True):
            if group == MERGE_LEFT:
                cell, width = cells.pop()
                cells.append((cell, width + span))
            elif group[0].kind == "original":
                cells.append((group[0], span))
            else:  # where others have an interval this number stands above theirs, and nothing beside it
                rest = span - len(group)
                cells += [*((cell, 1) for cell in group), *([(Cell(""), rest)] if rest else [])]
        return cells


class Figure(NamedTuple):
    """A picture of ``plots/`` by its path there, what it shows, and what is read to those who cannot see it."""

    path: str
    caption: str
    alt: str


class Section(NamedTuple):
    """One part of the page; ``name`` is its anchor, ``lead`` a paragraph."""

    name: str
    title: str
    lead: str
    tables: tuple[Table, ...]
    pictures: tuple[Figure, ...]


def _positive_zero(text: str) -> str:
    """A rounded zero has no sign, and a minus is as wide as a plus."""
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("-+")


FORMATS: Mapping[str, Callable[[float], str]] = {
    "percent": lambda value: f"{100 * value:.1f} %",
    "points": lambda value: f"{100 * value:+.1f} pp",
    "three": lambda value: f"{value:.3f}",
    "signed": lambda value: f"{value:+.3f}",
    "four": lambda value: f"{value:.4f}",
    "one": lambda value: f"{value:.1f}",
    "whole": lambda value: f"{value:.0f}",
    "six": lambda value: f"{value:.6g}",
}


def format_value(value: float, form: str) -> str:
    """Return ``value`` rounded as ``FORMS`` says."""
    return _positive_zero(FORMATS[form](value)) if math.isfinite(value) else "not finite"


def metric_cell(numbers: Mapping[str, float], metric: str, form: str) -> CellGroup:
    """Return the cell of a metric, ``FILE:KEY``, or a dash where the run has none."""
    return (Cell(format_value(numbers[metric], form), metric),) if metric in numbers else EMPTY


def interval_cells(
    numbers: Mapping[str, float], metric: str, form: str, ends: tuple[str, str] | None = None
) -> CellGroup:
    """Return a metric and the ends of its interval; by default their keys are its own, then ``_low``, ``_high``."""
    low, high = ends or (f"{metric}_low", f"{metric}_high")
    if metric not in numbers or low not in numbers or high not in numbers:
        return metric_cell(numbers, metric, form)
    sides = (
        Cell(f"({format_value(numbers[low], form)} to", low, "low"),
        Cell(f"{format_value(numbers[high], form)})", high, "high"),
    )
    return (*metric_cell(numbers, metric, form), *sides)


def reference_cell(text: str) -> CellGroup:
    """Return the cell of a number that the authors of an original system printed."""
    return (Cell(text, kind="original"),) if text else EMPTY


def table(caption: str, corner: str, columns: Iterable[str], rows: Iterable[Row], note: str = "") -> Table:
    """Return a table without the rows and columns that nobody has a number of; with no row if this run has none."""
    kept = [row for row in rows if any(map(_has_content, row.groups))]
    if not any(_measured(group) for row in kept for group in row.groups):
        kept = []
    heads = tuple(columns)
    shown = [place for place in range(len(heads)) if any(_has_content(row.groups[place]) for row in kept)]
    lines = tuple(Row(row.head, tuple(row.groups[place] for place in shown)) for row in kept)
    return Table(caption, corner, tuple(heads[place] for place in shown), lines, note)


def section(name: str, title: str, lead: str, tables: Iterable[Table], pictures: Iterable[Figure]) -> Section:
    """Return a section with those tables that have rows."""
    return Section(name, title, lead, tuple(each for each in tables if each.rows), tuple(pictures))


def label(name: str) -> str:
    """Return a name of ``params.yaml`` as people write it."""
    return name.replace("_", " ")


def _measured(group: CellGroup) -> bool:
    return any(cell.metric for cell in group)


def _has_content(group: CellGroup) -> bool:
    return any(cell.metric or cell.kind for cell in group)
