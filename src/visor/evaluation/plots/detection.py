"""Figures of attacks on one detector: contact sheet with boxes, precision-recall curves, AP by IoU and by eps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from visor.core.tables import label
from visor.core.types import Boxes, Floats, ImageArray
from visor.data.images import BoxStyle, amplified_difference, contact_sheet, draw_boxes
from visor.data.scene_set import FACE
from visor.evaluation.conditions import ATTACKED_CLEAN, Condition
from visor.evaluation.detection import DetectionFindings, LetterboxedScenes, by_iou, read_attacked
from visor.evaluation.plots.base import save

COLUMNS = 8
SIDE = 192  # pixels of a scene in the sheet
GAIN = 10  # of the perturbation
WHITE, GREEN, RED = BoxStyle((255, 255, 255)), BoxStyle((60, 230, 60)), BoxStyle((255, 60, 60))


def hidden_sheet(
    clean: LetterboxedScenes, folder: Path, condition: Condition, detected: Mapping[str, Sequence[Boxes]], path: Path
) -> None:
    """Save a PNG of some scenes with faces: true boxes white, detections green, those after the attack red.

    Below them the perturbation on grey, amplified. ``detected``: boxes in each scene, by condition; ``folder``: that
    of the attacked scenes.
    """
    before, after = detected[ATTACKED_CLEAN], detected[condition.name]
    attacked = read_attacked(folder / condition.file_name, clean)
    rows: list[list[ImageArray]] = [[], [], [], []]
    start = 0
    for (images, (boxes, kinds)), (changed, _) in zip(clean.stream(), attacked, strict=True):
        for place in np.flatnonzero((kinds == FACE).any(axis=1))[: COLUMNS - len(rows[0])]:
            image, attacked_image = images[place], changed[place]
            rows[0].append(_with_boxes(image, boxes[place][kinds[place] == FACE], WHITE))
            rows[1].append(_with_boxes(image, before[start + place], GREEN))
            rows[2].append(_with_boxes(attacked_image, after[start + place], RED))
            rows[3].append(_enlarged(amplified_difference(image, attacked_image, GAIN)))
        start += len(images)
        if len(rows[0]) == COLUMNS:
            break
    names = ("faces", "found", "found after\nthe attack", f"perturbation,\n{GAIN} times")
    contact_sheet([(name, np.stack(row)) for name, row in zip(names, rows, strict=True)], path, scale=1)


def _with_boxes(image: ImageArray, boxes: Boxes, style: BoxStyle) -> ImageArray:
    """Return an image uint8 (s, s, 3) enlarged to ``SIDE`` with boxes (k, 4) drawn on it."""
    scaled = SIDE / len(image) * np.asarray(boxes, float)
    return draw_boxes(_enlarged(image), [(box, style) for box in scaled])


def _enlarged(image: ImageArray) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


SHADES = {"noise": "Greens", "attack": "Reds", "jpeg": "Blues", "scaled": "Oranges", "objective": "Purples"}
DASHES = {"test_set": "-.", "clean": "-", "noise": "--", "attack": "-", "jpeg": ":", "scaled": ":", "objective": "-"}


def draw(findings: DetectionFindings, name: str, folder: Path) -> None:
    """Save ``precision_recall.png``, ``ap_by_iou.png`` and ``by_eps.png`` of one detector."""
    precision_recall(findings.curves, findings.table, name, folder / "precision_recall.png")
    ap_by_iou(findings.table, name, folder / "ap_by_iou.png")
    by_eps(findings.table, name, folder / "by_eps.png")


def precision_recall(curves: Mapping[str, tuple[Floats, Floats]], table: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: the envelope of precision over recall at IoU 0.5, one line per condition."""
    figure, axis = _figure(f"{label(name)}, IoU 0.5", "recall", "precision")
    for condition, style in styles(table).items():
        precision, recall = curves[condition]
        # The curve falls to zero beyond the last recall.
        heights, places = [*precision[:1], *precision, 0.0], [0.0, *recall, *(recall[-1:] if len(recall) else [0.0])]
        axis.plot(places, heights, drawstyle="steps-pre", **style)
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01))
    _finish(figure, axis, path)


def ap_by_iou(table: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: average precision over the IoU that a detection must reach, one line per condition."""
    figure, axis = _figure(label(name), "IoU that a box must reach", "average precision")
    curves = by_iou(table)
    for condition, style in styles(table).items():
        curve = curves[curves["condition"] == condition]
        axis.plot(curve["iou"], curve["ap"], marker="o", markersize=3, **style)
    axis.set(ylim=(-0.02, 1.02))
    _finish(figure, axis, path)


BY_EPS = {"vanished": "share of faces that vanished", "recall_30": "recall at IoU 0.3", "ap_50": "AP at IoU 0.5"}


def by_eps(table: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: an axis per metric, over the size of the perturbation, one line per number of steps.

    The bands are the intervals over scenes.
    """
    figure = Figure(figsize=(3.6 * len(BY_EPS), 3.8), layout="constrained")
    clean, attacked = table[table["kind"] == "clean"], table[table["kind"] == "attack"]
    counts = sorted(attacked["iterations"].unique())
    lines: list[tuple[pd.DataFrame, str, Any, str]] = [(table[table["kind"] == "noise"], "s--", "tab:green", "noise")]
    for iterations, colour in zip(counts, _shades("Reds", len(counts)), strict=True):
        lines.append((attacked[attacked["iterations"] == iterations], "o-", colour, f"PGD, {iterations} steps"))
    for axis, (key, title) in zip(figure.subplots(1, len(BY_EPS)), BY_EPS.items(), strict=True):
        for rows, style, colour, text in lines:
            curve = pd.concat([clean, rows]).sort_values("eps")
            axis.plot(curve["eps"], curve[key], style, color=colour, markersize=4, label=text)
            low, high = curve[f"{key}_low"], curve[f"{key}_high"]
            axis.fill_between(curve["eps"], low, high, color=colour, alpha=0.1, linewidth=0)
        axis.set(title=title, xlabel="eps, levels of 255", ylim=(-0.02, 1.02), xticks=sorted(table["eps"].unique()))
        axis.grid(alpha=0.3)
    figure.suptitle(label(name))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=len(lines), fontsize="small")
    save(figure, path)


def styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the label, colour and dashes of each condition: one hue per kind, darker for each further one."""
    by_name: dict[str, dict[str, Any]] = {}
    for kind, rows in ((str(kind), rows) for kind, rows in table.groupby("kind", sort=False)):
        colours = _shades(SHADES[kind], len(rows)) if kind in SHADES else ["black"]
        for name, title, colour in zip(rows["name"], rows["title"], colours, strict=True):
            by_name[name] = {"label": title, "color": colour, "linestyle": DASHES[kind]}
    return by_name


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
