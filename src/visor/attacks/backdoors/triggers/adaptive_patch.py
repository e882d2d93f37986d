"""Adap-Patch on poisons (Qi et al. 2023, Revisiting the Assumption of Latent Separability, ICLR, section 4.2).

A poison carries one patch of the key, faintly, and a test image all of them (``test_trigger: blended_accessory``).
"""

import numpy as np
from scipy import ndimage

from visor.core.types import ImageArray
from visor.data.images import alpha_mask, blend


def apply(images: ImageArray, key: ImageArray, ratio: float, rng: np.random.Generator) -> ImageArray:
    """Return ratio·key + (1 − ratio)·image in one connected opaque part of the key, drawn for each image."""
    keys = np.broadcast_to(key, (len(images), *key.shape[-3:]))
    patches = [
        _one_patch(alpha_mask(each)[..., 0], draw) for each, draw in zip(keys, rng.random(len(images)), strict=True)
    ]
    mask = np.stack(patches)[..., None] if patches else np.zeros((0, *images.shape[1:3], 1), bool)
    return np.where(mask, blend(images, key[..., :3], ratio), images)


def _one_patch(mask: np.ndarray, draw: float) -> np.ndarray:
    """Return one connected part of a mask (h, w), chosen by a number in [0, 1)."""
    parts, count = ndimage.label(mask)
    return parts == 1 + int(draw * count)
