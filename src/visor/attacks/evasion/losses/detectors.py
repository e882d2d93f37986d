"""Losses of attacks on detectors, and masks of where they may change an image.

A loss is built from what a detector offers: ``pre_nms``, images → boxes (n, a, 4) [x, y, w, h] in pixels and scores
(n, a) in [0, 1] before non-maximum suppression, and ``loss``, images and truth → training loss (n,). For images float32
(n, h, w, 3) in [0, 1] and truth = (boxes (n, m, 4), kinds (n, m)) it returns values (n,) to be maximised and success,
bool (n,): no box on a face has a score near the threshold any more. Of the truth only boxes of kind ``FACE`` count.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.attacks.evasion.loop import Loss
from visor.core.errors import UserError
from visor.core.portable_ops import divide, log
from visor.core.tf import tf
from visor.core.types import Floats, Integers
from visor.data.scene_set import FACE
from visor.models.detectors.anchors import pairwise_intersection
from visor.models.detectors.base import GroundTruthTensors, PreNmsFn

TrainingLoss = Callable[[tf.Tensor, GroundTruthTensors], tf.Tensor]
DetectorLossFactory = Callable[[PreNmsFn | None, TrainingLoss | None, float, float], Loss]

FACE_RADIUS = 1.0  # in sizes of a face: boxes whose centre is nearer to its centre are on the face
OVERLAP = 0.1  # IoU from which a box is on a face: with less the face has vanished
MARGIN = 0.1  # by which scores have to stay below the threshold for success
LOG_EPSILON = 1e-6  # added to 1 − score, so that its logarithm is finite


def near_faces(pre_nms: PreNmsFn | None, loss: TrainingLoss | None, threshold: float, radius: float) -> Loss:
    """Σ score · sign(d − radius): scores on faces fall, scores elsewhere rise.

    d is the distance of a box's centre from that of the nearest face, in units of √(w · h) of that face.
    """
    return _signed_scores(pre_nms, threshold, radius, by_area=False)


def near_faces_by_area(pre_nms: PreNmsFn | None, loss: TrainingLoss | None, threshold: float, radius: float) -> Loss:
    """``near_faces`` with boxes weighted by the share of the image that they cover, at most 1: sizes change, too."""
    return _signed_scores(pre_nms, threshold, radius, by_area=True)


def training_loss(pre_nms: PreNmsFn | None, loss: TrainingLoss | None, threshold: float, radius: float) -> Loss:
    """The loss that the detector was trained to minimise. Without ``pre_nms`` no image ever succeeds."""
    loss = _require_output(loss, "training_loss", "a training loss")

    def attack_loss(images: tf.Tensor, truth: GroundTruthTensors) -> tuple[tf.Tensor, tf.Tensor]:
        values = loss(images, truth)
        if pre_nms is None:
            return values, tf.zeros_like(values, tf.bool)
        return values, ~_still_detected(*pre_nms(images), truth, threshold)

    return attack_loss


def suppress_scores(pre_nms: PreNmsFn | None, loss: TrainingLoss | None, threshold: float, radius: float) -> Loss:
    """Σ log(1 − score) over all boxes; unlike that of −Σ score, its gradient stays large where a score is near 1."""
    pre_nms = _require_output(pre_nms, "suppress", "scores")

    def attack_loss(images: tf.Tensor, truth: GroundTruthTensors) -> tuple[tf.Tensor, tf.Tensor]:
        _, scores = pre_nms(images)
        success = tf.reduce_all(scores < threshold - MARGIN, axis=1)
        return tf.reduce_sum(log(1.0 - scores + LOG_EPSILON), axis=1), success

    return attack_loss


DETECTOR_LOSSES: dict[str, DetectorLossFactory] = {
    "near_faces": near_faces,
    "near_faces_by_area": near_faces_by_area,
    "training_loss": training_loss,
    "suppress": suppress_scores,
}


def centre_distances(boxes: tf.Tensor, truth: GroundTruthTensors) -> tf.Tensor:
    """Return d (n, a) of boxes (n, a, 4), infinite where an image has no face. No gradient goes through it."""

    def nearer(nearest: tf.Tensor, face: GroundTruthTensors) -> tf.Tensor:
        box, is_face = face
        offset = boxes[..., :2] + boxes[..., 2:] / 2 - (box[..., :2] + box[..., 2:] / 2)
        distance = divide(tf.norm(offset, axis=-1), tf.sqrt(box[..., 2] * box[..., 3]))
        return tf.where(is_face, tf.minimum(nearest, distance), nearest)

    boxes = tf.stop_gradient(boxes)
    return tf.foldl(nearer, _faces(truth), tf.fill(tf.shape(boxes)[:2], np.inf))


def face_masks(boxes: Floats, kinds: Integers, shape: tuple[int, int], margin: float) -> NDArray[np.float32]:
    """Return masks (n, h, w, 1) that are 1 inside faces' boxes (n, m, 4), enlarged on each side by margin · w or h.

    One mask covers all faces of an image: where boxes overlap, no perturbation overwrites another.
    """
    start = boxes[..., :2] - margin * boxes[..., 2:]
    stop = boxes[..., :2] + (1 + margin) * boxes[..., 2:]
    is_face = (kinds == FACE)[..., None]
    x, y = (np.arange(length) + 0.5 for length in (shape[1], shape[0]))
    columns = is_face & (start[..., :1] <= x) & (x < stop[..., :1])
    rows = is_face & (start[..., 1:] <= y) & (y < stop[..., 1:])
    covered = np.matmul(rows.astype(np.float32).transpose(0, 2, 1), columns.astype(np.float32))
    return np.minimum(covered, 1)[..., None]


def _signed_scores(pre_nms: PreNmsFn | None, threshold: float, radius: float, by_area: bool) -> Loss:
    pre_nms = _require_output(pre_nms, "near_faces_by_area" if by_area else "near_faces", "scores")

    def attack_loss(images: tf.Tensor, truth: GroundTruthTensors) -> tuple[tf.Tensor, tf.Tensor]:
        boxes, scores = pre_nms(images)
        signs, weighted = tf.sign(centre_distances(boxes, truth) - radius), scores
        if by_area:
            weighted *= tf.minimum(boxes[..., 2] * boxes[..., 3] / (images.shape[1] * images.shape[2]), 1.0)
        return tf.reduce_sum(weighted * signs, axis=1), ~_still_detected(boxes, scores, truth, threshold)

    return attack_loss


def _require_output(output: Any, loss: str, description: str) -> Any:
    if output is None:
        raise UserError(f"loss {loss} needs {description} with a gradient; choose another loss or detector")
    return output


def _still_detected(boxes: tf.Tensor, scores: tf.Tensor, truth: GroundTruthTensors, threshold: float) -> tf.Tensor:
    """Return whether a box on a face has a score near the threshold, bool (n,)."""

    def touches(before: tf.Tensor, face: GroundTruthTensors) -> tf.Tensor:
        box, is_face = face
        shared = pairwise_intersection(boxes, box)[..., 0]
        union = boxes[..., 2] * boxes[..., 3] + box[..., 2] * box[..., 3] - shared
        return before | (is_face & (shared >= OVERLAP * union))

    boxes = tf.stop_gradient(boxes)
    on_face = tf.foldl(touches, _faces(truth), tf.zeros(tf.shape(boxes)[:2], tf.bool))
    return tf.reduce_any(on_face & (scores >= threshold - MARGIN), axis=1)


def _faces(truth: GroundTruthTensors) -> GroundTruthTensors:
    """Return boxes (m, n, 1, 4) and whether they are faces (m, n, 1), one face of each image after the other.

    A fold over them takes little memory for crowds; padding that all images share is left out.
    """
    boxes, kinds = truth
    is_face = tf.equal(kinds, FACE)
    count = 1 + tf.reduce_max(tf.where(is_face, tf.range(tf.shape(kinds)[1]), -1))
    boxes, is_face = boxes[:, :count], is_face[:, :count]
    return tf.transpose(boxes, [1, 0, 2])[:, :, None], tf.transpose(is_face)[..., None]
