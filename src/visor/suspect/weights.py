"""The weights of a suspect network, found by the names of its layers, read as plain numbers once their shapes fit."""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.tf import keras

MAX_GROUPS = 10_000
# Early versions of Keras 3 wrote no names: layers of a class were numbered in their order.
SNAKE_CASE_NAMES = {"Conv2D": "conv2d", "Dense": "dense", "BatchNormalization": "batch_normalization"}


class WeightStore(NamedTuple):
    """Where weights lie: Keras 2 has a group of each layer's name in ``root``, Keras 3 in ``named`` or ``places``."""

    root: h5py.Group
    named: Mapping[str, h5py.Group]
    places: Mapping[str, h5py.Group]


def open_store(root: Any, path: Path) -> WeightStore:
    """Look into the group of all layers.

    Raises:
        UserError: it is none.
    """
    if not isinstance(root, h5py.Group):
        raise UserError(f"{path} holds no weights; save the whole model")
    groups = hdf5.get_local(root, "layers", path)
    keys = list(islice(groups, MAX_GROUPS)) if isinstance(groups, h5py.Group) else []
    found = {key: hdf5.get_local(groups, f"{key}/vars", path) for key in keys}
    places = {key: group for key, group in found.items() if isinstance(group, h5py.Group)}
    texts = [(hdf5.read_text(group, "name", path), group) for group in places.values()]
    named = {name: group for name, group in texts if name is not None}
    return WeightStore(root, named, {} if named else places)


def datasets(store: WeightStore, name: str, place: str, path: Path) -> list[Any]:
    """Return all datasets of a layer unread, a None for each that is announced and missing.

    ``place`` is the group that early versions of Keras 3 would have kept them in.
    """
    group = hdf5.get_local(store.root, name, path)
    if isinstance(group, h5py.Group):
        keys = hdf5.read_names(group, "weight_names", path)
    else:
        group = store.named.get(name, store.places.get(place))
        keys = [] if group is None else [str(number) for number in range(min(len(group), hdf5.MAX_NAMES))]
    found = [hdf5.get_local(group, key, path) for key in keys]
    return [data if isinstance(data, h5py.Dataset) else None for data in found]


def set_weights(model: keras.Model, names: Mapping[str, str], root: Any, path: Path) -> keras.Model:
    """Give each layer its weights; ``names`` are those in the file of layers that have another one there.

    Raises:
        UserError: a layer has other weights than it should, or more, or they are no finite numbers.
    """
    store = open_store(root, path)
    seen: Counter[str] = Counter()
    for layer in model.layers:
        snake, name = SNAKE_CASE_NAMES.get(type(layer).__name__, ""), names.get(layer.name, layer.name)
        place = f"{snake}_{seen[snake]}" if seen[snake] else snake
        seen[snake] += 1
        found = datasets(store, name, place, path)
        shapes, wanted = [data and data.shape for data in found], [tuple(weight.shape) for weight in layer.weights]
        if shapes != wanted:  # compared unread: a file of a kilobyte can promise terabytes
            raise UserError(
                f"{path}: layer {name} has weights {shapes!s:.200} where {wanted} belong; save the model again"
            )
        layer.set_weights([hdf5.read_finite(data, path) for data in found])
    return model
