"""Published networks behind Visor's contracts, built from the files in the cache."""

from dataclasses import replace
from types import ModuleType

from visor.core.errors import UserError
from visor.core.tf import keras, tf
from visor.data.arrays import choose
from visor.models.published import cache, dlib_resnet
from visor.models.published.catalogue import read_catalogue
from visor.models.recognisers import base

NETWORKS: dict[str, ModuleType] = {"dlib_resnet": dlib_resnet}


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


def load_recogniser(name: str) -> base.Recogniser:
    """Return a published recogniser; it has embeddings and no classes.

    Raises:
        UserError: There is no such network, or its files are missing or damaged.
    """
    return replace(base.from_model(name, load_model(name), ()), template=NETWORKS[name].TEMPLATE)
