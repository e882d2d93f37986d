"""BlazeFace (Bazarevsky et al. 2019, arXiv 1907.05047) as the package human has it, for faces that are near.

Its graph was read from the package: separable blocks with a residual, 24 to 96 channels, and two maps of anchors.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visor.core.params import DetectorParams
from visor.core.tf import KerasTensor, keras, layers, ops, tf
from visor.models.detectors.base import Detector, letterboxed_detector, refuse_options
from visor.models.published import tfjs
from visor.models.published.weights import load_model

SIDE = 256
NMS_IOU = 0.3  # MediaPipe's own
STEM, FIRST_FILTERS = 24, 24
BLOCKS = 31
HALVING = {7: 24, 15: 48, 23: 96}  # blocks that halve rows and columns: their filters
MAPS = ((16, 2), (8, 6))  # rows, and anchors of a cell
VALUES = 16  # of an anchor: x, y, w, h, and six points
# The order of the graph: numbers count the tensors, with gaps.
TENSORS = {
    "stem": ["unknown", "unknown_0"],
    **{
        f"block_{number}_{kind}": [f"unknown_{4 * number + place}" for place in places]
        for number in range(BLOCKS + 1)
        for kind, places in (("dw", (1,)), ("pw", (3, 4)))
    },
    "class_0": ["unknown_135", "unknown_136"],
    "class_1": ["unknown_133", "unknown_134"],
    "box_0": ["unknown_131", "unknown_132"],
    "box_1": ["unknown_129", "unknown_130"],
}


def build(image_shape: tuple[int, int, int] = (SIDE, SIDE, 3)) -> keras.Model:
    """Return float32 images (n, 256, 256, 3) in [0, 1] → [logits (n, 896), offsets (n, 896, 16)] in pixels."""
    images = keras.Input(image_shape, name="input")
    features = layers.Rescaling(2.0, -1.0, name="normalise")(images)
    features = layers.Conv2D(STEM, 5, 2, "same", activation="relu", name="stem")(features)
    filters = FIRST_FILTERS
    for number in range(BLOCKS):
        filters = HALVING.get(number, filters)
        change = _separable(features, filters, number, number in HALVING)
        if number in HALVING:
            features = layers.MaxPooling2D(2, 2, "same", name=f"block_{number}_pool")(features)
            if features.shape[-1] < filters:  # Not by ops.pad: TensorFlow's fused graph of it crashes.
                features = ops.concatenate([features, ops.zeros_like(features)], axis=-1)
        features = layers.ReLU(name=f"block_{number}_relu")(layers.Add(name=f"block_{number}_add")([change, features]))
    coarse = layers.ReLU(name="coarse_relu")(_separable(features, filters, BLOCKS, True))
    logits, offsets = [], []
    for number, (feature_map, (_, count)) in enumerate(zip((features, coarse), MAPS, strict=True)):
        score, offset = (
            layers.Conv2D(values * count, 1, name=f"{kind}_{number}")(feature_map)
            for kind, values in (("class", 1), ("box", VALUES))
        )
        logits.append(layers.Reshape((-1,))(score))
        offsets.append(layers.Reshape((-1, VALUES))(offset))
    outputs = [layers.Concatenate(axis=1, name="logits")(logits), layers.Concatenate(axis=1, name="offsets")(offsets)]
    return keras.Model(images, outputs, name="blazeface")


def _separable(features: KerasTensor, filters: int, number: int, halve: bool) -> KerasTensor:
    """Return a depthwise convolution, 3 × 3, and one of 1 × 1 behind it."""
    depthwise = layers.DepthwiseConv2D(3, 2 if halve else 1, "same", use_bias=False, name=f"block_{number}_dw")
    return layers.Conv2D(filters, 1, name=f"block_{number}_pw")(depthwise(features))


def read_weights(files: Mapping[str, bytes]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the weights of each layer from the manifest and the file of human.

    Raises:
        UserError: The files have no such tensors.
    """
    tensors = tfjs.read_tensors("blazeface", files, [name for names in TENSORS.values() for name in names])
    return {layer: [tensors[name] for name in names] for layer, names in TENSORS.items()}


def anchors() -> NDArray[np.float32]:
    """Return the middles (896, 2) of the anchors, x and y in pixels of the square: by map, row, column."""
    parts = []
    for rows, count in MAPS:
        y, x = np.meshgrid(*[(np.arange(rows) + 0.5) * SIDE / rows] * 2, indexing="ij")
        parts.append(np.stack([x, y], -1).reshape(-1, 2).repeat(count, axis=0))
    return np.concatenate(parts).astype(np.float32)


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return the published detector; ``folder`` is not used.

    Raises:
        UserError: An option is given, or its files are not in the cache or damaged.
    """
    refuse_options("blazeface", settings)
    return detector(load_model("blazeface", build, read_weights), settings.threshold)


def detector(model: keras.Model, threshold: float) -> Detector:
    """Return the detector of the network; it has no training loss."""
    middles = tf.constant(anchors())

    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, offsets = model(images, training=False)
        sizes = tf.nn.relu(offsets[..., 2:4])
        return tf.concat([middles + offsets[..., :2] - sizes / 2, sizes], -1), tf.sigmoid(logits)

    return letterboxed_detector("blazeface", threshold, SIDE, NMS_IOU, pre_nms, None)
