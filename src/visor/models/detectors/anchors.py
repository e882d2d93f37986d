"""Anchors: offsets, assignment, losses, hard negatives, suppression. Boxes are [x, y, w, h].

Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016 (arXiv 1512.02325); Ren et al., Faster R-CNN, 2015.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.portable_ops import sigmoid_cross_entropy
from visor.core.tf import tf
from visor.data.scene_set import FACE, IGNORE, PADDING

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # of the offsets x, y, w and h in the published code of SSD
POSITIVE, NEGATIVE = 0.45, 0.35  # of SSD: IoU with a face from which this is an anchor's target, and of background
NEGATIVE_RATIO = 3  # background per anchor with a face


class AnchorLevel(NamedTuple):
    """Anchors on a feature map: one of each size (root of the area in pixels) and ratio (height / width) per cell."""

    stride: int
    sizes: Sequence[float]
    ratios: Sequence[float]


class AnchorTargets(NamedTuple):
    """Targets of anchors: kinds int32 (n, a), FACE, PADDING for background or IGNORE, and boxes float32 (n, a, 4).

    The box is the face of an anchor of kind FACE and arbitrary for the others.
    """

    boxes: tf.Tensor
    kinds: tf.Tensor


def make_anchors(side: int, levels: Sequence[AnchorLevel]) -> NDArray[np.float32]:
    """Return boxes float32 (a, 4) on a square image: by level, row, column, size, ratio."""
    parts = []
    for stride, sizes, ratios in levels:
        centres = (np.arange(-(-side // stride)) + 0.5) * stride
        y, x = np.meshgrid(centres, centres, indexing="ij")
        shapes = np.array([(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios])
        middles = np.broadcast_to(np.stack([x, y], -1)[:, :, None], (*x.shape, len(shapes), 2))
        parts.append(np.concatenate([middles - shapes / 2, np.broadcast_to(shapes, middles.shape)], -1).reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)


def encode(boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Encode boxes (…, a, 4) as offsets (…, a, 4) from anchors, in units of ``VARIANCES`` (SSD, eq. 2)."""
    middle = (boxes[..., :2] + boxes[..., 2:] / 2 - anchors[..., :2] - anchors[..., 2:] / 2) / anchors[..., 2:]
    # Boxes of padding have no size; they are not learned from but must not become infinite.
    stretch = tf.math.log(tf.maximum(boxes[..., 2:], 1e-3) / anchors[..., 2:])
    return tf.concat([middle, stretch], -1) / VARIANCES


