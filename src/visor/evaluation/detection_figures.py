"""Figures of detectors under attack: precision and recall, AP by IoU and by eps, transfer between detectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visor.evaluation.detection import Findings, Floats, by_iou
from visor.evaluation.figures import save

SHADES = {"noise": "Greens", "pgd": "Reds", "jpeg": "Blues"}
DASHES = {"clean": "-", "noise": "--", "pgd": "-", "jpeg": ":"}


def draw(found: Findings, name: str, folder: Path) -> None:
    """Save ``precision_recall.png``, ``ap_by_iou.png`` and ``ap_by_eps.png`` of one detector."""
    precision_recall(found.curves, found.table, name, folder / "precision_recall.png")
    ap_by_iou(found.table, name, folder / "ap_by_iou.png")
    ap_by_eps(found.table, name, folder / "ap_by_eps.png")


def precision_recall(curves: Mapping[str, tuple[Floats, Floats]], table: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: the envelope of precision over recall at IoU 0.5, a line a condition."""
    figure, axis = _figure(f"{_plain(name)}, IoU 0.5", "recall", "precision")
    for condition, style in styles(table).items():
        precision, recall = curves[condition]
        # Nothing is found beyond the last recall: the curve falls to zero there.
        heights, places = [*precision[:1], *precision, 0.0], [0.0, *recall, *(recall[-1:] if len(recall) else [0.0])]
        axis.plot(places, heights, drawstyle="steps-pre", **style)
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01))
    _finish(figure, axis, path)


def ap_by_iou(table: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: average precision over the IoU that a found box must reach, a line a condition."""
    figure, axis = _figure(_plain(name), "IoU that a box must reach", "average precision")
    curves = by_iou(table)
    for condition, style in styles(table).items():
        curve = curves[curves["condition"] == condition]
        axis.plot(curve["iou"], curve["ap"], marker="o", markersize=3, **style)
    axis.set(ylim=(-0.02, 1.02))
    _finish(figure, axis, path)


def ap_by_eps(table: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: average precision at IoU 0.5 by size of the perturbation, a line for each number of steps."""
    figure, axis = _figure(f"{_plain(name)}, IoU 0.5", "eps: L∞ bound, pixels in [0, 1]", "average precision")
    clean, attacked = table[table["kind"] == "clean"], table[table["kind"] == "pgd"]
    noise = pd.concat([clean, table[table["kind"] == "noise"]]).sort_values("eps")
    axis.plot(noise["eps"], noise["ap_50"], "s--", color="tab:green", markersize=4, label="noise")
    counts = sorted(attacked["iterations"].unique())
    for place, (iterations, colour) in enumerate(zip(counts, _shades("Reds", len(counts)), strict=True)):
        curve = pd.concat([clean, attacked[attacked["iterations"] == iterations]]).sort_values("eps")
        size = 4 + 4 * (len(counts) - 1 - place)  # where curves coincide the earlier ones show around the later
        axis.plot(curve["eps"], curve["ap_50"], "o-", color=colour, markersize=size, label=f"PGD, {iterations} steps")
    axis.set(ylim=(-0.02, 1.02), xticks=sorted(table["eps"].unique()))
    _finish(figure, axis, path)


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
    axis.set_yticks(range(len(scenes)), [_plain(each) for each in scenes])
    axis.set_xticks(range(len(detectors)), [_plain(each) for each in detectors])
    axis.set(xlabel="shown to", ylabel="scenes")
    axis.set_title("AP at IoU 0.5, and what is left of it", fontsize="medium")
    save(figure, path)


def styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the label, colour and dashes of each condition: a hue a kind, darker for each further one."""
    found: dict[str, dict[str, Any]] = {}
    for kind, lines in ((str(kind), lines) for kind, lines in table.groupby("kind", sort=False)):
        colours = _shades(SHADES[kind], len(lines)) if kind in SHADES else ["black"]
        for name, title, colour in zip(lines["name"], lines["title"], colours, strict=True):
            found[name] = {"label": title, "color": colour, "linestyle": DASHES[kind]}
    return found


def _shades(colours: str, count: int) -> list[tuple[float, ...]]:
    return [colormaps[colours](place) for place in np.linspace(0.45, 0.95, count)]


def _figure(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.set(title=title, xlabel=across, ylabel=up)
    axis.grid(alpha=0.3)
    return figure, axis


def _finish(figure: Figure, axis: Axes, path: Path) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    save(figure, path)


def _plain(name: str) -> str:
    return name.replace("_", " ")
