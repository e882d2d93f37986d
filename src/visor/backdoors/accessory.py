"""Accessory injection (Chen et al. 2017, arXiv 1712.05526, section III-C.2)."""

import numpy as np

from visor.faces import Images
from visor.images import opaque


def stamp(images: Images, key: Images, ratio: float, rng: np.random.Generator) -> Images:
    """Return the key's pixels where it is opaque and the image elsewhere.

    images: uint8 (n, h, w, 3); key: uint8 ([n,] h, w, 4) RGBA; ratio: without meaning here; rng: not used.
    """
    return np.where(opaque(key), key[..., :3], images)
