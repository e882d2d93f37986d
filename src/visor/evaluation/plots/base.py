"""Figures as files, and heat maps with numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visor.core.files import atomic_write
from visor.core.types import Floats


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG whose bytes repeat."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def heat_map(
    axis: Axes,
    values: Floats,
    texts: Sequence[Sequence[str]],
    ticks: tuple[Sequence[str], Sequence[str]],
    colours: str = "RdYlGn",
    is_dark: Callable[[float], bool] = lambda value: False,
    fontsize: str = "medium",
) -> None:
    """Draw ``values`` (r, c) in [0, 1] as colours, NaN as white, with ``texts`` (r, c) on them, white ``is_dark``.

    ``ticks``: names of the rows and of the columns.
    """
    axis.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if is_dark(float(value)) else "black"
        axis.text(column, row, texts[row][column], ha="center", va="center", color=colour, fontsize=fontsize)
    axis.set_yticks(range(len(ticks[0])), ticks[0])
    axis.set_xticks(range(len(ticks[1])), ticks[1])
