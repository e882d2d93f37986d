"""The layers of an untrusted network, parsed from Keras's JSON by an allow-list and without Keras.

Two dialects are read: that of Keras 2 (whole-model ``.h5``) and that of Keras 3 (``.keras``, and its own ``.h5``).
Every value that is passed on was checked by a function of ``layer_allow_list``.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from visor.core.errors import UserError
from visor.suspect.layer_allow_list import ALLOWED_LAYERS, IGNORED_KEYS, IGNORED_SUFFIXES, check_dtype, check_int

MAX_TEXT, MAX_LAYERS, MAX_SIDE = 4 << 20, 1000, 1024

ImageShape = tuple[int, int, int]


class Layer(NamedTuple):
    """One layer: Keras class, name, checked arguments, and names of the layers that are its input."""

    kind: str
    name: str
    arguments: dict[str, Any]
    sources: tuple[str, ...]


class Architecture(NamedTuple):
    """Layers in the order of the file, shape (h, w, 3) of the input, and name of the layer that is the output."""

    layers: tuple[Layer, ...]
    image_shape: ImageShape
    output: str

    @property
    def names(self) -> dict[str, str]:
        """Names that TensorFlow accepts → the layers' names, which may hold any character."""
        return {f"layer_{number}": layer.name for number, layer in enumerate(self.layers)}


def parse_architecture(text: str | bytes, path: Path, image_shape: ImageShape | None = None) -> Architecture:
    """Return the architecture in the JSON of a model; ``path`` names the file in messages.

    A network of any size gets the one of ``image_shape`` (h, w, 3).

    Raises:
        UserError: The JSON is invalid, a layer or value is not on the allow-list, or there is not one input and output.
    """
    if len(text) > MAX_TEXT:
        raise UserError(f"{path}: its model config has {len(text):,} characters; at most {MAX_TEXT:,} are accepted")
    try:
        return _parse_model(json.loads(text), image_shape)
    except ValueError as error:
        raise UserError(f"{path} is rejected: {error}; save a plain image classifier") from None
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: its model config is not valid Keras JSON; save the network again") from None


def _parse_model(content: Mapping[str, Any], wanted: ImageShape | None) -> Architecture:
    kind, config = content["class_name"], content["config"]
    if kind not in ("Model", "Functional", "Sequential"):
        raise ValueError(f"a model of class {kind!r:.60} is not on the allow-list")
    entries = config if isinstance(config, list) else config["layers"]  # Keras 2.2 wrote a Sequential as a bare list.
    if not 0 < len(entries) <= MAX_LAYERS:
        raise ValueError(f"it has {len(entries)} layers")
    layers = [_parse_layer(entry, kind != "Sequential") for entry in entries]
    if kind == "Sequential":
        inputs, outputs = [layers[0].name], [layers[-1].name]
        if layers[0].kind != "InputLayer":  # Its first layer may state the input as ``batch_input_shape``.
            layers = [Layer("InputLayer", "visor_input", {}, ()), *layers]
        layers[1:] = [layer._replace(sources=(previous.name,)) for previous, layer in pairwise(layers)]
    else:
        inputs, outputs = (_endpoint_names(config[key]) for key in ("input_layers", "output_layers"))
    if len(inputs) != 1 or len(outputs) != 1 or [layer.kind for layer in layers].count("InputLayer") != 1:
        raise ValueError(f"it has {len(inputs)} inputs and {len(outputs)} outputs instead of one each")
    if len({layer.name for layer in layers}) != len(layers):
        raise ValueError("two layers have the same name")
    return Architecture(tuple(layers), _image_shape(entries, inputs[0], wanted), outputs[0])


def _parse_layer(entry: Mapping[str, Any], linked: bool) -> Layer:
    kind, config = entry["class_name"], entry["config"]
    name, module = config["name"], str(entry.get("module") or "keras")
    is_custom = entry.get("registered_name") not in (None, kind) or not module.startswith("keras")
    if type(kind) is not str or kind not in ALLOWED_LAYERS or is_custom:
        raise ValueError(f"layer {name!r:.60} of class {kind!r:.60} is not on the allow-list")
    if type(name) is not str or not 0 < len(name) < 200:
        raise ValueError(f"{name!r:.60} is not the name of a layer")
    arguments: dict[str, Any] = {}
    checks = {"dtype": check_dtype, **ALLOWED_LAYERS[kind]}
    for key, value in config.items() if kind != "InputLayer" else ():
        if key in checks:
            try:
                arguments[key] = checks[key](value)
            except ValueError as error:
                raise ValueError(f"{key} of layer {name!r:.60}: {error}") from None
        elif key not in IGNORED_KEYS and not key.endswith(IGNORED_SUFFIXES) and value not in (None, False):
            raise ValueError(f"argument {key!r:.60} of layer {name!r:.60} of class {kind} is not on the allow-list")
    arguments.pop("dtype", None)
    return Layer(kind, name, arguments, _sources(entry.get("inbound_nodes") or [], name) if linked else ())


def _sources(nodes: list[Any], name: str) -> tuple[str, ...]:
    """Return the inputs of a layer: [[[name, 0, 0, {}], …]] in Keras 2, [{args, kwargs}] in Keras 3."""
    if len(nodes) > 1:
        raise ValueError(f"layer {name!r:.60} is used more than once")
    sources = []
    for node in nodes:
        if isinstance(node, Mapping):
            tensors = node["args"][0] if isinstance(node["args"][0], list) else node["args"]
            links = [tensor["config"]["keras_history"] for tensor in tensors]
            options = list(dict(node["kwargs"]).values())
        else:
            links, options = [link[:3] for link in node], [value for link in node for value in link[3].values()]
        if any(value not in (None, False) for value in options) or any(link[1:] != [0, 0] for link in links):
            raise ValueError(f"layer {name!r:.60} is called in an unknown way")
        sources += [str(link[0]) for link in links]
    return tuple(sources)


def _endpoint_names(value: list[Any]) -> list[str]:
    """Return the names in ``input_layers`` or ``output_layers``; Keras 3 writes a single one without a list."""
    return [str(end[0]) for end in ([value] if value and isinstance(value[0], str) else value)]


def _image_shape(entries: list[Mapping[str, Any]], name: str, wanted: ImageShape | None) -> ImageShape:
    """Return the size that the input states, with the wanted one where it takes any; so it does for the batch."""
    first = next((entry for entry in entries if entry["config"]["name"] == name), entries[0])["config"]
    shape = first.get("batch_input_shape") or first.get("batch_shape")
    if not isinstance(shape, list) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"its input {shape!r:.60} is not a batch of images (h, w, 3)")
    if None in shape[1:3] and wanted is None:
        raise ValueError(f"its input {shape!r:.60} has any size, and nothing says which one the images have")
    free = wanted or (0, 0, 3)
    height, width = (free[axis] if shape[1 + axis] is None else check_int(shape[1 + axis]) for axis in (0, 1))
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"its images have {height}×{width} pixels")
    return height, width, 3
