"""Tables: built once, rendered as Markdown for files and as HTML for the report and the app; and numbers as text."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: What is shown.
        metric: ``FILE:KEY`` of the number in ``metrics/``, if it is one.
        kind: A name of ``KINDS``, or nothing.
    """

    text: str
    metric: str = ""
    kind: str = ""


# Ends of an interval; a published number; a value of params.yaml; a class name; the two outcomes of a gate.
KINDS = ("low", "high", "original", "param", "name", "kept", "breach")
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
        return tuple(max(len(row.groups[place]) for row in self.rows) for place in range(len(self.columns)))

    def layout(self, row: Row) -> list[tuple[Cell, int]]:
        """Return the cells of a row, and how many columns of the page each takes."""
        cells: list[tuple[Cell, int]] = []
        for group, span in zip(row.groups, self.spans, strict=True):
            if group == MERGE_LEFT:
                cell, width = cells.pop()
                cells.append((cell, width + span))
            elif group[0].kind == "original":
                cells.append((group[0], span))
            else:  # where others have an interval, this number stands above theirs and nothing beside it
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
        """Return the table as HTML; every cell with a metric names it in its title."""
        heads = "".join(
            f'<th scope="col"{f" colspan={span}" if span > 1 else ""}>{escape(name)}</th>'
            for name, span in zip(self.columns, self.spans, strict=True)
        )
        body = "".join(
            f'<tr><th scope="row">{escape(row.head)}</th>{"".join(_td(*cell) for cell in self.layout(row))}</tr>\n'
            for row in self.rows
        )
        return (
            f'<table class="{css_class}" aria-label="{escape(self.caption)}">\n'
            f'<thead><tr><th scope="col">{escape(self.corner)}</th>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'
        )


def _td(cell: Cell, span: int) -> str:
    title = f' title="{escape(cell.metric)}"' if cell.metric else ""
    kind = f' class="{cell.kind}"' if cell.kind else ""
    wide = f' colspan="{span}"' if span > 1 else ""
    return f"<td{title}{kind}{wide}>{escape(cell.text)}</td>"


def text_table(
    corner: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], caption: str = ""
) -> Table:
    """Return a table of plain texts: ``rows`` are a head and one text for each column."""
    lines = tuple(Row(head, tuple((Cell(text),) for text in texts)) for head, texts in rows)
    return Table(caption, corner, tuple(columns), lines)


def label(name: str) -> str:
    """Return a name of ``params.yaml`` as people write it: ``blended_accessory`` → ``blended accessory``."""
    return name.replace("_", " ")


def format_percent(share: float, digits: int = 1) -> str:
    """Return a share in [0, 1] as percent, ``98.7%``; a dash where it is not finite."""
    return f"{share:.{digits}%}" if math.isfinite(share) else "–"


def format_interval(share: float, low: float, high: float) -> str:
    """Return a share with its interval, ``98.7% (97% to 100%)``; a dash where it is not finite."""
    return f"{share:.1%} ({low:.0%} to {high:.0%})" if math.isfinite(share) else "–"
