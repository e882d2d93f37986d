"""Faster R-CNN with a ResNet-50 and a feature pyramid, as torchvision has it, from a ``.safetensors`` file of the user.

Ren et al., Faster R-CNN, NeurIPS 2015 (arXiv 1506.01497); Lin et al., Feature Pyramid Networks, CVPR 2017 (arXiv
1612.03144). Layers have the names of torchvision's ``fasterrcnn_resnet50_fpn``, and what it computes is its
implementation's: paddings, anchors of whole pixels, and RoIAlign that takes no half pixel off.
"""

import re
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError, shorten
from visor.core.params import DetectorParams
from visor.core.tf import KerasTensor, keras, layers, tf
from visor.models import safetensors
from visor.models.detectors.base import Detector, compile_detect

MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green and blue
MAX_SIDE_RATIO = 1333 / 800  # of the longer side of a resized image to ``min_side``
PAD_MULTIPLE = 32
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # of ResNet-50: filters inside a block, and blocks
CHANNELS = 256  # of the pyramid
STRIDES = (4, 8, 16, 32)  # of its maps; a fifth is the last one with each second place
ANCHOR_SIZES, ANCHOR_RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)  # one size a map; height / width
ANCHOR_WEIGHTS, BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)  # of the offsets x, y, w, h
MAX_STRETCH = log(1000 / 16)
PROPOSALS = 1000  # of each map before suppression, and of an image after it
PROPOSAL_NMS_IOU, NMS_IOU = 0.7, 0.5
MIN_PROPOSAL_SIZE = 1e-3  # pixels along a side
BINS, SAMPLES = 7, 2  # of RoIAlign along a side, and of each bin
UNITS = 1024
NEVER = -1e9  # logit of what is no proposal
OPTIONS: dict[str, int | float | str] = {"path": "", "min_side": 800, "epsilon": 0.0, "face": 1}
# torchvision renames these when it loads its file of 2019.
FORMER_NAMES = {
    r"^rpn\.head\.conv\.(weight|bias)$": r"rpn.head.conv.0.0.\1",
    r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$": r"\1.0.\2",
}
ADVICE = "choose a Faster R-CNN with ResNet-50"
CONVERSION = (
    "python -c \"import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load('IN.pth', "
    "map_location='cpu', weights_only=True).items()}, 'OUT.safetensors')\""
)


class Network(NamedTuple):
    """The three parts that have weights, 41,755,286 parameters with 91 classes while batch normalisation is apart.

    Attributes:
        pyramid: Images (n, h, w, 3), normalised, sides multiples of 32 → five maps (n, h/s, w/s, 256).
        proposal_head: A map → objectness (n, r, c, 3) and offsets (n, r, c, 12).
        box_head: Features (k, 7, 7, 256) inside boxes → logits (k, classes) and offsets (k, 4 · classes).
    """

    pyramid: keras.Model
    proposal_head: keras.Model
    box_head: keras.Model


class HeadOutputs(NamedTuple):
    """Outputs for n images: boxes [x, y, w, h] (n, k, 4) of proposals in pixels of the resized image, padded with 0."""

    proposals: tf.Tensor
    logits: tf.Tensor  # (n, k, classes)
    offsets: tf.Tensor  # (n, k, classes, 4)


