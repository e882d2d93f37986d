"""Heat map of the transfer between detectors."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.evaluation.plots.base import heat_map, save


def transfer_map(table: pd.DataFrame, path: Path) -> None:
    """Save a PNG of AP at IoU 0.5: scenes (rows) by detector (columns), coloured by the share of clean AP.

    ``table`` has a row for each pair of ``scenes`` and ``detector``, with ``ap_50`` and ``kept``.
    """
    scenes, detectors = (list(dict.fromkeys(table[column])) for column in ("scenes", "detector"))
    wide = table.pivot(index="scenes", columns="detector", values=["kept", "ap_50"])
    kept, ap = (wide[value].loc[scenes, detectors].to_numpy(float) for value in ("kept", "ap_50"))
    texts = [[f"{a:.2f}\n({k:.0%})" for a, k in zip(*pair, strict=True)] for pair in zip(ap, kept, strict=True)]
    figure = Figure(figsize=(1.35 * len(detectors) + 2.4, 0.6 * len(scenes) + 1.5), layout="constrained")
    axis, ticks = figure.subplots(), (list(map(label, scenes)), list(map(label, detectors)))
    heat_map(axis, kept, texts, ticks, is_dark=lambda value: abs(value - 0.5) > 0.4, fontsize="small")
    axis.set(xlabel="shown to", ylabel="scenes")
    axis.set_title("AP at IoU 0.5, and what is left of it", fontsize="medium")
    save(figure, path)
