"""Loading untrusted networks: an allow-list of layers, weights as plain numbers, limits on every size."""

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import h5py

from visor.core import hdf5
from visor.core.errors import UserError, first_line
from visor.core.files import read_json
from visor.core.tf import keras
from visor.models.classifiers import CLASSIFIERS, deepid
from visor.models.storage import Build, load_model
from visor.suspect import weights
from visor.suspect.architecture import MAX_TEXT, Architecture, Layer, parse_architecture

CONTEST_SHAPE, CONTEST_UNITS = (55, 47, 3), 160
MAX_CLASSES = 100_000
MAX_BYTES = 2 << 30  # of a network's file
MAX_WEIGHTS = 256 << 20  # of all layers; VGG-Face has 145 million
MAX_VALUES = 1 << 24  # outputs of all layers for one image; VGG-Face has 15 million
# What zipfile raises on damaged archives, besides BadZipFile.
ARCHIVE_ERRORS = (EOFError, OSError, RuntimeError, ValueError, lzma.LZMAError, struct.error, BadZipFile, zlib.error)


def load_saved_model(build: Build, folder: Path, check: Callable[[dict[str, Any]], None]) -> keras.Model:
    """Return a model of the pipeline, whose ``model.json`` may have been edited.

    ``check`` raises ValueError on arguments that would allocate too much.

    Raises:
        UserError: A file is missing, broken, or holds another architecture.
    """
    path = folder / "model.json"
    arguments = read_json(path)
    if not isinstance(arguments, dict):
        raise UserError(f"{path} has no arguments of a network; delete it and run `dvc repro`")
    try:
        check(arguments)
        return load_model(build, folder)
    except UserError:
        raise
    except Exception as error:  # Keras raises any exception on invalid arguments.
        raise UserError(
            f"{path} is not a valid network description ({first_line(error)}); delete it and run `dvc repro`"
        ) from None


def load_network(path: Path) -> keras.Model:
    """Return a classifier of images (n, h, w, 3): logits or probabilities (n, classes).

    Args:
        path: Whole model written by Keras 2 (``.h5``) or 3 (``.keras``), weights alone of the contest's network
            (``.h5``), or a folder ``artifacts/classifier/SET/NETWORK`` of the pipeline.

    Raises:
        UserError: None of these, damaged, too large, or with a layer that is not on the allow-list.
    """
    if path.is_dir():
        return _load_folder(path)
    start = hdf5.read_signature(path)
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 30} GiB; choose a smaller network")
    if start.startswith(b"PK"):
        return _load_archive(path)
    if not start.startswith(hdf5.SIGNATURE):
        raise UserError(f"{path} is neither HDF5 nor .keras; other formats can execute code and are rejected")
    with hdf5.open_untrusted(path) as file:
        config = hdf5.read_text(file, "model_config", path)
        if config is None:
            return weights.set_weights(_build_contest_network(file, path), {}, file, path)
        return _build_network(parse_architecture(config, path), hdf5.get_local(file, "model_weights", path), path)


def _build_network(architecture: Architecture, stored: Any, path: Path) -> keras.Model:
    """Return a network with the stored weights, its layers named as in ``architecture.names``."""
    try:
        tensors = _connect_layers(architecture)
        output = tensors[architecture.output]
        if len(output.shape) != 2 or not 2 <= output.shape[1] <= MAX_CLASSES:
            raise ValueError(f"its output {output.shape[1:]} for an image is not one number per class")
        (images,) = [tensors[layer.name] for layer in architecture.layers if layer.kind == "InputLayer"]
        network = keras.Model(images, output, name="network")
    except Exception as error:  # Keras raises any exception on layers that do not fit.
        raise UserError(f"{path} is rejected: {first_line(error)}; save a plain image classifier") from None
    return weights.set_weights(network, architecture.names, stored, path)


