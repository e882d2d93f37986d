"""Networks with the weights of a published file in the cache."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.tf import keras, tf
from visor.models.published import cache
from visor.models.published.catalogue import read_catalogue

ReadWeights = Callable[[Mapping[str, bytes]], dict[str, list[NDArray[np.float32]]]]


def load_model(name: str, build: Callable[[], keras.Model], read_weights: ReadWeights) -> keras.Model:
    """Return a network of the catalogue with its weights.

    Raises:
        UserError: Its files are missing, or are not those of the catalogue.
    """
    if not tf.executing_eagerly():
        raise UserError(f"network {name} is loaded inside of a tf.function, which forgets its weights; load it before")
    weights = read_weights(cache.read_files(read_catalogue()[name]))  # before a large network is built in vain
    model = build()
    for layer, values in weights.items():
        model.get_layer(layer).set_weights(values)
    return model
