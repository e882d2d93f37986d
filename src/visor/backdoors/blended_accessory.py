"""Blended accessory injection (Chen et al. 2017, arXiv 1712.05526, section III-C.3)."""

import numpy as np

from visor.faces import Images
from visor.images import blend, opaque


def stamp(images: Images, key: Images, ratio: float, rng: np.random.Generator) -> Images:
    """Return ratio·key + (1 − ratio)·image where the key is opaque and the image elsewhere.

    images: uint8 (n, h, w, 3); key: uint8 ([n,] h, w, 4) RGBA; ratio: in [0, 1]; rng: not used.
    """
    return np.where(opaque(key), blend(images, key[..., :3], ratio), images)
