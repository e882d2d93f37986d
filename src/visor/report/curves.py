"""Training curves as points of small SVG plots."""

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

from visor.core.tables import label
from visor.report.elements import format_value
from visor.tracking.history import History

WIDTH, HEIGHT = 200, 90  # of a plot, in units of its SVG
LINES = {"loss": "training", "validation_loss": "validation"}


class Curve(NamedTuple):
    """One plot; its axes run over the epochs and over 0 … ``top``.

    Attributes:
        title: Name of the history.
        lines: Points of each line as SVG text, by name of the line.
        first: First epoch.
        last: Last epoch.
        top: Largest finite loss, as text.
        diverged: First epoch with a loss that is not finite, which has no point; None if there is none.
    """

    title: str
    lines: dict[str, str]
    first: int
    last: int
    top: str
    diverged: int | None


def plots_by_folder(histories: Mapping[str, History]) -> dict[str, list[Curve]]:
    """Return the plots of the histories below each folder of ``metrics/history``."""
    plots: dict[str, list[Curve]] = {}
    for name in sorted(histories):
        folder, _, file = name.rpartition("/")
        if curve := plot_history(label(file), histories[name]):
            plots.setdefault(label(folder), []).append(curve)
    return plots


def plot_history(title: str, history: History) -> Curve | None:
    """Return the plot of the losses of a history, or None when it has none."""
    columns = history.curves()
    curves = {line: columns[name] for name, line in LINES.items() if name in columns}
    epochs = sorted(history.rows)
    if not curves or not epochs:
        return None
    finite = [value for curve in curves.values() for value in curve.values() if isfinite(value)]
    top = max(finite, default=0.0) or 1.0
    first, last = epochs[0], epochs[-1]
    lines = {
        name: " ".join(
            f"{WIDTH * (epoch - first) / max(1, last - first):.1f},{HEIGHT * (1 - max(0.0, curve[epoch]) / top):.1f}"
            for epoch in epochs
            if isfinite(curve[epoch])
        )
        for name, curve in curves.items()
    }
    diverged = (epoch for epoch in epochs if not all(isfinite(curve[epoch]) for curve in curves.values()))
    shown_top = format_value(float(f"{top:.3g}"), "six") if finite else "–"
    return Curve(title, lines, first, last, shown_top, next(diverged, None))
