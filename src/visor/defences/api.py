"""Detectors of poisoned images, fitted on NumPy arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visor.core.errors import UserError
from visor.core.tf import keras
from visor.core.types import ImageArray, Labels
from visor.data.arrays import check_images, check_labels, check_logits, choose, to_uint8
from visor.data.face_set import FaceSelection, FaceSet
from visor.defences.input_filtering import INPUT_FILTERS, NEEDS_CLASSIFIER
from visor.defences.input_filtering.base import DefenceInputs, SecondOpinion
from visor.models.inference import compile_predict
from visor.models.recognisers.base import Recogniser, embeddings

NEEDS_AUTOENCODER = {"reconstruction", "residual_mahalanobis", "high_pass"}


def fit_input_filter(
    name: str,
    clean_images: ArrayLike,
    *,
    clean_labels: ArrayLike | None = None,
    autoencoder: Any = None,
    classifier: Any = None,
    calibration_images: ArrayLike | None = None,
    calibration_labels: ArrayLike | None = None,
    false_positive_rate: float = 0.03,
    second_opinion: Recogniser | None = None,
    distance: Literal["cosine", "mahalanobis"] = "cosine",
) -> Callable[[ArrayLike], NDArray[np.float64]]:
    """Fit a detector of poisoned images on clean ones.

    Args:
        name: ``"patch"`` and ``"raw_mahalanobis"`` need clean images only; ``"reconstruction"``, ``"high_pass"`` and
            ``"residual_mahalanobis"`` an autoencoder; ``"strip"`` (Gao et al. 2019), ``"feature_mahalanobis"`` (Lee et
            al. 2018), ``"knn"``, ``"second_opinion"`` and ``"suite"`` the classifier.
        clean_images: uint8, or floats in [0, 1], (m, h, w, 3), that the autoencoder was not fitted on.
        clean_labels: Their classes (m,), for filters that compare an image with clean ones of its class; default: those
            that the classifier names.
        autoencoder: ``keras.Model``, float32 images in [0, 1] → reconstructions, alone or as the first output.
        classifier: ``keras.Model``, float32 images in [0, 1] → logits.
        calibration_images, calibration_labels: Further clean images, on which ``"suite"`` sets the thresholds of its
            parts, and their classes; default: those that the classifier names.
        false_positive_rate: That of each part of ``"suite"``.
        second_opinion: An independent recogniser, as ``visor.load_network`` returns it; ``"suite"`` asks it, too.
        distance: How its embeddings are compared: ``"cosine"`` for photographs, ``"mahalanobis"`` for drawn faces.

    Returns:
        ``score(images) -> float64 (n,)``; higher scores are more suspicious, and ``"suite"`` flags what is above 0. An
        image whose class has no clean image to compare with gets −∞.

    Raises:
        UserError: An argument is wrong; the message names it and the remedy.

    Example:
        >>> clean = np.random.default_rng(1).integers(90, 130, (20, 16, 12, 3), dtype=np.uint8)
        >>> score = fit_input_filter("raw_mahalanobis", clean)
        >>> bool(score(clean + 60).min() > score(clean).max())
        True
        >>> network = keras.Sequential([keras.Input((16, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> score = fit_input_filter("feature_mahalanobis", clean, classifier=network)
        >>> bool(score(255 - clean).min() > score(clean).max())
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
    if name == "second_opinion" and second_opinion is None:
        raise UserError(
            'second_opinion requires second_opinion=…; pass a recogniser, such as load_network("dlib_resnet")'
        )
    if name == "suite" and calibration_images is None:
        raise UserError("suite requires calibration_images=…; pass clean images that are not among clean_images")
    opinion = SecondOpinion(embeddings(second_opinion), distance) if second_opinion else None
    clean, calibration = _select(images, clean_labels, classifier), None
    if name == "suite":
        others = to_uint8(check_images(calibration_images, "calibration_images"))
        calibration = _select(others, calibration_labels, classifier)
    inputs = DefenceInputs(clean, autoencoder, [autoencoder, autoencoder], classifier)
    inputs = inputs._replace(
        calibration=calibration, second_opinion=opinion, false_positive_rate=float(false_positive_rate)
    )
    score = fit(inputs)
    return lambda images: score(to_uint8(check_images(images)))


def _select(images: ImageArray, labels: ArrayLike | None, classifier: keras.Model | None) -> FaceSelection:
    """Return images with their labels, or else with those that the classifier names, or else with zeros."""
    rows = np.arange(len(images))
    named: Labels = np.zeros_like(rows)
    if labels is not None:
        named = check_labels(labels, len(images))
        if classifier is not None and named.max(initial=0) >= classifier.output_shape[-1]:
            raise UserError(
                f"labels go up to {named.max()}, but the classifier has {classifier.output_shape[-1]} classes"
            )
    elif classifier is not None:
        run = compile_predict(classifier)
        parts = [run(images[begin : begin + 256]).argmax(axis=-1) for begin in range(0, len(images), 256)]
        named = np.concatenate(parts)
    return FaceSet(Path(), named, rows, rows, (), "", "", images).select()
