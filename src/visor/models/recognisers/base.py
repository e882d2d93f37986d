"""The contract of a recogniser, as attacks and evaluation see it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core import params
from visor.core.config import lookup
from visor.core.errors import UserError
from visor.core.files import read_json, write_text
from visor.core.tf import keras, layers, tf
from visor.core.types import ImageArray
from visor.models import storage
from visor.models.inference import scale_pixels
from visor.models.recognisers import RECOGNISERS, loading

ModelOutput = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Recogniser:
    """Two views of one network, through both of which gradients reach the pixels.

    Faces are best cropped to ``image_shape`` (h, w, 3); images of other sizes are resized in the graph, antialiased
    where they shrink. ``embed`` takes float32 images (n, h, w, 3) in [0, 1] and returns embeddings (n, d) of length
    1; ``logits`` returns (n, classes), in the order of ``names``, and is None where a network has no classes.
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    embed: ModelOutput
    logits: ModelOutput | None


def load(name: str, folder: Path) -> Recogniser:
    """Return a recogniser that ``save`` wrote.

    Raises:
        UserError: a file is missing or broken, or they do not fit together.
    """
    model = storage.load_model(lookup(RECOGNISERS, name, "recognisers").build, folder)
    path = folder / "names.json"
    names, classes = read_json(path), model.output["logits"].shape[-1] if "logits" in model.output else 0
    if not isinstance(names, list) or [type(each) for each in names] != classes * [str]:
        raise UserError(f"{path} does not name the {classes} classes of the network; delete it and run `dvc repro`")
    return from_model(name, model, names)


def save(model: keras.Model, arguments: Mapping[str, Any], class_names: Sequence[str], folder: Path) -> None:
    """Write a network, the arguments that built it and the names of its classes.

    Raises:
        OSError: the disk is full (ENOSPC).
    """
    storage.save_model(model, arguments, folder)
    write_text(folder / "names.json", json.dumps(list(class_names), indent=2, ensure_ascii=False) + "\n")


def load_published(name: str, settings: params.RecogniserParams) -> Recogniser:
    """Return a recogniser with the published weights that the params name, without a training.

    Raises:
        UserError: an option is wrong, or weights or labels cannot be had or do not fit.
    """
    model, _, names = loading.build_published(name, settings)
    return from_model(name, model, names)


def from_model(name: str, model: keras.Model, class_names: Sequence[str]) -> Recogniser:
    """Return the views of a network that a module of ``RECOGNISERS`` built."""
    shape = model.input_shape[1:]
    embedding = keras.Model(model.input, model.output["embedding"])

    def embed(images: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(embedding(_resized(images, shape), training=False), -1)

    if "logits" not in model.output:
        return Recogniser(name, shape, (), embed, None)
    head = classifier(model)
    return Recogniser(
        name, shape, tuple(class_names), embed, lambda images: head(_resized(images, shape), training=False)
    )


def classifier(model: keras.Model, noise: float = 0.0) -> keras.Model:
    """Return images float32 (n, h, w, 3) in [0, 1] → logits (n, classes), what is trained; weights are shared.

    Training adds normal noise of this deviation to the pixels, anew each time.
    """
    images = keras.Input(model.input_shape[1:])
    return keras.Model(images, model(layers.GaussianNoise(noise)(images))["logits"], name=model.name)


def embeddings(recogniser: Recogniser) -> Callable[[ImageArray], NDArray[np.float32]]:
    """Return uint8 images (n, h, w, 3) → embeddings float32 (n, d) of length 1, traced once for each image shape."""
    return _compiled(recogniser.embed)


def probabilities(recogniser: Recogniser) -> Callable[[ImageArray], NDArray[np.float32]]:
    """Return uint8 images (n, h, w, 3) → probabilities float32 (n, classes), traced once for each image shape.

    Raises:
        UserError: the recogniser knows no classes.
    """
    logits = recogniser.logits
    if logits is None:
        raise UserError(f"{recogniser.name} gives embeddings and knows no classes; choose a recogniser that does")
    return _compiled(lambda images: tf.nn.softmax(logits(images)))


def _compiled(view: ModelOutput) -> Callable[[ImageArray], NDArray[np.float32]]:
    @cache
    def traced(height: int, width: int) -> Callable[[ImageArray], tf.Tensor]:
        signature = [tf.TensorSpec((None, height, width, 3), tf.uint8)]
        return tf.function(lambda images: view(scale_pixels(images)), signature, autograph=False)

    return lambda images: traced(*images.shape[1:3])(images).numpy()


def _resized(images: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Bring images (n, h, w, 3) to the size that the network was made for."""
    if tuple(images.shape[1:]) == shape:
        return images
    return tf.image.resize(images, shape[:2], antialias=True)
