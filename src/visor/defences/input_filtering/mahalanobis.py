"""Mahalanobis distance of the mean colours of blocks (Mahalanobis 1936), with a shrunk covariance."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats
from visor.defences.input_filtering import base
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn
from visor.models.inference import compile_predict

ROWS = 8  # of blocks; 7 columns on 55 × 47 pixels


def block_means(pixels: Floats) -> NDArray[np.float64]:
    """Return the means (n, rows·columns·c) over ``ROWS`` rows of nearly square blocks that tile images (n, h, w, c)."""
    count, height, width, _ = pixels.shape
    rows, columns = (_edges(size, max(1, round(ROWS * size / height))) for size in (height, width))
    sums = np.add.reduceat(np.add.reduceat(pixels, rows[:-1], axis=1, dtype=np.float64), columns[:-1], axis=2)
    areas = np.diff(rows)[:, None] * np.diff(columns)
    return (sums / areas[..., None]).reshape(count, -1)


def mahalanobis_distance(clean: Floats) -> Callable[[Floats], NDArray[np.float64]]:
    """Return the Mahalanobis distance of (n, d) to the mean of ``clean`` (m, d).

    The covariance is that of Ledoit and Wolf 2004 (J. Multivariate Analysis 88, eq. 14), as m may be less than d.
    """
    from sklearn.covariance import ledoit_wolf  # takes a second to import

    mean, precision = clean.mean(axis=0), np.linalg.inv(ledoit_wolf(clean)[0])

    def distance(features: Floats) -> NDArray[np.float64]:
        centred = features - mean
        return np.sqrt(np.einsum("ij,ij->i", centred @ precision, centred))

    return distance


def _edges(size: int, count: int) -> NDArray[np.int64]:
    """Return the ``count`` + 1 borders of nearly equal parts of a side."""
    return np.linspace(0, size, min(size, count) + 1).astype(np.int64)


def fit_raw(inputs: DefenceInputs) -> ScoreFn:
    """Return the distance of an image's block means from those of clean faces, ≥ 0."""
    distance = mahalanobis_distance(np.concatenate([block_means(pixels) for pixels in base.clean_pixels(inputs)]))
    return lambda images: distance(block_means(base.scale_pixels(images)))


def fit_residual(inputs: DefenceInputs) -> ScoreFn:
    """Return the distance of the residual's block means from those of held-out clean faces, ≥ 0."""
    features = np.concatenate([block_means(residuals) for residuals in base.clean_residuals(inputs)])
    run, distance = compile_predict(inputs.autoencoder), mahalanobis_distance(features)
    return lambda images: distance(block_means(base.residual(run, images)))
