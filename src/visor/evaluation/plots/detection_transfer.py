"""Heat map of the transfer between detectors."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.evaluation.plots.base import heat_map, save


def transfer_map(table: pd.DataFrame, path: Path) -> None:
    """Save a PNG of vanished faces: scenes (rows) by detector (columns), coloured by what did not vanish.

    ``table`` has a row for each pair of ``scenes`` and ``detector``, with ``vanished`` and ``ap_50``.
    """
    scenes, detectors = (list(dict.fromkeys(table[column])) for column in ("scenes", "detector"))
    wide = table.pivot(index="scenes", columns="detector", values=["vanished", "ap_50"])
    vanished, ap = (wide[value].loc[scenes, detectors].to_numpy(float) for value in ("vanished", "ap_50"))
    texts = [[f"{v:.0%}\nAP {a:.2f}" for v, a in zip(*pair, strict=True)] for pair in zip(vanished, ap, strict=True)]
    figure = Figure(figsize=(1.35 * len(detectors) + 2.4, 0.6 * len(scenes) + 1.5), layout="constrained")
    axis, ticks = figure.subplots(), (list(map(label, scenes)), list(map(label, detectors)))
    heat_map(axis, 1 - vanished, texts, ticks, is_dark=lambda value: abs(value - 0.5) > 0.4, fontsize="small")
    axis.set(xlabel="shown to", ylabel="scenes")
    axis.set_title("faces that vanished, and AP at IoU 0.5", fontsize="medium")
    save(figure, path)
