"""Attacks on one detector: scenes under each condition, what is detected in them, metrics and tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from visor.attacks.evasion.loop import Attack, AttackSettings
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES, FACE_RADIUS, face_masks
from visor.attacks.evasion.pgd import compile_pgd
from visor.attacks.evasion.quantise import quantise_within_eps, random_sign_noise
from visor.core.errors import UserError
from visor.core.params import DetectionAttackParams, DetectorParams
from visor.core.tables import label, text_table
from visor.core.types import Boxes, Floats, ImageArray, Integers, Rows, SeedStream
from visor.data import scene_set
from visor.data.face_set import evenly_spaced
from visor.data.scene_set import FACE, IGNORE, PADDING, GroundTruth, Scene, SceneSet
from visor.evaluation.boxes import (
    IOUS,
    DetectionMatches,
    FaceOutcomes,
    ap_and_recall,
    average_precision,
    concatenate,
    count_outcomes,
    match_boxes,
    precision_recall,
    recall_at,
)
from visor.evaluation.conditions import (
    ATTACKED_CLEAN,
    Condition,
    detection_conditions,
    save_images,
    scaled_clean,
)
from visor.evaluation.image_distances import distance_summary, image_distances
from visor.evaluation.metrics import CENTRAL, RESAMPLES, intervals, widen

if TYPE_CHECKING:
    from visor.models.detectors import Detector

Batch = tuple[ImageArray, GroundTruth]  # uint8 (k, side, side, 3) and its boxes and kinds
AT_THIRTY, AT_HALF = IOUS.index(0.3), IOUS.index(0.5)
ATTACKS = ("attack", "objective")  # kinds of conditions that run a search


class LetterboxedScenes(NamedTuple):
    """Scenes letterboxed to ``side``, in batches, read anew by each stream."""

    scenes: SceneSet
    rows: Rows
    side: int
    batch: int

    def stream(self) -> Iterator[Batch]:
        """Yield images and their ground truth (``visor.data.scene_set.read_letterboxed``)."""
        return scene_set.read_letterboxed(self.scenes, self.rows, self.side, self.batch, self.scenes.max_boxes)

    def with_rows(self) -> Iterator[tuple[Rows, ImageArray, GroundTruth]]:
        """Yield the rows (k,) of each batch in front of it."""
        for number, (images, truth) in enumerate(self.stream()):
            yield self.rows[number * self.batch :][: len(images)], images, truth


def load_test_scenes(scenes: SceneSet, side: int, batch: int, count: int | None = None) -> LetterboxedScenes:
    """Return all test scenes, or ``count`` evenly spaced ones, so that they show as many people as they can.

    Raises:
        UserError: There is no face in them.
    """
    rows = scenes.rows("test")
    rows = rows[evenly_spaced(len(rows) if count is None else count, len(rows))]
    if not any((scenes.ground_truth(row)[1] == FACE).any() for row in rows):
        raise UserError(f"{scenes.path}: no face in its test scenes; raise scenes.test or detection_attack.images")
    return LetterboxedScenes(scenes, rows, side, batch)


def input_side(settings: DetectorParams, max_side: int) -> int:
    """Return the side of a detector's input: its own ``input_size``, or the largest side of the scenes."""
    return int(settings.options.get("input_size") or max_side)


def attacked_conditions(detector: Detector, loss: str | None, settings: DetectionAttackParams) -> list[Condition]:
    """Return the conditions of a detector that ``loss`` attacks: not twice, nor with a loss that it has not.

    Raises:
        UserError: The detector gives no gradient, or params name no loss for it.
    """
    if detector.pre_nms is None or loss is None:
        raise UserError(
            f"params.yaml: detection_attack.detectors: {detector.name} has no gradient, or detectors.{detector.name} "
            "has no loss; remove the detector or add a loss"
        )
    left_out = {loss} if detector.loss else {loss, "training_loss"}
    return [condition for condition in detection_conditions(settings) if condition.method not in left_out]


def compile_condition_attack(
    detector: Detector, loss: str, condition: Condition, settings: DetectionAttackParams, seed: int
) -> Attack:
    """Compile PGD against a detector."""
    search = AttackSettings(
        eps=condition.bound,
        iterations=condition.iterations,
        step=settings.relative_step * condition.bound / condition.iterations,
        momentum=settings.momentum,
        random_start=settings.random_start,
        early_stop=settings.early_stop,
        seed=seed,
    )
    return compile_pgd(DETECTOR_LOSSES[loss](detector.pre_nms, detector.loss, detector.threshold, FACE_RADIUS), search)


