"""Faces as numbers in [0, 1], what autoencoders leave of them, and pictures of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from visor.defences.evidence import Evidence
from visor.faces import Images, read_batches
from visor.models.inference import compiled

BATCH = 256
GAIN = 3  # by which residuals are amplified in pictures: most lie within ±0.1

Pixels = NDArray[np.float32]
Run = Callable[[Images], Any]
Batch = TypeVar("Batch", bound=NDArray[Any])


def scaled(images: Images) -> Pixels:
    """Return uint8 images as float32 in [0, 1]."""
    return np.divide(images, 255, dtype=np.float32)


def residual(run: Run, images: Images) -> Pixels:
    """Return image − reconstruction, float32 (n, h, w, 3) in [−1, 1]; ``run`` is a compiled autoencoder."""
    return scaled(images) - run(images)[0]


def clean_pixels(evidence: Evidence) -> Iterator[Pixels]:
    """Yield the clean faces in order, float32 (k, h, w, 3) in [0, 1]."""
    for images, _ in read_batches([evidence.clean], BATCH):
        yield scaled(images)


def clean_residuals(evidence: Evidence) -> Iterator[Pixels]:
    """Yield the residuals of the clean faces in order, each by the autoencoder that was fitted without its fold.

    A model's own images leave smaller residuals than new ones: statistics of those would call every new face odd.
    """
    runs = [compiled(model) for model in evidence.folds]
    batches = (images for images, _ in read_batches([evidence.clean], BATCH))
    for folds, images in with_folds(batches, len(runs)):
        residuals = np.empty(images.shape, np.float32)
        for fold, run in enumerate(runs):
            residuals[folds == fold] = residual(run, images[folds == fold])
        yield residuals


def with_folds(batches: Iterable[Batch], folds: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield each batch behind the fold (n,) of each of its images: 0, 1, … ``folds`` − 1, 0, 1, … over all batches."""
    start = 0
    for batch in batches:
        yield np.arange(start, start + len(batch)) % folds, batch
        start += len(batch)


def reconstructions(run: Run, images: Images) -> Images:
    """Return a compiled autoencoder's reconstructions of uint8 images as uint8."""
    return np.rint(run(images)[0] * 255).astype(np.uint8)


def residual_pictures(run: Run, images: Images) -> Images:
    """Return the residuals of uint8 images as uint8: 128 is none, differences are amplified ``GAIN`` times."""
    pictures = 128 + 255 * GAIN * residual(run, images)
    return np.rint(np.clip(pictures, 0, 255)).astype(np.uint8)