def build(classes: int) -> Network:
    """Return the network for so many classes, with the background."""
    images = keras.Input((None, None, 3))
    features, maps = _convolve(images, 64, 7, 2, "backbone.body.conv1"), []
    features = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(features)))
    for stage, (filters, blocks) in enumerate(STAGES, start=1):
        for number in range(blocks):
            features = _block(features, filters, 2 if stage > 1 and number == 0 else 1, f"layer{stage}.{number}")
        maps.append(features)
    merged = [layers.Conv2D(CHANNELS, 1, name=f"backbone.fpn.inner_blocks.{k}.0")(maps[k]) for k in range(len(maps))]
    for finer in reversed(range(len(maps) - 1)):
        merged[finer] = layers.Add()([merged[finer], layers.UpSampling2D(2)(merged[finer + 1])])
    smooth = [_convolve(merged[k], CHANNELS, 3, 1, f"backbone.fpn.layer_blocks.{k}.0") for k in range(len(maps))]
    pyramid = keras.Model(images, [*smooth, layers.MaxPooling2D(1, 2)(smooth[-1])])
    features = keras.Input((None, None, CHANNELS))
    hidden = layers.ReLU()(_convolve(features, CHANNELS, 3, 1, "rpn.head.conv.0.0"))
    count = len(ANCHOR_RATIOS)
    scores = layers.Conv2D(count, 1, name="rpn.head.cls_logits")(hidden)
    proposal_head = keras.Model(features, [scores, layers.Conv2D(4 * count, 1, name="rpn.head.bbox_pred")(hidden)])
    inside = keras.Input((BINS, BINS, CHANNELS))
    hidden = layers.Flatten()(inside)
    for name in ("fc6", "fc7"):
        hidden = layers.Dense(UNITS, activation="relu", name=f"roi_heads.box_head.{name}")(hidden)
    logits = layers.Dense(classes, name="roi_heads.box_predictor.cls_score")(hidden)
    offsets = layers.Dense(4 * classes, name="roi_heads.box_predictor.bbox_pred")(hidden)
    return Network(pyramid, proposal_head, keras.Model(inside, [logits, offsets]))


