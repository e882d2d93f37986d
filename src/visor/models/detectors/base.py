"""The contract of a detector, and how a network that takes squares keeps it for images of any size."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.tf import tf
from visor.core.types import ImageArray
from visor.data import scene_set
from visor.models.detectors.anchors import non_max_suppression
from visor.models.inference import scale_pixels

GroundTruthTensors = tuple[
    tf.Tensor, tf.Tensor
]  # boxes float32 (n, m, 4) and kinds int32 (n, m): FACE, PADDING or IGNORE
PreNmsFn = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Loss = Callable[[tf.Tensor, GroundTruthTensors], tf.Tensor]

MIN_SCORE = 0.01
MAX_DETECTIONS = 300
GREY = scene_set.PAD_VALUE / 255  # around what is not square


class Detections(NamedTuple):
    """What a detector finds in one image: boxes float32 (k, 4) in its pixels, scores float32 (k,), descending."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Detector:
    """A detector of faces; from score ``threshold`` on, a box counts as a found face.

    ``detect`` takes uint8 images (n, h, w, 3) and returns what is left after non-maximum suppression: scores down to
    0.01, at most 300 boxes an image. An attack goes by two functions of float32 images (n, h, w, 3) in [0, 1] whose
    gradient reaches the pixels: ``candidates`` → boxes (n, a, 4) and scores (n, a) in [0, 1] before that suppression,
    and ``loss``, of images and truth → training loss (n,). Each is None where a detector has no such thing.
    """

    name: str
    threshold: float
    detect: Callable[[ImageArray], list[Detections]]
    pre_nms: PreNmsFn | None
    loss: Loss | None


def letterboxed_detector(
    name: str, threshold: float, side: int, overlap: float, pre_nms: PreNmsFn, loss: Loss
) -> Detector:
    """Make a detector of functions that take images (n, side, side, 3).

    Other images are letterboxed in the graph, so that gradients reach their pixels, and boxes mapped back. Of boxes
    whose IoU is above ``overlap`` the better one is kept.
    """

    def any_candidates(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        squares, scale = letterbox(images, side)
        boxes, scores = pre_nms(squares)
        return boxes if squares is images else boxes / scale, scores

    def any_loss(images: tf.Tensor, truth: GroundTruthTensors) -> tf.Tensor:
        squares, scale = letterbox(images, side)
        boxes, kinds = truth
        return loss(squares, (boxes if squares is images else boxes * scale, kinds))

    return Detector(name, threshold, compile_detect(any_candidates, overlap), any_candidates, any_loss)


def letterbox(images: tf.Tensor, side: int) -> tuple[tf.Tensor, NDArray[np.float32]]:
    """Resize the longer side of images (n, h, w, 3) to ``side``, antialiased; pad with grey, right and below.

    Returns squares (n, side, side, 3), ``images`` itself if they are, and what takes boxes to them: a factor for each
    of x, y, w, h, as a side of few pixels is rounded to whole ones.
    """
    height, width = images.shape[1:3]
    if height == width == side:
        return images, np.ones(4, np.float32)
    scale = side / max(height, width)
    shape = [max(1, round(scale * height)), max(1, round(scale * width))]
    images = tf.image.resize(images, shape, antialias=True)
    padding = [[0, 0], [0, side - shape[0]], [0, side - shape[1]], [0, 0]]
    factors = np.array([shape[1] / width, shape[0] / height] * 2, np.float32)
    return tf.pad(images, padding, constant_values=GREY), factors


def compile_detect(pre_nms: PreNmsFn, overlap: float) -> Callable[[ImageArray], list[Detections]]:
    """Return ``detect`` of candidates: non-maximum suppression in the graph, traced once for each image shape."""

    @cache
    def traced(height: int, width: int) -> Callable[[ImageArray], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, height, width, 3), tf.uint8)])
        def call(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            boxes, scores = pre_nms(scale_pixels(images))
            return non_max_suppression(boxes, scores, overlap, MAX_DETECTIONS, MIN_SCORE)

        return call

    def detect(images: ImageArray) -> list[Detections]:
        boxes, scores, counts = (found.numpy() for found in traced(*images.shape[1:3])(images))
        return [Detections(b[:k], s[:k]) for b, s, k in zip(boxes, scores, counts, strict=True)]

    return detect
