"""Boxes [x, y, w, h] of detections and ground truth: IoU, matching, AP, recall, and the outcome for each face.

Matching is that of COCO (pycocotools): detections by descending score take the free face that they overlap most; one
that fits no free face but an ignored region counts neither way. There is no cap on the number of detections.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from visor.core.types import Flags, Floats, Integers
from visor.data.scene_set import FACE, IGNORE

IOUS = tuple(tenths / 10 for tenths in range(3, 11))
"""IoU from which on a detection fits a face; pycocotools takes 1 − 1e-10 for 1, and so does this module."""

MATCH_IOU = 0.5  # IoU from which on a detection is on a face, for the outcome of an attack
TOUCH_IOU = 0.1  # IoU below which it has nothing to do with the face


class DetectionMatches(NamedTuple):
    """How the k detections of some images match their faces, at each of t IoUs.

    ``hits``: the detection took a face; ``counted``: no ignored region excuses it (every hit is counted).
    """

    scores: Floats  # (k,)
    images: Integers  # (k,) of n
    hits: Flags  # (t, k)
    counted: Flags  # (t, k)
    faces: Integers  # (n,) in each image


class FaceOutcomes(NamedTuple):
    """Number of faces found before an attack, by their outcome, and of detections where no face is."""

    found: int
    vanished: int
    moved: int
    still_there: int
    hallucinations: int


def iou(a: Floats, b: Floats, crowd: bool = False) -> Floats:
    """Return the intersection over union (k, m) of boxes a (k, 4) and b (m, 4); 0 where either has no area.

    ``crowd``: over the area of ``a`` instead, as COCO measures how much of a box lies in a region.
    """
    a, b = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    sides = np.maximum(high - low, 0)
    common = sides[..., 0] * sides[..., 1]
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    total = np.broadcast_to(area_a[:, None], common.shape) if crowd else area_a[:, None] + area_b[None] - common
    return np.divide(common, total, out=np.zeros_like(common), where=common > 0)


def sort_by_area(boxes: Floats) -> Integers:
    """Return the numbers of boxes (k, 4) from the largest to the smallest; of equal ones the first comes first."""
    return np.argsort(-(boxes[:, 2] * boxes[:, 3]), kind="stable")


def match_boxes(
    detections: tuple[Floats, Floats], truth: tuple[Floats, Integers], ious: Sequence[float] = IOUS
) -> DetectionMatches:
    """Match the detections of one image to its faces, each face to one detection at most.

    ``detections`` are boxes (k, 4) and scores (k,), ``truth`` boxes (m, 4) and kinds (m,), without padding. Scores
    come back in descending order, equal ones as they came.
    """
    (boxes, scores), (true_boxes, kinds) = detections, truth
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    min_ious = np.minimum(np.asarray(ious, np.float64), 1 - 1e-10)
    overlaps, region = iou(boxes, true_boxes[kinds == FACE]), iou(boxes, true_boxes[kinds == IGNORE], crowd=True)
    hits = _greedy(overlaps, min_ious)
    excused = region.max(axis=1, initial=0.0)[None] >= min_ious[:, None]
    return DetectionMatches(scores, np.zeros(len(scores), int), hits, hits | ~excused, np.array([overlaps.shape[1]]))


def _greedy(overlaps: Floats, min_ious: Floats) -> Flags:
    """Return which of the detections (k,), best first, take a face: (t, k) of overlaps (k, m) and bounds (t,)."""
    hits = np.zeros((len(min_ious), len(overlaps)), bool)
    free = np.ones((len(min_ious), overlaps.shape[1]), bool)
    levels = np.arange(len(min_ious))
    # Few of the hundreds of detections in an image touch a face: the others need no turn.
    for box in np.flatnonzero(overlaps.max(axis=1, initial=0.0) >= min_ious.min(initial=1.0)):
        fits = np.where(free & (overlaps[box] >= min_ious[:, None]), overlaps[box], -1.0)
        best = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)  # the last of equals, as in pycocotools
        hits[:, box] = fits[levels, best] >= 0
        free[levels[hits[:, box]], best[hits[:, box]]] = False
    return hits


def concatenate(images: Iterable[DetectionMatches]) -> DetectionMatches:
    """Return the matches of all images as one, by descending score, equal scores in the order of the images."""
    scores, _, hits, counted, faces = zip(*images, strict=True)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    numbers = np.repeat(np.arange(len(scores)), list(map(len, scores)))
    all_hits, all_counted = (np.concatenate(parts, axis=1)[:, order] for parts in (hits, counted))
    return DetectionMatches(np.concatenate(scores)[order], numbers[order], all_hits, all_counted, np.concatenate(faces))


def precision_recall(pooled: DetectionMatches, level: int, weights: Integers | None = None) -> tuple[Floats, Floats]:
    """Return precision and recall after each counted detection, at the ``level``-th IoU; both 0 without faces.

    Precision is the envelope: the best at this recall or a greater one. ``weights`` (n,): how often each image counts,
    by default once.
    """
    weights = np.ones(len(pooled.faces), int) if weights is None else weights
    counted = pooled.counted[level]
    seen = weights[pooled.images[counted]]
    true_positives = np.cumsum(seen * pooled.hits[level][counted], dtype=np.float64)
    precision = true_positives / np.maximum(np.cumsum(seen), 1)
    return np.maximum.accumulate(precision[::-1])[::-1], true_positives / max(1, int(weights @ pooled.faces))


def average_precision(precision: Floats, recall: Floats, points: int | None = None) -> float:
    """Return the area under the envelope of precision (k,) over recall (k,).

    ``points``: instead the mean of precision at so many recalls from 0 to 1, 101 in COCO, 11 in VOC 2007.
    """
    if points is None:
        return float(np.sum(precision * np.diff(recall, prepend=0.0)))
    places = np.searchsorted(recall, np.linspace(0, 1, points), side="left")
    return float(np.append(precision, 0.0)[places].mean())


def recall_at(pooled: DetectionMatches, threshold: float, level: int, weights: Integers | None = None) -> float:
    """Return the share of faces that a detection of at least this score took at the ``level``-th IoU.

    ``weights`` as for ``precision_recall``.
    """
    weights = np.ones(len(pooled.faces), int) if weights is None else weights
    hits = pooled.hits[level] & (pooled.scores >= threshold)
    return float(weights[pooled.images] @ hits / max(1, int(weights @ pooled.faces)))


def ap_and_recall(pooled: DetectionMatches, threshold: float, ious: Sequence[float] = IOUS) -> dict[str, float]:
    """Return ``ap_30`` … ``ap_100`` and ``recall_30`` … ``recall_100``: AP and recall by IoU in percent."""
    metrics = {}
    for level, overlap in enumerate(ious):
        metrics[f"ap_{100 * overlap:.0f}"] = average_precision(*precision_recall(pooled, level))
        metrics[f"recall_{100 * overlap:.0f}"] = recall_at(pooled, threshold, level)
    return metrics


def face_outcomes(faces: Floats, after: Floats) -> list[str]:
    """Return the outcome of each of the ``faces`` (k, 4), given the detections (j, 4) ``after`` an attack.

    A face is still there where a box overlaps it by ``MATCH_IOU``, has moved where one does by ``TOUCH_IOU``, and else
    has vanished.
    """
    overlaps = iou(faces, after).max(axis=1, initial=0.0)
    return ["still there" if o >= MATCH_IOU else "moved" if o >= TOUCH_IOU else "vanished" for o in overlaps]


def count_outcomes(truth: tuple[Floats, Integers], before: Floats, after: Floats) -> FaceOutcomes:
    """Count the outcomes of the faces of one image that the boxes ``before`` (k, 4) found, given those ``after``.

    Both are boxes of at least the detector's threshold. A face is found where one overlaps it by ``MATCH_IOU``. A box
    after is a hallucination where it touches no face and less than half of it lies in an ignored region.
    """
    true_boxes, kinds = truth
    faces, regions = true_boxes[kinds == FACE], true_boxes[kinds == IGNORE]
    outcomes = face_outcomes(faces[iou(faces, before).max(axis=1, initial=0.0) >= MATCH_IOU], after)
    touching = iou(after, faces).max(axis=1, initial=0.0) >= TOUCH_IOU
    excused = iou(after, regions, crowd=True).max(axis=1, initial=0.0) >= MATCH_IOU
    vanished, moved, still_there = (outcomes.count(outcome) for outcome in ("vanished", "moved", "still there"))
    return FaceOutcomes(len(outcomes), vanished, moved, still_there, int((~touching & ~excused).sum()))
