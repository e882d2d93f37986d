"""Faster R-CNN with a ResNet-50 and a feature pyramid, as torchvision has it, of a user's file or fine-tuned.

Ren et al., Faster R-CNN, NeurIPS 2015 (arXiv 1506.01497); Lin et al., Feature Pyramid Networks, CVPR 2017 (arXiv
1612.03144). Layers have the names of torchvision's ``fasterrcnn_resnet50_fpn``, and what it computes is its
implementation's: paddings, anchors of whole pixels, and RoIAlign that takes no half pixel off. So is what it is trained
by: the samples of anchors and proposals, their losses, and batch normalisation that stays as it was.
"""

import re
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError, shorten
from visor.core.params import DetectorParams
from visor.core.portable_ops import sigmoid_cross_entropy
from visor.core.tf import KerasTensor, keras, layers, tf
from visor.data.scene_set import FACE, IGNORE, PADDING
from visor.models import safetensors, storage
from visor.models.detectors.anchors import assign_targets
from visor.models.detectors.base import Detector, GroundTruthTensors, PreNmsFn, compile_detect, letterboxed_detector

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
PICKLES = (".pth", ".pt", ".bin")
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

# Training, as published: classes, what is fine-tuned if predictions are alone, IoUs of targets and background, how many
# boxes the losses are computed on and the largest share of faces among them, and where smooth L1 becomes linear.
CLASSES, FACE_CLASS = 2, 1
EPSILON = 0.0  # of the published weights that training starts from
HEAD = "roi_heads.box_predictor.cls_score.weight"  # tells the number of classes
BOX_PREDICTOR = ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")
PREDICTIONS = {"rpn.head.cls_logits", "rpn.head.bbox_pred", *BOX_PREDICTOR}
TRAINING_PROPOSALS = 2000
ANCHOR_POSITIVE, ANCHOR_NEGATIVE, BOX_POSITIVE = 0.7, 0.3, 0.5
ANCHOR_SAMPLES, ANCHOR_FACES = 256, 0.5
BOX_SAMPLES, BOX_FACES = 512, 0.25
BETA = 1 / 9


class FrozenNormConv2D(layers.Layer):
    """A convolution without bias, and behind it a batch normalisation that stays as it is while the kernel learns.

    Its statistics are folded into ``scale`` and ``shift``. Padding has to be done before.
    """

    def __init__(self, filters: int, kernel_size: int, strides: int, name: str) -> None:
        super().__init__(name=name)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the kernel (k, k, in, out), and scale and shift (out,)."""
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer="he_normal", name="kernel")
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", trainable=False, name="scale")
        self.shift = self.add_weight(shape=shape[-1:], initializer="zeros", trainable=False, name="shift")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Return convolved, normalised features; the small kernel is scaled, not the large map."""
        kernel = self.kernel * self.scale
        return tf.nn.bias_add(tf.nn.conv2d(features, kernel, self.strides, "VALID"), self.shift)


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


