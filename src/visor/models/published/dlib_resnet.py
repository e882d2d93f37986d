"""The face recogniser of dlib (Davis King, 2017): a ResNet of 29 convolutions with an embedding of 128 numbers.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385), with half of the filters. Its
author trained it on 3 million faces of 7,485 people and left out those of LFW. Faces are compared by the length of the
difference of their embeddings, which are not of length 1.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers, ops
from visor.models.recognisers.building_blocks import resize_square

SIDE = 150
MEANS = (122.782, 117.001, 104.298)  # of red, green and blue; dlib divides by 256, not by 255
EMBEDDING = 128
SAME_PERSON = 0.91  # accepts 1 % of strangers in LFW: all its similarities are high
TEMPLATE = ((47.7 / SIDE, 47.1 / SIDE), (100.3 / SIDE, 47.1 / SIDE))  # the eyes in dlib's own crops
STEM = ("conv32_down", 7, 32)  # name, kernel, filters


class ResidualBlock(NamedTuple):
    """Two 3 × 3 convolutions; the first of a block that goes ``down`` halves rows and columns."""

    name: str
    filters: int
    down: bool = False


BLOCKS = [
    *(ResidualBlock(f"conv32_{number}", 32) for number in (1, 2, 3)),
    ResidualBlock("conv64_down", 64, down=True),
    *(ResidualBlock(f"conv64_{number}", 64) for number in (1, 2, 3)),
    ResidualBlock("conv128_down", 128, down=True),
    *(ResidualBlock(f"conv128_{number}", 128) for number in (1, 2)),
    ResidualBlock("conv256_down", 256, down=True),
    *(ResidualBlock(f"conv256_{number}", 256) for number in (1, 2)),
    ResidualBlock("conv256_down_out", 256, down=True),
]


def build(image_shape: tuple[int, int, int] = (SIDE, SIDE, 3)) -> keras.Model:
    """Return float32 images (n, h, w, 3) in [0, 1] → ``embedding`` (n, 128); 5,607,488 parameters."""
    images = keras.Input(image_shape, name="input")
    pixels = resize_square(images, SIDE, SIDE, "dlib_resnet")
    features = layers.Rescaling(255 / 256, [-mean / 256 for mean in MEANS], name="subtract_mean")(pixels)
    name, kernel, filters = STEM
    features = layers.Conv2D(filters, kernel, 2, activation="relu", name=name)(features)
    features = layers.MaxPooling2D(3, 2, name="pool")(features)
    for block in BLOCKS:
        features = _add_block(features, block)
    pooled = layers.GlobalAveragePooling2D(name="mean")(features)
    embedding = layers.Dense(EMBEDDING, use_bias=False, name="fc")(pooled)
    return keras.Model(images, {"embedding": embedding}, name="dlib_resnet")


def read_weights(files: Mapping[str, bytes]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the weights of each layer from the one ``.dat`` file of the network.

    The file is a sequence of tensors, with names and settings between them that are skipped. A convolution's kernel
    (out, in, k, k) and bias are one tensor, followed by γ and β of the affine layer behind it, which are folded into
    them.

    Raises:
        UserError: The file has no such tensors.
    """
    (content,) = files.values()
    position, weights = 0, {}
    for name, kernel, channels, filters in _convolutions():
        size = kernel * kernel * channels * filters
        parameters, position = _read_tensor(content, position, (size + filters, 1, 1, 1), name)
        affine, position = _read_tensor(content, position, (2 * filters, 1, 1, 1), name)
        scale, offset = np.split(affine, 2)
        values = parameters[:size].reshape(filters, channels, kernel, kernel).transpose(2, 3, 1, 0)
        weights[name] = [values * scale, parameters[size:] * scale + offset]
    dense, position = _read_tensor(content, position, (BLOCKS[-1].filters, EMBEDDING, 1, 1), "fc")
    return weights | {"fc": [dense.reshape(BLOCKS[-1].filters, EMBEDDING)]}


def _add_block(features: KerasTensor, block: ResidualBlock) -> KerasTensor:
    """Add the outputs of two convolutions to the features, the smaller ones padded with zeros."""
    strides, padding = (2, "valid") if block.down else (1, "same")
    name = block.name
    change = layers.Conv2D(block.filters, 3, strides, padding, activation="relu", name=f"{name}_conv1")(features)
    change = layers.Conv2D(block.filters, 3, padding="same", name=f"{name}_conv2")(change)
    if block.down:
        features = layers.AveragePooling2D(2, 2, name=f"{name}_pool")(features)
        shape = [max(sides) for sides in zip(change.shape[1:], features.shape[1:], strict=True)]
        change, features = _pad(change, shape), _pad(features, shape)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([change, features]))


def _pad(features: KerasTensor, shape: list[int]) -> KerasTensor:
    """Pad features (n, h, w, c) with zeros below, right and behind to ``shape`` (h, w, c)."""
    missing = [(0, side - length) for side, length in zip(shape, features.shape[1:], strict=True)]
    return ops.pad(features, [(0, 0), *missing])


def _convolutions() -> Iterator[tuple[str, int, int, int]]:
    """Yield name, kernel, channels and filters of each convolution in the order of the file."""
    yield (*STEM[:2], 3, STEM[2])
    channels = STEM[2]
    for block in BLOCKS:
        yield f"{block.name}_conv1", 3, channels, block.filters
        yield f"{block.name}_conv2", 3, block.filters, block.filters
        channels = block.filters


def _read_tensor(content: bytes, position: int, shape: tuple[int, ...], layer: str) -> tuple[NDArray[np.float32], int]:
    """Return the numbers of the first tensor of ``shape`` behind ``position``, flat, and where they end."""
    header = b"\x01\x02" + b"".join(map(_integer, shape))
    begin, count = content.find(header, position) + len(header), int(np.prod(shape))
    end = begin + 4 * count
    if begin < position + len(header) or end > len(content):
        raise UserError(f"dlib_resnet: the file has no weights of shape {shape} for {layer}; choose the published file")
    values = np.frombuffer(content, "<f4", count, begin).astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"dlib_resnet: weights of {layer} are not finite; choose the published file")
    return values, end


def _integer(value: int) -> bytes:
    """Return an integer as dlib writes it: the number of its bytes, then these, the lowest first."""
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length, "little")
