"""FaceNet as published by David Sandberg: Inception-ResNet V1 with an embedding of 128 or 512 numbers.

Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015 (arXiv 1503.03832); Szegedy, Ioffe, Vanhoucke and Alemi,
Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, AAAI 2017 (arXiv 1602.07261).
"""

from collections.abc import Callable
from functools import partial

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers, ops
from visor.models.batch_normalization import BatchNormalization
from visor.models.recognisers.building_blocks import add_outputs, resize_square

WIDTH = 32  # as published
PUBLISHED_OPTIONS = {
    "num_classes": 0,
    "input_size": 160,
    "stride": 2,
    "width": WIDTH,
    "blocks": [5, 10, 6],
    "embedding": 128,
    "dropout": 0.2,
    "momentum": 0.995,
    "standardisation": "prewhiten",
}
# Some ports number branch 1 of Block17 and Block8 like the block; only the last Block8 is as Sandberg's.
LAYER_RENAMES = {r"^(Block(?:17|8)_\d+_Branch)_[1-9]\d*_": r"\1_1_"}

Chain = list[tuple[str, int, int | tuple[int, int]]]  # of convolutions: name, filters, kernel

STEM: Chain = [("Conv2d_1a_3x3", 32, 3), ("Conv2d_2a_3x3", 32, 3), ("Conv2d_2b_3x3", 64, 3)]
STEM_2: Chain = [("Conv2d_3b_1x1", 80, 1), ("Conv2d_4a_3x3", 192, 3), ("Conv2d_4b_3x3", 256, 3)]
PADDED = "Conv2d_2b_3x3"  # of the stem's convolutions the one that keeps the border
BRANCHES: dict[str, list[Chain]] = {
    "Block35": [
        [("Conv2d_1x1", 32, 1)],
        [("Conv2d_0a_1x1", 32, 1), ("Conv2d_0b_3x3", 32, 3)],
        [("Conv2d_0a_1x1", 32, 1), ("Conv2d_0b_3x3", 32, 3), ("Conv2d_0c_3x3", 32, 3)],
    ],
    "Block17": [
        [("Conv2d_1x1", 128, 1)],
        [("Conv2d_0a_1x1", 128, 1), ("Conv2d_0b_1x7", 128, (1, 7)), ("Conv2d_0c_7x1", 128, (7, 1))],
    ],
    "Block8": [
        [("Conv2d_1x1", 192, 1)],
        [("Conv2d_0a_1x1", 192, 1), ("Conv2d_0b_1x3", 192, (1, 3)), ("Conv2d_0c_3x1", 192, (3, 1))],
    ],
    "Mixed_6a": [
        [("Conv2d_1a_3x3", 384, 3)],
        [("Conv2d_0a_1x1", 192, 1), ("Conv2d_0b_3x3", 192, 3), ("Conv2d_1a_3x3", 256, 3)],
    ],
    "Mixed_7a": [
        [("Conv2d_0a_1x1", 256, 1), ("Conv2d_1a_3x3", 384, 3)],
        [("Conv2d_0a_1x1", 256, 1), ("Conv2d_1a_3x3", 256, 3)],
        [("Conv2d_0a_1x1", 256, 1), ("Conv2d_0b_3x3", 256, 3), ("Conv2d_1a_3x3", 256, 3)],
    ],
}
# Block, scale of its residual, reduction after it.
STAGES = [("Block35", 0.17, "Mixed_6a"), ("Block17", 0.1, "Mixed_7a"), ("Block8", 0.2, None)]

Convolve = Callable[..., KerasTensor]


def build(
    image_shape: tuple[int, int, int],
    num_classes: int,
    input_size: int,
    stride: int,
    width: int,
    blocks: list[int],
    embedding: int,
    dropout: float,
    momentum: float,
    standardisation: str,
) -> keras.Model:
    """Return float32 images (n, h, w, 3) in [0, 1] → ``embedding`` (n, embedding), ``logits`` (n, num_classes).

    Images become squares of ``input_size`` pixels and are standardised: ``prewhiten``, by their own mean and deviation,
    or ``fixed``. ``stride`` and ``width`` are those of the first convolution, all other filters are in proportion;
    ``blocks`` are the numbers of Inception-ResNet blocks A, B and C; ``momentum`` is that of batch normalisation. As
    published it has 22,808,144 parameters, 23,497,424 with embedding 512.

    Raises:
        UserError: An argument is out of its range.
    """
    if standardisation not in STANDARDISATIONS:
        names = ", ".join(sorted(STANDARDISATIONS))
        raise UserError(f"facenet: standardisation is {standardisation!r}; choose from {names}")
    if len(blocks) != len(STAGES) or min(blocks) < 0 or blocks[-1] < 1:
        raise UserError(f"facenet: blocks is {blocks}; give the numbers of blocks A, B and C, the last 1 or more")
    convolve = partial(_convolve, width=width, momentum=momentum)
    images = keras.Input(image_shape, name="input")
    features = STANDARDISATIONS[standardisation](resize_square(images, input_size, 36 * stride + 3, "facenet"))
    features = _stem(features, convolve, stride)
    for (block, scale, reduction), count in zip(STAGES, blocks, strict=True):
        for number in range(1, count + 1):
            last = reduction is None and number == count
            features = _residual(features, convolve, block, number, 1.0 if last else scale, not last)
        features = _reduce(features, convolve, reduction) if reduction else features
    features = layers.Dropout(dropout, name="Dropout")(layers.GlobalAveragePooling2D(name="AvgPool")(features))
    features = layers.Dense(embedding, use_bias=False, name="Bottleneck")(features)
    features = _normalise(features, "Bottleneck", momentum)
    return add_outputs("facenet", images, features, num_classes)


