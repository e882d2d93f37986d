"""Faster R-CNN (Ren, He, Girshick and Sun, NeurIPS 2015, arXiv 1506.01497) with a backbone that learns from scratch.

A region proposal network scores anchors; the head looks again at the features inside the best of their boxes. Both
are trained together, end to end, on all proposals and on the faces themselves.
"""

from math import floor, log2, prod
from pathlib import Path
from typing import Literal, NamedTuple

import tensorflow as tf
from keras import Input, KerasTensor, Model, layers

from visor import params
from visor.detectors import anchors
from visor.detectors.detector import Detector, Truth, of_squares
from visor.detectors.proposals import Propose
from visor.detectors.roi_align import RoiAlign
from visor.errors import UserError
from visor.models import storage
from visor.models.batch_normalization import BatchNormalization
from visor.scenes import FACE, IGNORE

STRIDE = 8
RATIO = 1.3  # height / width of anchors
DILATIONS = (1, 2, 4)
BINS = 7
UNITS = 128
PREDICTIONS = {"objectness", "shifts", "score", "offsets"}  # layers
POSITIVE, NEGATIVE = 0.5, 0.4  # IoU with a face from which an anchor learns it, and below which background
HALF = 0.5  # the same for proposals, both
NEGATIVES = 3  # anchors on background for each that learns a face
OVERLAP = 0.45  # IoU above which the better of two found boxes is kept


class Views(NamedTuple):
    """What the network makes of n images with a anchors and k proposals; logits and offsets as in ``anchors``."""

    objectness: tf.Tensor  # (n, a), of anchors
    shifts: tf.Tensor  # (n, a, 4), from anchors
    boxes: tf.Tensor  # (n, k, 4), of proposals, in pixels
    score: tf.Tensor  # (n, k), of proposals
    offsets: tf.Tensor  # (n, k, 4), from proposals


def build(side: int, width: int, proposals: int) -> Model:
    """Return the network: float32 images (n, side, side, 3) in [0, 1] → the five of ``Views``.

    ``width`` is the number of filters of the first convolution, ``proposals`` how many boxes the head looks at.

    Raises:
        UserError: ``side`` is no multiple of the stride, or an argument no whole number from 1 on.
    """
    for name, value in (("side", side), ("width", width), ("proposals", proposals)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"faster_rcnn: {name} is {value!r}; choose a whole number from 1 on")
    if side % STRIDE or side < 8 * STRIDE:
        raise UserError(f"faster_rcnn: side is {side}; choose a multiple of {STRIDE} from {8 * STRIDE} on")
    level = anchor_level(side)
    images = Input((side, side, 3), name="input")
    features = _backbone(side, width)(images)
    objectness, shifts = _region_proposal_network(features.shape[1:], len(level.sizes))(features)
    boxes = Propose(side, level, proposals, name="propose")(objectness, shifts)
    inside = RoiAlign(STRIDE, BINS, name="roi_align")(features, boxes)
    score, offsets = _head(inside.shape[2:])(inside)
    return Model(images, [objectness, shifts, boxes, score, offsets], name="faster_rcnn")


def anchor_level(side: int) -> anchors.Level:
    """Anchors from one and a half strides up to two thirds of the side, in steps of √2: half an octave apart."""
    smallest = 1.5 * STRIDE
    steps = floor(2 * log2(2 / 3 * side / smallest))
    return anchors.Level(STRIDE, [smallest * 2 ** (step / 2) for step in range(steps + 1)], (RATIO,))


def look(model: Model, images: tf.Tensor, more: tf.Tensor, training: bool) -> Views:
    """Run the network, the head also on ``more`` boxes (n, m, 4): they follow the proposals."""
    features = model.get_layer("backbone")(images, training=training)
    objectness, shifts = model.get_layer("rpn")(features, training=training)
    boxes = tf.concat([model.get_layer("propose")(objectness, shifts), more], axis=1)
    score, offsets = model.get_layer("head")(model.get_layer("roi_align")(features, boxes), training=training)
    return Views(objectness, shifts, boxes, score, offsets)


def losses(model: Model, images: tf.Tensor, truth: Truth, training: bool) -> dict[str, tf.Tensor]:
    """Cross-entropy and smooth L1 of anchors, then of proposals (section 3.1.2, eq. 1), and the sum of all: (n,) each.

    The head also looks at the largest faces themselves, as many as proposals at most.
    """
    propose = model.get_layer("propose")
    views = look(model, images, largest_faces(truth, propose.most), training)
    wanted = anchors.match(propose.anchors, *truth, POSITIVE, NEGATIVE)
    errors = anchors.binary_cross_entropy(views.objectness, wanted.kinds)
    chosen = (wanted.kinds == FACE) | anchors.hard_negatives(errors, wanted.kinds, NEGATIVES)
    parts = {
        "anchor_score": _mean(errors, chosen),
        "anchor_box": _mean(_distance(views.shifts, propose.anchors, wanted.boxes), wanted.kinds == FACE),
    }
    solid = tf.reduce_min(views.boxes[..., 2:], -1) > 0
    boxes = tf.where(solid[..., None], views.boxes, 1.0)  # what is there for want of proposals teaches nothing
    wanted = anchors.match(boxes, *truth, HALF, HALF)
    errors = anchors.binary_cross_entropy(views.score, wanted.kinds)
    parts |= {
        "score": _mean(errors, solid & (wanted.kinds != IGNORE)),
        "box": _mean(_distance(views.offsets, boxes, wanted.boxes), solid & (wanted.kinds == FACE)),
    }
    return {"loss": tf.add_n(list(parts.values()))} | parts


