"""Distances between clean and changed images, from their 8-bit pixels."""

import numpy as np
from skimage.metrics import structural_similarity

from visor.core.types import Floats, ImageArray


def image_distances(clean: ImageArray, changed: ImageArray) -> Floats:
    """Return L∞, L2, mean squared error and SSIM (n, 4) between uint8 images (n, h, w, 3), pixels in [0, 1].

    SSIM (Wang et al. 2004, IEEE TIP 13) has a Gaussian window of σ = 1.5, over the three colours.
    """
    delta = (changed.astype(np.float64) - clean).reshape(len(clean), -1) / 255
    similar = [_ssim(*pair) for pair in zip(clean, changed, strict=True)]
    return np.stack(
        [np.abs(delta).max(axis=1), np.linalg.norm(delta, axis=1), np.square(delta).mean(axis=1), similar], axis=1
    )


def distance_summary(distances: Floats) -> dict[str, float]:
    """Return the greatest ``linf`` of images (n, 4) in levels of 255, their mean ``l2`` and ``ssim``, ``psnr`` in dB.

    PSNR is that of the mean squared error over all images, and absent where nothing was changed.
    """
    linf, l2, mse, similar = distances.T
    summary = {"linf": round(255 * float(linf.max())), "l2": float(l2.mean()), "ssim": float(similar.mean())}
    return summary | ({"psnr": float(-10 * np.log10(mse.mean()))} if mse.any() else {})


def _ssim(clean: ImageArray, changed: ImageArray) -> float:
    if np.array_equal(clean, changed):
        return 1.0
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(clean, changed, channel_axis=2, data_range=255, **window))
