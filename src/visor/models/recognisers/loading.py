"""Names of the classes that published classifiers know, from the files that came with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.core import hdf5, params
from visor.core.config import lookup
from visor.core.errors import UserError
from visor.core.files import MAX_FILE_BYTES
from visor.core.tf import keras
from visor.data import download
from visor.models import pretrained, storage
from visor.models.recognisers import RECOGNISERS

ARRAY = b"\x93NUMPY"


def read_class_names(path: Path, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` classes: a NumPy array of texts (.npy), or a name a line in UTF-8.

    Of `` A_J_Buckley``, as VGGFace2's names are published, ``A J Buckley`` is left.

    Raises:
        UserError: the file is missing, is neither, or has another number of names.
    """
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB; choose a file of names")
    try:
        names = (
            _array(path, count)
            if hdf5.read_signature(path).startswith(ARRAY)
            else path.read_text(encoding="utf-8").splitlines()
        )
    except ValueError as error:  # an array of Python objects, which would have to be executed, among others
        raise UserError(f"{path} holds no names ({str(error).splitlines()[0]}); choose a file of names") from None
    cleaned = tuple(" ".join(name.strip(" '\"").replace("_", " ").split()) for name in names)
    cleaned = tuple(name for name in cleaned if name)
    if len(cleaned) != count:
        raise UserError(f"{path} has {len(cleaned)} names, the network {count} classes; choose another file")
    return cleaned


def _array(path: Path, count: int) -> list[str]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: no more than the file has is read
    # Texts of no length take no room in the file, however many it says there are.
    if array.dtype.kind not in "US" or array.shape != (count,) or not array.dtype.itemsize:
        raise ValueError(f"an array of {array.dtype} of shape {array.shape}, not {count} texts")
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in array]


Shape = tuple[int, int, int]


class BuiltRecogniser(NamedTuple):
    """A network, the arguments that built it, and the names of its classes."""

    model: keras.Model
    arguments: Mapping[str, Any]
    names: Sequence[str]


def build(name: str, settings: params.RecogniserParams, image_shape: Shape, names: Sequence[str]) -> BuiltRecogniser:
    """Return a network as the params want it: to be trained on faces (h, w, 3) of the people ``names``, or published.

    Raises:
        UserError: an option is wrong, or weights or labels cannot be had or do not fit.
    """
    return build_trainable(name, settings, image_shape, names) if settings.training else build_published(name, settings)


def build_trainable(
    name: str, settings: params.RecogniserParams, image_shape: Shape, names: Sequence[str]
) -> BuiltRecogniser:
    """Return a network to be trained on faces (h, w, 3) of the people ``names``.

    It has the weights that the params name, if they do, but for the last layer where that knows other people.

    Raises:
        UserError: an option is wrong, or the weights cannot be had or do not fit.
    """
    given = {"image_shape": image_shape, "num_classes": len(names)}
    model, arguments = _construct(name, settings, given)
    if settings.weights:
        path = resolve_weights(name, settings.weights, settings.sha256)
        pretrained.load_pretrained(model, path, RECOGNISERS[name].LAYER_RENAMES)
    return BuiltRecogniser(model, arguments, names)


def build_published(name: str, settings: params.RecogniserParams) -> BuiltRecogniser:
    """Return a network with the published weights that the params name.

    Without a file of labels its classes go by their numbers.

    Raises:
        UserError: an option is wrong, or weights or labels cannot be had or do not fit.
    """
    if settings.weights is None:
        raise UserError(f"params.yaml: recognisers.{name} has neither training nor weights; add one of them")
    path = resolve_weights(name, settings.weights, settings.sha256)  # before a large network is built for nothing
    model, arguments = _construct(name, settings, {})
    loaded = pretrained.load_pretrained(model, path, RECOGNISERS[name].LAYER_RENAMES)
    if missing := [layer.name for layer in model.layers if layer.weights and layer.name not in loaded]:
        raise UserError(
            f"{path} fits all layers of {name} but {len(missing)}, such as {missing[0]}; "
            f"correct recognisers.{name}.options, with num_classes: 0 if the file has no classifier"
        )
    count = arguments["num_classes"]
    if count and settings.labels:
        return BuiltRecogniser(model, arguments, read_class_names(resolve_weights(name, settings.labels, None), count))
    return BuiltRecogniser(model, arguments, [f"class {number}" for number in range(count)])


def resolve_weights(name: str, source: str, sha256: str | None) -> Path:
    """Return the path of a file, which a URL puts below ``downloads/NAME``; a checksum is verified.

    Raises:
        UserError: it is missing, cannot be fetched, has another checksum, or is a URL without one.
    """
    if source.startswith(("http://", "https://")):
        if sha256 is None:
            raise UserError(
                f"params.yaml: recognisers.{name}: {source} needs a sha256; add it, or fetch the file by hand"
            )
        return download.download(source, download.DOWNLOADS / name / sha256, sha256)
    path = Path(source)
    hdf5.check_exists(path)
    return download.download(source, path, sha256) if sha256 else path


def _construct(
    name: str, settings: params.RecogniserParams, given: Mapping[str, Any]
) -> tuple[keras.Model, dict[str, Any]]:
    """Build by the published arguments, what ``options`` say instead, and what is ``given``."""
    module = lookup(RECOGNISERS, name, "recognisers")
    for key, value in settings.options.items():
        usual = lookup(module.PUBLISHED_OPTIONS, key, f"recognisers.{name}.options")
        if not _is_valid_option(key, value, usual):
            raise UserError(f"params.yaml: recognisers.{name}.options.{key} is {value!r}; write it like {usual!r}")
    arguments = module.PUBLISHED_OPTIONS | settings.options
    arguments = {"image_shape": (arguments["input_size"], arguments["input_size"], 3)} | arguments | given
    return storage.build_model(module.build, arguments, f"recognisers.{name}.options"), arguments


def _is_valid_option(key: str, value: Any, usual: Any) -> bool:
    """Whether an option is of the type and in the range of its kind: shares below 1, counts from 1 (or no classes)."""
    if isinstance(usual, float):
        return isinstance(value, (int, float)) and 0 <= value < 1
    return isinstance(value, type(usual)) and (not isinstance(value, int) or value >= (key != "num_classes"))
