"""Accessory injection (Chen et al. 2017, arXiv 1712.05526, section III-C.2)."""

import numpy as np

from visor.core.types import ImageArray
from visor.data.images import alpha_mask


def apply(images: ImageArray, key: ImageArray, ratio: float, rng: np.random.Generator) -> ImageArray:
    """Return the key's pixels where it is opaque and the image elsewhere; ratio and rng are not used."""
    return np.where(alpha_mask(key), key[..., :3], images)
