"""Checks of the arrays and names that callers of the library pass."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError, shorten
from visor.core.types import Floats, ImageArray, Labels

Entry = TypeVar("Entry")


def choose(registry: Mapping[str, Entry], name: str, argument: str) -> Entry:
    """Return the entry ``name`` of a registry, or raise a UserError that lists the names."""
    if name not in registry:
        raise UserError(f"{argument} is {name!r}; choose from {', '.join(sorted(registry))}")
    return registry[name]


def check_images(images: Any, argument: str = "images") -> NDArray[Any]:
    """Return images (n, h, w, c) as they are if they are uint8, else as float32.

    Raises:
        UserError: They have another shape or type, or values outside [0, 1].
    """
    array = _as_array(images, argument)
    if array.ndim != 4:
        raise UserError(f"{argument}: shape {array.shape}; give (n, height, width, channels)")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise UserError(f"{argument}: type {array.dtype}; give uint8 in 0 … 255, or floats in [0, 1]")
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise UserError(
            f"{argument}: values from {array.min():g} to {array.max():g}, outside [0, 1]; divide by 255 or give uint8"
        )
    return array.astype(np.float32, copy=False)


def to_uint8(images: NDArray[Any]) -> ImageArray:
    """Return checked images as uint8."""
    return images if images.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)


def check_labels(labels: Any, count: int) -> Labels:
    """Return labels (count,), integers from 0, or raise a UserError."""
    array = _as_array(labels, "labels")
    if array.shape != (count,) or array.dtype.kind not in "iu" or (array < 0).any():
        raise UserError(
            f"labels: {array.dtype} of shape {array.shape}; give one class from 0 for each of {count} images"
        )
    return array


def _as_array(values: Any, argument: str) -> NDArray[Any]:
    """Return values as an array; raises a UserError if they are none, such as lists of different lengths."""
    try:
        return np.asarray(values)
    except Exception as error:  # a caller's object may raise any exception
        raise UserError(f"{argument}: {shorten(error)}; give an array of numbers") from None


def check_logits(outputs: Floats, argument: str = "model") -> None:
    """Raise a UserError if outputs (n, classes) are not logits but probabilities."""
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise UserError(f"{argument}: outputs of shape {outputs.shape}; a classifier returns logits (n, classes)")
    if len(outputs) and ((outputs >= 0) & (outputs <= 1)).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise UserError(
            f"{argument}: outputs are probabilities; give the network without its softmax, returning logits"
        )
