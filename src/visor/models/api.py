"""Networks of the registries by name."""

import inspect
from pathlib import Path
from typing import Any

from visor.core.config import validate_block
from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.core.tf import keras
from visor.data.arrays import choose
from visor.models.classifiers import CLASSIFIERS
from visor.models.detectors import DETECTORS, TRAINABLE
from visor.models.detectors.base import Detector
from visor.models.published import loading
from visor.models.recognisers import RECOGNISERS
from visor.models.recognisers.base import Recogniser


def build_network(
    name: str, image_shape: tuple[int, int, int], num_classes: int, *, kind: str = "classifier", **options: Any
) -> keras.Model:
    """Build an untrained network of a registry.

    Args:
        name: A classifier (``"deepid"``, ``"vgg_face"``, ``"deepface"``) or a recogniser (``"facenet"``,
            ``"resnet50"``, ``"senet50"``, ``"vgg_face"``).
        image_shape: (height, width, 3).
        num_classes: Number of classes; for a recogniser 0 leaves out the logits.
        kind: ``"classifier"``, returning logits, or ``"recogniser"``, returning ``embedding`` and ``logits``.
        **options: Further arguments of the network; those of a recogniser are the published ones by default.

    Returns:
        The model of float32 images (n, h, w, 3) in [0, 1].

    Raises:
        UserError: There is no such network, or an option is unknown or missing.

    Example:
        >>> build_network("deepid", (55, 47, 3), num_classes=40, dropout=0.1).output_shape
        (None, 40)
    """
    choose({"classifier": CLASSIFIERS, "recogniser": RECOGNISERS}, kind, "kind")
    if kind == "classifier":
        build, defaults = choose(CLASSIFIERS, name, "name"), {}
    else:
        module = choose(RECOGNISERS, name, "name")
        build, defaults = module.build, module.PUBLISHED_OPTIONS
    arguments = defaults | options | {"image_shape": image_shape, "num_classes": num_classes}
    names = list(inspect.signature(build).parameters)
    if wrong := sorted(arguments.keys() ^ set(names)):
        raise UserError(f"{name}: option {wrong[0]} is unknown or missing; it takes {', '.join(names[2:]) or 'none'}")
    return build(**arguments)


def load_detector(name: str, *, threshold: float = 0.5, folder: str | Path | None = None, **options: Any) -> Detector:
    """Load a face detector of the registry, for ``attack_detector`` and for its ``detect``.

    Args:
        name: ``"mtcnn"`` and ``"cascade"`` bring their weights; ``"ssd"`` and ``"faster_rcnn"`` need the folder of a
            trained one; ``"frozen_graph"`` needs the option ``path``, and so does
            ``"torchvision_faster_rcnn"`` unless it was trained here. ``"face_ssd"``, ``"face_tiny"`` and
            ``"blazeface"`` have to be fetched (``visor networks``), and take no options.
        threshold: Score from which a box counts as a face.
        folder: Folder with ``model.json`` and ``model.weights.h5``.
        **options: Options of the detector, as in ``params.yaml``.

    Raises:
        UserError: There is no such detector, an option is wrong, or its files are missing.

    Example:
        >>> load_detector("cascade", threshold=0.6).threshold
        0.6
    """
    module = choose(DETECTORS, name, "name")
    if name in TRAINABLE and folder is None and "path" not in options:
        raise UserError(f"folder: {name} has to be trained; give the folder of a trained one")
    settings = validate_block(DetectorParams, {"threshold": threshold, "options": options}, name)
    return module.load(settings, Path(folder or "."))


def load_network(name: str) -> Recogniser:
    """Load a published network that ``visor networks fetch`` put into the cache.

    Args:
        name: ``"dlib_resnet"`` or ``"faceres"``; ``visor networks`` lists all.

    Returns:
        The recogniser. Its ``embed`` takes float32 images (n, h, w, 3) in [0, 1], resizes them and returns embeddings
        (n, d) of length 1, with gradients; it is a model for ``attack_recogniser``.

    Raises:
        UserError: There is no such network, or its files are missing or damaged.

    Example:
        >>> load_network("dlib_resnet").image_shape  # doctest: +SKIP
        (150, 150, 3)
    """
    return loading.load_recogniser(name)
