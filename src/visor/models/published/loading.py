"""Published networks behind Visor's contracts, built from the files in the cache."""

from dataclasses import replace
from types import ModuleType

from visor.core.errors import UserError
from visor.core.tf import keras, tf
from visor.data.arrays import choose
from visor.models.detectors.base import Detector
from visor.models.published import blazeface, cache, dlib_resnet, face_ssd, face_tiny, faceres
from visor.models.published.catalogue import read_catalogue
from visor.models.recognisers import base

PUBLISHED_DETECTORS: dict[str, ModuleType] = {"blazeface": blazeface, "face_ssd": face_ssd, "face_tiny": face_tiny}
PUBLISHED_RECOGNISERS: dict[str, ModuleType] = {"dlib_resnet": dlib_resnet, "faceres": faceres}
NETWORKS = PUBLISHED_DETECTORS | PUBLISHED_RECOGNISERS


def load_model(name: str) -> keras.Model:
    """Return a published network with its weights.

    Raises:
        UserError: There is no such network, or its files are missing or damaged.
    """
    module = choose(NETWORKS, name, "network")
    if not tf.executing_eagerly():
        raise UserError(f"network {name} is loaded inside of a tf.function, which forgets its weights; load it before")
    weights = module.read_weights(cache.read_files(read_catalogue()[name]))  # before a large network is built in vain
    model = module.build()
    for layer, values in weights.items():
        model.get_layer(layer).set_weights(values)
    return model


def load_detector(name: str, threshold: float | None = None) -> Detector:
    """Return a published detector; ``threshold`` is that of its package by default.

    Raises:
        UserError: There is no such network, or its files are missing or damaged.
    """
    module = choose(PUBLISHED_DETECTORS, name, "detector")
    return module.detector(load_model(name), module.THRESHOLD if threshold is None else threshold)


def load_recogniser(name: str) -> base.Recogniser:
    """Return a published recogniser; it has embeddings and no classes.

    Raises:
        UserError: There is no such network, or its files are missing or damaged.
    """
    module = choose(PUBLISHED_RECOGNISERS, name, "network")
    return replace(base.from_model(name, load_model(name), ()), template=module.TEMPLATE)
