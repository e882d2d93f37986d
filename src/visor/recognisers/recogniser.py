"""The contract of a recogniser, as attacks and evaluation see it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import Input, Model, layers
from numpy.typing import NDArray

from visor import params
from visor.config import choice
from visor.errors import UserError
from visor.faces import Images
from visor.files import read_json, write_text
from visor.models import storage
from visor.models.inference import to_float
from visor.recognisers import RECOGNISERS, start

View = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Recogniser:
    """Two views of one network, through both of which gradients reach the pixels.

    Faces are best cropped to ``image_shape`` (h, w, 3); images of other sizes are resized in the graph, antialiased
    where they shrink. ``embed`` takes float32 images (n, h, w, 3) in [0, 1] and returns embeddings (n, d) of length
    1; ``logits`` returns (n, classes), in the order of ``names``, and is None where a network has no classes.
    """

    name: str
    image_shape: tuple[int, int, int]
    names: tuple[str, ...]
    embed: View
    logits: View | None


def load(name: str, folder: Path) -> Recogniser:
    """Return a recogniser that ``save`` wrote.

    Raises:
        UserError: a file is missing or broken, or they do not fit together.
    """
    model = storage.load(choice(RECOGNISERS, name, "recognisers").build, folder)
    path = folder / "names.json"
    names, classes = read_json(path), model.output["logits"].shape[-1] if "logits" in model.output else 0
    if not isinstance(names, list) or [type(each) for each in names] != classes * [str]:
        raise UserError(f"{path} does not name the {classes} classes of the network; delete it and run `dvc repro`")
    return of_model(name, model, names)


def save(model: Model, arguments: Mapping[str, Any], names: Sequence[str], folder: Path) -> None:
    """Write a network, the arguments that built it and the names of its classes.

    Raises:
        OSError: the disk is full (ENOSPC).
    """
    storage.save(model, arguments, folder)
    write_text(folder / "names.json", json.dumps(list(names), indent=2, ensure_ascii=False) + "\n")


def published(name: str, settings: params.Recogniser) -> Recogniser:
    """Return a recogniser with the published weights that the params name, without a training.

    Raises:
        UserError: an option is wrong, or weights or labels cannot be had or do not fit.
    """
    model, _, names = start.published(name, settings)
    return of_model(name, model, names)


def of_model(name: str, model: Model, names: Sequence[str]) -> Recogniser:
    """Return the views of a network that a module of ``RECOGNISERS`` built."""
    shape = model.input_shape[1:]
    embedding = Model(model.input, model.output["embedding"])

    def embed(images: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(embedding(_resized(images, shape), training=False), -1)

    if "logits" not in model.output:
        return Recogniser(name, shape, (), embed, None)
    head = classifier(model)
    return Recogniser(name, shape, tuple(names), embed, lambda images: head(_resized(images, shape), training=False))


def classifier(model: Model, noise: float = 0.0) -> Model:
    """Return images float32 (n, h, w, 3) in [0, 1] → logits (n, classes), what is trained; weights are shared.

    Training adds normal noise of this deviation to the pixels, anew each time.
    """
    images = Input(model.input_shape[1:])
    return Model(images, model(layers.GaussianNoise(noise)(images))["logits"], name=model.name)


def embeddings(recogniser: Recogniser) -> Callable[[Images], NDArray[np.float32]]:
    """Return uint8 images (n, h, w, 3) → embeddings float32 (n, d) of length 1, traced once for each image shape."""
    return _compiled(recogniser.embed)


def probabilities(recogniser: Recogniser) -> Callable[[Images], NDArray[np.float32]]:
    """Return uint8 images (n, h, w, 3) → probabilities float32 (n, classes), traced once for each image shape.

    Raises:
        UserError: the recogniser knows no classes.
    """
    logits = recogniser.logits
    if logits is None:
        raise UserError(f"{recogniser.name} gives embeddings and knows no classes; choose a recogniser that does")
    return _compiled(lambda images: tf.nn.softmax(logits(images)))


def _compiled(view: View) -> Callable[[Images], NDArray[np.float32]]:
    @cache
    def traced(height: int, width: int) -> Callable[[Images], tf.Tensor]:
        signature = [tf.TensorSpec((None, height, width, 3), tf.uint8)]
        return tf.function(lambda images: view(to_float(images)), signature, autograph=False)

    return lambda images: traced(*images.shape[1:3])(images).numpy()


def _resized(images: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Bring images (n, h, w, 3) to the size that the network was made for."""
    if tuple(images.shape[1:]) == shape:
        return images
    return tf.image.resize(images, shape[:2], antialias=True)
