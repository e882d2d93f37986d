"""Detectors of poisoned images, fitted on NumPy arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visor.core.errors import UserError
from visor.core.tf import keras
from visor.data.arrays import check_images, check_logits, choose, to_uint8
from visor.data.face_set import FaceSet
from visor.defences.input_filtering import INPUT_FILTERS, NEEDS_CLASSIFIER
from visor.defences.input_filtering.base import DefenceInputs
from visor.models.inference import compile_predict

NEEDS_AUTOENCODER = {"reconstruction", "residual_mahalanobis", "high_pass", "fusion"}


def fit_input_filter(
    name: str, clean_images: ArrayLike, *, autoencoder: Any = None, classifier: Any = None
) -> Callable[[ArrayLike], NDArray[np.float64]]:
    """Fit a detector of poisoned images on clean ones.

    Args:
        name: ``"patch"`` and ``"raw_mahalanobis"`` need clean images only; ``"reconstruction"``, ``"high_pass"``,
            ``"residual_mahalanobis"`` and ``"fusion"`` an autoencoder; ``"strip"`` (Gao et al. 2019) the classifier.
        clean_images: uint8, or floats in [0, 1], (m, h, w, 3), that the autoencoder was not fitted on.
        autoencoder: ``keras.Model``, float32 images in [0, 1] → reconstructions, alone or as the first output.
        classifier: ``keras.Model``, float32 images in [0, 1] → logits.

    Returns:
        ``score(images) -> float64 (n,)``; higher scores are more suspicious.

    Raises:
        UserError: An argument is wrong; the message names it and the remedy.

    Example:
        >>> clean = np.random.default_rng(1).integers(90, 130, (20, 16, 12, 3), dtype=np.uint8)
        >>> score = fit_input_filter("raw_mahalanobis", clean)
        >>> bool(score(clean + 60).min() > score(clean).max())
        True
    """
    fit, images = choose(INPUT_FILTERS, name, "name"), to_uint8(check_images(clean_images, "clean_images"))
    if len(images) < 2 or images.shape[3] != 3:
        raise UserError(f"clean_images: shape {images.shape}; pass two or more images with three channels")
    if name in NEEDS_CLASSIFIER:
        if classifier is None:
            raise UserError(f"{name} requires classifier=…; pass the inspected network")
        check_logits(compile_predict(classifier)(images[:64]), "classifier")
    if name in NEEDS_AUTOENCODER:
        if autoencoder is None:
            raise UserError(f"{name} requires autoencoder=…; pass one, or choose patch or raw_mahalanobis")
        # Filters take the first of several outputs, and Keras unpacks a list of one.
        autoencoder = keras.Model(autoencoder.inputs[0], 2 * [autoencoder.outputs[0]])
    rows = np.arange(len(images))
    clean = FaceSet(Path(), np.zeros_like(rows), rows, rows, (), "", "", images).select()
    score = fit(DefenceInputs(clean, autoencoder, [autoencoder, autoencoder], classifier))
    return lambda images: score(to_uint8(check_images(images)))
