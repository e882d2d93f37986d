"""Weights of an untrusted network, found by the names of its layers and read as plain numbers once shapes fit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.tf import keras
from visor.core.types import Floats

MAX_GROUPS = 10_000
# Early versions of Keras 3 wrote no names: layers of a class were numbered in their order.
SNAKE_CASE_NAMES = {"Conv2D": "conv2d", "Dense": "dense", "BatchNormalization": "batch_normalization"}


class WeightStore(NamedTuple):
    """Groups of weights: by a layer's name in ``root`` (Keras 2) or ``named``, or by its class in ``numbered``."""

    root: h5py.Group
    named: Mapping[str, h5py.Group]
    numbered: Mapping[str, h5py.Group]


def open_store(root: Any, path: Path) -> WeightStore:
    """Return the weights in the group of all layers; ``path`` names the file in messages.

    Raises:
        UserError: ``root`` is not a group.
    """
    if not isinstance(root, h5py.Group):
        raise UserError(f"{path} has no weights; save the whole model")
    layers = hdf5.get_local(root, "layers", path)
    keys = list(islice(layers, MAX_GROUPS)) if isinstance(layers, h5py.Group) else []
    entries = {key: hdf5.get_local(layers, f"{key}/vars", path) for key in keys}
    groups = {key: group for key, group in entries.items() if isinstance(group, h5py.Group)}
    texts = [(hdf5.read_text(group, "name", path), group) for group in groups.values()]
    named = {name: group for name, group in texts if name is not None}
    return WeightStore(root, named, {} if named else groups)


def get_datasets(store: WeightStore, name: str, numbered_name: str, path: Path) -> list[Any]:
    """Return what the file has for each weight of a layer, unread: a dataset, a group or None."""
    group = hdf5.get_local(store.root, name, path)
    if isinstance(group, h5py.Group):
        keys = hdf5.read_names(group, "weight_names", path)
    else:
        group = store.named.get(name, store.numbered.get(numbered_name))
        keys = [] if group is None else [str(number) for number in range(min(len(group), hdf5.MAX_NAMES))]
    return [hdf5.get_local(group, key, path) for key in keys]


def read_weights(datasets: Sequence[Any], variables: Sequence[Any], path: Path) -> list[Floats]:
    """Return datasets as float32 once they have the shapes of the variables.

    Raises:
        ValueError: They are missing, surplus, or have other shapes.
        UserError: A number is not finite.
    """
    shapes = [data.shape if isinstance(data, h5py.Dataset) else None for data in datasets]
    expected = [tuple(variable.shape) for variable in variables]
    if shapes != expected:  # Compared unread: a file of a kilobyte can promise terabytes.
        raise ValueError(f"weights {shapes!s:.200} instead of {expected!s:.200}")
    return [hdf5.read_finite(data, path) for data in datasets]


def set_weights(model: keras.Model, names: Mapping[str, str], root: Any, path: Path) -> keras.Model:
    """Set the weights of each layer from the group ``root`` and return the model.

    ``names`` maps names of layers to those in the file, where they differ.

    Raises:
        UserError: A layer has weights of other shapes, more or fewer of them, or some that are not finite.
    """
    store = open_store(root, path)
    counts: Counter[str] = Counter()
    for layer in model.layers:
        snake, name = SNAKE_CASE_NAMES.get(type(layer).__name__, ""), names.get(layer.name, layer.name)
        numbered_name = f"{snake}_{counts[snake]}" if counts[snake] else snake
        counts[snake] += 1
        try:
            layer.set_weights(read_weights(get_datasets(store, name, numbered_name, path), layer.weights, path))
        except ValueError as error:
            raise UserError(f"{path}: layer {name} has {error}; save the model again") from None
    return model
