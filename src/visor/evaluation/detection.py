"""How well a detector finds faces, and how well PGD hides them from it: AP, recall and what became of each face."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from visor.boxes import IOUS, Matches, Outcomes, match, numbers, outcomes, pool, precision_recall
from visor.evaluation.canvases import Canvases, Stream
from visor.evaluation.distances import distances, summary
from visor.evaluation.hiding import Condition, changed, conditions, hide, prepare, strength_name
from visor.faces import Images, Integers
from visor.params import Hiding
from visor.scenes import Boxes, Truth

if TYPE_CHECKING:
    from visor.detectors import Detector

AT_HALF = IOUS.index(0.5)
COLUMNS = {
    "AP@.3": ("ap_30", ".3f"),
    "AP@.5": ("ap_50", ".3f"),
    "AP@.7": ("ap_70", ".3f"),
    "recall@.5": ("recall_50", ".3f"),
    "vanished": ("vanished", ".1%"),
    "moved": ("moved", ".1%"),
    "still there": ("still_there", ".1%"),
    "false an image": ("hallucinations_per_image", ".2f"),
    "L∞": ("linf", ".4f"),
    "L2": ("l2", ".2f"),
    "SSIM": ("ssim", ".3f"),
    "PSNR": ("psnr", ".1f"),
    "steps": ("steps", ".1f"),
}

Floats = NDArray[np.floating[Any]]


class Seen(NamedTuple):
    """What a detector made of n scenes: all matches, and for each scene its sure boxes and what became of its faces."""

    pooled: Matches
    sure: list[Boxes]
    outcomes: list[Outcomes]
    seconds: float  # that it took; never written, or bytes would not repeat


class Findings(NamedTuple):
    """All that was measured of one detector, by condition."""

    table: pd.DataFrame  # a line a condition: its name, kind, eps, iterations, quality, and its numbers
    scenes: pd.DataFrame  # a line a condition and scene: what became of its faces, and the gradient steps taken
    curves: dict[str, tuple[Floats, Floats]]  # precision and recall at IoU 0.5
    boxes: dict[str, list[Boxes]]  # of at least the threshold, by scene: clean and attacked


def evaluate(
    detector: Detector, objective: str | None, clean: Canvases, settings: Hiding, seed: int, folder: Path
) -> Findings:
    """Measure a detector under every condition; attacked scenes are written to ``folder`` and read back.

    Raises:
        UserError: the detector cannot be attacked.
    """
    plan, lines, tables, curves = conditions(settings), [], [], {}
    boxes: dict[str, list[Boxes]] = {}
    steps = np.zeros(len(clean.rows), np.int32)
    attacks = {each: prepare(detector, objective, each, settings, seed) for each in plan if each.kind == "pgd"}
    count = len(clean.rows)
    with tqdm(total=count * len(plan), desc=detector.name, unit="scene", disable=None) as bar:
        for each in plan:
            seconds = 0.0
            if each.kind == "pgd":
                path = folder / f"{strength_name(each)}.h5"
                steps, seconds = hide(attacks.pop(each), clean, each.eps, settings, path)
            apart: list[Floats] = []
            stream = _compared(clean, changed(each, clean, settings, seed, folder), apart)
            seen = look(detector, stream, boxes.get("clean"), bar.update)
            measured = {"steps": float(steps.mean()), **summary(np.concatenate(apart))}
            lines.append({**each._asdict(), **seen_numbers(seen, detector.threshold), **measured})
            tables.append(_fates(each, clean, seen, steps))
            curves[each.name] = precision_recall(seen.pooled, AT_HALF)
            if each.kind in ("clean", "pgd"):
                boxes[each.name] = seen.sure
            told = f"{detector.name} {each.name}: {seconds / count:.3f} s to attack and {seen.seconds / count:.3f} s "
            tqdm.write(f"{told}to search an image", file=sys.stderr)
    return Findings(pd.DataFrame(lines), pd.concat(tables, ignore_index=True), curves, boxes)


def look(
    detector: Detector,
    stream: Stream,
    before: Sequence[Boxes] | None = None,
    advance: Callable[[int], Any] = lambda images: None,
) -> Seen:
    """Show a stream of scenes to a detector; only boxes and scores are kept.

    ``before``: the sure boxes in each scene when it was clean, default: now. ``advance`` is told of progress.
    """
    matches: list[Matches] = []
    sure: list[Boxes] = []
    fates: list[Outcomes] = []
    seconds = 0.0
    for images, (boxes, kinds) in stream:
        start = perf_counter()
        answers = detector.detect(images)
        seconds += perf_counter() - start
        for found, *truth in zip(answers, boxes, kinds, strict=True):
            matches.append(match((found.boxes, found.scores), (truth[0], truth[1])))
            sure.append(found.boxes[found.scores >= detector.threshold])
            known = sure[-1] if before is None else before[len(fates)]
            fates.append(outcomes((truth[0], truth[1]), known, sure[-1]))
        advance(len(images))
    return Seen(pool(matches), sure, fates, seconds)


def seen_numbers(seen: Seen, threshold: float) -> dict[str, float]:
    """Return AP and recall by IoU, and what became of the faces ``found_before``: shares of them."""
    found, vanished, moved, still_there, hallucinations = np.sum(seen.outcomes, axis=0).tolist()
    shares = {"vanished": vanished, "moved": moved, "still_there": still_there}
    return {
        **numbers(seen.pooled, threshold),
        **{name: count / max(1, found) for name, count in shares.items()},
        "found_before": found,
        "hallucinations_per_image": hallucinations / len(seen.sure),
        "faces": seen.pooled.faces,
        "images": len(seen.sure),
    }


def metrics_of(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the measured numbers of each condition; what has none, such as the PSNR of clean scenes, is left out."""
    found = {}
    for line in table.drop(columns=["title", "kind", "eps", "iterations", "quality"]).to_dict("records"):
        name = line.pop("name")
        found[name] = {str(key): value for key, value in line.items() if np.isfinite(value)}
    return found


