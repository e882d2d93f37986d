"""Loading untrusted networks: an allow-list of layers, weights as plain numbers, limits on every size."""

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from visor.core import hdf5
from visor.core.errors import UserError, first_line
from visor.core.files import read_json
from visor.core.isolation import MEMORY, Child
from visor.core.tf import KerasTensor, keras
from visor.models.classifiers import CLASSIFIERS, deepid
from visor.models.storage import Build, build_model
from visor.suspect import weights
from visor.suspect.architecture import MAX_TEXT, Architecture, ImageShape, Layer, parse_architecture

# Names of the layers that are outputs, and their outputs → the one that is used; a ValueError if there is none.
Select = Callable[[Sequence[str], Sequence[KerasTensor]], KerasTensor]

CONTEST_SHAPE, CONTEST_UNITS = (55, 47, 3), 160
MAX_CLASSES = 100_000
MAX_BYTES = 2 << 30  # of a network's file
MAX_WEIGHTS = 256 << 20  # of all layers; VGG-Face has 145 million
MAX_VALUES = 1 << 24  # outputs of all layers for one image; VGG-Face has 15 million


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
        model = build_model(build, arguments, str(path))
    except UserError:
        raise
    except Exception as error:  # Keras raises any exception on invalid arguments.
        raise UserError(
            f"{path} is not a valid network description ({first_line(error)}); delete it and run `dvc repro`"
        ) from None
    stored = folder / "model.weights.h5"
    return weights.set_weights(model, {}, hdf5.open_untrusted(stored), stored, by_order=True)


def load_network(path: Path, image_shape: ImageShape | None = None) -> keras.Model:
    """Return a classifier of images (n, h, w, 3): logits or probabilities (n, classes).

    Args:
        path: Whole model written by Keras 2 (``.h5``) or 3 (``.keras``), weights alone of the contest's network
            (``.h5``), or a folder ``artifacts/classifier/SET/NETWORK`` of the pipeline.
        image_shape: The images (h, w, 3) that a network of any size will get.

    Raises:
        UserError: None of these, damaged, too large, or with a layer that is not on the allow-list.
    """
    if path.is_dir():
        return _load_folder(path)
    saved = open_model(path)
    if saved.config is None:
        root = saved.weights()
        return weights.set_weights(_build_contest_network(root, path), {}, root, path)
    architecture = parse_architecture(saved.config, path, image_shape)
    network, _ = _build_model(architecture, path, _logits, "save a plain image classifier")
    return weights.set_weights(network, architecture.names, saved.weights(), path)


def load_coder(path: Path, select: Select) -> keras.Model:
    """Return an autoencoder, or a half of one: its input → the output that ``select`` chooses.

    Raises:
        UserError: No whole model written by Keras 2 (``.h5``) or 3 (``.keras``), damaged, too large, with a layer that
            is not on the allow-list, or without such an output.
    """
    saved = open_model(path)
    if saved.config is None:
        raise UserError(
            f"{path} has no model config; save the whole model, or fit one: `visor suspect fit-autoencoder`"
        )
    architecture = parse_architecture(saved.config, path, is_coder=True)
    advice = "save a plain autoencoder, or its encoder and its decoder"
    model, chosen = _build_model(architecture, path, select, advice)
    weights.set_weights(model, architecture.names, saved.weights(), path, by_order=False)
    return keras.Model(model.inputs[0], chosen)


class SavedModel(NamedTuple):
    """A file: the JSON of its layers, None if it has weights alone, and what opens the group of its weights."""

    config: str | bytes | None
    weights: Callable[[], Any]


def open_model(path: Path) -> SavedModel:
    """Open a whole model written by Keras 2 (``.h5``) or 3 (``.keras``), or weights; a child process reads it.

    Raises:
        UserError: It is neither, damaged, or too large.
    """
    start = hdf5.read_signature(path)
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 30} GiB; choose a smaller network")
    if start.startswith(b"PK"):  # with memory for what is unpacked
        child = Child("visor.suspect.keras_archive:open_archive", path, memory=MEMORY + 2 * path.stat().st_size)
        return SavedModel(child.ask("config", nbytes=MAX_TEXT).tobytes(), lambda: hdf5.root(path, child.ask))
    if not start.startswith(hdf5.SIGNATURE):
        raise UserError(f"{path} is neither HDF5 nor .keras; other formats can execute code and are rejected")
    file = hdf5.open_untrusted(path)
    config = hdf5.read_text(file, "model_config")
    return SavedModel(config, lambda: file if config is None else hdf5.get_local(file, "model_weights"))


def _build_model(
    architecture: Architecture, path: Path, select: Select, advice: str
) -> tuple[keras.Model, KerasTensor]:
    """Return a model without its weights, its layers named as in ``architecture.names``, and the selected output."""
    try:
        tensors = _connect_layers(architecture)
        outputs = [tensors[name] for name in architecture.outputs]
        chosen = select(architecture.outputs, outputs)
        (inputs,) = [tensors[layer.name] for layer in architecture.layers if layer.kind == "InputLayer"]
        return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name="network"), chosen
    except Exception as error:  # Keras raises any exception on layers that do not fit.
        raise UserError(f"{path} is rejected: {first_line(error)}; {advice}") from None


def _logits(names: Sequence[str], outputs: Sequence[KerasTensor]) -> KerasTensor:
    """Return the only output, one number per class."""
    (output,) = outputs
    if len(output.shape) != 2 or not 2 <= output.shape[1] <= MAX_CLASSES:
        raise ValueError(f"its output {output.shape[1:]} for an image is not one number per class")
    return output


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
                tensors[layer.name] = keras.Input(architecture.input_shape, name=keras_names[layer.name])
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


def _build_contest_network(file: hdf5.Group, path: Path) -> keras.Model:
    """Return DeepID with as many classes as the file's last layer has."""
    datasets = weights.get_datasets(weights.open_store(file, path), "output", "")
    match [data.shape if isinstance(data, hdf5.Dataset) else None for data in datasets]:
        case [(units, classes), (biases,)] if units == CONTEST_UNITS and 2 <= classes == biases <= MAX_CLASSES:
            return deepid.build(CONTEST_SHAPE, classes, dropout=0.0)
    raise UserError(f"{path} has no model config and no weights of the contest's network; save the whole model")
