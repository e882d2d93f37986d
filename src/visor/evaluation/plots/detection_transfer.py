"""Heat map of the transfer between detectors."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.evaluation.plots.base import save


def transfer_map(table: pd.DataFrame, path: Path) -> None:
    """Save a PNG of AP at IoU 0.5: scenes (rows) shown to detectors (columns), coloured by what is left of clean AP.

    ``table`` has a line for each pair of ``scenes`` and ``detector``, with ``ap_50`` and ``kept``.
    """
    scenes, detectors = (list(dict.fromkeys(table[column])) for column in ("scenes", "detector"))
    kept, ap = (
        table.pivot(index="scenes", columns="detector", values=v).loc[scenes, detectors] for v in ("kept", "ap_50")
    )
    figure = Figure(figsize=(1.35 * len(detectors) + 2.4, 0.6 * len(scenes) + 1.5), layout="constrained")
    axis = figure.subplots()
    axis.imshow(kept.to_numpy(float), cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(ap.to_numpy(float)):
        left = float(kept.to_numpy(float)[row, column])
        colour = "white" if abs(left - 0.5) > 0.4 else "black"
        label = f"{value:.2f}\n({left:.0%})"
        axis.text(column, row, label, ha="center", va="center", fontsize="small", color=colour)
    axis.set_yticks(range(len(scenes)), [each.replace("_", " ") for each in scenes])
    axis.set_xticks(range(len(detectors)), [each.replace("_", " ") for each in detectors])
    axis.set(xlabel="shown to", ylabel="scenes")
    axis.set_title("AP at IoU 0.5, and what is left of it", fontsize="medium")
    save(figure, path)
