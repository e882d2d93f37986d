"""Adversarial images at 8 bits per value, and sign noise of the same size as their control."""

from collections.abc import Iterable

import numpy as np

from visor.core.types import Floats, ImageArray, SeedStream

ROUNDING = 1e-6  # Tolerance: eps = 8 / 255 must give exactly 8 levels.


def eps_in_levels(eps: float) -> int:
    """Return a bound for pixels in [0, 1] in levels of 255, rounded down."""
    return int(np.floor(eps * 255 + ROUNDING))


def quantise_within_eps(adversarial: Floats, clean: ImageArray, eps: float) -> ImageArray:
    """Round images (n, h, w, c) in [0, 1] to uint8, every value within ``eps_in_levels(eps)`` of the clean one."""
    levels = eps_in_levels(eps)
    change = np.rint(adversarial * np.float32(255)).astype(np.int16) - clean
    return (clean + np.clip(change, -levels, levels)).astype(np.uint8)


def random_sign_noise(clean: ImageArray, eps: float, seed: int, image_ids: Iterable[int]) -> ImageArray:
    """Add ``eps_in_levels(eps)`` with a random sign to every value of uint8 images (n, h, w, c).

    Where that would leave [0, 255] the sign is the other one. The signs of an image depend on seed and image id alone.
    """
    levels, noisy = eps_in_levels(eps), clean.copy()
    for image, image_id in zip(noisy, image_ids, strict=True):
        up = np.random.default_rng([seed, SeedStream.SIGN_NOISE, image_id]).integers(0, 2, image.shape, np.uint8)
        up = np.where(image < levels, True, np.where(image > 255 - levels, False, up.astype(bool)))
        image[...] = np.clip(image + np.where(up, levels, -levels), 0, 255)
    return noisy
