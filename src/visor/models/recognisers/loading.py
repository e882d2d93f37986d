"""Networks as the params configure them: options, weights and names of classes from untrusted files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.core import hdf5, params
from visor.core.config import lookup
from visor.core.errors import UserError, first_line, shorten
from visor.core.files import MAX_FILE_BYTES
from visor.core.tf import keras
from visor.data import download
from visor.models import pretrained, storage
from visor.models.recognisers import RECOGNISERS

NUMPY_SIGNATURE = b"\x93NUMPY"
Shape = tuple[int, int, int]


class BuiltRecogniser(NamedTuple):
    """A network, the arguments that built it, and the names of its classes."""

    model: keras.Model
    arguments: Mapping[str, Any]
    names: Sequence[str]


def read_class_names(path: Path, count: int) -> tuple[str, ...]:
    """Read the names of ``count`` classes from a NumPy array of strings (.npy) or a text file with one name per line.

    `` A_J_Buckley``, as VGGFace2's names are published, becomes ``A J Buckley``.

    Raises:
        UserError: The file is missing, of another format, or has another number of names.
    """
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB; choose a file of names")
    try:
        is_array = hdf5.read_signature(path).startswith(NUMPY_SIGNATURE)
        lines = _read_array(path, count) if is_array else path.read_text(encoding="utf-8").splitlines()
        names = tuple(filter(None, (" ".join(line.strip(" '\"").replace("_", " ").split()) for line in lines)))
    except (SystemError, ValueError) as error:  # letters that Unicode lacks; Python objects, which could execute code
        raise UserError(f"{path} contains no names ({shorten(first_line(error))}); choose a file of names") from None
    if len(names) != count:
        raise UserError(f"{path} has {len(names)} names, the network {count} classes; choose another file")
    return names


def _read_array(path: Path, count: int) -> list[str]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that only existing bytes are read
    except Exception as error:  # NumPy's parser of headers raises any exception on hostile bytes
        raise ValueError(first_line(error)) from None
    # Strings without length take no bytes in the file, whatever their number.
    if array.dtype.kind not in "US" or array.shape != (count,) or not array.dtype.itemsize:
        raise ValueError(f"an array of {array.dtype} of shape {array.shape}, not {count} strings")
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in array]


def build(name: str, settings: params.RecogniserParams, image_shape: Shape, names: Sequence[str]) -> BuiltRecogniser:
    """Return a network to be trained on faces (h, w, 3) of the people ``names``, or published, as the params say.

    Raises:
        UserError: An option is wrong, or weights or labels are not available or do not fit.
    """
    return build_trainable(name, settings, image_shape, names) if settings.training else build_published(name, settings)


def build_trainable(
    name: str, settings: params.RecogniserParams, image_shape: Shape, names: Sequence[str]
) -> BuiltRecogniser:
    """Return a network to be trained on faces (h, w, 3) of the people ``names``.

    It starts with the weights that the params name, if any, except for a last layer of other people.

    Raises:
        UserError: An option is wrong, or the weights are not available or do not fit.
    """
    model, arguments = _construct(name, settings, {"image_shape": image_shape, "num_classes": len(names)})
    if settings.weights:
        path = resolve_weights(name, settings.weights, settings.sha256)
        pretrained.load_pretrained(model, path, RECOGNISERS[name].LAYER_RENAMES)
    return BuiltRecogniser(model, arguments, names)


def build_published(name: str, settings: params.RecogniserParams) -> BuiltRecogniser:
    """Return a network with the published weights that the params name.

    Without a file of labels its classes are named by their numbers.

    Raises:
        UserError: An option is wrong, or weights or labels are not available or do not fit.
    """
    if settings.weights is None:
        raise UserError(f"params.yaml: recognisers.{name} has neither training nor weights; add one of them")
    path = resolve_weights(name, settings.weights, settings.sha256)  # before a large network is built in vain
    model, arguments = _construct(name, settings, {})
    loaded = pretrained.load_pretrained(model, path, RECOGNISERS[name].LAYER_RENAMES)
    if missing := [layer.name for layer in model.layers if layer.weights and layer.name not in loaded]:
        raise UserError(
            f"{path} lacks {len(missing)} layers of {name}, such as {missing[0]}; "
            f"correct recognisers.{name}.options, with num_classes: 0 if the file has no classifier"
        )
    count = arguments["num_classes"]
    if count and settings.labels:
        return BuiltRecogniser(model, arguments, read_class_names(resolve_weights(name, settings.labels, None), count))
    return BuiltRecogniser(model, arguments, [f"class {number}" for number in range(count)])


def resolve_weights(name: str, source: str, sha256: str | None) -> Path:
    """Return the path of a file, verified by its checksum; a URL is downloaded to ``downloads/NAME``.

    Raises:
        UserError: It is missing, cannot be downloaded, has another checksum, or is a URL without one.
    """
    if source.startswith(("http://", "https://")):
        if sha256 is None:
            raise UserError(
                f"params.yaml: recognisers.{name}: {source} needs a sha256; add it, or download the file by hand"
            )
        return download.download(source, download.DOWNLOADS / name / sha256, sha256)
    path = Path(source)
    hdf5.check_exists(path)
    return download.download(source, path, sha256) if sha256 else path


def _construct(
    name: str, settings: params.RecogniserParams, fixed: Mapping[str, Any]
) -> tuple[keras.Model, dict[str, Any]]:
    """Build with the published arguments, overridden by ``options`` and then by ``fixed``."""
    module = lookup(RECOGNISERS, name, "recognisers")
    for key, value in settings.options.items():
        published = lookup(module.PUBLISHED_OPTIONS, key, f"recognisers.{name}.options")
        if not _is_valid_option(key, value, published):
            raise UserError(f"params.yaml: recognisers.{name}.options.{key} is {value!r}; write it like {published!r}")
    arguments = module.PUBLISHED_OPTIONS | settings.options
    arguments = {"image_shape": (arguments["input_size"], arguments["input_size"], 3)} | arguments | fixed
    return storage.build_model(module.build, arguments, f"recognisers.{name}.options"), arguments


def _is_valid_option(key: str, value: Any, published: Any) -> bool:
    """Return whether an option has the type of the published one: shares below 1, counts from 1 (or 0 classes)."""
    if isinstance(published, float):
        return isinstance(value, (int, float)) and 0 <= value < 1
    return isinstance(value, type(published)) and (not isinstance(value, int) or value >= (key != "num_classes"))
