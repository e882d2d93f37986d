"""The SSD on MobileNet V1 of face-api (Vladimir Mandic), trained on WIDER FACE.

Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016 (arXiv 1512.02325). Its weights are 8-bit numbers, restored.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visor.core.params import DetectorParams
from visor.core.tf import KerasTensor, keras, layers, tf
from visor.models.detectors.anchors import decode, multibox_losses
from visor.models.detectors.base import Detector, GroundTruthTensors, letterboxed_detector, refuse_options
from visor.models.published import mobilenet_v1, tfjs
from visor.models.published.weights import load_model

SIDE = 512
NMS_IOU = 0.5  # face-api's own
EPSILON = 0.001  # of batch normalisation
EXTRAS = ((256, 1), (512, 3), (128, 1), (256, 3), (128, 1), (256, 3), (64, 1), (128, 3))  # filters and kernels
ROWS = (32, 16, 8, 4, 2, 1)  # of the maps with anchors
SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # √area of a map's anchors, as a share of the image, and what follows
SMALLEST = 0.1  # the square of the finest map
RATIOS = (2.0, 0.5, 3.0, 0.3333)  # width / height, besides 1; the finest map has the first two
CLASSES, FACE = 3, 1  # background, face, and one that was never seen


def build(image_shape: tuple[int, int, int] = (SIDE, SIDE, 3)) -> keras.Model:
    """Return float32 images (n, 512, 512, 3) in [0, 1] → [logits (n, 5118), offsets (n, 5118, 4)], of ``anchors``."""
    images = keras.Input(image_shape, name="input")
    blocks = mobilenet_v1.add_blocks(layers.Rescaling(2.0, -1.0, name="normalise")(images))
    features, maps = blocks[12], [blocks[10], blocks[12]]
    for number, (filters, kernel) in enumerate(EXTRAS):
        strides = 1 if kernel == 1 else 2
        convolution = layers.Conv2D(filters, kernel, strides, "same", activation="relu6", name=f"extra_{number}")
        features = convolution(features)
        if strides == 2:
            maps.append(features)
    logits, offsets = zip(*(_predict(features, number) for number, features in enumerate(maps)), strict=True)
    outputs = [layers.Concatenate(axis=1, name="logits")(logits), layers.Concatenate(axis=1, name="offsets")(offsets)]
    return keras.Model(images, outputs, name="face_ssd")


def _predict(features: KerasTensor, number: int) -> tuple[KerasTensor, KerasTensor]:
    """Return the logits (n, a) and offsets (n, a, 4) of the anchors of one map."""
    count = len(_shapes(number))
    logits = layers.Conv2D(count, 1, name=f"class_{number}")(features)
    offsets = layers.Conv2D(4 * count, 1, name=f"box_{number}")(features)
    return layers.Reshape((-1,))(logits), layers.Reshape((-1, 4))(offsets)


def anchors() -> NDArray[np.float32]:
    """Return the anchors [x, y, w, h] in pixels of the square, (5118, 4): by map, row, column, shape."""
    parts = []
    for number, rows in enumerate(ROWS):
        y, x = np.meshgrid(*[(np.arange(rows) + 0.5) / rows] * 2, indexing="ij")
        shapes = np.array(_shapes(number))
        middles = np.broadcast_to(np.stack([x, y], -1)[:, :, None], (rows, rows, len(shapes), 2))
        parts.append(np.concatenate([middles - shapes / 2, np.broadcast_to(shapes, middles.shape)], -1).reshape(-1, 4))
    return (SIDE * np.concatenate(parts)).astype(np.float32)


def _shapes(number: int) -> list[tuple[float, float]]:
    """Return the widths and heights of the anchors of one map, as shares of the image."""
    scale, following = SCALES[number : number + 2]
    squares = [scale, (scale * following) ** 0.5] if number else [SMALLEST]
    ratios = RATIOS if number else RATIOS[:2]
    return [(side, side) for side in squares] + [(scale * ratio**0.5, scale / ratio**0.5) for ratio in ratios]


def read_weights(files: Mapping[str, bytes]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the weights of each layer from the manifest and the file of face-api.

    Batch normalisation is folded; of the scores of three classes those of faces alone are kept, and the four offsets
    come in the order x, y, w, h.

    Raises:
        UserError: The files have no such tensors.
    """
    names = _tensor_names()
    tensors = tfjs.read_tensors("face_ssd", files, [name for group in names.values() for name in group])
    weights = {}
    for layer, group in names.items():
        kernel, *others = (tensors[name] for name in group)
        if layer.startswith("conv_dw_"):
            gamma, beta, mean, variance = others
            scale = gamma / np.sqrt(variance + np.float32(EPSILON))
            weights[layer] = [kernel * scale[:, np.newaxis], beta - mean * scale]
        elif layer.startswith("class_"):
            weights[layer] = [
                values.reshape(*values.shape[:-1], -1, CLASSES)[..., FACE] for values in (kernel, *others)
            ]
        elif layer.startswith("box_"):
            weights[layer] = [_swap_axes_of_boxes(values) for values in (kernel, *others)]
        else:
            weights[layer] = [kernel, *others]
    return weights


def _swap_axes_of_boxes(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reorder the last axis from y, x, h, w of each anchor to x, y, w, h."""
    return values.reshape(*values.shape[:-1], -1, 4)[..., [1, 0, 3, 2]].reshape(values.shape)


def _tensor_names() -> dict[str, list[str]]:
    """Return what the tensors of each layer are called."""

    def convolution(scope: str) -> list[str]:
        return [f"{scope}_pointwise/weights", f"{scope}_pointwise/convolution_bn_offset"]

    names = {"conv1": convolution("MobilenetV1/Conv2d_0")}
    statistics = [f"BatchNorm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    for number in range(1, len(mobilenet_v1.FILTERS) + 1):
        scope = f"MobilenetV1/Conv2d_{number}"
        names[f"conv_dw_{number}"] = [f"{scope}_depthwise/{name}" for name in ("depthwise_weights", *statistics)]
        names[f"conv_pw_{number}"] = convolution(scope)
    names |= {f"extra_{number}": convolution(f"Prediction/Conv2d_{number}") for number in range(len(EXTRAS))}
    for number in range(len(ROWS)):
        for layer, scope in (("class", "ClassPredictor"), ("box", "BoxEncodingPredictor")):
            scope = f"Prediction/BoxPredictor_{number}/{scope}"
            names[f"{layer}_{number}"] = [f"{scope}/weights", f"{scope}/biases"]
    return names


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return the published detector; ``folder`` is not used.

    Raises:
        UserError: An option is given, or its files are not in the cache or damaged.
    """
    refuse_options("face_ssd", settings)
    return detector(load_model("face_ssd", build, read_weights), settings.threshold)


def detector(model: keras.Model, threshold: float) -> Detector:
    """Return the detector of the network; its training loss is that of SSD."""
    boxes = tf.constant(anchors())

    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, offsets = model(images, training=False)
        return decode(offsets, boxes), tf.sigmoid(logits)

    def loss(images: tf.Tensor, truth: GroundTruthTensors) -> tf.Tensor:
        logits, offsets = model(images, training=False)
        return multibox_losses(logits, offsets, boxes, truth)["loss"]

    return letterboxed_detector("face_ssd", threshold, SIDE, NMS_IOU, pre_nms, loss)