def _prewhiten(images: KerasTensor) -> KerasTensor:
    """Standardise each image to mean 0 and deviation 1 (less if flat), as Sandberg's ``prewhiten`` in [0, 255]."""
    images = layers.Rescaling(255.0, name="to_255")(images)
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    variance = ops.mean(ops.square(images - mean), axis=(1, 2, 3), keepdims=True)
    height, breadth, channels = images.shape[1:]
    # The maximum is taken before the root, whose gradient at 0 is infinite.
    deviation = ops.sqrt(ops.maximum(variance, 1 / (height * breadth * channels)))
    return ops.divide_no_nan(images - mean, deviation)  # as core.portable_ops


def _fixed(images: KerasTensor) -> KerasTensor:
    """Return (x − 127.5) / 128 for values in [0, 255]."""
    return layers.Rescaling(255 / 128, -127.5 / 128, name="fixed")(images)


STANDARDISATIONS = {"prewhiten": _prewhiten, "fixed": _fixed}


def _convolve(
    features: KerasTensor,
    name: str,
    filters: int,
    kernel: int | tuple[int, int],
    strides: int = 1,
    padding: str = "same",
    *,
    width: int,
    momentum: float,
) -> KerasTensor:
    """Apply convolution, batch normalisation without scale, and ReLU; ``filters`` are those at the published width."""
    filters = max(1, filters * width // WIDTH)
    features = layers.Conv2D(filters, kernel, strides, padding, use_bias=False, name=name)(features)
    features = _normalise(features, name, momentum)
    return layers.ReLU(name=f"{name}_Activation")(features)


def _normalise(features: KerasTensor, name: str, momentum: float) -> KerasTensor:
    return BatchNormalization(momentum=momentum, epsilon=1e-3, scale=False, name=f"{name}_BatchNorm")(features)


def _stem(features: KerasTensor, convolve: Convolve, stride: int) -> KerasTensor:
    """Return a map of 17 × 17 for a square of 160 pixels."""
    for chain, strides in ((STEM, (stride, 1, 1)), (STEM_2, (1, 1, 2))):
        for (name, filters, kernel), step in zip(chain, strides, strict=True):
            features = convolve(features, name, filters, kernel, step, "same" if name == PADDED else "valid")
        if chain is STEM:
            features = layers.MaxPooling2D(3, 2, name="MaxPool_3a_3x3")(features)
    return features


def _branches(features: KerasTensor, convolve: Convolve, block: str, name: str) -> list[KerasTensor]:
    """Return the outputs of the chains of convolutions; those named 1a halve the sides, without padding."""
    outputs = []
    for number, chain in enumerate(BRANCHES[block]):
        branch = features
        for step, filters, kernel in chain:
            shrink = (2, "valid") if step.startswith("Conv2d_1a") else (1, "same")
            branch = convolve(branch, f"{name}_Branch_{number}_{step}", filters, kernel, *shrink)
        outputs.append(branch)
    return outputs


def _residual(
    features: KerasTensor, convolve: Convolve, block: str, number: int, scale: float, activate: bool
) -> KerasTensor:
    """Add the output of an Inception-ResNet block's branches to the features, times ``scale``."""
    name = f"{block}_{number}"
    mixed = layers.Concatenate(name=f"{name}_Concatenate")(_branches(features, convolve, block, name))
    change = layers.Conv2D(features.shape[-1], 1, name=f"{name}_Conv2d_1x1")(mixed)
    features = layers.Add(name=f"{name}_Add")([features, scale * change])
    return layers.ReLU(name=f"{name}_Activation")(features) if activate else features


def _reduce(features: KerasTensor, convolve: Convolve, name: str) -> KerasTensor:
    """Halve the sides: branches, and max pooling over 3 × 3."""
    branches = _branches(features, convolve, name, name)
    pooled = layers.MaxPooling2D(3, 2, name=f"{name}_Branch_{len(branches)}_MaxPool_1a_3x3")(features)
    return layers.Concatenate(name=name)([*branches, pooled])
