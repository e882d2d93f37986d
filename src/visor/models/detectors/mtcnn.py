"""MTCNN (Zhang et al. 2016, IEEE SPL 23): three networks in a row, with the weights of the package ``mtcnn``.

P-Net scores every window of 12 pixels in a pyramid of the image, R-Net crops of 24 pixels around P-Net's proposals,
O-Net crops of 48 around those that R-Net accepts. ``detect`` is the package's own pipeline. Attacks use the gradients
of R-Net and O-Net: P-Net could be attacked too, but only for the one pyramid that the attack uses.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.core.tf import tf
from visor.core.types import ImageArray
from visor.models.detectors.anchors import non_max_suppression
from visor.models.detectors.base import MAX_DETECTIONS, MIN_SCORE, Detections, Detector
from visor.models.mtcnn import build_scale_pyramid, find_faces, load_mtcnn

Network = Callable[[tf.Tensor], list[tf.Tensor]]

WINDOW, STRIDE = 12, 2  # pixels of P-Net
FACTOR = 0.709  # from one level of the pyramid to the next
OPTION_RANGES = {
    # From 21 on, the package's pyramid ends below P-Net's window, and it finds no face at all.
    "min_face_size": (int, WINDOW, 20),
    "proposals": (int, 1, 256),
    "nms_iou": (int | float, 0.1, 0.95),
    "stage_threshold": (int | float, 0.0, 1.0),
}
PRE_NMS_TOP = 512  # boxes of P-Net that go into suppression


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return MTCNN; ``folder`` is not used.

    Options: ``min_face_size``, pixels of the smallest face, 12 to 20; ``proposals``, the maximum of boxes per image
    that an attack passes to R-Net and to O-Net; ``nms_iou``, the IoU above which one box suppresses another there;
    ``stage_threshold``, the score from which a box is passed to the next network: lower values make the attack slower
    and more robust.

    Raises:
        UserError: An option is unknown or out of range.
    """
    options: dict[str, Any] = {"min_face_size": 20, "proposals": 64, "nms_iou": 0.5, "stage_threshold": 0.3}
    options |= settings.options
    if unknown := sorted(options.keys() - OPTION_RANGES.keys()):
        raise UserError(f"mtcnn has no option {unknown[0]}; it takes {', '.join(OPTION_RANGES)}")
    for name, (kind, lowest, highest) in OPTION_RANGES.items():
        if not isinstance(options[name], kind) or not lowest <= options[name] <= highest:
            raise UserError(f"mtcnn: option {name} is {options[name]!r}; choose from {lowest} to {highest}")
    min_face, proposals, nms_iou, stage_threshold = (options[name] for name in OPTION_RANGES)
    p_net, r_net, o_net = (stage.model for stage in load_mtcnn().stages)

    def detect(images: ImageArray) -> list[Detections]:
        faces = find_faces(list(images), min_face, MIN_SCORE)
        order = np.argsort(-faces.scores, kind="stable")
        rows = [order[faces.image_ids[order] == number][:MAX_DETECTIONS] for number in range(len(images))]
        return [Detections(faces.boxes[k].astype(np.float32), faces.scores[k].astype(np.float32)) for k in rows]

    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return boxes and scores of R-Net, then those of O-Net.

        Gradients reach the pixels through the crops, not through their positions. A box that the network before did
        not accept has a score of 0.
        """
        images = (images * 255.0 - 127.5) / 128.0
        boxes, scores = map(tf.stop_gradient, run_pnet(p_net, images, min_face))
        best, places = tf.math.top_k(scores, min(PRE_NMS_TOP, scores.shape[1]))
        boxes, scores, _ = non_max_suppression(tf.gather(boxes, places, batch_dims=1), best, nms_iou, proposals)
        r_boxes, r_scores = _run_stage(r_net, images, boxes, scores > stage_threshold, 24)
        boxes, scores = tf.stop_gradient(r_boxes), tf.stop_gradient(r_scores)
        boxes, scores, _ = non_max_suppression(boxes, scores, nms_iou, proposals)
        o_boxes, o_scores = _run_stage(o_net, images, boxes, scores > stage_threshold, 48)
        return tf.concat([r_boxes, o_boxes], 1), tf.concat([r_scores, o_scores], 1)

    return Detector("mtcnn", settings.threshold, detect, pre_nms, None)


def _run_stage(
    network: Network, images: tf.Tensor, boxes: tf.Tensor, accepted: tf.Tensor, side: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run a network on those of the boxes (n, k, 4) that are ``accepted`` (n, k): boxes and scores."""
    places = tf.where(accepted)
    squares = _square(tf.gather_nd(boxes, places))
    crops = _crops(images, places[:, 0], squares, side)
    # Convolutions of an empty batch fail in graphs, hence one more crop of zeros.
    offsets, *_, classes = network(tf.pad(crops, [[0, 1], [0, 0], [0, 0], [0, 0]]))
    boxes = tf.tensor_scatter_nd_update(boxes, places, _moved(squares, offsets[:-1]))
    return boxes, tf.scatter_nd(places, classes[:-1, 1], tf.shape(accepted, tf.int64))


