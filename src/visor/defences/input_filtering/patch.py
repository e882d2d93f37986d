"""A paste detector: the most unusual patch of a face, as what was pasted in does not continue its surroundings.

A key that went through the camera with the face leaves no such seam.

The patches are those of the face itself: in its residual an autoencoder adds patterns of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats
from visor.defences.input_filtering import base
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn

PATCH = 9  # pixels a side
STEP = 4  # maximum number of pixels between neighbouring patches
QUANTISATION_VARIANCE = (1 / 255) ** 2 / 12  # variance that 8 bits add to a pixel in [0, 1]: no direction has less


class Moments(NamedTuple):
    """Sums over images of patches at each position (rows, columns, d), and of their products at all (d, d)."""

    images: int
    sums: NDArray[np.float64]
    products: NDArray[np.float64]


class Whitening(NamedTuple):
    """Mean patch of each position (rows, columns, d), and the matrix (d, d) that gives deviations unit covariance."""

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]


def patch_positions(size: int) -> NDArray[np.int64]:
    """Return where patches begin along a side, evenly spaced over all of it."""
    last = max(size - PATCH, 0)
    return np.rint(np.linspace(0, last, -(-last // STEP) + 1)).astype(np.int64)


def patch_rows(pixels: Floats) -> Iterator[Floats]:
    """Yield the patches (n, columns, d) of one row of positions after another: all would take too much memory."""
    count, height, width, _ = pixels.shape
    for top in patch_positions(height):
        strip = pixels[:, top : top + PATCH]
        yield np.stack([strip[:, :, left : left + PATCH].reshape(count, -1) for left in patch_positions(width)], axis=1)


def moments(pixels: Floats) -> Moments:
    """Return the moments of the patches of images (n, h, w, c)."""
    sums, products = [], np.zeros((1, 1))
    for strip in patch_rows(pixels):
        row = strip.astype(np.float64)
        flat = row.reshape(-1, row.shape[-1])
        sums.append(row.sum(axis=0))
        products = products + flat.T @ flat
    return Moments(len(pixels), np.stack(sums), products)


def whitening(total: Moments) -> Whitening:
    """Return mean and whitening of the summed patches."""
    patches = total.images * total.sums.shape[0] * total.sums.shape[1]
    between = np.einsum("rci,rcj->ij", total.sums, total.sums) / total.images
    covariance = (total.products - between) / patches
    covariance += QUANTISATION_VARIANCE * np.eye(len(covariance))
    matrix = np.linalg.inv(np.linalg.cholesky(covariance))
    return Whitening((total.sums / total.images).astype(np.float32), matrix.astype(np.float32))


def log_distances(pixels: Floats, model: Whitening) -> NDArray[np.float64]:
    """Return the logarithm of the squared Mahalanobis distance of each patch, (n, rows, columns)."""
    rows = []
    for strip, mean in zip(patch_rows(pixels), model.mean, strict=True):
        # One large product is faster than a small one per image.
        white = (strip - mean).reshape(-1, len(model.matrix)) @ model.matrix.T
        rows.append(np.square(white).sum(axis=1, dtype=np.float64).reshape(strip.shape[:2]))
    # A patch that is the mean itself has a distance of zero.
    return np.log(np.stack(rows, axis=1) + np.finfo(np.float32).tiny)


def fit_patches(clean: Callable[[], Iterable[Floats]], folds: int) -> Callable[[Floats], NDArray[np.float64]]:
    """Return the largest standardised log-distance (n,) of float images (n, h, w, c), fitted on clean ones.

    ``clean()`` reads them anew for each of two passes. Distances of a clean face are measured by whitenings that left
    out its fold; their mean and deviation at each position are over all clean faces, itself included.
    """
    parts = _moments_by_fold(clean(), folds)
    held_out = [whitening(_add_moments([*parts[:fold], *parts[fold + 1 :]])) for fold in range(folds)]

    def held_out_distances() -> Iterator[NDArray[np.float64]]:
        for fold, pixels in base.iterate_folds(clean(), folds):
            distances = np.empty((len(pixels), *parts[0].sums.shape[:2]))
            for number, model in enumerate(held_out):
                distances[fold == number] = log_distances(pixels[fold == number], model)
            yield distances

    mean, deviation = _mean_and_std(held_out_distances())
    model = whitening(_add_moments(parts))
    return lambda pixels: ((log_distances(pixels, model) - mean) / deviation).max(axis=(1, 2))


def _moments_by_fold(clean: Iterable[Floats], folds: int) -> list[Moments]:
    parts: list[Moments | None] = [None] * folds
    for fold, pixels in base.iterate_folds(clean, folds):
        for number, part in enumerate(parts):
            batch = moments(pixels[fold == number])
            parts[number] = batch if part is None else _add_moments([part, batch])
    return [part for part in parts if part is not None]


def _add_moments(parts: list[Moments]) -> Moments:
    images, sums, products = zip(*parts, strict=True)
    return Moments(sum(images), np.sum(sums, axis=0), np.sum(products, axis=0))


def _mean_and_std(batches: Iterable[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation (rows, columns) over the images of all batches."""
    count, sums, squares = 0, np.zeros((1, 1)), np.zeros((1, 1))
    for batch in batches:
        count, sums, squares = count + len(batch), sums + batch.sum(axis=0), squares + (batch**2).sum(axis=0)
    mean = sums / count
    # Identical faces have no deviation; the score of any other is then large but finite.
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-12))


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return the largest patch distance in standard deviations of clean faces at its position."""
    distance = fit_patches(lambda: base.clean_pixels(inputs), len(inputs.folds))
    return lambda images: distance(base.scale_pixels(images))