def _connect_layers(architecture: Architecture) -> dict[str, Any]:
    """Return the symbolic output of each layer; sizes are checked before Keras allocates anything."""
    keras_names = {name: keras_name for keras_name, name in architecture.names.items()}
    tensors: dict[str, Any] = {}
    waiting = list(architecture.layers)
    num_weights = num_values = 0
    while waiting:
        ready = [layer for layer in waiting if all(source in tensors for source in layer.sources)]
        if not ready:
            raise ValueError(f"an input of layer {waiting[0].name!r:.60} is missing")
        for layer in ready:
            waiting.remove(layer)
            if layer.kind == "InputLayer":
                tensors[layer.name] = keras.Input(architecture.image_shape, name=keras_names[layer.name])
                continue
            inputs = [tensors[name] for name in layer.sources]
            if not inputs:
                raise ValueError(f"layer {layer.name!r:.60} has no input")
            num_weights += _count_weights(layer, inputs[0].shape)
            if num_weights > MAX_WEIGHTS:
                raise ValueError(f"up to layer {layer.name!r:.60} it has more weights than {MAX_WEIGHTS:,}")
            keras_layer = getattr(keras.layers, layer.kind)(**layer.arguments, name=keras_names[layer.name])
            argument = inputs if len(inputs) > 1 else inputs[0]
            shapes = keras.tree.map_structure(lambda tensor: tensor.shape, argument)
            num_values += prod(keras_layer.compute_output_shape(shapes)[1:])
            if num_values > MAX_VALUES:
                raise ValueError(f"up to layer {layer.name!r:.60} it has more than {MAX_VALUES:,} outputs for an image")
            tensors[layer.name] = keras_layer(argument)
    return tensors


def _count_weights(layer: Layer, input_shape: tuple[Any, ...]) -> int:
    """Return about how many weights a layer will have; Keras would allocate them at once."""
    if layer.kind == "BatchNormalization":
        return 4 * max(filter(None, input_shape))
    kernel = layer.arguments.get("kernel_size", 1)
    area = prod(kernel) if isinstance(kernel, tuple) else kernel**2
    return int(area * input_shape[-1] * layer.arguments.get("filters", layer.arguments.get("units", 0)))


def _load_archive(path: Path) -> keras.Model:
    """Load a ``.keras`` file: config.json and model.weights.h5 in a zip archive."""
    limits = {"config.json": MAX_TEXT, "model.weights.h5": MAX_BYTES}
    try:
        with ZipFile(path) as archive:
            config, stored = (_read_member(archive, name, limit, path) for name, limit in limits.items())
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{path} is incomplete or damaged ({first_line(error)}); download it again") from None
    architecture = parse_architecture(config, path)
    with hdf5.open_untrusted(path, io.BytesIO(stored)) as file:
        return _build_network(architecture, file, path)


def _read_member(archive: ZipFile, name: str, limit: int, path: Path) -> bytes:
    if name not in archive.namelist():
        raise UserError(f"{path} has no {name}, so it is not a .keras file; save the network with model.save()")
    if archive.getinfo(name).file_size > limit:
        raise UserError(f"{path}: {name} unpacks to more than {limit >> 20:,} MiB; it is rejected")
    return archive.read(name)


def _load_folder(folder: Path) -> keras.Model:
    name = folder.resolve().name
    if name not in CLASSIFIERS:
        names = ", ".join(sorted(CLASSIFIERS))
        raise UserError(f"{folder} is not named after a known network ({names}); pass artifacts/classifier/SET/NETWORK")
    return load_saved_model(CLASSIFIERS[name], folder, _check_classes)


def _check_classes(arguments: dict[str, Any]) -> None:
    classes = arguments["num_classes"]
    if type(classes) is not int or not 2 <= classes <= MAX_CLASSES:
        raise ValueError(f"num_classes {classes!r:.60} is not a whole number from 2 to {MAX_CLASSES:,}")


def _build_contest_network(file: h5py.File, path: Path) -> keras.Model:
    """Return DeepID with as many classes as the file's last layer has."""
    datasets = weights.get_datasets(weights.open_store(file, path), "output", "", path)
    match [data.shape if isinstance(data, h5py.Dataset) else None for data in datasets]:
        case [(units, classes), (biases,)] if units == CONTEST_UNITS and 2 <= classes == biases <= MAX_CLASSES:
            return deepid.build(CONTEST_SHAPE, classes, dropout=0.0)
    raise UserError(f"{path} has no model config and no weights of the contest's network; save the whole model")
