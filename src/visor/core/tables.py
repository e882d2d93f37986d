"""Tables: built once, rendered as Markdown for files and as HTML for the report and the app; and numbers as text."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

# Kinds of cells whose text is not a metric of the run → the attribute that says so in HTML.
ATTRIBUTES = {"original": " data-original", "param": " data-param", "breach": " data-param", "name": " data-name"}


TITLES = {"patch": "paste detector"}  # of a defence whose name would promise too much


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: What is shown.
        metric: ``FILE:KEY`` of the number in ``metrics/``, if it is one.
        kind: CSS class: ``low``, ``high`` (ends of an interval), ``original`` (a published number), ``param`` (a value
            of ``params.yaml``), ``name`` (a class name), ``kept``, ``breach`` (outcome of a gate), or empty.
    """

    text: str
    metric: str = ""
    kind: str = ""

    def to_html(self, span: int = 1) -> str:
        """Return the cell as ``<td>``, ``span`` columns wide."""
        metric = f' data-metric="{escape(self.metric)}"' if self.metric else ""
        kind = f'{ATTRIBUTES.get(self.kind, "")} class="{self.kind}"' if self.kind else ""
        return f"<td{metric}{kind}{_colspan(span)}>{escape(self.text)}</td>"


CellGroup = tuple[Cell, ...]  # a number, or a number with the ends of its interval
EMPTY: CellGroup = (Cell("–"),)
MERGE_LEFT: CellGroup = ()  # the column belongs to the cell before


class Row(NamedTuple):
    """A row: its head, then one group of cells for each column."""

    head: str
    groups: tuple[CellGroup, ...]


class Table(NamedTuple):
    """A table with a caption; ``corner`` heads the column of row heads, ``note`` says how to read it."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def spans(self) -> tuple[int, ...]:
        """How many cells wide each column is."""
        columns = range(len(self.columns))
        return tuple(max((len(row.groups[place]) for row in self.rows), default=1) for place in columns)

    def layout(self, row: Row) -> list[tuple[Cell, int]]:
        """Return the cells of a row, and how many columns of the page each takes."""
        cells: list[tuple[Cell, int]] = []
        for group, span in zip(row.groups, self.spans, strict=True):
            if group == MERGE_LEFT:
                cell, width = cells.pop()
                cells.append((cell, width + span))
            elif group[0].kind == "original":
                cells.append((group[0], span))
            else:  # A number without an interval keeps the column of the numbers; the rest of its span stays empty.
                rest = span - len(group)
                cells += [*((cell, 1) for cell in group), *([(Cell(""), rest)] if rest else [])]
        return cells

    def to_markdown(self) -> str:
        """Return the table as Markdown lines, without caption and note."""
        lines = [f"| {' | '.join([self.corner, *self.columns])} |", f"|---|{'---|' * len(self.columns)}"]
        for row in self.rows:
            texts = [" ".join(cell.text for cell in group) for group in row.groups]
            lines.append(f"| {' | '.join([row.head, *texts])} |")
        return "\n".join(lines)

    def to_html(self, css_class: str = "results") -> str:
        """Return the table as HTML; a cell names its metric in the attribute ``data-metric``."""
        spans = zip(self.columns, self.spans, strict=True)
        heads = "".join(f'<th scope="col"{_colspan(span)}>{escape(head)}</th>' for head, span in spans)
        lines = [
            f'<table class="{css_class}" aria-label="{escape(self.caption)}">',
            f'<thead><tr><th scope="col">{escape(self.corner)}</th>{heads}</tr></thead>',
            "<tbody>",
        ]
        for row in self.rows:
            cells = "".join(cell.to_html(span) for cell, span in self.layout(row))
            lines.append(f'<tr><th scope="row">{escape(row.head)}</th>{cells}</tr>')
        return "\n".join([*lines, "</tbody>", "</table>"])


def _colspan(span: int) -> str:
    return f' colspan="{span}"' if span > 1 else ""


def text_table(
    corner: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], caption: str = ""
) -> Table:
    """Return a table of plain texts: ``rows`` are a head and one text for each column."""
    lines = tuple(Row(head, tuple((Cell(text),) for text in texts)) for head, texts in rows)
    return Table(caption, corner, tuple(columns), lines)


def label(name: str) -> str:
    """Return a name of ``params.yaml`` as people write it: ``blended_accessory`` → ``blended accessory``."""
    return TITLES.get(name, name.replace("_", " "))


def format_percent(share: float, digits: int = 1) -> str:
    """Return a share in [0, 1] as percent, ``98.7%``; a dash where it is not finite."""
    return f"{share:.{digits}%}" if math.isfinite(share) else "–"


def format_interval(share: float, low: float, high: float) -> str:
    """Return a share with its interval, ``98.7% (97% to 100%)``; a dash where it is not finite."""
    return f"{share:.1%} ({low:.0%} to {high:.0%})" if math.isfinite(share) else "–"
