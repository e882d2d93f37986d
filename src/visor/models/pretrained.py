"""Pretrained weights: HDF5 files of Keras 2, matched by the names of layers. Nothing in them is executed."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from visor.core import hdf5
from visor.core.errors import UserError, shorten
from visor.core.tf import keras

NO_RENAMES: Mapping[str, str] = MappingProxyType({})


def load_pretrained(model: keras.Model, path: Path, renamed: Mapping[str, str] = NO_RENAMES) -> list[str]:
    """Copy the weights of a file, by ``save_weights`` or of a whole model, into the layers of the same names.

    Layers that the file lacks keep their weights, and so does the last layer of ``model`` if the number of classes
    differs. ``renamed`` maps regular expressions in the file's layer names to replacements. Returns the names of the
    layers that were loaded.

    Raises:
        UserError: The file is missing or not HDF5 of Keras, a weight has another shape, is not finite or not stored in
            this file, or no layer fits.
    """
    file = hdf5.open_untrusted(path)
    root = hdf5.get_local(file, "model_weights")
    weights = _read_weights(root if isinstance(root, hdf5.Group) else file, model, path, renamed)
    if not weights:
        raise UserError(f"{path} has weights for no layer of {model.name}; choose a file for this network")
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    return list(weights)


def _read_weights(
    root: hdf5.Group, model: keras.Model, path: Path, renamed: Mapping[str, str]
) -> dict[str, list[NDArray[np.float32]]]:
    """Return the checked weights of each layer that model and file have, in the order of the model."""
    stored = {_rename(name, renamed): name for name in _names(root, "layer_names")}
    weights = {}
    for layer in model.layers:
        if not layer.weights or layer.name not in stored:
            continue
        group = hdf5.get_local(root, stored[layer.name])
        if not isinstance(group, hdf5.Group):
            raise UserError(f"{path}: layer {layer.name} is listed but missing; download the file again")
        datasets = [_dataset(group, name) for name in _names(group, "weight_names")]
        if _fits(datasets, layer, layer is model.layers[-1], path):
            weights[layer.name] = [hdf5.read_finite(dataset) for dataset in datasets]
    return weights


def _rename(name: str, renamed: Mapping[str, str]) -> str:
    for pattern, replacement in renamed.items():
        name = re.sub(pattern, replacement, name)
    return name


def _names(group: hdf5.Group, attribute: str) -> list[str]:
    if names := hdf5.read_names(group, attribute):
        return names
    raise UserError(f"{group.path} has no {attribute}; choose a file written by Keras 2 (.h5)")


def _dataset(group: hdf5.Group, name: str) -> hdf5.Dataset:
    dataset = hdf5.get_local(group, name)
    if not isinstance(dataset, hdf5.Dataset):
        raise UserError(f"{group.path}: weight {shorten(name)} is listed but missing; download the file again")
    return dataset


def _fits(datasets: list[hdf5.Dataset], layer: keras.Layer, last: bool, path: Path) -> bool:
    """Compare shapes before a byte is read, as a small file can promise terabytes.

    Returns False for a last layer that differs only in the number of classes.
    """
    stored, expected = [dataset.shape for dataset in datasets], [tuple(weight.shape) for weight in layer.weights]
    if stored == expected:
        return True
    classes = {shape[-1:] for shape in stored}
    if last and [shape[:-1] for shape in stored] == [shape[:-1] for shape in expected] and len(classes) == 1:
        return False
    raise UserError(
        f"{path}: layer {layer.name} has shapes {shorten(stored, 200)}, the network {expected}; change its architecture"
    )
