"""The tiny face detector of face-api (Justadudewhohacks, Vladimir Mandic): YOLO v2 with separable convolutions.

Redmon and Farhadi, YOLO9000, CVPR 2017 (arXiv 1612.08242). Its weights are 8-bit numbers, restored.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visor.core.params import DetectorParams
from visor.core.tf import keras, layers, tf
from visor.models.detectors.base import Detector, letterboxed_detector, refuse_options
from visor.models.published import tfjs
from visor.models.published.weights import load_model

SIDE = 416
NMS_IOU = 0.4  # face-api's own
MEANS = (117.001, 114.697, 97.404)  # of red, green and blue
SLOPE = 0.1  # of leaky ReLU below 0
FILTERS = (32, 64, 128, 256, 512)  # of the separable convolutions
CELLS = 13
# Widths and heights, in cells.
ANCHORS = ((1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308))
VALUES = 5  # of an anchor: x, y, w, h, score
MAX_EXPONENT = 8.0  # of sizes, against overflow under an attack
TENSORS = {
    "conv0": ["conv0/filters", "conv0/bias"],
    **{
        f"conv{number}": [f"conv{number}/{name}" for name in ("depthwise_filter", "pointwise_filter", "bias")]
        for number in range(1, len(FILTERS) + 1)
    },
    "conv8": ["conv8/filters", "conv8/bias"],
}


def build(image_shape: tuple[int, int, int] = (SIDE, SIDE, 3)) -> keras.Model:
    """Return float32 images (n, 416, 416, 3) in [0, 1] → (n, 13, 13, 25): x, y, w, h and score of five anchors."""
    images = keras.Input(image_shape, name="input")
    features = layers.Rescaling(1.0, [-mean / 255 for mean in MEANS], name="subtract_mean")(images)
    features = layers.LeakyReLU(SLOPE, name="conv0_relu")(layers.Conv2D(16, 3, name="conv0")(features))
    for number, filters in enumerate(FILTERS, start=1):
        features = layers.MaxPooling2D(2, 2, "same", name=f"pool{number}")(features)
        features = layers.SeparableConv2D(filters, 3, padding="same", name=f"conv{number}")(features)
        features = layers.LeakyReLU(SLOPE, name=f"conv{number}_relu")(features)
    features = layers.MaxPooling2D(2, 1, "same", name="pool_last")(features)
    return keras.Model(images, layers.Conv2D(VALUES * len(ANCHORS), 1, name="conv8")(features), name="face_tiny")


def read_weights(files: Mapping[str, bytes]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the weights of each layer from the manifest and the file of face-api.

    Raises:
        UserError: The files have no such tensors.
    """
    tensors = tfjs.read_tensors("face_tiny", files, [name for names in TENSORS.values() for name in names])
    return {layer: [tensors[name] for name in names] for layer, names in TENSORS.items()}


def decode(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return boxes (n, 845, 4) in pixels of the square and scores (n, 845) of the network's outputs."""
    values = tf.reshape(outputs, (-1, CELLS, CELLS, len(ANCHORS), VALUES))
    y, x = np.meshgrid(*[np.arange(CELLS, dtype=np.float32)] * 2, indexing="ij")
    middles = np.stack([x, y], -1)[:, :, np.newaxis] + tf.sigmoid(values[..., :2])
    sizes = tf.exp(tf.minimum(values[..., 2:4], MAX_EXPONENT)) * tf.constant(ANCHORS)
    boxes = tf.concat([middles - sizes / 2, sizes], -1) * (SIDE / CELLS)
    count = CELLS * CELLS * len(ANCHORS)
    return tf.reshape(boxes, (-1, count, 4)), tf.sigmoid(tf.reshape(values[..., 4], (-1, count)))


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return the published detector; ``folder`` is not used.

    Raises:
        UserError: An option is given, or its files are not in the cache or damaged.
    """
    refuse_options("face_tiny", settings)
    return detector(load_model("face_tiny", build, read_weights), settings.threshold)


def detector(model: keras.Model, threshold: float) -> Detector:
    """Return the detector of the network; it has no training loss."""
    return letterboxed_detector(
        "face_tiny", threshold, SIDE, NMS_IOU, lambda images: decode(model(images, training=False)), None
    )