def largest_faces(truth: Truth, most: int) -> tf.Tensor:
    """Return boxes (n, k, 4) of at most ``most`` faces of each image; those without area are none."""
    boxes, kinds = truth
    boxes = tf.where((kinds == FACE)[..., None], boxes, 0.0)
    _, largest = tf.math.top_k(boxes[..., 2] * boxes[..., 3], tf.minimum(most, tf.shape(boxes)[1]))
    return tf.gather(boxes, largest, batch_dims=1)


def select_layers(model: Model, layers: Literal["all", "predictions"]) -> None:
    """Choose what a fit moves: ``all`` layers, or those alone that put out ``predictions``, of RPN and head."""
    for part in ("backbone", "rpn", "head"):
        for layer in model.get_layer(part).layers:
            layer.trainable = layers == "all" or layer.name in PREDICTIONS


def detector(model: Model, threshold: float) -> Detector:
    """Return the detector; candidates are the proposals as the head sees them."""

    def candidates(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        _, _, boxes, score, offsets = model(images, training=False)
        solid = tf.reduce_min(boxes[..., 2:], -1) > 0
        boxes = anchors.decode(offsets, boxes)
        return boxes, tf.where(solid, tf.sigmoid(score), 0.0)

    def loss(images: tf.Tensor, truth: Truth) -> tf.Tensor:
        return losses(model, images, truth, training=False)["loss"]

    return of_squares("faster_rcnn", threshold, model.input_shape[1], OVERLAP, candidates, loss)


def load(settings: params.Detector, folder: Path) -> Detector:
    """Return the detector that was trained into ``folder``.

    Raises:
        UserError: a file is missing, broken, or holds another network.
    """
    return detector(storage.load(build, folder), settings.threshold)


def _backbone(side: int, width: int) -> Model:
    """Images (n, side, side, 3) in [0, 1] → features (n, side / 8, side / 8, 4·width)."""
    images = Input((side, side, 3))
    features = layers.Rescaling(2.0, -1.0)(images)
    for factor in (1, 2, 4):
        features = _convolution(features, factor * width, strides=2)
    for dilation in DILATIONS:
        features = layers.Add()([features, _convolution(features, 4 * width, dilation_rate=dilation)])
    return Model(images, features, name="backbone")


def _region_proposal_network(shape: tuple[int, int, int], sizes: int) -> Model:
    """Features of that shape (h, w, c) → objectness (n, h·w·sizes), shifts (n, h·w·sizes, 4)."""
    features = Input(shape)
    hidden = _convolution(features, shape[-1])
    objectness = layers.Conv2D(sizes, 1, name="objectness")(hidden)
    shifts = layers.Conv2D(4 * sizes, 1, name="shifts")(hidden)
    return Model(features, [layers.Reshape((-1,))(objectness), layers.Reshape((-1, 4))(shifts)], name="rpn")


def _head(shape: tuple[int, int, int]) -> Model:
    """Features inside boxes (n, k, *shape) → score (n, k), offsets (n, k, 4)."""
    inside = Input((None, *shape))
    hidden = layers.Reshape((-1, prod(shape)))(inside)
    for _ in range(2):
        hidden = layers.Dense(UNITS, activation="relu")(hidden)
    score = layers.Dense(1, name="score")(hidden)
    return Model(inside, [score[..., 0], layers.Dense(4, name="offsets")(hidden)], name="head")


def _convolution(features: KerasTensor, filters: int, strides: int = 1, dilation_rate: int = 1) -> KerasTensor:
    features = layers.Conv2D(filters, 3, strides=strides, dilation_rate=dilation_rate, padding="same", use_bias=False)(
        features
    )
    return layers.ReLU()(BatchNormalization(momentum=0.9)(features))


def _distance(offsets: tf.Tensor, boxes: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    return anchors.smooth_l1(offsets, anchors.encode(wanted, boxes))


def _mean(values: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Mean (n,) of the chosen among values (n, k); zero where there are none."""
    count = tf.reduce_sum(tf.cast(chosen, tf.float32), axis=-1)
    return tf.reduce_sum(tf.where(chosen, values, 0.0), axis=-1) / tf.maximum(count, 1.0)
