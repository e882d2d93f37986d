"""The layers of a stranger's network: parsed from Keras's JSON by allow-list, without Keras.

Two dialects are read: that of Keras 2 (whole-model ``.h5``) and that of Keras 3 (``.keras``, and its own ``.h5``).
Every value that goes on has passed a check of ``allowed.py``.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from visor.core.errors import UserError
from visor.suspect.layer_allow_list import ALLOWED_LAYERS, IGNORED_KEYS, IGNORED_SUFFIXES, check_int, floats

MAX_TEXT, MAX_LAYERS, MAX_SIDE = 4 << 20, 1000, 1024


class Layer(NamedTuple):
    """One layer: its Keras class, its name, checked arguments, and the names of the layers it takes."""

    kind: str
    name: str
    arguments: dict[str, Any]
    sources: tuple[str, ...]


class Architecture(NamedTuple):
    """Layers in the file's order, the shape (h, w, 3) of the one input, and the name of the one output."""

    layers: tuple[Layer, ...]
    image_shape: tuple[int, int, int]
    output: str

    @property
    def names(self) -> dict[str, str]:
        """Names that TensorFlow takes for certain → the layers' own, which may hold anything."""
        return {f"layer_{number}": layer.name for number, layer in enumerate(self.layers)}


def parse_architecture(text: str | bytes, path: Path) -> Architecture:
    """Return the architecture of a model's JSON.

    Raises:
        UserError: not such JSON, a layer or value outside the allow-list, not one image in and one output.
    """
    if len(text) > MAX_TEXT:
        raise UserError(
            f"{path}: its model config has {len(text):,} characters, more than any network's; it is refused"
        )
    try:
        return _architecture(json.loads(text))
    except ValueError as error:
        raise UserError(f"{path} is refused: {error}; save a plain image classifier") from None
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: its model config is not as Keras writes it; save the network again") from None


def _architecture(content: Mapping[str, Any]) -> Architecture:
    kind, config = content["class_name"], content["config"]
    if kind not in ("Model", "Functional", "Sequential"):
        raise ValueError(f"a model of class {kind!r:.60} would need its own code")
    # Keras 2.2 wrote a Sequential as a bare list.
    entries = config if isinstance(config, list) else config["layers"]
    if not 0 < len(entries) <= MAX_LAYERS:
        raise ValueError(f"it has {len(entries)} layers")
    layers = [_layer(entry, kind != "Sequential") for entry in entries]
    if kind == "Sequential":
        layers, output = _link_sequential(layers), layers[-1].name
        inputs = [layers[0].name]
    else:
        inputs, outputs = (_endpoint_names(config[key]) for key in ("input_layers", "output_layers"))
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"it has {len(inputs)} inputs and {len(outputs)} outputs instead of one image and one answer"
            )
        (output,) = outputs
    if len({layer.name for layer in layers}) != len(layers):
        raise ValueError("two layers have one name")
    if [layer.kind for layer in layers].count("InputLayer") != 1:
        raise ValueError("it has more or fewer inputs than one image")
    return Architecture(tuple(layers), _image_shape(entries, inputs[0]), output)


def _layer(entry: Mapping[str, Any], linked: bool) -> Layer:
    kind, config = entry["class_name"], entry["config"]
    name = config["name"]
    own = entry.get("registered_name") not in (None, kind) or not str(entry.get("module") or "keras").startswith(
        "keras"
    )
    if type(kind) is not str or kind not in ALLOWED_LAYERS or own:
        raise ValueError(f"layer {name!r:.60} of class {kind!r:.60} could run code or is not known")
    if type(name) is not str or not 0 < len(name) < 200:
        raise ValueError(f"{name!r:.60} is no name of a layer")
    arguments = {}
    for key, value in config.items():
        if key in ALLOWED_LAYERS[kind]:
            try:
                arguments[key] = ALLOWED_LAYERS[kind][key](value)
            except ValueError as error:
                raise ValueError(f"{key} of layer {name!r:.60}: {error}") from None
        elif kind != "InputLayer" and key == "dtype":
            floats(value)
        elif (
            kind != "InputLayer"
            and key not in IGNORED_KEYS
            and not key.endswith(IGNORED_SUFFIXES)
            and value not in (None, False)
        ):
            raise ValueError(f"layer {name!r:.60} of class {kind} has {key!r:.60}, which is not known")
    return Layer(kind, name, arguments, _sources(entry.get("inbound_nodes") or [], name) if linked else ())


def _sources(nodes: list[Any], name: str) -> tuple[str, ...]:
    """Return the layers that a layer takes: [[[name, 0, 0, {}], …]] in Keras 2, [{args, kwargs}] in Keras 3."""
    if len(nodes) > 1:
        raise ValueError(f"layer {name!r:.60} is used more than once")
    found = []
    for node in nodes:
        if isinstance(node, Mapping):
            tensors = node["args"][0] if isinstance(node["args"][0], list) else node["args"]
            links = [[*tensor["config"]["keras_history"], {}] for tensor in tensors]
            options = dict(node["kwargs"])
        else:
            links, options = [[*link[:3], {}] for link in node], {key: link[3][key] for link in node for key in link[3]}
        if any(value not in (None, False) for value in options.values()) or any(link[1:3] != [0, 0] for link in links):
            raise ValueError(f"layer {name!r:.60} is called in a way that is not known")
        found += [str(link[0]) for link in links]
    return tuple(found)


def _link_sequential(layers: list[Layer]) -> list[Layer]:
    """Link the layers of a Sequential; its first may leave the input to its own ``batch_input_shape``."""
    if layers[0].kind != "InputLayer":
        layers = [Layer("InputLayer", "visor_input", {}, ()), *layers]
    linked = [layer._replace(sources=(before.name,)) for before, layer in pairwise(layers)]
    return [layers[0], *linked]


def _endpoint_names(value: list[Any]) -> list[str]:
    """Return the names in ``input_layers`` or ``output_layers``; Keras 3 writes a single one without a list."""
    ends = [value] if value and isinstance(value[0], str) else value
    return [str(end[0]) for end in ends]


def _image_shape(entries: list[Mapping[str, Any]], name: str) -> tuple[int, int, int]:
    first = next((entry for entry in entries if entry["config"]["name"] == name), entries[0])["config"]
    shape = first.get("batch_input_shape") or first.get("batch_shape")
    if not isinstance(shape, list) or len(shape) != 4 or shape[0] is not None or shape[3] != 3:
        raise ValueError(f"its input {shape!r:.60} is not a batch of images (h, w, 3)")
    height, width = check_int(shape[1]), check_int(shape[2])
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"its images have {height}×{width} pixels")
    return height, width, 3
