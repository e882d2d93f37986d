"""Weights of an untrusted network, found by the names of its layers and read as plain numbers once shapes fit."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visor.core import hdf5
from visor.core.errors import UserError, shorten
from visor.core.tf import keras
from visor.core.types import Floats


class WeightStore(NamedTuple):
    """Groups of weights: by a layer's name in ``root`` (Keras 2) or ``named``, or by its class in ``numbered``."""

    root: hdf5.Group
    named: Mapping[str, hdf5.Group]
    numbered: Mapping[str, hdf5.Group]


def open_store(root: Any, path: Path, by_order: bool | None = None) -> WeightStore:
    """Return the weights in the group of all layers; ``path`` names the file in messages.

    Early versions of Keras 3 wrote no names: layers of a class were numbered in their order. With ``by_order`` names
    are ignored, because Keras made them up, by what else the program had built before; if it is False, numbers are,
    because not all layers of the file are in the model.

    Raises:
        UserError: ``root`` is not a group.
    """
    if not isinstance(root, hdf5.Group):
        raise UserError(f"{path} has no weights; save the whole model")
    layers = hdf5.get_local(root, "layers")
    keys = layers.keys if isinstance(layers, hdf5.Group) else ()
    entries = {key: hdf5.get_local(root, f"layers/{key}/vars") for key in keys}
    groups = {key: group for key, group in entries.items() if isinstance(group, hdf5.Group)}
    texts = [(hdf5.read_text(group, "name"), group) for group in groups.values()]
    named = {name: group for name, group in texts if name is not None and not by_order}
    return WeightStore(root, named, {} if named or by_order is False else groups)


def get_datasets(store: WeightStore, name: str, numbered_name: str) -> list[Any]:
    """Return what the file has for each weight of a layer, unread: a dataset, a group or None."""
    group = hdf5.get_local(store.root, name)
    if isinstance(group, hdf5.Group):
        keys = hdf5.read_names(group, "weight_names")
    else:
        group = store.named.get(name, store.numbered.get(numbered_name))
        keys = [] if group is None else [str(number) for number in range(min(len(group.keys), hdf5.MAX_NAMES))]
    return [] if group is None else [hdf5.get_local(group, key) for key in keys]


def read_weights(datasets: Sequence[Any], variables: Sequence[Any]) -> list[Floats]:
    """Return datasets as float32 once they have the shapes of the variables.

    Raises:
        ValueError: They are missing, surplus, or have other shapes.
        UserError: A number is not finite.
    """
    shapes = [data.shape if isinstance(data, hdf5.Dataset) else None for data in datasets]
    expected = [tuple(variable.shape) for variable in variables]
    if shapes != expected:  # Compared unread: a file of a kilobyte can promise terabytes.
        raise ValueError(f"weights {shapes!s:.200} instead of {expected!s:.200}")
    return [hdf5.read_finite(data) for data in datasets]


def set_weights(
    model: keras.Model, names: Mapping[str, str], root: Any, path: Path, by_order: bool | None = None
) -> keras.Model:
    """Set the weights of each layer from the group ``root`` and return the model.

    ``names`` maps names of layers to those in the file, where they differ; ``by_order`` is that of ``open_store``.

    Raises:
        UserError: A layer has weights of other shapes, more or fewer of them, or some that are not finite.
    """
    store = open_store(root, path, by_order)
    counts: Counter[str] = Counter()
    for layer in model.layers:
        snake, name = _snake_case(type(layer).__name__), names.get(layer.name, layer.name)
        numbered_name = f"{snake}_{counts[snake]}" if counts[snake] else snake
        counts[snake] += 1
        try:
            layer.set_weights(read_weights(get_datasets(store, name, numbered_name), layer.weights))
        except ValueError as error:
            raise UserError(f"{path}: layer {shorten(name)} has {error}; save the model again") from None
    return model


def _snake_case(name: str) -> str:
    """Write the name of a class as Keras does in its files: Conv2DTranspose becomes conv2d_transpose."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()
