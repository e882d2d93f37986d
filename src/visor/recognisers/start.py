"""Where a recogniser starts: as its block of params says, from scratch or from a published file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras import Model

from visor import fetch, hdf5, params
from visor.config import choice
from visor.errors import UserError
from visor.models import pretrained, storage
from visor.recognisers import RECOGNISERS, labels

Shape = tuple[int, int, int]


class Built(NamedTuple):
    """A network, the arguments that built it, and the names of its classes."""

    model: Model
    arguments: Mapping[str, Any]
    names: Sequence[str]


def build(name: str, settings: params.Recogniser, image_shape: Shape, names: Sequence[str]) -> Built:
    """Return a network as the params want it: to be trained on faces (h, w, 3) of the people ``names``, or published.

    Raises:
        UserError: an option is wrong, or weights or labels cannot be had or do not fit.
    """
    return trainable(name, settings, image_shape, names) if settings.training else published(name, settings)


def trainable(name: str, settings: params.Recogniser, image_shape: Shape, names: Sequence[str]) -> Built:
    """Return a network to be trained on faces (h, w, 3) of the people ``names``.

    It has the weights that the params name, if they do, but for the last layer where that knows other people.

    Raises:
        UserError: an option is wrong, or the weights cannot be had or do not fit.
    """
    given = {"image_shape": image_shape, "num_classes": len(names)}
    model, arguments = _construct(name, settings, given)
    if settings.weights:
        path = obtain(name, settings.weights, settings.sha256)
        pretrained.load(model, path, RECOGNISERS[name].RENAMED)
    return Built(model, arguments, names)


def published(name: str, settings: params.Recogniser) -> Built:
    """Return a network with the published weights that the params name.

    Without a file of labels its classes go by their numbers.

    Raises:
        UserError: an option is wrong, or weights or labels cannot be had or do not fit.
    """
    if settings.weights is None:
        raise UserError(f"params.yaml: recognisers.{name} has neither training nor weights; add one of them")
    path = obtain(name, settings.weights, settings.sha256)  # before a large network is built for nothing
    model, arguments = _construct(name, settings, {})
    loaded = pretrained.load(model, path, RECOGNISERS[name].RENAMED)
    if missing := [layer.name for layer in model.layers if layer.weights and layer.name not in loaded]:
        raise UserError(
            f"{path} fits all layers of {name} but {len(missing)}, such as {missing[0]}; "
            f"correct recognisers.{name}.options, with num_classes: 0 if the file has no classifier"
        )
    count = arguments["num_classes"]
    if count and settings.labels:
        return Built(model, arguments, labels.read(obtain(name, settings.labels, None), count))
    return Built(model, arguments, [f"class {number}" for number in range(count)])


def obtain(name: str, source: str, sha256: str | None) -> Path:
    """Return the path of a file, which a URL puts below ``downloads/NAME``; a checksum is verified.

    Raises:
        UserError: it is missing, cannot be fetched, has another checksum, or is a URL without one.
    """
    if source.startswith(("http://", "https://")):
        if sha256 is None:
            raise UserError(
                f"params.yaml: recognisers.{name}: {source} needs a sha256; add it, or fetch the file by hand"
            )
        return fetch.fetch(source, fetch.DOWNLOADS / name / sha256, sha256)
    path = Path(source)
    hdf5.require(path)
    return fetch.fetch(source, path, sha256) if sha256 else path


def _construct(name: str, settings: params.Recogniser, given: Mapping[str, Any]) -> tuple[Model, dict[str, Any]]:
    """Build by the published arguments, what ``options`` say instead, and what is ``given``."""
    module = choice(RECOGNISERS, name, "recognisers")
    for key, value in settings.options.items():
        usual = choice(module.PUBLISHED, key, f"recognisers.{name}.options")
        if not _possible(key, value, usual):
            raise UserError(f"params.yaml: recognisers.{name}.options.{key} is {value!r}; write it like {usual!r}")
    arguments = module.PUBLISHED | settings.options
    arguments = {"image_shape": (arguments["side"], arguments["side"], 3)} | arguments | given
    return storage.construct(module.build, arguments, f"recognisers.{name}.options"), arguments


def _possible(key: str, value: Any, usual: Any) -> bool:
    """Whether an option is of the type and in the range of its kind: shares below 1, counts from 1 (or no classes)."""
    if isinstance(usual, float):
        return isinstance(value, (int, float)) and 0 <= value < 1
    return isinstance(value, type(usual)) and (not isinstance(value, int) or value >= (key != "num_classes"))
