"""SSD on MobileNet V1: one pass scores all anchors and regresses them to faces.

Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016 (arXiv 1512.02325); Howard et al., MobileNets, 2017
(arXiv 1704.04861); Lin et al., Feature Pyramid Networks, CVPR 2017 (arXiv 1612.03144).
"""

from math import log
from pathlib import Path

from visor.core import params
from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers, tf
from visor.models import storage
from visor.models.batch_normalization import BatchNormalization
from visor.models.detectors.anchors import AnchorLevel, decode, make_anchors, multibox_losses
from visor.models.detectors.base import Detector, GroundTruthTensors, letterboxed_detector

MAPS = {8: "conv_pw_5_relu", 16: "conv_pw_11_relu", 32: "conv_pw_13_relu"}  # stride: layer of MobileNet
SIZES = (2.0, 2.8)  # of anchors, in strides: over all levels they grow in steps of √2
RATIOS = (1.25,)  # height / width of a face
CHANNELS = 256  # of the pyramid at width 1
MOMENTUM = 0.9  # of batch normalisation: its statistics adapt in tens of steps instead of hundreds
NMS_IOU = 0.45
PRIOR = 0.01  # share of anchors with faces


def build(input_size: int, width: float) -> keras.Model:
    """Return the network: float32 images (n, input_size, input_size, 3) in [0, 1] → [logits (n, a), offsets (n, a, 4)].

    ``width`` is MobileNet's α, which multiplies its filters.

    Raises:
        UserError: ``input_size`` is not a multiple of 32 from 96 on, or ``width`` not in (0, 1].
    """
    if not isinstance(input_size, int) or input_size % 32 or input_size < 96:
        raise UserError(f"ssd: input_size is {input_size!r}; choose a multiple of 32 from 96 on")
    if not isinstance(width, int | float) or not 0 < width <= 1:
        raise UserError(f"ssd: width is {width!r}; choose a number up to 1.0, such as 0.25")
    images = keras.Input((input_size, input_size, 3), name="input")
    normalised = layers.Rescaling(2.0, -1.0, name="normalise")(images)
    published = keras.applications.MobileNet(input_tensor=normalised, alpha=width, include_top=False, weights=None)
    backbone = keras.models.clone_model(published, clone_function=_with_fused_batch_norm)
    maps = _pyramid({stride: backbone.get_layer(name).output for stride, name in MAPS.items()}, round(CHANNELS * width))
    for stride in strides(input_size)[len(MAPS) :]:
        maps[stride] = _block(maps[stride // 2], 2, f"extra_{stride}")
    logits, offsets = zip(*(_predict(features, stride) for stride, features in maps.items()), strict=True)
    outputs = [layers.Concatenate(axis=1, name="logits")(logits), layers.Concatenate(axis=1, name="offsets")(offsets)]
    return keras.Model(backbone.inputs[0], outputs, name="ssd")


def strides(input_size: int) -> list[int]:
    """Return the strides of the feature maps: MobileNet's, and further ones whose anchors fit into the image."""
    return [8, 16, 32] + [stride for stride in (64, 128) if SIZES[0] * stride < 0.75 * input_size]


def anchors(input_size: int) -> tf.Tensor:
    """Return the anchors (a, 4) of images of ``input_size`` pixels, in the order of the network's outputs."""
    levels = [AnchorLevel(stride, [stride * s for s in SIZES], RATIOS) for stride in strides(input_size)]
    return tf.constant(make_anchors(input_size, levels))


def _with_fused_batch_norm(layer: keras.Layer) -> keras.Layer:
    """Copy a layer of MobileNet, with our batch normalisation."""
    kind = BatchNormalization if isinstance(layer, layers.BatchNormalization) else type(layer)
    return kind.from_config(layer.get_config() | ({"momentum": MOMENTUM} if kind is BatchNormalization else {}))


def _pyramid(maps: dict[int, KerasTensor], channels: int) -> dict[int, KerasTensor]:
    """Add coarse maps to fine ones, from the top down (FPN)."""
    merged: dict[int, KerasTensor] = {}
    for stride in sorted(maps, reverse=True):
        features = layers.Conv2D(channels, 1, use_bias=False, name=f"lateral_{stride}")(maps[stride])
        features = BatchNormalization(momentum=MOMENTUM, name=f"lateral_{stride}_bn")(features)
        if merged:
            coarse = layers.UpSampling2D(2, name=f"upsample_{stride}")(merged[2 * stride])
            features = layers.Add(name=f"merge_{stride}")([features, coarse])
        merged[stride] = layers.ReLU(name=f"merge_{stride}_relu")(features)
    return {stride: _block(merged[stride], 1, f"smooth_{stride}") for stride in sorted(maps)}


def _block(features: KerasTensor, stride: int, name: str) -> KerasTensor:
    """Apply a 3×3 convolution that keeps the number of channels."""
    convolution = layers.Conv2D(features.shape[-1], 3, stride, "same", use_bias=False, name=name)
    features = BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(convolution(features))
    return layers.ReLU(name=f"{name}_relu")(features)


def _predict(features: KerasTensor, stride: int) -> tuple[KerasTensor, KerasTensor]:
    """Return the logits (n, a) and offsets (n, a, 4) of the anchors of one feature map."""
    count = len(SIZES) * len(RATIOS)
    prior = keras.initializers.Constant(-log(1 / PRIOR - 1))
    logits = layers.Conv2D(count, 1, bias_initializer=prior, name=f"logits_{stride}")(features)
    offsets = layers.Conv2D(4 * count, 1, name=f"offsets_{stride}")(features)
    return layers.Reshape((-1,))(logits), layers.Reshape((-1, 4))(offsets)


def losses(model: keras.Model, images: tf.Tensor, truth: GroundTruthTensors, training: bool) -> dict[str, tf.Tensor]:
    """Return ``multibox_losses`` of the network."""
    logits, offsets = model(images, training=training)
    return multibox_losses(logits, offsets, anchors(images.shape[1]), truth)


def select_layers(model: keras.Model, layers: str) -> None:
    """Choose which layers are trained: ``all``, or those of ``predictions``."""
    for layer in model.layers:
        layer.trainable = layers == "all" or layer.name.startswith(("logits", "offsets"))


def detector(model: keras.Model, threshold: float) -> Detector:
    """Return the detector of a network."""
    input_size = model.input_shape[1]
    boxes = anchors(input_size)

    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, offsets = model(images, training=False)
        return decode(offsets, boxes), tf.sigmoid(logits)

    def loss(images: tf.Tensor, truth: GroundTruthTensors) -> tf.Tensor:
        return losses(model, images, truth, False)["loss"]

    return letterboxed_detector("ssd", threshold, input_size, NMS_IOU, pre_nms, loss)


def load(settings: params.DetectorParams, folder: Path) -> Detector:
    """Return the detector that was trained into ``folder``; UserError if its files are missing or do not fit."""
    return detector(storage.load_model(build, folder), settings.threshold)
