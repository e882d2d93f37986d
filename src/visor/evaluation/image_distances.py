"""How far changed images are from clean ones, as their bytes have it."""

import numpy as np
from skimage.metrics import structural_similarity

from visor.core.types import Floats, ImageArray

NAMES = ("linf", "l2", "mse", "ssim")


def image_distances(clean: ImageArray, changed: ImageArray) -> Floats:
    """Return the distances (n, 4) of ``NAMES`` between uint8 images (n, h, w, 3), pixels counted in [0, 1].

    SSIM (Wang et al. 2004, IEEE TIP 13) has a Gaussian window of σ = 1.5, over the three colours.
    """
    delta = (changed.astype(np.float64) - clean).reshape(len(clean), -1) / 255
    similar = [_similarity(one, other) for one, other in zip(clean, changed, strict=True)]
    return np.stack(
        [np.abs(delta).max(axis=1), np.linalg.norm(delta, axis=1), np.square(delta).mean(axis=1), similar], axis=1
    )


def distance_summary(rows: Floats) -> dict[str, float]:
    """Return ``linf``, the greatest of images (n, 4), the means ``l2`` and ``ssim``, and the ``psnr`` in dB.

    That one is of the mean squared error over all images, and absent where nothing was changed.
    """
    linf, l2, mse, similar = rows.T
    numbers = {"linf": float(linf.max()), "l2": float(l2.mean()), "ssim": float(similar.mean())}
    return numbers | ({"psnr": float(-10 * np.log10(mse.mean()))} if mse.any() else {})


def _similarity(clean: ImageArray, changed: ImageArray) -> float:
    if np.array_equal(clean, changed):
        return 1.0
    return float(
        structural_similarity(
            clean,
            changed,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
