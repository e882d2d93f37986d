"""What input filters are fitted on, and residuals of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray
from visor.data.face_set import FaceSelection, read_batches
from visor.models.inference import compile_predict

if TYPE_CHECKING:
    from visor.core.tf import keras

ScoreFn = Callable[[ImageArray], NDArray[np.float64]]
Batch = TypeVar("Batch", bound=NDArray[Any])

BATCH = 256
RESIDUAL_GAIN = 3  # amplification of residuals in images: most lie within ±0.1


class SecondOpinion(NamedTuple):
    """Another recogniser, uint8 images (n, h, w, 3) → embeddings (n, d), and how these are compared."""

    embed: Callable[[ImageArray], Floats]
    distance: Literal["cosine", "mahalanobis"]


class DefenceInputs(NamedTuple):
    """What an input filter may use.

    Attributes:
        clean: Clean faces; filters that compare classes take their labels, which may be those that the network names.
        autoencoder: Fitted on all of ``clean``.
        folds: Two or more autoencoders; the k-th of K is fitted on all but the rows k, k + K, k + 2K … of ``clean``, so
            that its residuals there are those of faces it never saw.
        classifier: The inspected network (logits), for a filter that needs one.
        calibration: Other clean faces, on which ``suite`` sets the thresholds of its parts.
        second_opinion: A recogniser that does not depend on the inspected network.
        false_positive_rate: The wanted one of each part of ``suite``.
    """

    clean: FaceSelection
    autoencoder: keras.Model
    folds: Sequence[keras.Model]
    classifier: keras.Model | None = None
    calibration: FaceSelection | None = None
    second_opinion: SecondOpinion | None = None
    false_positive_rate: float = 0.03


def inspected_network(inputs: DefenceInputs, name: str) -> keras.Model:
    """Return the network that the filter ``name`` questions; raises a UserError if there is none."""
    if inputs.classifier is None:
        raise UserError(f"{name} needs the inspected network, but there is none; name an attack in training_sets")
    return inputs.classifier


def scale_pixels(images: ImageArray) -> Floats:
    """Return uint8 images as float32 in [0, 1]."""
    return np.divide(images, 255, dtype=np.float32)


def residual(run: Callable[[ImageArray], Any], images: ImageArray) -> Floats:
    """Return image − reconstruction, float32 (n, h, w, 3) in [−1, 1]; ``run`` is a compiled autoencoder."""
    return scale_pixels(images) - run(images)[0]


def clean_pixels(inputs: DefenceInputs) -> Iterator[Floats]:
    """Yield the clean faces in order, float32 (k, h, w, 3) in [0, 1]."""
    for images, _ in read_batches([inputs.clean], BATCH):
        yield scale_pixels(images)


def clean_residuals(inputs: DefenceInputs) -> Iterator[Floats]:
    """Yield the residuals of the clean faces in order, each by the autoencoder that was fitted without its fold.

    Residuals of images that a model was fitted on are smaller: by their statistics every new face would be unusual.
    """
    runs = [compile_predict(model) for model in inputs.folds]
    batches = (images for images, _ in read_batches([inputs.clean], BATCH))
    for folds, images in iterate_folds(batches, len(runs)):
        residuals = np.empty(images.shape, np.float32)
        for fold, run in enumerate(runs):
            residuals[folds == fold] = residual(run, images[folds == fold])
        yield residuals


def iterate_folds(batches: Iterable[Batch], folds: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield the fold (n,) of each image of a batch, 0, 1, … ``folds`` − 1, 0, 1, … over all batches, and the batch."""
    start = 0
    for batch in batches:
        yield np.arange(start, start + len(batch)) % folds, batch
        start += len(batch)


def reconstructions(run: Callable[[ImageArray], Any], images: ImageArray) -> ImageArray:
    """Return a compiled autoencoder's reconstructions of uint8 images as uint8."""
    return np.rint(run(images)[0] * 255).astype(np.uint8)


def residual_images(run: Callable[[ImageArray], Any], images: ImageArray) -> ImageArray:
    """Return the residuals of uint8 images as uint8: 128 + ``RESIDUAL_GAIN`` times the difference."""
    pixels = 128 + 255 * RESIDUAL_GAIN * residual(run, images)
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
