"""The contract of a recogniser that attacks and evaluation use."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core import params
from visor.core.config import lookup
from visor.core.errors import UserError
from visor.core.files import read_json, write_text
from visor.core.portable_ops import l2_normalize
from visor.core.tf import keras, layers, tf
from visor.core.types import ImageArray
from visor.models import storage
from visor.models.inference import compile_per_shape
from visor.models.recognisers import RECOGNISERS, loading

ModelOutput = Callable[[tf.Tensor], tf.Tensor]
Template = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Recogniser:
    """A face recogniser, differentiable with respect to the pixels.

    Attributes:
        image_shape: (h, w, 3) of the network; other images are resized in the graph, antialiased where they shrink.
        embed: float32 images (n, h, w, 3) in [0, 1] → embeddings (n, d) of length 1.
        logits: The same images → (n, classes); None if the network has no classes.
        template: Places of a face's landmarks in the crops that the network was trained on, the eyes or all five, each
            (x, y) as shares of the crop; None for a network that takes the box of a face.
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    embed: ModelOutput
    logits: ModelOutput | None
    template: Template | None = None


def load(name: str, folder: Path) -> Recogniser:
    """Load a recogniser that ``save`` wrote.

    Raises:
        UserError: A file is missing or damaged, or they do not fit together.
    """
    model = storage.load_model(lookup(RECOGNISERS, name, "recognisers").build, folder)
    path = folder / "names.json"
    names, classes = read_json(path), model.output["logits"].shape[-1] if "logits" in model.output else 0
    if not isinstance(names, list) or [type(item) for item in names] != classes * [str]:
        raise UserError(f"{path} does not name the {classes} classes of the network; delete it and run `dvc repro`")
    return from_model(name, model, names)


def save(model: keras.Model, arguments: Mapping[str, Any], class_names: Sequence[str], folder: Path) -> None:
    """Write a network, the arguments that built it and the names of its classes.

    Raises:
        OSError: The disk is full (ENOSPC).
    """
    storage.save_model(model, arguments, folder)
    write_text(folder / "names.json", json.dumps(list(class_names), indent=2, ensure_ascii=False) + "\n")


def load_published(name: str, settings: params.RecogniserParams) -> Recogniser:
    """Return a recogniser with the published weights that the params name.

    Raises:
        UserError: An option is wrong, or weights or labels are not available or do not fit.
    """
    model, _, names = loading.build_published(name, settings)
    return from_model(name, model, names)


def from_model(name: str, model: keras.Model, class_names: Sequence[str]) -> Recogniser:
    """Return the recogniser of a network that a module of ``RECOGNISERS`` built."""
    shape = model.input_shape[1:]
    embedding = keras.Model(model.input, model.output["embedding"])

    def embed(images: tf.Tensor) -> tf.Tensor:
        return l2_normalize(embedding(_resize(images, shape), training=False))

    if "logits" not in model.output:
        return Recogniser(name, shape, (), embed, None)
    head = classifier(model)

    def logits(images: tf.Tensor) -> tf.Tensor:
        return head(_resize(images, shape), training=False)

    return Recogniser(name, shape, tuple(class_names), embed, logits)


def classifier(model: keras.Model, noise: float = 0.0) -> keras.Model:
    """Return the model for training: float32 images (n, h, w, 3) in [0, 1] → logits (n, classes); weights are shared.

    Training adds normal noise of this deviation to the pixels.
    """
    images = keras.Input(model.input_shape[1:])
    return keras.Model(images, model(layers.GaussianNoise(noise)(images))["logits"], name=model.name)


def embeddings(recogniser: Recogniser) -> Callable[[ImageArray], NDArray[np.float32]]:
    """Return a function of uint8 images (n, h, w, 3) to embeddings float32 (n, d) of length 1."""
    return compile_per_shape(recogniser.embed)


def probabilities(recogniser: Recogniser) -> Callable[[ImageArray], NDArray[np.float32]]:
    """Return a function of uint8 images (n, h, w, 3) to probabilities float32 (n, classes).

    Raises:
        UserError: The recogniser has no classes.
    """
    logits = recogniser.logits
    if logits is None:
        raise UserError(f"{recogniser.name} has embeddings but no classes; choose a recogniser with classes")
    return compile_per_shape(lambda images: tf.nn.softmax(logits(images)))


def _resize(images: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Resize images (n, h, w, 3) to the network's size."""
    return images if tuple(images.shape[1:]) == shape else tf.image.resize(images, shape[:2], antialias=True)
