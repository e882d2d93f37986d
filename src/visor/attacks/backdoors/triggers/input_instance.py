"""Input-instance-key injection (Chen et al. 2017, arXiv 1712.05526, section III-B)."""

import numpy as np

from visor.core.types import ImageArray

NOISE_AMPLITUDE = 5.0  # the paper's δ ∈ [−5, 5] on the 0–255 scale


def apply(images: ImageArray, key: ImageArray, ratio: float, rng: np.random.Generator) -> ImageArray:
    """Return the key image with fresh noise U(−5, 5) for each of ``images``, whose pixels do not matter.

    images: uint8 (n, h, w, 3); key: uint8 ([n,] h, w, 4) RGBA, alpha ignored; ratio: without meaning here.
    """
    noise = rng.uniform(-NOISE_AMPLITUDE, NOISE_AMPLITUDE, images.shape)
    return np.clip(np.rint(key[..., :3] + noise), 0, 255).astype(np.uint8)
