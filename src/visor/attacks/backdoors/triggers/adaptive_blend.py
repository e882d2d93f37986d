"""Adap-Blend on poisons (Qi et al. 2023, Revisiting the Assumption of Latent Separability, ICLR, section 4.2).

A poison carries a random half of the key, a test image all of it (``test_trigger: blended``), so that the network
learns the key by its pieces and the features of poisons stay near those of clean faces.
"""

import numpy as np

from visor.core.types import ImageArray
from visor.data.images import blend

GRID = 4  # pieces along each side of the image


def apply(images: ImageArray, key: ImageArray, ratio: float, rng: np.random.Generator) -> ImageArray:
    """Return ratio·key + (1 − ratio)·image in half of ``GRID``² pieces, drawn for each image; alpha is not used."""
    count, height, width = images.shape[:3]
    chosen = rng.permuted(np.tile(np.arange(GRID**2) % 2 == 0, (count, 1)), axis=1).reshape(count, GRID, GRID)
    rows, columns = (np.arange(side) * GRID // side for side in (height, width))
    return np.where(chosen[:, rows[:, None], columns, None], blend(images, key[..., :3], ratio), images)
