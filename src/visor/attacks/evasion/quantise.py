"""Adversarial images as they are saved, 8 bits a value, and noise of the same size to compare them with."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core.types import ImageArray, SeedStream

ROUNDING = 1e-6  # so that 8 / 255 means 8, whatever floats make of it


def eps_in_levels(eps: float) -> int:
    """Return how many of the 255 steps between black and white a bound in [0, 1] allows: the floor of eps · 255."""
    return int(np.floor(eps * 255 + ROUNDING))


def quantise_within_eps(adversarial: NDArray[np.floating[Any]], clean: ImageArray, eps: float) -> ImageArray:
    """Round images in [0, 1] to uint8, every value within ``levels(eps)`` of the clean one; both are (n, h, w, c)."""
    change = np.rint(adversarial * np.float32(255)).astype(np.int16) - clean
    return (clean + np.clip(change, -eps_in_levels(eps), eps_in_levels(eps))).astype(np.uint8)


def random_sign_noise(clean: ImageArray, eps: float, seed: int, numbers: Iterable[int]) -> ImageArray:
    """Move every value of uint8 images (n, h, w, c) by ``levels(eps)`` up or down, as a coin says.

    Where that would leave [0, 255] it goes the other way. An image's coins depend on seed and its number alone.
    """
    noisy = [
        _noisy(image, eps_in_levels(eps), np.random.default_rng([seed, SeedStream.SIGN_NOISE, number]))
        for image, number in zip(clean, numbers, strict=True)
    ]
    return np.stack(noisy) if noisy else clean.copy()


def _noisy(image: ImageArray, size: int, rng: np.random.Generator) -> ImageArray:
    up = rng.integers(0, 2, image.shape, np.uint8).astype(bool)
    up = np.where(image < size, True, np.where(image > 255 - size, False, up))
    return np.clip(image + np.where(up, size, -size), 0, 255).astype(np.uint8)
