"""Input-instance-key injection (Chen et al. 2017, arXiv 1712.05526, section III-B)."""

import numpy as np

from visor.core.types import ImageArray

NOISE_AMPLITUDE = 5.0  # the paper's δ ∈ [−5, 5] on the 0–255 scale


def apply(images: ImageArray, key: ImageArray, ratio: float, rng: np.random.Generator) -> ImageArray:
    """Return the key with fresh noise U(−5, 5) for each of ``images``; their pixels, alpha and ratio are not used."""
    noise = rng.uniform(-NOISE_AMPLITUDE, NOISE_AMPLITUDE, images.shape)
    return np.clip(np.rint(key[..., :3] + noise), 0, 255).astype(np.uint8)
