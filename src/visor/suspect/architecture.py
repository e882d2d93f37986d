"""The layers of an untrusted network, parsed from Keras's JSON by an allow-list and without Keras.

Two dialects are read: that of Keras 2 (whole-model ``.h5``) and that of Keras 3 (``.keras``, and its own ``.h5``).
Every value that is passed on was checked by a function of ``layer_allow_list``.

Autoencoders may be variational. Their sampling layer is code of the file (a ``Lambda``, a custom class): it is
recognised by its name and never run; the mean that it draws around takes its place.
"""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from visor.core.errors import UserError
from visor.suspect.layer_allow_list import (
    ALLOWED_LAYERS,
    CHECKED_ONLY,
    IGNORED_KEYS,
    IGNORED_SUFFIXES,
    check_dtype,
    check_int,
)

MAX_TEXT, MAX_LAYERS, MAX_SIDE = 4 << 20, 1000, 1024
SAMPLING = re.compile(r"sampl|reparam|^z$", re.IGNORECASE)  # in the name or class of a layer that draws a code
SPREAD = re.compile(r"var|sigma|std", re.IGNORECASE)  # in the name of a layer that says how far codes are drawn

ImageShape = tuple[int, int, int]


class Layer(NamedTuple):
    """One layer: Keras class, name, checked arguments, and names of the layers that are its input."""

    kind: str
    name: str
    arguments: dict[str, Any]
    sources: tuple[str, ...]


class Architecture(NamedTuple):
    """Layers in the order of the file, shape of one input (without the batch), and names of the output layers."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """Names that TensorFlow accepts → the layers' names, which may hold any character."""
        return {f"layer_{number}": layer.name for number, layer in enumerate(self.layers)}


def parse_architecture(
    text: str | bytes, path: Path, image_shape: ImageShape | None = None, is_coder: bool = False
) -> Architecture:
    """Return the architecture in the JSON of a model; ``path`` names the file in messages.

    A network of any size gets the one of ``image_shape`` (h, w, 3). An autoencoder or a half of one (``is_coder``) may
    have a sampling layer, several outputs, and a code as its input.

    Raises:
        UserError: The JSON is invalid, a layer or value is not on the allow-list, or there is not one input and output.
    """
    advice = "save a plain autoencoder, or its encoder and its decoder" if is_coder else "save a plain image classifier"
    if len(text) > MAX_TEXT:
        raise UserError(f"{path}: its model config has {len(text):,} characters; at most {MAX_TEXT:,} are accepted")
    try:
        return _parse_model(json.loads(text), image_shape, is_coder)
    except ValueError as error:
        raise UserError(f"{path} is rejected: {error}; {advice}") from None
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: its model config is not valid Keras JSON; save the network again") from None


def _parse_model(content: Mapping[str, Any], wanted: ImageShape | None, is_coder: bool) -> Architecture:
    kind, config = content["class_name"], content["config"]
    if kind not in ("Model", "Functional", "Sequential"):
        raise ValueError(f"a model of class {kind!r:.60} is not on the allow-list")
    entries = config if isinstance(config, list) else config["layers"]  # Keras 2.2 wrote a Sequential as a bare list.
    if not 0 < len(entries) <= MAX_LAYERS:
        raise ValueError(f"it has {len(entries)} layers")
    layers = [_parse_layer(entry, kind != "Sequential", is_coder) for entry in entries]
    if kind == "Sequential":
        inputs, outputs = [layers[0].name], [layers[-1].name]
        if layers[0].kind != "InputLayer":  # Its first layer may state the input as ``batch_input_shape``.
            layers = [Layer("InputLayer", "visor_input", {}, ()), *layers]
        layers[1:] = [layer._replace(sources=(previous.name,)) for previous, layer in pairwise(layers)]
    else:
        inputs, outputs = (_endpoint_names(config[key]) for key in ("input_layers", "output_layers"))
    is_plain = len(outputs) == 1 or (is_coder and outputs)
    if len(inputs) != 1 or not is_plain or [layer.kind for layer in layers].count("InputLayer") != 1:
        raise ValueError(f"it has {len(inputs)} inputs and {len(outputs)} outputs instead of one each")
    if len({layer.name for layer in layers}) != len(layers):
        raise ValueError("two layers have the same name")
    return Architecture(tuple(layers), _input_shape(entries, inputs[0], wanted, is_coder), tuple(outputs))


def _parse_layer(entry: Mapping[str, Any], linked: bool, is_coder: bool) -> Layer:
    kind, config = entry["class_name"], entry["config"]
    name, module = config["name"], str(entry.get("module") or "keras")
    if type(name) is not str or not 0 < len(name) < 200:
        raise ValueError(f"{name!r:.60} is not the name of a layer")
    is_custom = entry.get("registered_name") not in (None, kind) or not module.startswith("keras")
    if type(kind) is not str or kind not in ALLOWED_LAYERS or is_custom:
        if is_coder and linked and (SAMPLING.search(name) or SAMPLING.search(str(kind))):
            return _parse_sampling(entry, name)
        raise ValueError(f"layer {name!r:.60} of class {kind!r:.60} is not on the allow-list")
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
    for key in CHECKED_ONLY.get(kind, ("dtype",)):
        arguments.pop(key, None)
    return Layer(kind, name, arguments, _sources(entry.get("inbound_nodes") or [], name) if linked else ())


def _parse_sampling(entry: Mapping[str, Any], name: str) -> Layer:
    """Return the identity of the mean in place of a layer that draws a code from mean and spread."""
    sources = _find_tensors(entry.get("inbound_nodes"))
    means = [source for source in sources if not SPREAD.search(source)]
    if len(sources) != 2 or not means:
        raise ValueError(f"layer {name!r:.60} is named as one that samples, but does not take a mean and a variance")
    return Layer("Activation", name, {"activation": "linear"}, (means[0],))


def _find_tensors(value: Any) -> list[str]:
    """Return the names of the layers whose outputs a call takes, in either dialect, by position or by name."""
    match value:
        case [str(name), int(), int(), *rest]:
            return [name, *_find_tensors(rest)]
        case {"config": {"keras_history": [name, *_]}}:
            return [str(name)]
        case dict():
            return _find_tensors(list(value.values()))
        case list():
            return [name for part in value for name in _find_tensors(part)]
    return []


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


def _input_shape(
    entries: list[Mapping[str, Any]], name: str, wanted: ImageShape | None, is_coder: bool
) -> tuple[int, ...]:
    """Return the size that the input states, with the wanted one where it takes any; so it does for the batch."""
    first = next((entry for entry in entries if entry["config"]["name"] == name), entries[0])["config"]
    shape = first.get("batch_input_shape") or first.get("batch_shape")
    if is_coder and isinstance(shape, list) and 2 <= len(shape) <= 4 and (len(shape) < 4 or shape[3] != 3):
        return tuple(_check_side(side, shape) for side in shape[1:])
    if not isinstance(shape, list) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"its input {shape!r:.60} is not a batch of images (h, w, 3)")
    if None in shape[1:3] and wanted is None:
        raise ValueError(f"its input {shape!r:.60} has any size, and nothing says which one the images have")
    free = wanted or (0, 0, 3)
    height, width = (free[axis] if shape[1 + axis] is None else check_int(shape[1 + axis]) for axis in (0, 1))
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"its images have {height}×{width} pixels")
    return height, width, 3


def _check_side(value: Any, shape: list[Any]) -> int:
    """Return the length of one side of a code."""
    if check_int(value) < 1:
        raise ValueError(f"its input {shape!r:.60} is not a batch of codes")
    return int(value)
