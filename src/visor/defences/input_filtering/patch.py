"""The most unusual patch of a face: pieces that were pasted in do not continue their surroundings.

The patches are those of the face itself. Of its residual they tell less: an autoencoder adds patterns of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats
from visor.defences.input_filtering.base import (
    DefenceInputs,
    FittedScore,
    ScoreFn,
    clean_pixels,
    iterate_folds,
    scale_pixels,
)

PATCH = 9  # pixels a side
STEP = 4  # pixels between neighbouring patches, at most
QUANTISATION_VARIANCE = (1 / 255) ** 2 / 12  # variance that 8 bits add to a pixel in [0, 1]: no direction has less


class Moments(NamedTuple):
    """Sums over images of patches (rows, columns, d) at each place and of their products (d, d) at all places."""

    images: int
    sums: NDArray[np.float64]
    products: NDArray[np.float64]


class Whitening(NamedTuple):
    """Mean patch of each place (rows, columns, d), and the matrix (d, d) that gives deviations a unit covariance."""

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]


def patch_positions(size: int) -> NDArray[np.int64]:
    """Return where patches begin along a side, evenly spread over all of it."""
    room = max(size - PATCH, 0)
    return np.rint(np.linspace(0, room, -(-room // STEP) + 1)).astype(np.int64)


def patch_rows(pixels: Floats) -> Iterator[Floats]:
    """Yield the patches (n, columns, d) of each row of places in turn: all at once would fill the memory."""
    count, height, width, _ = pixels.shape
    for top in patch_positions(height):
        strip = pixels[:, top : top + PATCH]
        yield np.stack([strip[:, :, left : left + PATCH].reshape(count, -1) for left in patch_positions(width)], axis=1)


def moments(pixels: Floats) -> Moments:
    """Return the moments of the patches of images (n, h, w, c)."""
    sums, products = [], np.zeros((1, 1))
    for strip in patch_rows(pixels):
        row = strip.astype(np.float64)  # one row of places at a time: all would take a hundred times the images
        flat = row.reshape(-1, row.shape[-1])
        sums.append(row.sum(axis=0))
        products = products + flat.T @ flat
    return Moments(len(pixels), np.stack(sums), products)


def whitening(total: Moments) -> Whitening:
    """Return mean and whitening of the patches that were summed."""
    patches = total.images * total.sums.shape[0] * total.sums.shape[1]
    between = np.einsum("rci,rcj->ij", total.sums, total.sums) / total.images
    covariance = (total.products - between) / patches
    covariance += QUANTISATION_VARIANCE * np.eye(len(covariance))
    matrix = np.linalg.inv(np.linalg.cholesky(covariance))
    return Whitening((total.sums / total.images).astype(np.float32), matrix.astype(np.float32))


def log_distances(pixels: Floats, model: Whitening) -> NDArray[np.float64]:
    """Return the logarithm of the squared Mahalanobis distance of each patch, (n, rows, columns)."""
    found = []
    for strip, mean in zip(patch_rows(pixels), model.mean, strict=True):
        # One large product: NumPy would make a small one of each image.
        white = (strip - mean).reshape(-1, len(model.matrix)) @ model.matrix.T
        found.append(np.square(white).sum(axis=1, dtype=np.float64).reshape(strip.shape[:2]))
    # A patch that is the mean itself has a distance of zero.
    return np.log(np.stack(found, axis=1) + np.finfo(np.float32).tiny)


def fit_patches(clean: Callable[[], Iterable[Floats]], folds: int) -> FittedScore:
    """Fit the largest standardised log-distance on clean images, which ``clean()`` reads anew for each of three passes.

    How far patches of a clean face lie is measured by whitenings that left out its fold. Mean and deviation of these
    distances at each place are over all clean faces: an unseen score knows its face in them, as one among many.
    """
    parts = _moments_by_fold(clean(), folds)
    held_out = [whitening(_added([*parts[:fold], *parts[fold + 1 :]])) for fold in range(folds)]

    def unseen() -> Iterator[NDArray[np.float64]]:
        for fold, pixels in iterate_folds(clean(), folds):
            distances = np.empty((len(pixels), *parts[0].sums.shape[:2]))
            for number, model in enumerate(held_out):
                distances[fold == number] = log_distances(pixels[fold == number], model)
            yield distances

    mean, deviation = _spread(unseen())
    scores = [_largest(distances, mean, deviation) for distances in unseen()]
    model = whitening(_added(parts))
    return FittedScore(lambda pixels: _largest(log_distances(pixels, model), mean, deviation), np.concatenate(scores))


def _largest(
    distances: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    return ((distances - mean) / deviation).max(axis=(1, 2))


def _moments_by_fold(clean: Iterable[Floats], folds: int) -> list[Moments]:
    parts: list[Moments | None] = [None] * folds
    for fold, pixels in iterate_folds(clean, folds):
        for number, part in enumerate(parts):
            found = moments(pixels[fold == number])
            parts[number] = found if part is None else _added([part, found])
    return [part for part in parts if part is not None]


def _added(parts: list[Moments]) -> Moments:
    images, sums, products = zip(*parts, strict=True)
    return Moments(sum(images), np.sum(sums, axis=0), np.sum(products, axis=0))


def _spread(batches: Iterable[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation (rows, columns) over the images of all batches."""
    count, sums, squares = 0, np.zeros((1, 1)), np.zeros((1, 1))
    for batch in batches:
        count, sums, squares = count + len(batch), sums + batch.sum(axis=0), squares + (batch**2).sum(axis=0)
    mean = sums / count
    # Faces alike to the last bit have no spread; any difference from them is then large but finite.
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-12))


def fit(evidence: DefenceInputs) -> ScoreFn:
    """Return the largest patch distance in standard deviations of clean faces at its place."""
    fitted = fit_patches(lambda: clean_pixels(evidence), len(evidence.folds))
    return lambda images: fitted.score(scale_pixels(images))