def write_attacked(
    attack: Attack, clean: LetterboxedScenes, bound: float, settings: DetectionAttackParams, path: Path
) -> tuple[Integers, float]:
    """Write the attacked scenes as 8-bit images.

    Returns:
        The gradient steps int32 (n,) of each scene, and the seconds that the attack took.
    """
    steps, seconds = [], []

    def attacked() -> Iterator[Scene]:
        for rows, images, truth in clean.with_rows():
            start = perf_counter()
            result = attack(images, truth, rows, _attack_mask(clean, rows, truth, settings))
            seconds.append(perf_counter() - start)
            steps.append(result.steps)
            quantised = quantise_within_eps(result.images, images, bound)
            yield from (_scene(clean, *parts) for parts in zip(rows, quantised, *truth, strict=True))

    scene_set.write_scenes(path, attacked(), clean.scenes.source, clean.scenes.licence)
    return np.concatenate(steps), sum(seconds)


def condition_images(
    condition: Condition, clean: LetterboxedScenes, settings: DetectionAttackParams, seed: int, folder: Path
) -> Iterator[Batch]:
    """Yield the scenes of a condition, in the batches of the clean ones; attacked ones are read from ``folder``."""
    if condition.kind == "noise":
        batches = _noisy(condition, clean, settings, seed)
    else:
        batches = read_attacked(folder / condition.file_name, clean) if condition.iterations else clean.stream()
    for images, (boxes, kinds) in batches:
        saved = save_images(images, condition)
        yield saved, (boxes * np.float32(saved.shape[1] / images.shape[1]), kinds)


def _noisy(
    condition: Condition, clean: LetterboxedScenes, settings: DetectionAttackParams, seed: int
) -> Iterator[Batch]:
    """Yield the clean scenes with noise where an attack may change pixels."""
    for rows, images, truth in clean.with_rows():
        noise = random_sign_noise(images, condition.bound, seed, rows)
        mask = _attack_mask(clean, rows, truth, settings)
        yield noise if mask is None else np.where(mask > 0, noise, images), truth


def read_attacked(path: Path, clean: LetterboxedScenes) -> Iterator[Batch]:
    """Yield attacked scenes in the batches of the clean ones."""
    scenes = scene_set.open_scenes(path)
    return LetterboxedScenes(scenes, np.arange(len(scenes)), clean.side, clean.batch).stream()


def _attack_mask(
    clean: LetterboxedScenes, rows: Rows, truth: GroundTruth, settings: DetectionAttackParams
) -> Floats | None:
    """Return float32 (k, side, side, 1), 1 where an attack may change pixels: not in the padding; None: everywhere."""
    shapes = clean.scenes.shapes[rows]
    if settings.mask == "none" and (shapes[:, 0] == shapes[:, 1]).all():
        return None
    masks = np.stack([_content_mask(height, width, clean.side) for height, width in shapes])
    if settings.mask == "faces":
        masks *= face_masks(*truth, (clean.side, clean.side), settings.margin)
    return masks


def _content_mask(height: int, width: int, side: int) -> Floats:
    """Return float32 (side, side, 1), 1 where a letterboxed image is and 0 in its padding."""
    black, _ = scene_set.letterbox(np.zeros((height, width, 3), np.uint8), np.zeros((0, 4), np.float32), side)
    return (black[..., :1] == 0).astype(np.float32)


def _scene(clean: LetterboxedScenes, row: int, image: ImageArray, boxes: Boxes, kinds: Integers) -> Scene:
    """Return an attacked scene with the ground truth of its letterboxed image."""
    real = kinds != PADDING
    attributes = clean.scenes.attributes[clean.scenes.starts[row] : clean.scenes.starts[row + 1]]
    return Scene(clean.scenes.names[row], image, boxes[real], kinds[real] == IGNORE, attributes, "test")


COLUMNS = {
    "scenes": ("images", "d"),
    "found when clean": ("found_before", "d"),
    "vanished": ("vanished", ".1%"),
    "recall@.3": ("recall_30", ".3f"),
    "moved": ("moved", ".1%"),
    "still there": ("still_there", ".1%"),
    "false an image": ("hallucinations_per_image", ".2f"),
    "AP@.3": ("ap_30", ".3f"),
    "AP@.5": ("ap_50", ".3f"),
    "AP@.7": ("ap_70", ".3f"),
    "L∞, levels of 255": ("linf", "d"),
    "L2": ("l2", ".2f"),
    "SSIM": ("ssim", ".3f"),
    "PSNR": ("psnr", ".1f"),
    "steps": ("steps", ".1f"),
}


