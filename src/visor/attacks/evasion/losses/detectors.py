"""What an attack on a detector maximises; and where it may change a picture.

An objective is built from the two views that a detector grants an attacker: ``candidates``, images → boxes (n, a, 4)
[x, y, w, h] in pixels and scores (n, a) in [0, 1] before non-maximum suppression, and its training loss, images and
truth → (n,). It returns, for images float32 (n, h, w, 3) in [0, 1] and truth = (boxes (n, m, 4), kinds (n, m)), values
(n,) to be raised, and which images are done, bool (n,): no box on a face has a score near the threshold any more.
Of the truth only boxes of kind ``FACE`` count.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.attacks.evasion.loop import Loss
from visor.core.errors import UserError
from visor.core.tf import tf
from visor.data.scene_set import FACE

Truth = tuple[tf.Tensor, tf.Tensor]
Candidates = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
TrainingLoss = Callable[[tf.Tensor, Truth], tf.Tensor]
Objective = Callable[[Candidates | None, TrainingLoss | None, float, float], Loss]

FACE_RADIUS = 1.0  # sizes of a face from its centre: nearer boxes are on the face
OVERLAP = 0.1  # IoU from which a box is on a face: with less the face has vanished
MARGIN = 0.1  # by which scores have to stay below the threshold until an image is done
LOG_EPSILON = 1e-6  # of 1 − score, so that its logarithm is finite


def near_faces(candidates: Candidates | None, loss: TrainingLoss | None, threshold: float, distance: float) -> Loss:
    """Σ score · sign(d − distance): scores on faces fall, scores elsewhere rise.

    d is the distance of a box's centre from that of the nearest face, in units of √(w · h) of that face.
    """
    view = _require_output(candidates, "near_faces", "candidates")

    def objective(images: tf.Tensor, truth: Truth) -> tuple[tf.Tensor, tf.Tensor]:
        found, scores = view(images)
        side = tf.sign(centre_distances(found, truth) - distance)
        return tf.reduce_sum(scores * side, axis=1), ~_still_detected(found, scores, truth, threshold)

    return objective


def near_faces_by_area(
    candidates: Candidates | None, loss: TrainingLoss | None, threshold: float, distance: float
) -> Loss:
    """``boxes`` with each box weighted by the share of the image that it covers, at most 1: sizes are attacked, too."""
    view = _require_output(candidates, "near_faces_by_area", "candidates")

    def objective(images: tf.Tensor, truth: Truth) -> tuple[tf.Tensor, tf.Tensor]:
        found, scores = view(images)
        side = tf.sign(centre_distances(found, truth) - distance)
        covered = tf.minimum(found[..., 2] * found[..., 3] / (images.shape[1] * images.shape[2]), 1.0)
        return tf.reduce_sum(scores * covered * side, axis=1), ~_still_detected(found, scores, truth, threshold)

    return objective


def training_loss(candidates: Candidates | None, loss: TrainingLoss | None, threshold: float, distance: float) -> Loss:
    """The loss that the detector was trained to minimise. Without candidates no image is ever done."""
    trained = _require_output(loss, "training_loss", "a training loss")

    def objective(images: tf.Tensor, truth: Truth) -> tuple[tf.Tensor, tf.Tensor]:
        values = trained(images, truth)
        if candidates is None:
            return values, tf.zeros_like(values, tf.bool)
        # Nobody asks for this without an early stop, and what nobody asks for is not computed.
        return values, ~_still_detected(*candidates(images), truth, threshold)

    return objective


def suppress_scores(
    candidates: Candidates | None, loss: TrainingLoss | None, threshold: float, distance: float
) -> Loss:
    """Σ log(1 − score) over all boxes: none shall be a face. Unlike −Σ score it still pulls where a score is near 1."""
    view = _require_output(candidates, "suppress", "candidates")

    def objective(images: tf.Tensor, truth: Truth) -> tuple[tf.Tensor, tf.Tensor]:
        _, scores = view(images)
        done = tf.reduce_all(scores < threshold - MARGIN, axis=1)
        return tf.reduce_sum(tf.math.log(1.0 - scores + LOG_EPSILON), axis=1), done

    return objective


DETECTOR_LOSSES: dict[str, Objective] = {
    "near_faces": near_faces,
    "near_faces_by_area": near_faces_by_area,
    "training_loss": training_loss,
    "suppress": suppress_scores,
}


def centre_distances(found: tf.Tensor, truth: Truth) -> tf.Tensor:
    """Return d (n, a) of boxes (n, a, 4), infinite where an image has no face. No gradient goes through it."""

    def nearer(nearest: tf.Tensor, face: Truth) -> tf.Tensor:
        box, real = face
        offset = _centres(found) - _centres(box)
        apart = tf.norm(offset, axis=-1) / tf.sqrt(box[..., 2] * box[..., 3])
        return tf.where(real, tf.minimum(nearest, apart), nearest)

    found = tf.stop_gradient(found)
    return tf.foldl(nearer, _faces(truth), tf.fill(tf.shape(found)[:2], np.inf))


def face_masks(
    boxes: NDArray[np.floating[Any]], kinds: NDArray[np.integer[Any]], shape: tuple[int, int], margin: float
) -> NDArray[np.float32]:
    """Return masks (n, h, w, 1) that are 1 inside faces' boxes (n, m, 4), enlarged on each side by margin · w or h.

    All faces of an image are searched for together, so that where two boxes overlap neither perturbation is written
    over the other.
    """
    start = boxes[..., :2] - margin * boxes[..., 2:]
    stop = boxes[..., :2] + (1 + margin) * boxes[..., 2:]
    real = (kinds == FACE)[..., None]
    across, down = (np.arange(length) + 0.5 for length in (shape[1], shape[0]))
    columns = real & (start[..., :1] <= across) & (across < stop[..., :1])
    rows = real & (start[..., 1:] <= down) & (down < stop[..., 1:])
    covered = np.matmul(rows.astype(np.float32).transpose(0, 2, 1), columns.astype(np.float32))
    return np.minimum(covered, 1)[..., None]


def _require_output(view: Any, objective: str, what: str) -> Any:
    if view is None:
        raise UserError(
            f"objective {objective} needs {what} with a gradient, which this detector has not; "
            "choose another objective or detector"
        )
    return view


def _still_detected(found: tf.Tensor, scores: tf.Tensor, truth: Truth, threshold: float) -> tf.Tensor:
    """Return whether a box on a face still is near the threshold, bool (n,)."""

    def touching(before: tf.Tensor, face: Truth) -> tf.Tensor:
        box, real = face
        low = tf.maximum(found[..., :2], box[..., :2])
        high = tf.minimum(found[..., :2] + found[..., 2:], box[..., :2] + box[..., 2:])
        shared = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
        union = found[..., 2] * found[..., 3] + box[..., 2] * box[..., 3] - shared
        return before | (real & (shared >= OVERLAP * union))

    found = tf.stop_gradient(found)
    on_face = tf.foldl(touching, _faces(truth), tf.zeros(tf.shape(found)[:2], tf.bool))
    return tf.reduce_any(on_face & (scores >= threshold - MARGIN), axis=1)


def _centres(boxes: tf.Tensor) -> tf.Tensor:
    return boxes[..., :2] + boxes[..., 2:] / 2


def _faces(truth: Truth) -> Truth:
    """Return boxes (m, n, 1, 4) and whether they are real (m, n, 1), one face of each image after the other.

    So a crowd of faces costs no memory; padding that all images share is left out.
    """
    boxes, kinds = truth
    real = tf.equal(kinds, FACE)
    most = 1 + tf.reduce_max(tf.where(real, tf.range(tf.shape(kinds)[1]), -1))
    boxes, real = boxes[:, :most], real[:, :most]
    return tf.transpose(boxes, [1, 0, 2])[:, :, None], tf.transpose(real)[..., None]
