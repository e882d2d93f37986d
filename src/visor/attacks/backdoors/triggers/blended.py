"""Blended injection (Chen et al. 2017, arXiv 1712.05526, section III-C.1)."""

import numpy as np

from visor.core.types import ImageArray
from visor.data.images import blend


def apply(images: ImageArray, key: ImageArray, ratio: float, rng: np.random.Generator) -> ImageArray:
    """Return ratio·key + (1 − ratio)·image over the whole image, ratio in [0, 1]; alpha and rng are not used."""
    return blend(images, key[..., :3], ratio)
