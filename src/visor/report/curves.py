"""Training curves as points of small SVG drawings."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from visor.report.elements import FORMATS, label
from visor.tracking.history import History

WIDTH, HEIGHT = 200, 90  # of the drawing's field, in its own units
LINES = {"loss": "training", "validation_loss": "validation"}


class Curve(NamedTuple):
    """One drawing: ``lines`` maps a column's word to the points of its line; axes run over epochs and 0..``top``.

    ``broken`` is the first epoch with a loss that is not finite, if any: such losses have no point.
    """

    title: str
    lines: dict[str, str]
    first: int
    last: int
    top: str
    broken: int | None


def by_folder(histories: Mapping[str, History]) -> dict[str, list[Curve]]:
    """Return the drawings of the histories below each folder of ``metrics/history``."""
    drawn: dict[str, list[Curve]] = {}
    for name in sorted(histories):
        folder, _, file = name.rpartition("/")
        curve = draw(label(file), histories[name])
        if curve:
            drawn.setdefault(label(folder), []).append(curve)
    return drawn


def draw(title: str, history: History) -> Curve | None:
    """Return the losses of a history as points, or nothing when it has none."""
    columns = [name for name in LINES if name in history.columns]
    epochs = sorted(history.rows)
    if not columns or not epochs:
        return None
    values = {name: [history.rows[epoch][history.columns.index(name)] for epoch in epochs] for name in columns}
    finite = [value for line in values.values() for value in line if math.isfinite(value)]
    top = max(finite, default=0.0) or 1.0
    across = max(1, epochs[-1] - epochs[0])
    lines = {
        LINES[name]: " ".join(
            f"{WIDTH * (epoch - epochs[0]) / across:.1f},{HEIGHT * (1 - max(0.0, value) / top):.1f}"
            for epoch, value in zip(epochs, line, strict=True)
            if math.isfinite(value)
        )
        for name, line in values.items()
    }
    broken = [
        epoch for place, epoch in enumerate(epochs) if not all(math.isfinite(line[place]) for line in values.values())
    ]
    return Curve(
        title,
        lines,
        epochs[0],
        epochs[-1],
        FORMATS["six"](float(f"{top:.3g}")) if finite else "–",
        min(broken, default=None),
    )
