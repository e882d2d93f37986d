"""Defences of an untrusted network that learn from clean images, in place of a stored autoencoder."""

from typing import Any, NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers
from visor.core.types import Floats, ImageArray
from visor.data.arrays import choose
from visor.defences.api import fit_input_filter
from visor.defences.conformal import EXCESS_THRESHOLD, conformal_threshold
from visor.defences.input_filtering import INPUT_FILTERS, NEEDS_CLASSIFIER
from visor.defences.input_filtering.base import ScoreFn
from visor.models.api import load_network as load_published
from visor.models.features import compile_predict_with_features
from visor.suspect.inputs import ImageSource

MAX_BYTES = 1 << 30  # of clean images, which are held in memory
HELD_OUT = (1, 3)  # of five images one after another: those that set thresholds
FALSE_POSITIVE_RATE, PART_RATE = 0.05, 0.03  # of a filter, and of each part of the suite


class FittedDefence(NamedTuple):
    """A score of uint8 images (n, h, w, 3), and the one above which an image is flagged."""

    score: ScoreFn
    threshold: float


def fit_defence(
    name: str,
    network: keras.Model,
    scale: int,
    autoencoder: keras.Model | None,
    clean: ImageSource,
    second_opinion: str | None,
) -> FittedDefence:
    """Fit an input filter on three fifths of clean images and set its threshold on the others.

    The threshold is the conformal one for 5 %; ``suite`` sets one for 3 % for each of its parts. Where there are
    labels, filters that question the network take those images that it classifies correctly.

    Args:
        name: A name in ``INPUT_FILTERS``.
        network: The untrusted network, of logits or probabilities.
        scale: What it expects pixels in 0 … 255 to be divided by, 255 or 1.
        autoencoder: For filters that need one; it was not fitted on these images.
        clean: Clean images, with or without labels.
        second_opinion: Name of a published recogniser that ``second_opinion`` and ``suite`` ask.

    Raises:
        UserError: There is no such filter, it lacks something, or there are too few clean images.
    """
    choose(INPUT_FILTERS, name, "--defence")
    images, labels = read_images(clean), clean.labels
    held = np.isin(np.arange(len(images)) % 5, HELD_OUT)
    classifier = logits_of_unit_pixels(network, scale)
    needs: dict[str, Any] = {"classifier": classifier} if name in NEEDS_CLASSIFIER else {"autoencoder": autoencoder}
    if second_opinion:
        needs["second_opinion"] = load_published(second_opinion)
    if name in NEEDS_CLASSIFIER and labels is not None:
        needs["clean_labels"] = labels[~held]
    if name == "suite":
        needs |= {"calibration_images": images[held], "false_positive_rate": PART_RATE}
        needs |= {} if labels is None else {"calibration_labels": labels[held]}
    score = fit_input_filter(name, images[~held], **needs)
    if name == "suite":
        return FittedDefence(score, EXCESS_THRESHOLD)
    known = images[held]
    if "clean_labels" in needs and labels is not None:
        known = known[compile_predict_with_features(classifier)(known)[1] == labels[held]]
    scores = _finite_scores(score, known)
    threshold = conformal_threshold(scores, FALSE_POSITIVE_RATE)
    if threshold is None:
        raise UserError(
            f"{clean.name}: {len(scores)} images are left to set a threshold for {FALSE_POSITIVE_RATE:.0%} false "
            "alarms, but 59 are needed; pass more clean images"
        )
    return FittedDefence(score, threshold)


def logits_of_unit_pixels(network: keras.Model, scale: int) -> keras.Model:
    """Return a copy of a network that takes pixels in [0, 1] and has no softmax at its end.

    The copy has the same layers, so that the input of the last one can be read; one within another could not.
    """
    images = keras.Input(network.input_shape[1:])
    pixels = layers.Rescaling(255.0 / scale)(images)

    def copy(layer: keras.Layer) -> keras.Layer:
        config, is_last = layer.get_config(), layer is network.layers[-1]
        if is_last and isinstance(layer, layers.Softmax):
            return layers.Activation("linear")
        if is_last and config.get("activation") == "softmax":
            config["activation"] = "linear"
        return type(layer).from_config(config)

    def call(layer: keras.Layer, *arguments: Any, **options: Any) -> KerasTensor:
        return layer(*keras.tree.map_structure(lambda each: pixels if each is images else each, arguments), **options)

    clone = keras.models.clone_model(network, images, copy, call)
    clone.set_weights(network.get_weights())
    return clone


def read_images(source: ImageSource) -> ImageArray:
    """Return all images of a source as uint8 (n, h, w, 3); raises a UserError if they are too many to hold."""
    height, width, _ = source.image_shape
    if source.total * height * width * 3 > MAX_BYTES:
        raise UserError(f"{source.name}: {source.total:,} images take more than {MAX_BYTES >> 30} GiB; pass fewer")
    stored = source.read(0, source.total)
    stored = stored.transpose(0, 2, 3, 1) if source.channels_first else stored
    pixels = stored * np.float32(source.to_255) if source.to_255 != 1 else stored
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def _finite_scores(score: ScoreFn, images: ImageArray) -> Floats:
    """Return the scores of images that there is something to compare with."""
    scores = score(images) if len(images) else np.empty(0)
    return scores[np.isfinite(scores)]
