"""Networks in folders of the pipeline: ``model.json`` may have been edited, so nothing is believed of it."""

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import h5py

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.files import read_json
from visor.core.tf import keras
from visor.models.classifiers import CLASSIFIERS, deepid
from visor.models.storage import Build, load_model
from visor.suspect import weights
from visor.suspect.architecture import MAX_TEXT, Architecture, Layer, parse_architecture


def load_saved_model(build: Build, folder: Path, check: Callable[[dict[str, Any]], None]) -> keras.Model:
    """Return a saved model; ``check`` raises ValueError on arguments that would allocate too much.

    Raises:
        UserError: a file is missing, broken, or holds another architecture.
    """
    path = folder / "model.json"
    arguments = read_json(path)
    if not isinstance(arguments, dict):
        raise UserError(f"{path} names no arguments of a network; delete it and run `dvc repro`")
    try:
        check(arguments)
        return load_model(build, folder)
    except UserError:
        raise
    except Exception as error:  # Keras raises whatever it likes on arguments that no network has
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(f"{path} fits no network ({reason}); delete it and run `dvc repro`") from None


CONTEST_SHAPE, CONTEST_UNITS = (55, 47, 3), 160
MAX_CLASSES = 100_000
MAX_BYTES = 2 << 30  # of a network's file
MAX_WEIGHTS = 256 << 20  # of all layers; VGG-Face has 145 million
MAX_VALUES = 1 << 24  # that all layers make of one image; VGG-Face makes 15 million
# What zipfile raises on damaged archives, besides what it calls bad ones.
ARCHIVE_ERRORS = (
    EOFError,
    lzma.LZMAError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def load_network(path: Path) -> keras.Model:
    """Return a classifier of images (n, h, w, 3): logits or probabilities (n, classes).

    ``path`` is a whole model written by Keras 2 (``.h5``) or 3 (``.keras``), weights alone of the contest's network
    (``.h5``), or a folder ``artifacts/classifier/SET/NETWORK`` of the pipeline.

    Raises:
        UserError: none of these, damaged, too large, or with a layer that is not on the allow-list.
    """
    if path.is_dir():
        return _from_folder(path)
    start = hdf5.read_signature(path)
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES >> 30} GiB; no network that can be judged is as large")
    if start.startswith(b"PK"):
        return _from_archive(path)
    if not start.startswith(hdf5.SIGNATURE):
        raise UserError(
            f"{path} is neither HDF5 nor a .keras file; a pickle or other format could run code, save it anew"
        )
    with hdf5.open_untrusted(path) as file:
        config = hdf5.read_text(file, "model_config", path)
        if config is None:
            return weights.set_weights(_contest_network(file, path), {}, file, path)
        return _build_and_fill(parse_architecture(config, path), hdf5.get_local(file, "model_weights", path), path)


def _build_and_fill(architecture: Architecture, stored: Any, path: Path) -> keras.Model:
    return weights.set_weights(build_network(architecture, path), architecture.names, stored, path)


def build_network(architecture: Architecture, path: Path) -> keras.Model:
    """Return a network with untrained weights, its layers named as ``architecture.names`` says.

    Raises:
        UserError: its layers do not fit each other, need too much memory, or answer with other than (n, classes).
    """
    try:
        tensors = _tensors(architecture)
        output = tensors[architecture.output]
        if len(output.shape) != 2 or not 2 <= output.shape[1] <= MAX_CLASSES:
            raise ValueError(f"it answers with {output.shape[1:]} for an image, not with a number a class")
        (images,) = [tensors[layer.name] for layer in architecture.layers if layer.kind == "InputLayer"]
        return keras.Model(images, output, name="network")
    except Exception as error:  # Keras raises whatever it likes on layers that do not fit
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(f"{path} is refused: {reason}; save a plain image classifier") from None