def decode(offsets: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Invert ``encode``; boxes are at most e³ times as large as their anchor, so that no offset becomes infinite."""
    offsets = offsets * VARIANCES
    middle = anchors[..., :2] + anchors[..., 2:] / 2 + offsets[..., :2] * anchors[..., 2:]
    shape = anchors[..., 2:] * tf.exp(tf.minimum(offsets[..., 2:], 3.0))
    return tf.concat([middle - shape / 2, shape], -1)


def pairwise_intersection(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the areas of intersection (…, k, m) of boxes a (…, k, 4) and b (…, m, 4)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    # By coordinate: reductions over a last axis of two would cost more than everything else.
    sides = [
        tf.maximum(
            tf.minimum(a[..., i] + a[..., i + 2], b[..., i] + b[..., i + 2]) - tf.maximum(a[..., i], b[..., i]), 0
        )
        for i in (0, 1)
    ]
    return sides[0] * sides[1]


def assign_targets(
    anchors: tf.Tensor, boxes: tf.Tensor, kinds: tf.Tensor, positive: float, negative: float
) -> AnchorTargets:
    """Assign to each anchor, (a, 4) or (n, a, 4), the face that it overlaps most, of boxes (n, m, 4), kinds (n, m).

    The target is that face if their IoU is at least ``positive``, or the highest of this face with any anchor (SSD,
    section 2.2; Faster R-CNN, section 3.1.2). It is background if the IoU with each face is below ``negative`` and
    less than that share of the anchor lies in an ignored box.
    """
    boxes, kinds = tf.convert_to_tensor(boxes), tf.convert_to_tensor(kinds)
    # Crowded scenes determine the padding: most batches need little of it.
    max_boxes = tf.maximum(tf.reduce_max(tf.reduce_sum(tf.cast(kinds != PADDING, tf.int32), -1)), 1)
    boxes, kinds = boxes[:, :max_boxes], kinds[:, :max_boxes]
    common = pairwise_intersection(anchors, boxes)
    areas = (anchors[..., 2] * anchors[..., 3])[..., None]
    faces = (kinds == FACE)[:, None]
    overlaps = common / (areas + (boxes[..., 2] * boxes[..., 3])[:, None] - common)
    overlaps = tf.where(faces, overlaps, 0.0)
    best = tf.reduce_max(overlaps, 1, keepdims=True)
    overlaps = tf.where((overlaps == best) & (best > 0), overlaps + 1.0, overlaps)  # this face has priority
    overlap, owner = tf.reduce_max(overlaps, -1), tf.argmax(overlaps, -1)
    ignored = tf.reduce_any((kinds == IGNORE)[:, None] & (common >= negative * areas), -1)
    other = tf.where(ignored | (overlap >= negative), IGNORE, PADDING)
    return AnchorTargets(tf.gather(boxes, owner, batch_dims=1), tf.where(overlap >= positive, FACE, other))


def binary_cross_entropy(logits: tf.Tensor, kinds: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy (n, a) of logits and kinds; 0 where these are IGNORE."""
    losses = sigmoid_cross_entropy(tf.cast(kinds == FACE, tf.float32), logits)
    return tf.where(kinds == IGNORE, 0.0, losses)


def hard_negatives(losses: tf.Tensor, kinds: tf.Tensor, ratio: int) -> tf.Tensor:
    """Return the background of highest loss (SSD, section 2.2): bool (n, a), ``ratio`` times as many as faces.

    An image without a face keeps ``ratio`` of them.
    """
    faces = tf.reduce_sum(tf.cast(kinds == FACE, tf.int32), -1, keepdims=True)
    background = tf.where(kinds == PADDING, losses, -1.0)
    ranks = tf.argsort(tf.argsort(background, direction="DESCENDING", stable=True), stable=True)
    return (kinds == PADDING) & (ranks < ratio * tf.maximum(faces, 1))


def smooth_l1(offsets: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Sum half the square of small errors, else |error| − 1/2 (Girshick 2015), over four offsets: (…, 4) → (…)."""
    error = tf.abs(offsets - targets)
    return tf.reduce_sum(tf.where(error < 1, error**2 / 2, error - 0.5), -1)


def multibox_losses(
    logits: tf.Tensor, offsets: tf.Tensor, boxes: tf.Tensor, truth: tuple[tf.Tensor, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Return the loss of SSD (eq. 1) as a sum over anchors, and its two parts, of scores and of boxes: (n,) each.

    It is not divided by the number of anchors with faces, so that images with many faces count more. ``logits`` (n, a)
    and ``offsets`` (n, a, 4) are of the anchors ``boxes`` (a, 4).
    """
    targets = assign_targets(boxes, *truth, POSITIVE, NEGATIVE)
    faces = targets.kinds == FACE
    entropies = binary_cross_entropy(logits, targets.kinds)
    selected = faces | hard_negatives(entropies, targets.kinds, NEGATIVE_RATIO)
    scores = tf.reduce_sum(tf.where(selected, entropies, 0.0), -1)
    distances = smooth_l1(offsets, encode(targets.boxes, boxes))
    box_loss = tf.reduce_sum(tf.where(faces, distances, 0.0), -1)
    return {"loss": scores + box_loss, "scores": scores, "places": box_loss}


def non_max_suppression(
    boxes: tf.Tensor, scores: tf.Tensor, iou: float, max_boxes: int, min_score: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Keep, of boxes whose IoU is above ``iou``, the one with the highest score.

    Takes boxes (n, a, 4) and scores (n, a) in [0, 1]; returns boxes (n, max_boxes, 4) and scores (n, max_boxes) above
    ``min_score`` in descending order, padded with zeros, and the number in each image, int32 (n,).
    """
    corners = tf.concat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)[:, :, None]
    kept, scores, _, counts = tf.image.combined_non_max_suppression(
        corners, scores[..., None], max_boxes, max_boxes, iou, min_score, clip_boxes=False
    )
    return tf.concat([kept[..., :2], kept[..., 2:] - kept[..., :2]], -1), scores, counts