def run_pnet(p_net: Network, images: tf.Tensor, min_face: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return P-Net's boxes (n, a, 4) and scores (n, a) for images (n, h, w, 3) in [-1, 1], without gradients."""
    height, width = images.shape[1:3]
    boxes, scores = [tf.zeros((tf.shape(images)[0], 1, 4))], [tf.zeros((tf.shape(images)[0], 1))]
    for scale in build_scale_pyramid(width, height, min_face, FACTOR):
        offsets, classes = p_net(tf.image.resize(images, (int(height * scale), int(width * scale)), "area"))
        boxes.append(_windows(offsets) / scale)
        scores.append(tf.reshape(classes[..., 1], (-1, boxes[-1].shape[1])))
    return tf.concat(boxes, 1), tf.concat(scores, 1)


def _windows(offsets: tf.Tensor) -> tf.Tensor:
    """Return P-Net's windows, moved by ``offsets`` (n, r, c, 4), as boxes (n, r·c, 4) in pixels of their level."""
    rows, columns = offsets.shape[1:3]
    y, x = tf.meshgrid(tf.range(rows, dtype=tf.float32), tf.range(columns, dtype=tf.float32), indexing="ij")
    corners = STRIDE * tf.stack([x, y], -1) + 1.0
    side = WINDOW - 1.0
    start, end = corners + side * offsets[..., :2], corners + side * (1.0 + offsets[..., 2:])
    return tf.reshape(tf.concat([start, end - start], -1), (-1, rows * columns, 4))


def _moved(boxes: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Return boxes (k, 4) with their corners moved by offsets (k, 4), as the package moves them."""
    offsets = offsets * (tf.tile(boxes[:, 2:], (1, 2)) + 1.0)
    return tf.concat([boxes[:, :2] + offsets[:, :2], boxes[:, 2:] + offsets[:, 2:] - offsets[:, :2]], -1)


def _square(boxes: tf.Tensor) -> tf.Tensor:
    """Return boxes (k, 4) with their shorter side extended around the centre."""
    side = tf.reduce_max(boxes[:, 2:], -1, keepdims=True)
    return tf.concat([boxes[:, :2] + (boxes[:, 2:] - side) / 2.0, side, side], -1)


def _crops(images: tf.Tensor, numbers: tf.Tensor, boxes: tf.Tensor, side: int) -> tf.Tensor:
    """Crop images (n, h, w, 3) of these ``numbers`` (k,) to boxes (k, 4): (k, side, side, 3).

    Like ``tf.image.crop_and_resize``, bilinear and 0 outside the image, but its gradient is deterministic on a GPU.
    """
    height, width = images.shape[1:3]
    rows, vertical = _taps(boxes[:, 1], boxes[:, 3], height, side)
    columns, horizontal = _taps(boxes[:, 0], boxes[:, 2], width, side)
    pixels = tf.reshape(images, (-1, 3))
    first = tf.cast(numbers, tf.int32)[:, None, None] * (height * width)
    crops = tf.zeros((side, side, 3))
    for row, above in zip(rows, vertical, strict=True):
        for column, left in zip(columns, horizontal, strict=True):
            shown = tf.gather(pixels, first + row[:, :, None] * width + column[:, None, :])
            crops += shown * (above[:, :, None] * left[:, None, :])[..., None]
    return crops


def _taps(start: tf.Tensor, extent: tf.Tensor, pixels: int, side: int) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Return the two pixels around each of ``side`` samples of boxes, and their weights, all (k, side).

    ``start`` and ``extent`` (k,) are those of the boxes along a side of the image of ``pixels`` pixels.
    """
    steps = np.arange(side, dtype=np.float32) / (side - 1)
    samples = (start[:, None] + extent[:, None] * steps) * ((pixels - 1) / pixels)
    inside = tf.cast((samples >= 0) & (samples <= pixels - 1), tf.float32)
    samples = tf.clip_by_value(samples, 0.0, pixels - 1.0)
    low = tf.cast(tf.floor(samples), tf.int32)
    share = samples - tf.floor(samples)
    return [low, tf.minimum(low + 1, pixels - 1)], [inside * (1.0 - share), inside * share]
