"""ResNet-50 as the networks of VGGFace2 were published for Keras, with or without squeeze and excitation.

He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385); Hu, Shen and Sun,
Squeeze-and-Excitation Networks, CVPR 2018 (arXiv 1709.01507); Cao, Shen, Xie, Parkhi and Zisserman, VGGFace2, FG 2018
(arXiv 1710.08092).
"""

from collections.abc import Callable, Sequence
from functools import partial

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers
from visor.models.batch_normalization import BatchNormalization
from visor.models.recognisers.building_blocks import add_outputs, resize_square, subtract_means

MEANS = (131.0912, 103.8827, 91.4953)  # red, green, blue of VGGFace2 in [0, 255]: preprocessing version 2
LAYER_RENAMES = {"/": "_"}  # Keras 3 does not accept slashes in layer names
STAGES = 4
SQUEEZE = 16  # ratio of channels before and after the squeeze
MIN_SIZE = 32


def build(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    input_size: int,
    width: int,
    blocks: Sequence[int],
    momentum: float,
    epsilon: float,
    excite: bool,
) -> keras.Model:
    """Return float32 images (n, h, w, 3) in [0, 1] → ``embedding`` (n, 32·width), ``logits`` (n, num_classes).

    Images become squares of ``input_size`` pixels; ``width`` is the number of filters of the first convolution,
    ``blocks`` the numbers of bottleneck blocks at each of the four resolutions; ``momentum`` and ``epsilon`` are those
    of batch normalisation; ``excite`` adds squeeze and excitation to each block.

    Raises:
        UserError: An argument is out of its range.
    """
    if len(blocks) != STAGES or min(blocks) < 1:
        raise UserError(f"{name}: blocks is {list(blocks)}; give {STAGES} numbers of blocks, each 1 or more")
    images = keras.Input(image_shape, name="input")
    features = subtract_means(resize_square(images, input_size, MIN_SIZE, name), MEANS)
    convolve = partial(_convolve, momentum=momentum, epsilon=epsilon)
    features = layers.ReLU(name="conv1_relu")(convolve(features, width, 7, "conv1_7x7_s2", 2))
    features = layers.MaxPooling2D(3, 2, name="pool1")(features)
    for stage, count in enumerate(blocks):
        for block in range(1, count + 1):
            strides = 2 if stage and block == 1 else 1
            features = _bottleneck(features, convolve, width << stage, strides, f"conv{stage + 2}_{block}", excite)
    features = layers.GlobalAveragePooling2D(name="avg_pool")(features)
    return add_outputs(name, images, features, num_classes)


def _convolve(
    features: KerasTensor, filters: int, kernel: int, name: str, strides: int = 1, *, momentum: float, epsilon: float
) -> KerasTensor:
    """Apply a convolution and batch normalisation."""
    features = layers.Conv2D(filters, kernel, strides, "same", use_bias=False, name=name)(features)
    return BatchNormalization(momentum=momentum, epsilon=epsilon, name=f"{name}_bn")(features)


def _bottleneck(
    features: KerasTensor, convolve: Callable[..., KerasTensor], filters: int, strides: int, name: str, excite: bool
) -> KerasTensor:
    """Add three convolutions to the features; the first block of a resolution projects these to the same shape."""
    change = features
    for convolution, kernel, step in (("1x1_reduce", 1, strides), ("3x3", 3, 1)):
        change = convolve(change, filters, kernel, f"{name}_{convolution}", step)
        change = layers.ReLU(name=f"{name}_{convolution}_relu")(change)
    change = convolve(change, 4 * filters, 1, f"{name}_1x1_increase")
    if excite:
        change = _excite(change, name)
    if name.endswith("_1"):
        features = convolve(features, 4 * filters, 1, f"{name}_1x1_proj", strides)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([change, features]))


def _excite(features: KerasTensor, name: str) -> KerasTensor:
    """Weight channels by two dense layers on their means, as 1 × 1 convolutions like in the published files."""
    channels = features.shape[-1]
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(features)
    weights = layers.Conv2D(channels // SQUEEZE, 1, activation="relu", name=f"{name}_1x1_down")(weights)
    weights = layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}_1x1_up")(weights)
    return layers.Multiply(name=f"{name}_excite")([features, weights])
