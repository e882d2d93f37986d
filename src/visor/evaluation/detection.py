"""Scenes as detectors are shown them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from visor.attacks.evasion.loop import Attack, AttackSettings
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES, FACE_RADIUS, face_masks
from visor.attacks.evasion.pgd import compile_pgd
from visor.attacks.evasion.quantise import quantise_within_eps, random_sign_noise
from visor.core.errors import UserError
from visor.core.params import AttackStrength, DetectionAttackParams
from visor.core.params import DetectorParams as Settings
from visor.core.types import Boxes, Floats, ImageArray, Integers, Rows
from visor.data.images import jpeg_round_trip
from visor.data.scene_set import (
    FACE,
    IGNORE,
    PADDING,
    GroundTruth,
    Scene,
    SceneSet,
    letterbox,
    open_scenes,
    read_letterboxed,
    write_scenes,
)
from visor.evaluation.boxes import (
    IOUS,
    DetectionMatches,
    FaceOutcomes,
    ap_and_recall,
    concatenate,
    count_outcomes,
    match_boxes,
    precision_recall,
)
from visor.evaluation.image_distances import distance_summary, image_distances

if TYPE_CHECKING:
    from visor.models.detectors import Detector
Stream = Iterable[tuple[ImageArray, GroundTruth]]


class LetterboxedScenes(NamedTuple):
    """Scenes as a detector is shown them: letterboxed to ``side``, in batches, read anew by each stream."""

    scenes: SceneSet
    rows: Rows
    side: int
    batch: int

    def stream(self) -> Iterator[tuple[ImageArray, GroundTruth]]:
        """Yield images uint8 (k, side, side, 3) and their truth (``visor.data.scene_set.read_canvases``)."""
        return read_letterboxed(self.scenes, self.rows, self.side, self.batch, self.scenes.max_boxes)

    def with_rows(self) -> Iterator[tuple[Rows, ImageArray, GroundTruth]]:
        """Yield the rows (k,) of a batch in front of it."""
        for place, (images, truth) in enumerate(self.stream()):
            yield self.rows[place * self.batch :][: len(images)], images, truth


def test_scenes(scenes: SceneSet, most: int, side: int, batch: int) -> LetterboxedScenes:
    """Return the first ``most`` test scenes.

    Raises:
        UserError: there is no face in them.
    """
    rows = scenes.rows("test")[:most]
    if not any((scenes.ground_truth(row)[1] == FACE).any() for row in rows):
        raise UserError(f"{scenes.path}: its test scenes hold no face to find; raise scenes.test or hiding.images")
    return LetterboxedScenes(scenes, rows, side, batch)


def input_side(settings: Settings, largest: int) -> int:
    """Return the side of the images that a detector is shown: its own ``side``, or the largest of the scenes."""
    return int(settings.options.get("input_size") or largest)


class Condition(NamedTuple):
    """A line of the table; ``kind`` is clean, noise, pgd, or jpeg: the attacked scenes saved with this quality."""

    name: str
    title: str
    kind: str
    eps: float = 0.0
    iterations: int = 0
    quality: int = 0


def conditions(settings: DetectionAttackParams) -> list[Condition]:
    """Return the lines of the table: clean, noise of each size, every strength, and the last one saved as JPEG."""
    last = settings.strengths[-1]
    found = [Condition("clean", "clean", "clean"), *(noise(each) for each in settings.strengths)]
    for eps, steps in ((each.eps, each.iterations) for each in settings.strengths):
        found.append(Condition(f"pgd_{eps:g}x{steps}", f"PGD {eps:g}, {steps} steps", "pgd", eps, steps))
    for quality in settings.jpeg:
        name = f"jpeg{quality}_{strength_name(last)}"
        title = f"PGD {last.eps:g}, JPEG {quality}"
        found.append(Condition(name, title, "jpeg", last.eps, last.iterations, quality))
    return list(dict.fromkeys(found))


def noise(strength: AttackStrength) -> Condition:
    """Return the control of an attack: a random sign of the same size in every value."""
    return Condition(f"noise_{strength.eps:g}", f"noise {strength.eps:g}", "noise", strength.eps)


def strength_name(strength: AttackStrength | Condition) -> str:
    """Name a strength, such as 0.02x40, and the file of the scenes attacked with it."""
    return f"{strength.eps:g}x{strength.iterations}"


def compile_condition_attack(
    detector: Detector, objective: str | None, strength: Condition, settings: DetectionAttackParams, seed: int
) -> Attack:
    """Return PGD against a detector.

    Raises:
        UserError: it gives no gradient, or params name no objective for it.
    """
    if detector.pre_nms is None or objective is None:
        raise UserError(
            f"params.yaml: detection_attack.detectors: {detector.name} has no gradient, or detectors.{detector.name} "
            "has no loss; remove the detector or add a loss"
        )
    step = settings.relative_step * strength.eps / strength.iterations
    search = AttackSettings(
        eps=strength.eps,
        iterations=strength.iterations,
        step=step,
        momentum=settings.momentum,
        random_start=settings.random_start,
        early_stop=settings.early_stop,
        precision=settings.precision,
        seed=seed,
    )
    loss = DETECTOR_LOSSES[objective](detector.pre_nms, detector.loss, detector.threshold, FACE_RADIUS)
    return compile_pgd(loss, search)


def write_attacked(
    attack: Attack, clean: LetterboxedScenes, eps: float, settings: DetectionAttackParams, path: Path
) -> tuple[Integers, float]:
    """Write the attacked scenes, eight bits a value.

    Returns:
        The gradient steps int32 (n,) that each took, and the seconds that the attack took of all.
    """
    steps, seconds = [], []

    def attacked() -> Iterator[Scene]:
        for rows, images, truth in clean.with_rows():
            start = perf_counter()
            found = attack(images, truth, rows, _attack_mask(clean, rows, truth, settings))
            seconds.append(perf_counter() - start)
            steps.append(found.steps)
            hidden = quantise_within_eps(found.images, images, eps)
            yield from (_scene(clean, *parts) for parts in zip(rows, hidden, *truth, strict=True))

    write_scenes(path, attacked(), clean.scenes.source, clean.scenes.licence)
    return np.concatenate(steps), sum(seconds)


def condition_images(
    condition: Condition, clean: LetterboxedScenes, settings: DetectionAttackParams, seed: int, folder: Path
) -> Stream:
    """Return the scenes of a condition as a stream; what was attacked is read back from ``folder``."""
    if condition.kind == "clean":
        return clean.stream()
    if condition.kind == "noise":
        return _noisy(clean, condition.eps, settings, seed)
    stored = read_attacked(folder / f"{strength_name(condition)}.h5", clean)
    return stored if condition.kind == "pgd" else _compressed(stored, condition.quality)


def read_attacked(path: Path, clean: LetterboxedScenes) -> Stream:
    """Read attacked scenes back, in the batches of the clean ones."""
    scenes = open_scenes(path)
    return read_letterboxed(scenes, np.arange(len(scenes)), clean.side, clean.batch, clean.scenes.max_boxes)


def _noisy(
    clean: LetterboxedScenes, eps: float, settings: DetectionAttackParams, seed: int
) -> Iterator[tuple[ImageArray, GroundTruth]]:
    """Yield scenes with a random sign of the same size in every value that the attack may change."""
    for rows, images, truth in clean.with_rows():
        noise, masks = random_sign_noise(images, eps, seed, rows), _attack_mask(clean, rows, truth, settings)
        yield noise if masks is None else np.where(masks > 0, noise, images), truth


def _compressed(stream: Stream, quality: int) -> Iterator[tuple[ImageArray, GroundTruth]]:
    """Yield scenes as they come out of JPEG files of this quality."""
    for images, truth in stream:
        yield np.stack([jpeg_round_trip(image, quality) for image in images]), truth


def _attack_mask(
    clean: LetterboxedScenes, rows: Rows, truth: GroundTruth, settings: DetectionAttackParams
) -> NDArray[np.float32] | None:
    """Return masks (k, side, side, 1), 1 where an attack may change pixels: not on the grey beside a picture.

    None where that is everywhere.
    """
    shapes = clean.scenes.shapes[rows]
    if settings.mask == "none" and (shapes[:, 0] == shapes[:, 1]).all():
        return None
    masks = np.stack([_content_mask(height, width, clean.side) for height, width in shapes])
    if settings.mask == "faces":
        masks *= face_masks(*truth, (clean.side, clean.side), settings.margin)
    return masks


def _content_mask(height: int, width: int, side: int) -> NDArray[np.float32]:
    """Return 1 where a letterboxed picture is and 0 beside it, (side, side, 1)."""
    black, _ = letterbox(np.zeros((height, width, 3), np.uint8), np.zeros((0, 4), np.float32), side)
    return (black[..., :1] == 0).astype(np.float32)


def _scene(clean: LetterboxedScenes, row: int, image: ImageArray, boxes: Boxes, kinds: Integers) -> Scene:
    """Return an attacked scene with the truth of its canvas."""
    real = kinds != PADDING
    part = slice(clean.scenes.starts[row], clean.scenes.starts[row + 1])
    attributes = clean.scenes.attributes[part]
    return Scene(clean.scenes.names[row], image, boxes[real], kinds[real] == IGNORE, attributes, "test")


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


class DetectionResults(NamedTuple):
    """What a detector made of n scenes: all matches, and for each scene its sure boxes and what became of its faces."""

    pooled: DetectionMatches
    sure: list[Boxes]
    outcomes: list[FaceOutcomes]
    seconds: float  # that it took; never written, or bytes would not repeat


class DetectionFindings(NamedTuple):
    """All that was measured of one detector, by condition."""

    table: pd.DataFrame  # a line a condition: its name, kind, eps, iterations, quality, and its numbers
    scenes: pd.DataFrame  # a line a condition and scene: what became of its faces, and the gradient steps taken
    curves: dict[str, tuple[Floats, Floats]]  # precision and recall at IoU 0.5
    boxes: dict[str, list[Boxes]]  # of at least the threshold, by scene: clean and attacked


def evaluate(
    detector: Detector,
    objective: str | None,
    clean: LetterboxedScenes,
    settings: DetectionAttackParams,
    seed: int,
    folder: Path,
) -> DetectionFindings:
    """Measure a detector under every condition; attacked scenes are written to ``folder`` and read back.

    Raises:
        UserError: the detector cannot be attacked.
    """
    plan, lines, tables, curves = conditions(settings), [], [], {}
    boxes: dict[str, list[Boxes]] = {}
    steps: Integers = np.zeros(len(clean.rows), np.int32)
    attacks = {
        each: compile_condition_attack(detector, objective, each, settings, seed) for each in plan if each.kind == "pgd"
    }
    count = len(clean.rows)
    with tqdm(total=count * len(plan), desc=detector.name, unit="scene", disable=None) as bar:
        for each in plan:
            seconds = 0.0
            if each.kind == "pgd":
                path = folder / f"{strength_name(each)}.h5"
                steps, seconds = write_attacked(attacks.pop(each), clean, each.eps, settings, path)
            apart: list[Floats] = []
            stream = _compared(clean, condition_images(each, clean, settings, seed, folder), apart)
            seen = run_detector(detector, stream, boxes.get("clean"), bar.update)
            measured = {"steps": float(steps.mean()), **distance_summary(np.concatenate(apart))}
            lines.append({**each._asdict(), **detection_metrics(seen, detector.threshold), **measured})
            tables.append(_outcome_table(each, clean, seen, steps))
            curves[each.name] = precision_recall(seen.pooled, AT_HALF)
            if each.kind in ("clean", "pgd"):
                boxes[each.name] = seen.sure
            message = (
                f"{detector.name} {each.name}: {seconds / count:.3f} s to attack and {seen.seconds / count:.3f} s "
            )
            tqdm.write(f"{message}to search an image", file=sys.stderr)
    return DetectionFindings(pd.DataFrame(lines), pd.concat(tables, ignore_index=True), curves, boxes)


def run_detector(
    detector: Detector,
    stream: Stream,
    before: Sequence[Boxes] | None = None,
    advance: Callable[[int], Any] = lambda images: None,
) -> DetectionResults:
    """Show a stream of scenes to a detector; only boxes and scores are kept.

    ``before``: the sure boxes in each scene when it was clean, default: now. ``advance`` is told of progress.
    """
    matches: list[DetectionMatches] = []
    sure: list[Boxes] = []
    fates: list[FaceOutcomes] = []
    seconds = 0.0
    for images, (boxes, kinds) in stream:
        start = perf_counter()
        answers = detector.detect(images)
        seconds += perf_counter() - start
        for found, *truth in zip(answers, boxes, kinds, strict=True):
            matches.append(match_boxes((found.boxes, found.scores), (truth[0], truth[1])))
            sure.append(found.boxes[found.scores >= detector.threshold])
            known = sure[-1] if before is None else before[len(fates)]
            fates.append(count_outcomes((truth[0], truth[1]), known, sure[-1]))
        advance(len(images))
    return DetectionResults(concatenate(matches), sure, fates, seconds)


def detection_metrics(seen: DetectionResults, threshold: float) -> dict[str, float]:
    """Return AP and recall by IoU, and what became of the faces ``found_before``: shares of them."""
    found, vanished, moved, still_there, hallucinations = np.sum(seen.outcomes, axis=0).tolist()
    shares = {"vanished": vanished, "moved": moved, "still_there": still_there}
    return {
        **ap_and_recall(seen.pooled, threshold),
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


def detection_table(table: pd.DataFrame, name: str) -> str:
    """Return the table for people."""
    lines = [f"| condition | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for line in table.to_dict("records"):
        cells = [format(line[key], form) if np.isfinite(line[key]) else "–" for key, form in COLUMNS.values()]
        lines.append(f"| {line['title']} | {' | '.join(cells)} |")
    about = (
        f"{table['images'][0]} scenes, {table['faces'][0]} faces, {table['found_before'][0]} of them found when clean"
    )
    return "\n".join([f"# Hiding faces from {name.replace('_', ' ')}: {about}", "", *lines, ""])


def _compared(
    clean: LetterboxedScenes, stream: Stream, apart: list[Floats]
) -> Iterator[tuple[ImageArray, GroundTruth]]:
    """Pass a stream on, and note how far its images are from the clean ones."""
    for (original, _), (images, truth) in zip(clean.stream(), stream, strict=True):
        apart.append(image_distances(original, images))
        yield images, truth


def _outcome_table(
    condition: Condition, clean: LetterboxedScenes, seen: DetectionResults, steps: Integers
) -> pd.DataFrame:
    table = pd.DataFrame(seen.outcomes, columns=list(FaceOutcomes._fields))
    table.insert(0, "scene", [clean.scenes.names[row] for row in clean.rows])
    table.insert(0, "condition", condition.name)
    return table.assign(steps=steps)