WITH_INTERVAL = ("vanished", "recall_30", "ap_30", "ap_50")


class DetectionResults(NamedTuple):
    """Results of a detector on n scenes: all matches, and for each scene its detections and outcomes."""

    pooled: DetectionMatches
    boxes: list[Boxes]  # of at least the detector's threshold
    outcomes: list[FaceOutcomes]
    seconds: float  # of detection; never written, or bytes would not repeat


class DetectionFindings(NamedTuple):
    """All measurements of one detector, by condition."""

    table: pd.DataFrame  # a row per condition: its fields and its metrics
    scenes: pd.DataFrame  # a row per condition and scene: outcomes of its faces, and the gradient steps taken
    curves: dict[str, tuple[Floats, Floats]]  # precision and recall at IoU 0.5
    boxes: dict[str, list[Boxes]]  # of at least the threshold, by attacked scene: clean, attacked, and saved smaller


def evaluate(
    detector: Detector,
    loss: str | None,
    test: LetterboxedScenes,
    clean: LetterboxedScenes,
    settings: DetectionAttackParams,
    seed: int,
    folder: Path,
) -> DetectionFindings:
    """Measure a detector on all scenes ``test``, and on those of them in ``clean`` under every other condition.

    Attacked scenes are written to ``folder`` and read back.

    Raises:
        UserError: The detector cannot be attacked.
    """
    conditions, rows, tables, curves = attacked_conditions(detector, loss, settings), [], [], {}
    boxes: dict[str, list[Boxes]] = {}
    steps: Integers = np.zeros(len(clean.rows), np.int32)
    total = len(test.rows) + len(clean.rows) * (len(conditions) - 1)
    with tqdm(total=total, desc=detector.name, unit="scene", disable=None) as bar:
        for condition in conditions:
            seconds, shown = 0.0, test if condition.kind == "test_set" else clean
            if condition.kind in ATTACKS:
                attack = compile_condition_attack(detector, condition.method or str(loss), condition, settings, seed)
                path = folder / condition.file_name
                steps, seconds = write_attacked(attack, clean, condition.bound, settings, path)
            distances: list[Floats] = []
            batches = _compare(shown, condition, condition_images(condition, shown, settings, seed, folder), distances)
            before = ATTACKED_CLEAN if condition.scale == 1 else scaled_clean(condition.scale)
            results = run_detector(detector, batches, boxes.get(before), bar.update)
            metrics = detection_metrics(results, detector.threshold, seed)
            taken = steps if condition.iterations else np.zeros(len(shown.rows), np.int32)
            distance = distance_summary(np.concatenate(distances))
            rows.append({**condition._asdict(), **metrics, "steps": float(taken.mean()), **distance})
            tables.append(_outcome_table(condition.name, shown, results, taken))
            curves[condition.name] = precision_recall(results.pooled, AT_HALF)
            if condition.kind in ("clean", "attack", "scaled"):
                boxes[condition.name] = results.boxes
            attack_time, detection_time = (time / len(shown.rows) for time in (seconds, results.seconds))
            message = f"{attack_time:.3f} s per image to attack, {detection_time:.3f} s to detect"
            tqdm.write(f"{detector.name} {condition.name}: {message}", file=sys.stderr)
    return DetectionFindings(pd.DataFrame(rows), pd.concat(tables, ignore_index=True), curves, boxes)


def run_detector(
    detector: Detector,
    batches: Iterable[Batch],
    before: Sequence[Boxes] | None = None,
    report_progress: Callable[[int], Any] = lambda images: None,
) -> DetectionResults:
    """Run a detector on scenes; only boxes and scores are kept.

    ``before``: detections in each scene when it was clean; default: those found now. ``report_progress`` is called
    with the number of images of each batch.
    """
    matches: list[DetectionMatches] = []
    kept: list[Boxes] = []
    outcomes: list[FaceOutcomes] = []
    seconds = 0.0
    for images, truths in batches:
        start = perf_counter()
        results = detector.detect(images)
        seconds += perf_counter() - start
        for result, *truth in zip(results, *truths, strict=True):
            matches.append(match_boxes((result.boxes, result.scores), (truth[0], truth[1])))
            kept.append(result.boxes[result.scores >= detector.threshold])
            clean_boxes = kept[-1] if before is None else before[len(outcomes)]
            outcomes.append(count_outcomes((truth[0], truth[1]), clean_boxes, kept[-1]))
        report_progress(len(images))
    return DetectionResults(concatenate(matches), kept, outcomes, seconds)


