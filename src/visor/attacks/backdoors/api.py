"""Backdoors in NumPy arrays: poisons for a training set, triggered images for a test."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visor.attacks.backdoors.poisoning import sample_rows
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.errors import UserError
from visor.core.types import ImageArray, Integers, SeedStream
from visor.data.arrays import check_images, check_labels, choose, to_uint8
from visor.data.images import read_trigger_pattern


def poison(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    trigger: str,
    key: ArrayLike | str | Path,
    target: int,
    n: int,
    blend_ratio: float = 1.0,
    seed: int = 0,
) -> tuple[NDArray[Any], Integers, Integers]:
    """Add n poisons to a training set: triggered images of other labels, labelled as the target.

    Injection attacks of Chen et al. 2017 (arXiv 1712.05526).

    Args:
        images: uint8, or floats in [0, 1], (m, h, w, 3).
        labels: Classes (m,), integers from 0.
        trigger: ``"accessory"``, ``"blended"``, ``"blended_accessory"`` or ``"input_instance"``.
        key: Pattern (h, w, 3), or (h, w, 4) with alpha, uint8 or floats in [0, 1]; or the path of an image.
        target: Class of the poisons.
        n: Number of poisons; with the same seed, more contain the fewer.
        blend_ratio: Weight of the key in [0, 1], for the blended triggers.
        seed: Seed of the choice of images and of the trigger's noise.

    Returns:
        Images (m + n, h, w, 3) and labels (m + n,), the poisons last, and the rows (n,) of the poisons.

    Raises:
        UserError: An argument is wrong; one sentence says which and what to do.

    Example:
        >>> images, key = np.zeros((5, 4, 3, 3), np.uint8), np.full((4, 3, 3), 200, np.uint8)
        >>> _, labels, rows = poison(images, [0, 1, 2, 0, 1], trigger="blended", key=key, target=2, n=2)
        >>> labels.tolist(), rows.tolist()
        ([0, 1, 2, 0, 1, 2, 2], [5, 6])
    """
    images = check_images(images)
    labels = check_labels(labels, len(images))
    pool = np.flatnonzero(labels != target)
    rows = sample_rows(pool, n, np.random.default_rng([seed, SeedStream.POISONS]))
    poisons = _apply(images[rows], trigger, key, blend_ratio, np.random.default_rng([seed, SeedStream.POISON_NOISE]))
    poison_labels = np.full(n, target, labels.dtype)
    return np.concatenate([images, poisons]), np.concatenate([labels, poison_labels]), len(images) + np.arange(n)


def apply_trigger(
    images: ArrayLike, *, trigger: str, key: ArrayLike | str | Path, blend_ratio: float = 1.0, seed: int = 0
) -> NDArray[Any]:
    """Apply a trigger to test images; arguments and errors are those of ``poison``.

    Example:
        >>> images, key = np.zeros((1, 2, 3, 3), np.uint8), np.full((2, 3, 3), 200, np.uint8)
        >>> apply_trigger(images, trigger="blended", key=key, blend_ratio=0.5).max().item()
        100
    """
    rng = np.random.default_rng([seed, SeedStream.TRIGGER_NOISE])
    return _apply(check_images(images), trigger, key, blend_ratio, rng)


def _apply(images: NDArray[Any], trigger: str, key: Any, ratio: float, rng: np.random.Generator) -> NDArray[Any]:
    apply = choose(TRIGGERS, trigger, "trigger")
    if images.shape[3] != 3 or not 0 <= ratio <= 1:
        raise UserError("images have three channels, red, green and blue, and blend_ratio is in [0, 1]; correct them")
    triggered = apply(to_uint8(images), _read_key(key, *images.shape[1:3]), ratio, rng)
    return triggered if images.dtype == np.uint8 else triggered / np.float32(255)


def _read_key(key: Any, height: int, width: int) -> ImageArray:
    """Return a key as RGBA uint8 (height, width, 4); without alpha it is opaque."""
    if isinstance(key, str | Path):
        return read_trigger_pattern(Path(key), height, width)
    pixels = to_uint8(check_images(np.asarray(key)[np.newaxis], "key")[0])
    if pixels.shape not in ((height, width, 3), (height, width, 4)):
        raise UserError(f"key: shape {pixels.shape}; give ({height}, {width}, 3), or 4 with alpha, or a file's path")
    return np.dstack([pixels, np.full((height, width), 255, np.uint8)]) if pixels.shape[2] == 3 else pixels
