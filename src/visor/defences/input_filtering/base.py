"""What a defender has to go by, and what a defence makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, ImageArray
from visor.data.face_set import FaceSelection, read_batches
from visor.models.inference import compile_predict

if TYPE_CHECKING:
    from visor.core.tf import keras
ScoreFn = Callable[[ImageArray], NDArray[np.float64]]


class DefenceInputs(NamedTuple):
    """Clean faces, and models that have seen them.

    ``autoencoder`` has been fitted on all of ``clean``; the k-th of K ``folds`` (two or more) on all but the places
    k, k + K, k + 2K … of it, so that it shows what those faces look like to a model that never saw them.
    ``classifier`` (logits) is the suspect network, for a defence that questions one.
    """

    clean: FaceSelection
    autoencoder: keras.Model
    folds: Sequence[keras.Model]
    classifier: keras.Model | None = None


class FittedScore(NamedTuple):
    """A score of float images (n, h, w, c), and those of clean faces in order, by models fitted without their fold."""

    score: Callable[[Floats], NDArray[np.float64]]
    held_out_scores: NDArray[np.float64]


BATCH = 256
PICTURE_GAIN = 3  # by which residuals are amplified in pictures: most lie within ±0.1

Run = Callable[[ImageArray], Any]
Batch = TypeVar("Batch", bound=NDArray[Any])


def scale_pixels(images: ImageArray) -> Floats:
    """Return uint8 images as float32 in [0, 1]."""
    return np.divide(images, 255, dtype=np.float32)


def residual(run: Run, images: ImageArray) -> Floats:
    """Return image − reconstruction, float32 (n, h, w, 3) in [−1, 1]; ``run`` is a compiled autoencoder."""
    return scale_pixels(images) - run(images)[0]


def clean_pixels(evidence: DefenceInputs) -> Iterator[Floats]:
    """Yield the clean faces in order, float32 (k, h, w, 3) in [0, 1]."""
    for images, _ in read_batches([evidence.clean], BATCH):
        yield scale_pixels(images)


def clean_residuals(evidence: DefenceInputs) -> Iterator[Floats]:
    """Yield the residuals of the clean faces in order, each by the autoencoder that was fitted without its fold.

    A model's own images leave smaller residuals than new ones: statistics of those would call every new face odd.
    """
    runs = [compile_predict(model) for model in evidence.folds]
    batches = (images for images, _ in read_batches([evidence.clean], BATCH))
    for folds, images in iterate_folds(batches, len(runs)):
        residuals = np.empty(images.shape, np.float32)
        for fold, run in enumerate(runs):
            residuals[folds == fold] = residual(run, images[folds == fold])
        yield residuals


def iterate_folds(batches: Iterable[Batch], folds: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield each batch behind the fold (n,) of each of its images: 0, 1, … ``folds`` − 1, 0, 1, … over all batches."""
    start = 0
    for batch in batches:
        yield np.arange(start, start + len(batch)) % folds, batch
        start += len(batch)


def reconstructions(run: Run, images: ImageArray) -> ImageArray:
    """Return a compiled autoencoder's reconstructions of uint8 images as uint8."""
    return np.rint(run(images)[0] * 255).astype(np.uint8)


def residual_pictures(run: Run, images: ImageArray) -> ImageArray:
    """Return the residuals of uint8 images as uint8: 128 is none, differences are amplified ``GAIN`` times."""
    pictures = 128 + 255 * PICTURE_GAIN * residual(run, images)
    return np.rint(np.clip(pictures, 0, 255)).astype(np.uint8)
