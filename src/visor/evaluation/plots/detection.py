"""Contact sheets of scenes with boxes: what is there, what was found, and what is found after an attack."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from visor.core.params import AttackStrength
from visor.core.types import Boxes, Floats, ImageArray
from visor.data.images import contact_sheet
from visor.data.scene_set import FACE
from visor.evaluation.detection import DetectionFindings, LetterboxedScenes, by_iou, read_attacked, strength_name
from visor.evaluation.plots.base import save

COLUMNS = 8
SIDE = 192  # pixels of a scene in the sheet
GAIN = 10  # times, of the perturbation
WHITE, GREEN, RED = (255, 255, 255), (60, 230, 60), (255, 60, 60)


def hidden_sheet(
    clean: LetterboxedScenes, folder: Path, strength: AttackStrength, found: Mapping[str, Sequence[Boxes]], path: Path
) -> None:
    """Save a PNG of some scenes with faces: true boxes white, found ones green, those after the attack red.

    ``found``: boxes in each scene, under ``clean`` and the name of the strength; its scenes are in ``folder``. The
    last line is the perturbation on grey, ten times as large.
    """
    before, after = found["clean"], found[f"pgd_{strength_name(strength)}"]
    attacked = read_attacked(folder / f"{strength_name(strength)}.h5", clean)
    lines: list[list[ImageArray]] = [[], [], [], []]
    place = 0
    for (images, (boxes, kinds)), (changed, _) in zip(clean.stream(), attacked, strict=True):
        for row in np.flatnonzero((kinds == FACE).any(axis=1))[: COLUMNS - len(lines[0])]:
            image, other = images[row], changed[row]
            lines[0].append(draw_boxes_on(image, boxes[row][kinds[row] == FACE], WHITE))
            lines[1].append(draw_boxes_on(image, before[place + row], GREEN))
            lines[2].append(draw_boxes_on(other, after[place + row], RED))
            lines[3].append(_enlarged(np.clip(127.0 + GAIN * (other - image.astype(float)), 0, 255).astype(np.uint8)))
        place += len(images)
        if len(lines[0]) == COLUMNS:
            break
    names = ("faces", "found", "found after\nthe attack", f"perturbation,\n{GAIN} times")
    contact_sheet([(name, np.stack(line)) for name, line in zip(names, lines, strict=True)], path, scale=1)


def draw_boxes_on(image: ImageArray, boxes: Boxes, colour: tuple[int, int, int]) -> ImageArray:
    """Return an image uint8 (s, s, 3) enlarged to ``SIDE`` with boxes (k, 4) drawn on it."""
    scale = SIDE / len(image)
    picture = Image.fromarray(_enlarged(image))
    draw = ImageDraw.Draw(picture)
    for x, y, width, height in scale * np.asarray(boxes, float):
        draw.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=colour, width=2)
    return np.asarray(picture)


def _enlarged(image: ImageArray) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


SHADES = {"noise": "Greens", "pgd": "Reds", "jpeg": "Blues"}
DASHES = {"clean": "-", "noise": "--", "pgd": "-", "jpeg": ":"}


def draw(found: DetectionFindings, name: str, folder: Path) -> None:
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
