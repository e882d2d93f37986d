"""Faster R-CNN (Ren, He, Girshick and Sun, NeurIPS 2015, arXiv 1506.01497) with a backbone that learns from scratch.

A region proposal network scores anchors; the head classifies the features inside the best of their boxes. Both are
trained together, end to end, on all proposals and on the faces themselves.
"""

from math import floor, log2, prod
from pathlib import Path
from typing import Literal, NamedTuple

from visor.core import params
from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers, tf
from visor.data.scene_set import FACE, IGNORE
from visor.models import storage
from visor.models.batch_normalization import BatchNormalization
from visor.models.detectors import anchors
from visor.models.detectors.anchors import AnchorLevel, decode, make_anchors, non_max_suppression
from visor.models.detectors.base import Detector, GroundTruthTensors, letterboxed_detector

PRE_NMS_FACTOR = 12  # boxes before suppression per box after it
PROPOSAL_NMS_IOU = 0.7
MIN_PROPOSAL_SIZE = 1.0  # pixels along a side


class ProposalLayer(layers.Layer):
    """Proposals: the best boxes of all anchors, clipped to the image, after non-maximum suppression.

    Neither boxes nor their selection have a gradient, as published ("approximate joint training"): gradients flow
    through the features inside the boxes, and the scores and offsets of the anchors.
    """

    def __init__(self, input_size: int, level: AnchorLevel, max_boxes: int, name: str) -> None:
        super().__init__(name=name)
        self.input_size, self.level, self.max_boxes = input_size, level, max_boxes
        self.anchors = make_anchors(input_size, [level])

    def call(self, objectness: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
        """Return boxes (n, max_boxes, 4) within the image, best first, padded with boxes without area.

        ``objectness`` are logits (n, a), ``shifts`` offsets (n, a, 4) from the anchors.
        """
        count = min(PRE_NMS_FACTOR * self.max_boxes, len(self.anchors))
        logits, best = tf.math.top_k(tf.stop_gradient(objectness), count)
        shifts = tf.gather(tf.stop_gradient(shifts), best, batch_dims=1)
        boxes = clip(decode(shifts, tf.gather(self.anchors, best)), self.input_size)
        large = tf.reduce_min(boxes[..., 2:], -1) >= MIN_PROPOSAL_SIZE
        scores = tf.where(large, tf.sigmoid(logits), 0.0)
        return non_max_suppression(boxes, scores, PROPOSAL_NMS_IOU, self.max_boxes)[0]


def clip(boxes: tf.Tensor, input_size: int) -> tf.Tensor:
    """Clip boxes (…, 4) to a square image; those outside have no area."""
    start = tf.clip_by_value(boxes[..., :2], 0.0, input_size)
    end = tf.clip_by_value(boxes[..., :2] + boxes[..., 2:], 0.0, input_size)
    return tf.concat([start, end - start], -1)


SAMPLES = 2  # along each side of a bin: four in all, as published


def roi_align(features: tf.Tensor, boxes: tf.Tensor, stride: int, bins: int) -> tf.Tensor:
    """Return the features inside boxes: float32 (n, k, bins, bins, channels).

    ``features`` are (n, h, w, channels), cell (i, j) in the middle of pixels i·stride … (i + 1)·stride; ``boxes`` are
    (n, k, 4) in pixels and get no gradient.
    """
    boxes = tf.stop_gradient(boxes)
    rows = _weights(boxes[..., 1], boxes[..., 3], features.shape[1], stride, bins)
    columns = _weights(boxes[..., 0], boxes[..., 2], features.shape[2], stride, bins)
    number, height, width, channels = tf.unstack(tf.shape(features))
    # One product per image, then one per row of bins: einsum would transpose the axes and take 3.5 times as long.
    inside = tf.reshape(rows, [number, -1, height]) @ tf.reshape(features, [number, height, -1])
    return columns[:, :, None] @ tf.reshape(inside, [number, -1, bins, width, channels])


def _weights(start: tf.Tensor, extent: tf.Tensor, cells: int, stride: int, bins: int) -> tf.Tensor:
    """Return the weights of ``cells`` along one side for each bin of boxes (n, k): (n, k, bins, cells).

    Samples beyond the middle of the outermost cell have its value, as in the published code: rows sum to one.
    """
    fractions = (tf.range(bins * SAMPLES, dtype=tf.float32) + 0.5) / (bins * SAMPLES)
    samples = (start[..., None] + extent[..., None] * fractions) / stride - 0.5
    samples = tf.clip_by_value(samples, 0.0, cells - 1.0)
    linear = tf.nn.relu(1.0 - tf.abs(samples[..., None] - tf.range(cells, dtype=tf.float32)))
    return tf.reduce_mean(tf.reshape(linear, [*tf.unstack(tf.shape(start)), bins, SAMPLES, cells]), axis=-2)


class RoiAlign(layers.Layer):
    """``roi_align`` as a layer."""

    def __init__(self, stride: int, bins: int, name: str) -> None:
        super().__init__(name=name)
        self.stride, self.bins = stride, bins

    def call(self, features: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Return the features inside boxes: (n, k, bins, bins, channels)."""
        return roi_align(features, boxes, self.stride, self.bins)


STRIDE = 8
RATIO = 1.3  # height / width of anchors
DILATIONS = (1, 2, 4)
BINS = 7
UNITS = 128
PREDICTIONS = {"objectness", "shifts", "score", "offsets"}  # layers
POSITIVE, NEGATIVE = 0.5, 0.4  # IoU with a face from which this is an anchor's target, below which background is
PROPOSAL_IOU = 0.5  # both, for proposals
NEGATIVE_RATIO = 3  # background anchors per anchor with a face
NMS_IOU = 0.45  # of detections


class Outputs(NamedTuple):
    """Outputs for n images with a anchors and k proposals; logits and offsets as in ``anchors``."""

    objectness: tf.Tensor  # (n, a), of anchors
    anchor_offsets: tf.Tensor  # (n, a, 4), from anchors
    boxes: tf.Tensor  # (n, k, 4), of proposals, in pixels
    score: tf.Tensor  # (n, k), of proposals
    offsets: tf.Tensor  # (n, k, 4), from proposals


def build(input_size: int, width: int, proposals: int) -> keras.Model:
    """Return the network: float32 images (n, input_size, input_size, 3) in [0, 1] → the five ``Outputs``.

    ``width`` is the number of filters of the first convolution, ``proposals`` the number of boxes for the head.

    Raises:
        UserError: ``input_size`` is not a multiple of the stride, or an argument not a whole number from 1 on.
    """
    for name, value in (("input_size", input_size), ("width", width), ("proposals", proposals)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"faster_rcnn: {name} is {value!r}; choose a whole number from 1 on")
    if input_size % STRIDE or input_size < 8 * STRIDE:
        raise UserError(f"faster_rcnn: input_size is {input_size}; choose a multiple of {STRIDE} from {8 * STRIDE} on")
    level = anchor_level(input_size)
    images = keras.Input((input_size, input_size, 3), name="input")
    features = _backbone(input_size, width)(images)
    objectness, shifts = _region_proposal_network(features.shape[1:], len(level.sizes))(features)
    boxes = ProposalLayer(input_size, level, proposals, name="propose")(objectness, shifts)
    inside = RoiAlign(STRIDE, BINS, name="roi_align")(features, boxes)
    score, offsets = _head(inside.shape[2:])(inside)
    return keras.Model(images, [objectness, shifts, boxes, score, offsets], name="faster_rcnn")


def anchor_level(input_size: int) -> AnchorLevel:
    """Return anchors from one and a half strides to two thirds of the side, in steps of √2."""
    smallest = 1.5 * STRIDE
    steps = floor(2 * log2(2 / 3 * input_size / smallest))
    return AnchorLevel(STRIDE, [smallest * 2 ** (step / 2) for step in range(steps + 1)], (RATIO,))


def forward(model: keras.Model, images: tf.Tensor, extra_boxes: tf.Tensor, training: bool) -> Outputs:
    """Run the network, the head also on extra boxes (n, m, 4), which follow the proposals."""
    features = model.get_layer("backbone")(images, training=training)
    objectness, shifts = model.get_layer("rpn")(features, training=training)
    boxes = tf.concat([model.get_layer("propose")(objectness, shifts), extra_boxes], axis=1)
    score, offsets = model.get_layer("head")(model.get_layer("roi_align")(features, boxes), training=training)
    return Outputs(objectness, shifts, boxes, score, offsets)


def losses(model: keras.Model, images: tf.Tensor, truth: GroundTruthTensors, training: bool) -> dict[str, tf.Tensor]:
    """Return cross-entropy and smooth L1 of anchors and of proposals (section 3.1.2, eq. 1), and their sum: (n,) each.

    The head is also trained on the largest faces themselves, at most as many as proposals.
    """
    propose = model.get_layer("propose")
    outputs = forward(model, images, largest_faces(truth, propose.max_boxes), training)
    targets = anchors.assign_targets(propose.anchors, *truth, POSITIVE, NEGATIVE)
    errors = anchors.binary_cross_entropy(outputs.objectness, targets.kinds)
    faces = targets.kinds == FACE
    selected = faces | anchors.hard_negatives(errors, targets.kinds, NEGATIVE_RATIO)
    distances = _distance(outputs.anchor_offsets, propose.anchors, targets.boxes)
    parts = {"anchor_score": _masked_mean(errors, selected), "anchor_box": _masked_mean(distances, faces)}
    solid = tf.reduce_min(outputs.boxes[..., 2:], -1) > 0
    boxes = tf.where(solid[..., None], outputs.boxes, 1.0)  # nothing is learned from the padding of proposals
    targets = anchors.assign_targets(boxes, *truth, PROPOSAL_IOU, PROPOSAL_IOU)
    errors = anchors.binary_cross_entropy(outputs.score, targets.kinds)
    parts |= {
        "score": _masked_mean(errors, solid & (targets.kinds != IGNORE)),
        "box": _masked_mean(_distance(outputs.offsets, boxes, targets.boxes), solid & (targets.kinds == FACE)),
    }
    return {"loss": tf.add_n(list(parts.values()))} | parts


def largest_faces(truth: GroundTruthTensors, max_boxes: int) -> tf.Tensor:
    """Return boxes (n, k, 4) of at most ``max_boxes`` faces per image, padded with boxes without area."""
    boxes, kinds = truth
    boxes = tf.where((kinds == FACE)[..., None], boxes, 0.0)
    _, largest = tf.math.top_k(boxes[..., 2] * boxes[..., 3], tf.minimum(max_boxes, tf.shape(boxes)[1]))
    return tf.gather(boxes, largest, batch_dims=1)


def select_layers(model: keras.Model, layers: Literal["all", "predictions"]) -> None:
    """Choose which layers are trained: ``all``, or those of ``predictions``, of RPN and head."""
    for part in ("backbone", "rpn", "head"):
        for layer in model.get_layer(part).layers:
            layer.trainable = layers == "all" or layer.name in PREDICTIONS


def detector(model: keras.Model, threshold: float) -> Detector:
    """Return the detector; its boxes before suppression are the proposals after the head."""

    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        _, _, boxes, score, offsets = model(images, training=False)
        solid = tf.reduce_min(boxes[..., 2:], -1) > 0
        return decode(offsets, boxes), tf.where(solid, tf.sigmoid(score), 0.0)

    def loss(images: tf.Tensor, truth: GroundTruthTensors) -> tf.Tensor:
        return losses(model, images, truth, training=False)["loss"]

    return letterboxed_detector("faster_rcnn", threshold, model.input_shape[1], NMS_IOU, pre_nms, loss)


def load(settings: params.DetectorParams, folder: Path) -> Detector:
    """Return the detector that was trained into ``folder``; UserError if its files are missing or do not fit."""
    return detector(storage.load_model(build, folder), settings.threshold)


def _backbone(input_size: int, width: int) -> keras.Model:
    """Return the model of images (n, s, s, 3) in [0, 1] → features (n, s / 8, s / 8, 4·width)."""
    images = keras.Input((input_size, input_size, 3))
    features = layers.Rescaling(2.0, -1.0)(images)
    for factor in (1, 2, 4):
        features = _convolution(features, factor * width, strides=2)
    for dilation in DILATIONS:
        features = layers.Add()([features, _convolution(features, 4 * width, dilation_rate=dilation)])
    return keras.Model(images, features, name="backbone")


def _region_proposal_network(shape: tuple[int, int, int], sizes: int) -> keras.Model:
    """Return the model of features (n, *shape) → objectness (n, h·w·sizes), shifts (n, h·w·sizes, 4)."""
    features = keras.Input(shape)
    hidden = _convolution(features, shape[-1])
    objectness = layers.Conv2D(sizes, 1, name="objectness")(hidden)
    shifts = layers.Conv2D(4 * sizes, 1, name="shifts")(hidden)
    return keras.Model(features, [layers.Reshape((-1,))(objectness), layers.Reshape((-1, 4))(shifts)], name="rpn")


def _head(shape: tuple[int, int, int]) -> keras.Model:
    """Return the model of features inside boxes (n, k, *shape) → score (n, k), offsets (n, k, 4)."""
    inside = keras.Input((None, *shape))
    hidden = layers.Reshape((-1, prod(shape)))(inside)
    for _ in range(2):
        hidden = layers.Dense(UNITS, activation="relu")(hidden)
    score = layers.Dense(1, name="score")(hidden)
    return keras.Model(inside, [score[..., 0], layers.Dense(4, name="offsets")(hidden)], name="head")


def _convolution(features: KerasTensor, filters: int, strides: int = 1, dilation_rate: int = 1) -> KerasTensor:
    convolution = layers.Conv2D(filters, 3, strides, "same", dilation_rate=dilation_rate, use_bias=False)
    return layers.ReLU()(BatchNormalization(momentum=0.9)(convolution(features)))


def _distance(offsets: tf.Tensor, boxes: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    return anchors.smooth_l1(offsets, anchors.encode(targets, boxes))


def _masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the mean (n,) of values (n, k) where ``mask`` is true; zero where it never is."""
    count = tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1)
    return tf.reduce_sum(tf.where(mask, values, 0.0), axis=-1) / tf.maximum(count, 1.0)
