"""Blended accessory injection (Chen et al. 2017, arXiv 1712.05526, section III-C.3)."""

import numpy as np

from visor.core.types import ImageArray
from visor.data.images import alpha_mask, blend


def apply(images: ImageArray, key: ImageArray, ratio: float, rng: np.random.Generator) -> ImageArray:
    """Return ratio·key + (1 − ratio)·image where the key is opaque and the image elsewhere; rng is not used."""
    return np.where(alpha_mask(key), blend(images, key[..., :3], ratio), images)
