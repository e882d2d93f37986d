"""Boxes [x, y, w, h] and how well found ones fit true ones: IoU, matching, AP, recall, what became of each face.

Matching is that of COCO (pycocotools): found boxes in the order of their scores take the free face that they overlap
most; one that fits no free face but an ignored region counts neither way. There is no cap on the number of boxes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from visor.core.types import Flags, Floats, Integers
from visor.data.scene_set import FACE, IGNORE

IOUS = tuple(tenths / 10 for tenths in range(3, 11))
"""The overlaps from which on a found box fits a face; pycocotools takes 1 − 1e-10 for 1, and so does this."""

MATCH_IOU = 0.5  # IoU from which on a found box is on a face, for the outcome of an attack
TOUCH_IOU = 0.1  # IoU below which it has nothing to do with the face


class DetectionMatches(NamedTuple):
    """What became of the k found boxes of some images at each of t overlaps, and how many faces there were.

    ``hits``: the box took a face; ``counted``: it is not excused by an ignored region (every hit is counted).
    """

    scores: Floats  # (k,)
    hits: Flags  # (t, k)
    counted: Flags  # (t, k)
    faces: int


class FaceOutcomes(NamedTuple):
    """How many faces were found before an attack, what became of them, and what is found where no face is."""

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
    own, other = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    whole = np.broadcast_to(own[:, None], common.shape) if crowd else own[:, None] + other[None] - common
    return np.divide(common, whole, out=np.zeros_like(common), where=common > 0)


def match_boxes(
    found: tuple[Floats, Floats], truth: tuple[Floats, Integers], ious: Sequence[float] = IOUS
) -> DetectionMatches:
    """Match the found boxes of one image to its faces, each face to one box at most.

    ``found``: boxes (k, 4) and scores (k,); ``truth``: boxes (m, 4) and kinds (m,), rows of padding left out. Scores
    come back in descending order, equal ones as they came.
    """
    (boxes, scores), (true, kinds) = found, truth
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    least = np.minimum(np.asarray(ious, np.float64), 1 - 1e-10)
    overlaps, region = iou(boxes, true[kinds == FACE]), iou(boxes, true[kinds == IGNORE], crowd=True)
    hits = _greedy(overlaps, least)
    excused = region.max(axis=1, initial=0.0)[None] >= least[:, None]
    return DetectionMatches(scores, hits, hits | ~excused, overlaps.shape[1])


def _greedy(overlaps: Floats, least: Floats) -> Flags:
    """Return which of the boxes (k,), best first, take a face: (t, k) of overlaps (k, m) and bounds (t,)."""
    hits = np.zeros((len(least), len(overlaps)), bool)
    free = np.ones((len(least), overlaps.shape[1]), bool)
    levels = np.arange(len(least))
    # Of the hundreds of boxes in an image few touch a face: the others need no turn.
    for box in np.flatnonzero(overlaps.max(axis=1, initial=0.0) >= least.min(initial=1.0)):
        fits = np.where(free & (overlaps[box] >= least[:, None]), overlaps[box], -1.0)
        best = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)  # the last of equals, as in pycocotools
        hits[:, box] = fits[levels, best] >= 0
        free[levels[hits[:, box]], best[hits[:, box]]] = False
    return hits


def concatenate(images: Iterable[DetectionMatches]) -> DetectionMatches:
    """Return the matches of all images as one, boxes by descending score, equal scores in the order of images."""
    scores, hits, counted, faces = zip(*images, strict=True)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hit, kept = (np.concatenate(parts, axis=1)[:, order] for parts in (hits, counted))
    return DetectionMatches(np.concatenate(scores)[order], hit, kept, sum(faces))


def precision_recall(pooled: DetectionMatches, level: int) -> tuple[Floats, Floats]:
    """Return precision and recall after each counted box of pooled matches, at the ``level``-th overlap.

    Precision is the envelope: the best that is had at this recall or a greater one. Without faces both are 0.
    """
    hits = pooled.hits[level][pooled.counted[level]]
    right = np.cumsum(hits, dtype=np.float64)
    precision = right / np.arange(1, len(hits) + 1)
    return np.maximum.accumulate(precision[::-1])[::-1], right / max(1, pooled.faces)


def average_precision(precision: Floats, recall: Floats, points: int | None = None) -> float:
    """Return the area under the envelope of precision (k,) over recall (k,).

    ``points``: instead the mean of precision at so many recalls from 0 to 1, 101 in COCO, 11 in VOC 2007.
    """
    if points is None:
        return float(np.sum(precision * np.diff(recall, prepend=0.0)))
    places = np.searchsorted(recall, np.linspace(0, 1, points), side="left")
    return float(np.append(precision, 0.0)[places].mean())


def recall_at(pooled: DetectionMatches, threshold: float, level: int) -> float:
    """Return the share of faces that a box of at least this score took at the ``level``-th overlap."""
    hits = pooled.hits[level] & (pooled.scores >= threshold)
    return float(hits.sum() / max(1, pooled.faces))


def ap_and_recall(pooled: DetectionMatches, threshold: float, ious: Sequence[float] = IOUS) -> dict[str, float]:
    """Return ``ap_30`` … ``ap_100`` and ``recall_30`` … ``recall_100``: AP and recall by IoU in percent."""
    found = {}
    for level, overlap in enumerate(ious):
        found[f"ap_{100 * overlap:.0f}"] = average_precision(*precision_recall(pooled, level))
        found[f"recall_{100 * overlap:.0f}"] = recall_at(pooled, threshold, level)
    return found


def face_outcomes(faces: Floats, after: Floats) -> list[str]:
    """Return what became of each of the ``faces`` (k, 4) that were found, given the boxes (j, 4) found ``after``.

    It is still there where one overlaps it by ``FITS``, has moved where one touches it, and else has vanished.
    """
    overlaps = iou(faces, after).max(axis=1, initial=0.0)
    return ["still there" if o >= MATCH_IOU else "moved" if o >= TOUCH_IOU else "vanished" for o in overlaps]


def count_outcomes(truth: tuple[Floats, Integers], before: Floats, after: Floats) -> FaceOutcomes:
    """Return what became of the faces of one image that the boxes ``before`` (k, 4) found, given those ``after``.

    Both are boxes of at least the detector's threshold. A face is found where one overlaps it by ``FITS``; afterwards
    it has one of the ``fates``. A box after is a hallucination where it touches no face and less than half of it lies
    in an ignored region.
    """
    true, kinds = truth
    faces, regions = true[kinds == FACE], true[kinds == IGNORE]
    known = face_outcomes(faces[iou(faces, before).max(axis=1, initial=0.0) >= MATCH_IOU], after)
    touching = iou(after, faces).max(axis=1, initial=0.0) >= TOUCH_IOU
    excused = iou(after, regions, crowd=True).max(axis=1, initial=0.0) >= MATCH_IOU
    gone, moved, still = (known.count(fate) for fate in ("vanished", "moved", "still there"))
    return FaceOutcomes(len(known), gone, moved, still, int((~touching & ~excused).sum()))