def by_iou(table: pd.DataFrame) -> pd.DataFrame:
    """Return the curves of a table: a line a condition and IoU, with AP and recall."""
    lines = [
        {"condition": line["name"], "iou": iou, **{name: line[f"{name}_{100 * iou:.0f}"] for name in ("ap", "recall")}}
        for line in table.to_dict("records")
        for iou in IOUS
    ]
    return pd.DataFrame(lines)


def markdown(table: pd.DataFrame, name: str) -> str:
    """Return the table for people."""
    lines = [f"| condition | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for line in table.to_dict("records"):
        cells = [format(line[key], form) if np.isfinite(line[key]) else "–" for key, form in COLUMNS.values()]
        lines.append(f"| {line['title']} | {' | '.join(cells)} |")
    about = (
        f"{table['images'][0]} scenes, {table['faces'][0]} faces, {table['found_before'][0]} of them found when clean"
    )
    return "\n".join([f"# Hiding faces from {name.replace('_', ' ')}: {about}", "", *lines, ""])


def _compared(clean: Canvases, stream: Stream, apart: list[Floats]) -> Iterator[tuple[Images, Truth]]:
    """Pass a stream on, and note how far its images are from the clean ones."""
    for (original, _), (images, truth) in zip(clean.stream(), stream, strict=True):
        apart.append(distances(original, images))
        yield images, truth


def _fates(condition: Condition, clean: Canvases, seen: Seen, steps: Integers) -> pd.DataFrame:
    table = pd.DataFrame(seen.outcomes, columns=list(Outcomes._fields))
    table.insert(0, "scene", [clean.scenes.names[row] for row in clean.rows])
    table.insert(0, "condition", condition.name)
    return table.assign(steps=steps)