def _block(features: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """Return a bottleneck of ResNet; its second convolution has the stride."""
    name = f"backbone.body.{name}"
    change = layers.ReLU()(_convolve(features, filters, 1, 1, f"{name}.conv1"))
    change = layers.ReLU()(_convolve(change, filters, 3, stride, f"{name}.conv2"))
    change = _convolve(change, 4 * filters, 1, 1, f"{name}.conv3")
    if features.shape[-1] != 4 * filters:
        features = _convolve(features, 4 * filters, 1, stride, f"{name}.downsample.0")
    return layers.ReLU()(layers.Add()([change, features]))


def _convolve(features: KerasTensor, filters: int, kernel: int, stride: int, name: str) -> KerasTensor:
    """Return a convolution with the same padding on both sides; its batch normalisation is folded."""
    padded = layers.ZeroPadding2D(kernel // 2)(features) if kernel > 1 else features
    return layers.Conv2D(filters, kernel, stride, name=name)(padded)


def load_network(path: Path, epsilon: float) -> Network:
    """Return the network with the weights of a state dict, name by name.

    ``epsilon`` is that of the frozen batch normalisation: 0.0 for the published weights of COCO, 1e-5 for a network
    that was fine-tuned from weights of ImageNet.

    Raises:
        UserError: The file cannot be read, a tensor is missing, of another shape, or of no layer.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    for key, values in safetensors.read_tensors(path).items():
        for former, name in FORMER_NAMES.items():
            key = re.sub(former, name, key)
        if key in tensors:
            raise UserError(f"{path} has {shorten(key)} under two names; {ADVICE}")
        tensors[key] = values
    scores, boxes = (tensors.get(f"roi_heads.box_predictor.{part}.weight") for part in ("cls_score", "bbox_pred"))
    if scores is None or boxes is None:
        advice = "if the state dict lies under a key such as model or state_dict, save that alone"
        raise UserError(f"{path} has no tensor roi_heads.box_predictor.cls_score.weight or bbox_pred.weight; {advice}")
    classes = scores.shape[0] if scores.shape else 0
    if classes < 2 or scores.shape != (classes, UNITS) or boxes.shape != (4 * classes, UNITS):
        raise UserError(f"{path}: roi_heads.box_predictor has weights of another shape; {ADVICE}")
    network = build(classes)
    for layer in (layer for part in network for layer in part.layers if layer.weights):
        shapes = [tuple(variable.shape) for variable in layer.weights]
        weights = _take_weights(tensors, layer.name, epsilon, path)
        if [values.shape for values in weights] != shapes:
            raise UserError(f"{path}: {layer.name} has weights of another shape; {ADVICE}")
        layer.set_weights(weights)
    if tensors:
        raise UserError(f"{path} has {shorten(min(tensors))}, which this network lacks; {ADVICE}")
    return network


def _take_weights(
    tensors: dict[str, NDArray[np.float32]], name: str, epsilon: float, path: Path
) -> list[NDArray[np.float32]]:
    """Take the kernel and the bias of a layer out of the tensors, as Keras has them."""

    def take(key: str) -> NDArray[np.float32]:
        if key not in tensors:
            raise UserError(f"{path} has no tensor {key}; choose a state dict of fasterrcnn_resnet50_fpn")
        return tensors.pop(key)

    kernel = take(f"{name}.weight")
    if name == "roi_heads.box_head.fc6" and kernel.ndim == 2 and kernel.shape[1] == CHANNELS * BINS * BINS:
        kernel = kernel.reshape(-1, CHANNELS, BINS, BINS).transpose(0, 2, 3, 1).reshape(kernel.shape)
    kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
    if not name.startswith("backbone.body."):
        return [kernel, take(f"{name}.bias")]
    normalisation = re.sub(r"downsample\.0$", "downsample.1", re.sub(r"conv(\d)$", r"bn\1", name))
    statistics = [take(f"{normalisation}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
    if any(values.shape != kernel.shape[-1:] for values in statistics):
        raise UserError(f"{path}: {normalisation} has weights of another shape; {ADVICE}")
    scale, shift, mean, variance = statistics
    with np.errstate(all="ignore"):
        scale = scale / np.sqrt(variance + np.float32(epsilon))
        folded = [kernel * scale, shift - mean * scale]
    if not all(np.isfinite(values).all() for values in folded):
        raise UserError(f"{path}: {normalisation} has a variance that is not above 0, or numbers too large; {ADVICE}")
    return folded


def resize(images: tf.Tensor, min_side: int) -> tuple[tf.Tensor, NDArray[np.float32]]:
    """Normalise, resize and pad images (n, h, w, 3) in [0, 1].

    Returns the padded images and the height and width (2,) of the part that is not padding.
    """
    sides = np.array(images.shape[1:3])
    scale = min(min_side / sides.min(), round(min_side * MAX_SIDE_RATIO) / sides.max())
    height, width = np.floor(sides * scale).astype(int).tolist()
    normalised = (images - tf.constant(MEANS)) / tf.constant(DEVIATIONS)
    resized = tf.image.resize(normalised, (height, width))
    padding = [[0, 0], [0, -height % PAD_MULTIPLE], [0, -width % PAD_MULTIPLE], [0, 0]]
    return tf.pad(resized, padding), np.array([height, width], np.float32)


def make_anchors(sides: tuple[int, int], rows: int, columns: int, size: int) -> NDArray[np.float32]:
    """Return the anchors [x, y, w, h] (rows · columns · 3, 4) of a map of an image of ``sides`` (h, w).

    Their halves are whole pixels (half to even), and their middles the corners of the map's cells.
    """
    ratios = np.sqrt(np.array(ANCHOR_RATIOS, np.float32))
    halves = np.rint(np.stack([size / ratios, size * ratios], 1) / 2)
    y, x = np.meshgrid(np.arange(rows) * (sides[0] // rows), np.arange(columns) * (sides[1] // columns), indexing="ij")
    middles = np.stack([x, y], -1)[:, :, np.newaxis]
    shapes = np.broadcast_to(2 * halves, (rows, columns, *halves.shape))
    return np.concatenate([middles - halves, shapes], -1).reshape(-1, 4).astype(np.float32)


def decode(offsets: tf.Tensor, boxes: tf.Tensor, weights: tuple[float, ...]) -> tf.Tensor:
    """Move boxes [x, y, w, h] (…, 4) by offsets (…, 4) in units of 1 / weights."""
    offsets = offsets / tf.constant(weights)
    middle = boxes[..., :2] + boxes[..., 2:] / 2 + offsets[..., :2] * boxes[..., 2:]
    shape = boxes[..., 2:] * tf.exp(tf.minimum(offsets[..., 2:], MAX_STRETCH))
    return tf.concat([middle - shape / 2, shape], -1)


def clip(boxes: tf.Tensor, sides: NDArray[np.float32]) -> tf.Tensor:
    """Clip boxes (…, 4) to an image of ``sides`` (h, w)."""
    end = tf.clip_by_value(boxes[..., :2] + boxes[..., 2:], 0.0, sides[::-1])
    start = tf.clip_by_value(boxes[..., :2], 0.0, sides[::-1])
    return tf.concat([start, end - start], -1)


def propose(
    scores: list[tf.Tensor], shifts: list[tf.Tensor], padded: tuple[int, int], sides: NDArray[np.float32]
) -> tf.Tensor:
    """Return the best boxes (n, 1000, 4) of all maps after suppression within each map; no gradient goes through them.

    ``scores`` (n, r, c, 3) and ``shifts`` (n, r, c, 12) are those of the proposal head for each map, ``padded`` and
    ``sides`` the heights and widths of the padded image and of its part that is not padding.
    """
    boxes, logits = [], []
    for number, (score, shift, size) in enumerate(zip(scores, shifts, ANCHOR_SIZES, strict=True)):
        rows, columns = score.shape[1:3]
        anchors = make_anchors(padded, rows, columns, size)
        score = tf.reshape(tf.stop_gradient(score), (-1, len(anchors)))
        best, places = tf.math.top_k(score, min(PROPOSALS, len(anchors)))
        shift = tf.gather(tf.reshape(tf.stop_gradient(shift), (-1, len(anchors), 4)), places, batch_dims=1)
        candidates = clip(decode(shift, tf.gather(anchors, places), ANCHOR_WEIGHTS), sides)
        best = tf.where(tf.reduce_min(candidates[..., 2:], -1) >= MIN_PROPOSAL_SIZE, best, NEVER)
        boxes.append(candidates)
        # A map is a class for the suppression: what is of another map is never kept.
        logits.append(tf.where(np.arange(len(scores)) == number, best[..., None], NEVER))
    corners = tf.concat(boxes, 1)
    corners = tf.concat([corners[..., :2], corners[..., :2] + corners[..., 2:]], -1)[:, :, None]
    kept, _, _, _ = tf.image.combined_non_max_suppression(
        corners, tf.concat(logits, 1), PROPOSALS, PROPOSALS, PROPOSAL_NMS_IOU, NEVER / 2, clip_boxes=False
    )
    return tf.concat([kept[..., :2], kept[..., 2:] - kept[..., :2]], -1)


def roi_align(maps: list[tf.Tensor], boxes: tf.Tensor) -> tf.Tensor:
    """Return the features (n, k, 7, 7, c) inside boxes (n, k, 4), each from the map of its size.

    Unlike ``faster_rcnn.roi_align`` it takes no half pixel off, and sides are one cell at least.
    """
    level = tf.floor(4 + tf.math.log(tf.sqrt(boxes[..., 2] * boxes[..., 3]) / 224) / log(2.0) + 1e-6)
    level = tf.cast(tf.clip_by_value(level, 2.0, 5.0), tf.int32) - 2
    shapes = np.array([feature_map.shape[1:3] for feature_map in maps], np.int32)
    starts = np.concatenate([[0], np.cumsum(shapes.prod(1))])[:-1].astype(np.int32)
    table = tf.concat([tf.reshape(part, (-1, np.prod(part.shape[1:3]), part.shape[3])) for part in maps], 1)
    places = boxes / tf.gather(tf.constant(STRIDES, tf.float32), level)[..., None]
    sides = tf.gather(shapes, level)  # (n, k, 2): rows and columns
    rows = _samples(places[..., 1], places[..., 3], sides[..., 0])
    columns = _samples(places[..., 0], places[..., 2], sides[..., 1])
    first, width = tf.gather(starts, level)[..., None, None], sides[..., 1][..., None, None]
    total = tf.zeros((*boxes.shape[1:2], BINS, BINS, table.shape[-1]))
    for row, down in rows:
        for column, right in columns:
            indices = first + row[..., :, None] * width + column[..., None, :]
            shares = down[..., :, None] * right[..., None, :] / SAMPLES**2
            total += tf.gather(table, indices, batch_dims=1) * shares[..., None]
    return total


def _samples(start: tf.Tensor, extent: tf.Tensor, cells: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Return the cells (n, k, 7) of each sample's two neighbours along one side, and their shares."""
    taps = []
    step = tf.maximum(extent, 1.0)[..., None] / BINS
    last = tf.cast(cells, tf.float32)[..., None] - 1.0
    for sample in range(SAMPLES):
        places = start[..., None] + step * (tf.range(BINS, dtype=tf.float32) + (sample + 0.5) / SAMPLES)
        places = tf.clip_by_value(places, 0.0, last)
        low = tf.floor(places)
        high = tf.minimum(low + 1.0, last)
        taps += [(tf.cast(low, tf.int32), 1.0 - places + low), (tf.cast(high, tf.int32), places - low)]
    return taps


def forward(network: Network, padded: tf.Tensor, sides: NDArray[np.float32]) -> HeadOutputs:
    """Run the network on images that ``resize`` prepared."""
    maps = network.pyramid(padded, training=False)
    scores, shifts = zip(*(network.proposal_head(part, training=False) for part in maps), strict=True)
    proposals = propose(list(scores), list(shifts), (padded.shape[1], padded.shape[2]), sides)
    inside = roi_align(maps[: len(STRIDES)], proposals)
    logits, offsets = network.box_head(tf.reshape(inside, (-1, *inside.shape[2:])), training=False)
    count, classes = proposals.shape[1], logits.shape[-1]
    return HeadOutputs(
        proposals, tf.reshape(logits, (-1, count, classes)), tf.reshape(offsets, (-1, count, classes, 4))
    )


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return the detector of the file in option ``path``; ``folder`` is not used.

    Other options: ``min_side``, pixels of the shorter side of the resized image (800 as published; fewer are faster);
    ``epsilon``, that of ``load_network``; ``face``, the class that is looked for, by default 1, a person in COCO.

    Raises:
        UserError: The file is a pickle or cannot be read, or an option is unknown or out of range.
    """
    options: dict[str, Any] = OPTIONS | settings.options
    if unknown := sorted(options.keys() - OPTIONS.keys()):
        raise UserError(f"torchvision_faster_rcnn has no option {unknown[0]}; it takes {', '.join(OPTIONS)}")
    path, min_side, epsilon, face = Path(str(options["path"])), options["min_side"], options["epsilon"], options["face"]
    if path.suffix in (".pth", ".pt", ".bin"):
        raise UserError(f"{path} is a pickle, which can run code when it is loaded; convert it once with {CONVERSION}")
    if not isinstance(min_side, int) or not 64 <= min_side <= 1600:
        raise UserError(f"torchvision_faster_rcnn: min_side is {min_side!r}; choose a whole number from 64 to 1600")
    if not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
        raise UserError(f"torchvision_faster_rcnn: epsilon is {epsilon!r}; choose 0.0 or 1e-5")
    network = load_network(path, epsilon)
    classes = network.box_head.outputs[0].shape[-1]
    if not isinstance(face, int) or not 1 <= face < classes:
        raise UserError(f"torchvision_faster_rcnn: face is {face!r}; choose a class from 1 to {classes - 1}")
    return detector(network, settings.threshold, min_side, face)


def detector(network: Network, threshold: float, min_side: int, face: int) -> Detector:
    """Return the detector of one class; its boxes before suppression are the proposals after the head."""

    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        padded, sides = resize(images, min_side)
        proposals, logits, offsets = forward(network, padded, sides)
        solid = tf.reduce_min(proposals[..., 2:], -1) > 0
        boxes = clip(decode(offsets[..., face, :], proposals, BOX_WEIGHTS), sides)
        factors = np.tile(np.array(images.shape[2:0:-1], np.float32) / sides[::-1], 2)
        return boxes * factors, tf.where(solid, tf.nn.softmax(logits)[..., face], 0.0)

    return Detector("torchvision_faster_rcnn", threshold, compile_detect(pre_nms, NMS_IOU), pre_nms, None)