def build_network(classes: int) -> Network:
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
    first = keras.initializers.RandomUniform(-(UNITS**-0.5), UNITS**-0.5)  # torch's, of a head that is new
    predictions = [
        layers.Dense(count, kernel_initializer=first, bias_initializer=first, name=name)(hidden)
        for name, count in zip(BOX_PREDICTOR, (classes, 4 * classes), strict=True)
    ]
    return Network(pyramid, proposal_head, keras.Model(inside, predictions))


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
    """Return a convolution with the same padding on both sides; in the ResNet it is normalised."""
    padded = layers.ZeroPadding2D(kernel // 2)(features) if kernel > 1 else features
    kind = FrozenNormConv2D if name.startswith("backbone.body.") else layers.Conv2D
    return kind(filters, kernel, stride, name=name)(padded)


def load_network(path: Path, epsilon: float) -> Network:
    """Return the network with the weights of a state dict, name by name.

    ``epsilon`` is that of the frozen batch normalisation: 0.0 for the published weights of COCO, 1e-5 for a network
    that was fine-tuned from weights of ImageNet.

    Raises:
        UserError: The file cannot be read, a tensor is missing, of another shape, or of no layer.
    """
    tensors = _read_state_dict(path)
    network = build_network(len(tensors[HEAD]))
    _set_weights(network, tensors, epsilon, path)
    return network


def load_state_dict(model: "FaceNetwork", path: Path) -> None:
    """Start from a state dict; a box predictor of other classes is left out, and the one of ``model`` stays as it is.

    Raises:
        UserError: As in ``load_network``.
    """
    tensors = _read_state_dict(path)
    new = BOX_PREDICTOR if len(tensors[HEAD]) != CLASSES else ()
    for key in [f"{name}.{part}" for name in new for part in ("weight", "bias")]:
        tensors.pop(key, None)
    _set_weights(model.network, tensors, EPSILON, path, new)


def _read_state_dict(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a file by the names that torchvision gives them today; a pickle is refused."""
    if path.suffix in PICKLES:
        raise UserError(f"{path} is a pickle, which can run code when it is loaded; convert it once with {CONVERSION}")
    tensors: dict[str, NDArray[np.float32]] = {}
    for key, values in safetensors.read_tensors(path).items():
        for former, name in FORMER_NAMES.items():
            key = re.sub(former, name, key)
        if key in tensors:
            raise UserError(f"{path} has {shorten(key)} under two names; {ADVICE}")
        tensors[key] = values
    scores, boxes = (tensors.get(f"{name}.weight") for name in BOX_PREDICTOR)
    if scores is None or boxes is None:
        advice = "if the state dict lies under a key such as model or state_dict, save that alone"
        raise UserError(f"{path} has no tensor {' or '.join(BOX_PREDICTOR)}; {advice}")
    classes = scores.shape[0] if scores.shape else 0
    if classes < 2 or scores.shape != (classes, UNITS) or boxes.shape != (4 * classes, UNITS):
        raise UserError(f"{path}: roi_heads.box_predictor has weights of another shape; {ADVICE}")
    return tensors


def _set_weights(
    network: Network,
    tensors: dict[str, NDArray[np.float32]],
    epsilon: float,
    path: Path,
    left_out: Sequence[str] = (),
) -> None:
    """Set the weights of all layers but those that are left out; every tensor has to be of a layer."""
    for layer in (layer for part in network for layer in part.layers if layer.weights):
        if layer.name in left_out:
            continue
        shapes = [tuple(variable.shape) for variable in layer.weights]
        weights = _take_weights(tensors, layer.name, epsilon, path)
        if [values.shape for values in weights] != shapes:
            raise UserError(f"{path}: {layer.name} has weights of another shape; {ADVICE}")
        layer.set_weights(weights)
    if tensors:
        raise UserError(f"{path} has {shorten(min(tensors))}, which this network lacks; {ADVICE}")


def _take_weights(
    tensors: dict[str, NDArray[np.float32]], name: str, epsilon: float, path: Path
) -> list[NDArray[np.float32]]:
    """Take the weights of a layer out of the tensors, as Keras has them."""

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
        shift = shift - mean * scale
        is_finite = all(np.isfinite(values).all() for values in (kernel * scale, shift))
    if not is_finite:
        raise UserError(f"{path}: {normalisation} has a variance that is not above 0, or numbers too large; {ADVICE}")
    return [kernel, scale, shift]


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


def encode(boxes: tf.Tensor, reference: tf.Tensor, weights: tuple[float, ...]) -> tf.Tensor:
    """Invert ``decode``: the offsets of boxes (…, 4) from reference boxes (…, 4)."""
    middle = (boxes[..., :2] + boxes[..., 2:] / 2 - reference[..., :2] - reference[..., 2:] / 2) / reference[..., 2:]
    # Boxes of padding have no size; they are not learned from but must not become infinite.
    stretch = tf.math.log(tf.maximum(boxes[..., 2:], 1e-3) / reference[..., 2:])
    return tf.concat([middle, stretch], -1) * tf.constant(weights)


def clip(boxes: tf.Tensor, sides: NDArray[np.float32]) -> tf.Tensor:
    """Clip boxes (…, 4) to an image of ``sides`` (h, w)."""
    end = tf.clip_by_value(boxes[..., :2] + boxes[..., 2:], 0.0, sides[::-1])
    start = tf.clip_by_value(boxes[..., :2], 0.0, sides[::-1])
    return tf.concat([start, end - start], -1)


def propose(
    scores: Sequence[tf.Tensor],
    shifts: Sequence[tf.Tensor],
    padded: tuple[int, int],
    sides: NDArray[np.float32],
    count: int,
) -> tf.Tensor:
    """Return the best boxes (n, count, 4) of all maps after suppression within each map.

    No gradient goes through them. ``scores`` (n, r, c, 3) and ``shifts`` (n, r, c, 12) are those of the proposal head
    for each map, of which ``count`` are kept before suppression, too; ``padded`` and ``sides`` are the heights and
    widths of the padded image and of its part that is not padding.
    """
    boxes, logits = [], []
    for number, (score, shift, size) in enumerate(zip(scores, shifts, ANCHOR_SIZES, strict=True)):
        rows, columns = score.shape[1:3]
        anchors = make_anchors(padded, rows, columns, size)
        score = tf.reshape(tf.stop_gradient(score), (-1, len(anchors)))
        best, places = tf.math.top_k(score, min(count, len(anchors)))
        shift = tf.gather(tf.reshape(tf.stop_gradient(shift), (-1, len(anchors), 4)), places, batch_dims=1)
        candidates = clip(decode(shift, tf.gather(anchors, places), ANCHOR_WEIGHTS), sides)
        best = tf.where(tf.reduce_min(candidates[..., 2:], -1) >= MIN_PROPOSAL_SIZE, best, NEVER)
        boxes.append(candidates)
        # A map is a class for the suppression: what is of another map is never kept.
        logits.append(tf.where(np.arange(len(scores)) == number, best[..., None], NEVER))
    corners = tf.concat(boxes, 1)
    corners = tf.concat([corners[..., :2], corners[..., :2] + corners[..., 2:]], -1)[:, :, None]
    kept, _, _, _ = tf.image.combined_non_max_suppression(
        corners, tf.concat(logits, 1), count, count, PROPOSAL_NMS_IOU, NEVER / 2, clip_boxes=False
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
    maps, scores, shifts = _first_stage(network, padded)
    proposals = propose(scores, shifts, (padded.shape[1], padded.shape[2]), sides, PROPOSALS)
    return HeadOutputs(proposals, *_second_stage(network, maps, proposals))


def _first_stage(
    network: Network, padded: tf.Tensor
) -> tuple[list[tf.Tensor], tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
    """Return the five maps, and for each the scores and shifts of its anchors."""
    maps = network.pyramid(padded)
    scores, shifts = zip(*(network.proposal_head(part) for part in maps), strict=True)
    return maps, scores, shifts


def _second_stage(network: Network, maps: list[tf.Tensor], boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the logits (n, k, classes) and offsets (n, k, classes, 4) of boxes (n, k, 4)."""
    inside = roi_align(maps[: len(STRIDES)], boxes)
    logits, offsets = network.box_head(tf.reshape(inside, (-1, *inside.shape[2:])))
    shape, classes = tf.shape(boxes)[:2], logits.shape[-1]
    return (
        tf.reshape(logits, [*tf.unstack(shape), classes]),
        tf.reshape(offsets, [*tf.unstack(shape), classes, 4]),
    )


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return the detector of the file in option ``path``; without it the one that was trained into ``folder``.

    Other options of a file: ``min_side``, pixels of the shorter side of the resized image (800 as published; fewer are
    faster); ``epsilon``, that of ``load_network``; ``face``, the class that is looked for (1, a person in COCO).

    Raises:
        UserError: The file is a pickle or cannot be read, or an option is unknown or out of range.
    """
    if "path" not in settings.options:
        return detector(storage.load_model(build, folder), settings.threshold)
    options: dict[str, Any] = OPTIONS | settings.options
    if unknown := sorted(options.keys() - OPTIONS.keys()):
        raise UserError(f"torchvision_faster_rcnn has no option {unknown[0]}; it takes {', '.join(OPTIONS)}")
    path, min_side, epsilon, face = Path(str(options["path"])), options["min_side"], options["epsilon"], options["face"]
    if not isinstance(min_side, int) or not 64 <= min_side <= 1600:
        raise UserError(f"torchvision_faster_rcnn: min_side is {min_side!r}; choose a whole number from 64 to 1600")
    if not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
        raise UserError(f"torchvision_faster_rcnn: epsilon is {epsilon!r}; choose 0.0 or 1e-5")
    network = load_network(path, epsilon)
    classes = network.box_head.outputs[0].shape[-1]
    if not isinstance(face, int) or not 1 <= face < classes:
        raise UserError(f"torchvision_faster_rcnn: face is {face!r}; choose a class from 1 to {classes - 1}")
    return photo_detector(network, settings.threshold, min_side, face)


def photo_detector(network: Network, threshold: float, min_side: int, face: int) -> Detector:
    """Return the detector of one class, which resizes photos as torchvision does; it has no training loss."""
    pre_nms = _pre_nms(network, min_side, face)
    return Detector("torchvision_faster_rcnn", threshold, compile_detect(pre_nms, NMS_IOU), pre_nms, None)


def _pre_nms(network: Network, min_side: int, face: int) -> PreNmsFn:
    """Return the function of images (n, h, w, 3) → the proposals after the head, with the scores of one class."""

    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        padded, sides = resize(images, min_side)
        proposals, logits, offsets = forward(network, padded, sides)
        boxes = clip(decode(offsets[..., face, :], proposals, BOX_WEIGHTS), sides)
        factors = np.tile(np.array(images.shape[2:0:-1], np.float32) / sides[::-1], 2)
        return boxes * factors, tf.where(_is_solid(proposals), tf.nn.softmax(logits)[..., face], 0.0)

    return pre_nms


def _is_solid(boxes: tf.Tensor) -> tf.Tensor:
    """Return which boxes (…, 4) are no padding."""
    return tf.reduce_min(boxes[..., 2:], -1) > 0


class FaceNetwork(keras.Model):
    """The network of two classes, background and face, for squares of one size: what is trained, and saved."""

    def __init__(self, input_size: int) -> None:
        super().__init__(name="torchvision_faster_rcnn")
        self.pyramid, self.proposal_head, self.box_head = build_network(CLASSES)
        self.input_shape = (None, input_size, input_size, 3)
        self.generator = keras.random.SeedGenerator()  # NumPy's numbers inside a tf.function would be one constant draw
        self.built = True

    @property
    def network(self) -> Network:
        """Its three parts."""
        return Network(self.pyramid, self.proposal_head, self.box_head)


def build(input_size: int) -> FaceNetwork:
    """Return the network for squares of ``input_size`` pixels, with random weights.

    Raises:
        UserError: ``input_size`` is not a multiple of 32 from 64 to 1600.
    """
    if not isinstance(input_size, int) or input_size % PAD_MULTIPLE or not 64 <= input_size <= 1600:
        raise UserError(
            f"torchvision_faster_rcnn: input_size is {input_size!r}; choose a multiple of 32 from 64 to 1600"
        )
    return FaceNetwork(input_size)


def select_layers(model: FaceNetwork, layers: Literal["all", "predictions"]) -> None:
    """Choose which layers are trained: ``all``, or the ``predictions`` of anchors and of proposals."""
    for layer in (layer for part in model.network for layer in part.layers):
        layer.trainable = layers == "all" or layer.name in PREDICTIONS


def losses(model: FaceNetwork, images: tf.Tensor, truth: GroundTruthTensors, training: bool) -> dict[str, tf.Tensor]:
    """Return cross-entropy and smooth L1 of anchors and of proposals (section 3.1.2, eq. 1), and their sum: (n,) each.

    They are means over a random sample of each image, half of the anchors in it and a quarter of the proposals at most
    with faces; without ``training`` it is the same sample every time.
    """
    padded, sides = resize(images, images.shape[1])
    maps, scores, shifts = _first_stage(model.network, padded)
    square = (images.shape[1], images.shape[2])
    shapes = [score.shape[1:3] for score in scores]
    grid = [
        make_anchors(square, rows, columns, size) for (rows, columns), size in zip(shapes, ANCHOR_SIZES, strict=True)
    ]
    anchors = tf.constant(np.concatenate(grid))
    targets = assign_targets(anchors, *truth, ANCHOR_POSITIVE, ANCHOR_NEGATIVE)
    rows, is_drawn = _sample(model, targets.kinds, ANCHOR_SAMPLES, ANCHOR_FACES, training)
    logits = tf.concat([tf.reshape(score, (-1, len(part))) for score, part in zip(scores, grid, strict=True)], 1)
    offsets = tf.concat([tf.reshape(shift, (-1, len(part), 4)) for shift, part in zip(shifts, grid, strict=True)], 1)
    kinds = _take(targets.kinds, rows)
    entropies = sigmoid_cross_entropy(tf.cast(kinds == FACE, tf.float32), _take(logits, rows))
    wanted = encode(_take(targets.boxes, rows), tf.gather(anchors, rows), ANCHOR_WEIGHTS)
    score, box = _means(entropies, _take(offsets, rows) - wanted, kinds, is_drawn)
    parts = {"anchor_score": score, "anchor_box": box}

    proposals = propose(scores, shifts, square, sides, TRAINING_PROPOSALS if training else PROPOSALS)
    faces = tf.where((truth[1] == FACE)[..., None], truth[0], 0.0)
    boxes = tf.concat([proposals, faces], 1)  # as published: the faces themselves are proposals, too
    is_solid = _is_solid(boxes)
    boxes = tf.where(is_solid[..., None], boxes, 1.0)  # nothing is learned from padding
    targets = assign_targets(boxes, *truth, BOX_POSITIVE, BOX_POSITIVE)
    kinds = tf.where(is_solid, targets.kinds, IGNORE)
    rows, is_drawn = _sample(model, kinds, BOX_SAMPLES, BOX_FACES, training)
    boxes, kinds = _take(boxes, rows), _take(kinds, rows)
    logits, offsets = _second_stage(model.network, maps, boxes)
    entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(kinds == FACE, tf.int32), logits)
    wanted = encode(_take(targets.boxes, rows), boxes, BOX_WEIGHTS)
    score, box = _means(entropies, offsets[..., FACE_CLASS, :] - wanted, kinds, is_drawn)
    parts |= {"score": score, "box": box}
    return {"loss": tf.add_n(list(parts.values()))} | parts


def _take(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return values (n, a, …) of rows (n, k) of each image."""
    return tf.gather(values, rows, batch_dims=1)


def _sample(
    model: FaceNetwork, kinds: tf.Tensor, count: int, share: float, training: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw boxes of kinds (n, a), at most ``share`` of ``count`` with faces and the others background.

    Returns their rows int32 (n, count), and which of them are drawn: an image may have too few.
    """
    shape = tf.shape(kinds)
    if training:
        numbers = keras.random.uniform(shape, seed=model.generator)
    else:
        numbers = tf.random.stateless_uniform(shape, (0, 0))
    of_faces = tf.where(kinds == FACE, numbers, -1.0)
    last = tf.math.top_k(of_faces, tf.minimum(int(share * count), shape[1])).values[:, -1:]  # −1 if all are drawn
    others = tf.where(kinds == PADDING, numbers, -1.0)
    priority = tf.where((kinds == FACE) & (of_faces >= last), 2.0, others)
    values, rows = tf.math.top_k(priority, tf.minimum(count, shape[1]))
    return rows, values >= 0


def _means(
    entropies: tf.Tensor, errors: tf.Tensor, kinds: tf.Tensor, is_drawn: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the mean cross-entropy (n,) of what was drawn (n, k), and smooth L1 of the faces by the same number.

    Smooth L1 of errors (n, k, 4) is the square / 2β below β, else |error| − β/2.
    """
    count = tf.maximum(tf.reduce_sum(tf.cast(is_drawn, tf.float32), -1), 1.0)
    sizes = tf.abs(errors)
    distances = tf.reduce_sum(tf.where(sizes < BETA, sizes**2 / (2 * BETA), sizes - BETA / 2), -1)
    is_face = is_drawn & (kinds == FACE)
    return (
        tf.reduce_sum(tf.where(is_drawn, entropies, 0.0), -1) / count,
        tf.reduce_sum(tf.where(is_face, distances, 0.0), -1) / count,
    )


def detector(model: FaceNetwork, threshold: float) -> Detector:
    """Return the detector of a network that was trained here."""
    side = model.input_shape[1]

    def loss(images: tf.Tensor, truth: GroundTruthTensors) -> tf.Tensor:
        return losses(model, images, truth, training=False)["loss"]

    pre_nms = _pre_nms(model.network, side, FACE_CLASS)
    return letterboxed_detector("torchvision_faster_rcnn", threshold, side, NMS_IOU, pre_nms, loss)