def detection_metrics(results: DetectionResults, threshold: float, seed: int) -> dict[str, float]:
    """Return AP and recall by IoU, and the outcomes as shares of the faces ``found_before``, with intervals of some."""
    found, vanished, moved, still_there, hallucinations = np.sum(results.outcomes, axis=0).tolist()
    shares = {"vanished": vanished, "moved": moved, "still_there": still_there}
    return {
        **ap_and_recall(results.pooled, threshold),
        **{name: count / max(1, found) for name, count in shares.items()},
        **scene_intervals(results, threshold, seed),
        "found_before": found,
        "hallucinations_per_image": hallucinations / len(results.boxes),
        "faces": int(results.pooled.faces.sum()),
        "images": len(results.boxes),
    }


def scene_intervals(results: DetectionResults, threshold: float, seed: int) -> dict[str, float]:
    """Return the central 95 % of the metrics ``WITH_INTERVAL`` over resamples of the scenes: NAME_low and NAME_high.

    Scenes are drawn as wholes, because faces of one scene say less than as many of others. A scene that is drawn twice
    counts twice in every sum. Shares of faces have Wilson's interval where it is wider.
    """
    pooled, count = results.pooled, len(results.boxes)
    outcomes = np.array(results.outcomes)
    rng = np.random.default_rng([seed, SeedStream.SCENES])
    values = []
    for _ in range(RESAMPLES):
        weights = rng.multinomial(count, np.full(count, 1 / count))
        found, vanished, *_ = weights @ outcomes
        values.append(
            [
                vanished / max(1, found),
                recall_at(pooled, threshold, AT_THIRTY, weights),
                *(average_precision(*precision_recall(pooled, level, weights)) for level in (AT_THIRTY, AT_HALF)),
            ]
        )
    gone, taken, *areas = map(tuple, np.quantile(values, CENTRAL, axis=0).T.tolist())
    found, vanished, *_ = outcomes.sum(axis=0).tolist()
    faces = int(pooled.faces.sum())
    recalled = round(faces * recall_at(pooled, threshold, AT_THIRTY))
    return intervals(WITH_INTERVAL, [widen(gone, vanished, found), widen(taken, recalled, faces), *areas])


def metrics_of(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the metrics of each condition; those without a value, such as the PSNR of clean scenes, are left out."""
    metrics = {}
    for row in table.drop(columns=[field for field in Condition._fields if field != "name"]).to_dict("records"):
        name = row.pop("name")
        metrics[name] = {str(key): value for key, value in row.items() if np.isfinite(value)}
    return metrics


def by_iou(table: pd.DataFrame) -> pd.DataFrame:
    """Return AP and recall by IoU: a row per condition and IoU."""
    rows = [
        {"condition": row["name"], "iou": iou, **{name: row[f"{name}_{100 * iou:.0f}"] for name in ("ap", "recall")}}
        for row in table.to_dict("records")
        for iou in IOUS
    ]
    return pd.DataFrame(rows)


def detection_table(table: pd.DataFrame, name: str) -> str:
    """Return the metrics of all conditions as a Markdown table."""
    rows = [
        (row["title"], [_cell(row, key, form) for key, form in COLUMNS.values()]) for row in table.to_dict("records")
    ]
    title = f"# Hiding faces from {label(name)}; in brackets 95 % over scenes"
    return f"{title}\n\n{text_table('condition', list(COLUMNS), rows).to_markdown()}\n"


def _cell(row: Mapping[Any, Any], key: str, form: str) -> str:
    """Return a metric and its interval as text, a dash where it has no value."""
    if not np.isfinite(row[key]):
        return "–"
    low, high = (format(row[f"{key}_{end}"], form) if key in WITH_INTERVAL else "" for end in ("low", "high"))
    return format(row[key], form) + (f" ({low} to {high})" if low else "")


def _compare(
    clean: LetterboxedScenes, condition: Condition, batches: Iterable[Batch], distances: list[Floats]
) -> Iterator[Batch]:
    """Pass scenes on, and append the distances of their images from the clean ones of the same size."""
    for (original, _), (images, truth) in zip(clean.stream(), batches, strict=True):
        distances.append(image_distances(save_images(original, condition._replace(quality=0)), images))
        yield images, truth


def _outcome_table(name: str, clean: LetterboxedScenes, results: DetectionResults, steps: Integers) -> pd.DataFrame:
    table = pd.DataFrame(results.outcomes, columns=list(FaceOutcomes._fields))
    table.insert(0, "scene", [clean.scenes.names[row] for row in clean.rows])
    table.insert(0, "condition", name)
    return table.assign(steps=steps)
