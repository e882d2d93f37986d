"""The contract of a detector, and its implementation for networks that take squares, for images of any size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.core.tf import tf
from visor.core.types import ImageArray
from visor.data import scene_set
from visor.models.detectors.anchors import non_max_suppression
from visor.models.inference import compile_per_shape

# Boxes float32 (n, m, 4) and kinds int32 (n, m): FACE, PADDING or IGNORE.
GroundTruthTensors = tuple[tf.Tensor, tf.Tensor]
PreNmsFn = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Loss = Callable[[tf.Tensor, GroundTruthTensors], tf.Tensor]

MIN_SCORE = 0.01
MAX_DETECTIONS = 300


class Detections(NamedTuple):
    """Detections in one image: boxes float32 (k, 4) in its pixels, scores float32 (k,), descending."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Detector:
    """A face detector; a box counts as a face from score ``threshold`` on.

    Attributes:
        detect: uint8 images (n, h, w, 3) → detections after non-maximum suppression: scores from 0.01, at most 300
            boxes per image.
        pre_nms: float32 images (n, h, w, 3) in [0, 1] → boxes (n, a, 4) and scores (n, a) in [0, 1] before suppression,
            differentiable; None if there is no gradient.
        loss: The same images and their ground truth → training loss (n,), differentiable; None if there is none.
    """

    name: str
    threshold: float
    detect: Callable[[ImageArray], list[Detections]]
    pre_nms: PreNmsFn | None
    loss: Loss | None


def letterboxed_detector(
    name: str, threshold: float, side: int, nms_iou: float, pre_nms: PreNmsFn, loss: Loss | None
) -> Detector:
    """Make a detector from functions of images (n, side, side, 3).

    Other images are letterboxed in the graph, so that gradients reach their pixels, and boxes mapped back. Of boxes
    whose IoU is above ``nms_iou``, the one with the higher score is kept.
    """

    def any_pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        squares, scale = letterbox(images, side)
        boxes, scores = pre_nms(squares)
        return boxes if squares is images else boxes / scale, scores

    detect = compile_detect(any_pre_nms, nms_iou)
    if loss is None:
        return Detector(name, threshold, detect, any_pre_nms, None)

    def any_loss(images: tf.Tensor, truth: GroundTruthTensors) -> tf.Tensor:
        squares, scale = letterbox(images, side)
        boxes, kinds = truth
        return loss(squares, (boxes if squares is images else boxes * scale, kinds))

    return Detector(name, threshold, detect, any_pre_nms, any_loss)


def refuse_options(name: str, settings: DetectorParams) -> None:
    """Raise UserError if options are given to a detector that has none."""
    for option in settings.options:
        raise UserError(f"{name}: option {option} is unknown; it takes none")


def letterbox(images: tf.Tensor, side: int) -> tuple[tf.Tensor, NDArray[np.float32]]:
    """Resize the longer side of images (n, h, w, 3) to ``side``, antialiased; pad with grey at the right and below.

    Returns the squares (n, side, side, 3), ``images`` itself if it has this shape, and the factors of x, y, w, h that
    map boxes to them: they differ, as sides are rounded to pixels.
    """
    height, width = images.shape[1:3]
    if height == width == side:
        return images, np.ones(4, np.float32)
    scale = side / max(height, width)
    shape = [max(1, round(scale * height)), max(1, round(scale * width))]
    images = tf.image.resize(images, shape, antialias=True)
    padding = [[0, 0], [0, side - shape[0]], [0, side - shape[1]], [0, 0]]
    factors = np.array([shape[1] / width, shape[0] / height] * 2, np.float32)
    return tf.pad(images, padding, constant_values=scene_set.PAD_VALUE / 255), factors


def compile_detect(pre_nms: PreNmsFn, nms_iou: float) -> Callable[[ImageArray], list[Detections]]:
    """Return ``detect``: boxes before suppression and non-maximum suppression in one graph."""

    def suppressed(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return non_max_suppression(*pre_nms(images), nms_iou, MAX_DETECTIONS, MIN_SCORE)

    run = compile_per_shape(suppressed)

    def detect(images: ImageArray) -> list[Detections]:
        return [Detections(b[:k], s[:k]) for b, s, k in zip(*run(images), strict=True)]

    return detect