def _tensors(architecture: Architecture) -> dict[str, Any]:
    """Return the symbolic output of each layer, having made sure that none is a bomb."""
    own = {name: own for own, name in architecture.names.items()}
    tensors: dict[str, Any] = {}
    waiting = list(architecture.layers)
    weights = values = 0
    while waiting:
        ready = [layer for layer in waiting if all(source in tensors for source in layer.sources)]
        if not ready:
            raise ValueError(f"layer {waiting[0].name!r:.60} takes what no layer before it gives")
        for layer in ready:
            waiting.remove(layer)
            if layer.kind == "InputLayer":
                tensors[layer.name] = keras.Input(architecture.image_shape, name=own[layer.name])
                continue
            inputs = [tensors[name] for name in layer.sources]
            if not inputs or (weights := weights + _weights(layer, inputs)) > MAX_WEIGHTS:
                raise ValueError(
                    f"layer {layer.name!r:.60} has no input, or the network more weights than {MAX_WEIGHTS:,}"
                )
            made = getattr(keras.layers, layer.kind)(**layer.arguments, name=own[layer.name])
            taken = inputs if len(inputs) > 1 else inputs[0]
            values += prod(made.compute_output_shape(keras.tree.map_structure(lambda tensor: tensor.shape, taken))[1:])
            if values > MAX_VALUES:
                raise ValueError(
                    f"up to layer {layer.name!r:.60} it makes more than {MAX_VALUES:,} numbers of an image"
                )
            tensors[layer.name] = made(taken)
    return tensors


def _weights(layer: Layer, inputs: list[Any]) -> int:
    """Return about how many weights a layer will have; Keras would allocate them at once."""
    channels, arguments = inputs[0].shape[-1], layer.arguments
    if layer.kind == "BatchNormalization":
        return 4 * max(filter(None, inputs[0].shape))
    kernel = arguments.get("kernel_size", 1)
    area = prod(kernel) if isinstance(kernel, tuple) else kernel**2
    return int(area * channels * arguments.get("filters", arguments.get("units", 0)))


def _from_archive(path: Path) -> keras.Model:
    """Read a ``.keras`` file: config.json and model.weights.h5 in a zip archive."""
    limits = {"config.json": MAX_TEXT, "model.weights.h5": MAX_BYTES}
    try:
        with zipfile.ZipFile(path) as archive:
            config, stored = (_member(archive, name, limit, path) for name, limit in limits.items())
    except ARCHIVE_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a whole .keras file ({reason}); fetch it again") from None
    architecture = parse_architecture(config, path)
    with hdf5.open_untrusted(path, io.BytesIO(stored)) as file:
        return _build_and_fill(architecture, file, path)


def _member(archive: zipfile.ZipFile, name: str, limit: int, path: Path) -> bytes:
    if name not in archive.namelist():
        raise UserError(f"{path} has no {name}, so it is no .keras file; save the network with model.save()")
    if archive.getinfo(name).file_size > limit:
        raise UserError(f"{path}: {name} unpacks to more than {limit >> 20:,} MiB; it is refused")
    return archive.read(name)


def _from_folder(folder: Path) -> keras.Model:
    name = folder.resolve().name
    if name not in CLASSIFIERS:
        known = ", ".join(sorted(CLASSIFIERS))
        raise UserError(f"{folder} is not named after a known network ({known}); name artifacts/classifier/SET/NETWORK")
    return load_saved_model(CLASSIFIERS[name], folder, _check_classes)


def _check_classes(arguments: dict[str, Any]) -> None:
    classes = arguments["num_classes"]
    if type(classes) is not int or not 2 <= classes <= MAX_CLASSES:
        raise ValueError(f"num_classes {classes!r:.60} is no whole number from 2 to {MAX_CLASSES:,}")


def _contest_network(file: h5py.File, path: Path) -> keras.Model:
    """Return DeepID with as many classes as the file's last layer has."""
    found = weights.datasets(weights.open_store(file, path), "output", "", path)
    match [data and data.shape for data in found]:
        case [(units, classes), (biases,)] if (
            units == CONTEST_UNITS and classes == biases and 2 <= classes <= MAX_CLASSES
        ):
            return deepid.build(CONTEST_SHAPE, classes, dropout=0.0)
    raise UserError(f"{path} holds no model config and no weights of the contest's network; save the whole model")
