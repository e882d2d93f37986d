"""A detector in one file: ``frozen_inference_graph.pb`` of the TensorFlow detection zoo, and similar graphs.

Such a graph takes images, one at a time, uint8 that it casts to floats or floats in 0..255, and returns boxes [y1, x1,
y2, x2] in [0, 1] and scores after non-maximum suppression. An attack needs the gradient: the output of that cast is
replaced by float images, and boxes and scores are taken from before the suppression, where the graph has them.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from visor.core.errors import UserError, shorten
from visor.core.isolation import MEMORY, Child
from visor.core.params import DetectorParams
from visor.core.tf import tf
from visor.core.types import ImageArray
from visor.models import graph_file
from visor.models.detectors.base import MAX_DETECTIONS, MIN_SCORE, Detections, Detector, PreNmsFn

GraphDef = Any
Tensors = list[tf.Tensor]

MAX_BYTES = 512 << 20
MEMORY_RATIO = 4  # of a parsed graph to its file: most of it is weights
TENSOR_NAMES = {
    "input": ("image_tensor",),
    "boxes": ("detection_boxes",),
    "scores": ("detection_scores",),
    "classes": ("detection_classes",),
    "floats": ("Preprocessor/map/TensorArrayStack/TensorArrayGatherV3",),
    "raw_boxes": ("raw_detection_boxes", "Postprocessor/ExpandDims_1"),
    "raw_scores": ("raw_detection_scores", "Postprocessor/convert_scores"),
}


def read_graph(path: Path) -> GraphDef:
    """Parse a GraphDef, first in a child process, without running any of it.

    Raises:
        UserError: It is missing, too large, no graph, or has an operation that is not in ``ALLOWED_OPERATIONS``.
    """
    advice = graph_file.ADVICE
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB; {advice}")
        if not path.is_file():
            raise UserError(f"{path} is not a file; {advice}")
        path.open("rb").close()
        Child("visor.models.graph_file:check", path, memory=MEMORY + MEMORY_RATIO * size)
        return tf.compat.v1.GraphDef.FromString(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {advice}") from None


def tensor_name(graph: GraphDef, role: str, option: str, path: Path) -> str | None:
    """Return the name NODE:0 of the tensor in a role, None if there is none and it is optional."""
    nodes = {node.name for node in graph.node}
    if option:
        if option.partition(":")[0] not in nodes:
            raise UserError(f"{path} has no tensor {option!r}; correct the option {role}")
        return option if ":" in option else f"{option}:0"
    for name in TENSOR_NAMES[role]:
        if name in nodes:
            return f"{name}:0"
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    if role == "input" and len(inputs) == 1:
        return f"{inputs[0]}:0"
    if role in ("input", "boxes", "scores"):
        raise UserError(f"{path} has no tensor {TENSOR_NAMES[role][0]}; name the right one by the option {role}")
    return None


def input_type(graph: GraphDef, placeholder: str) -> tf.DType:
    """Return the type of the images' placeholder, float32 or uint8."""
    types = [node.attr["dtype"].type for node in graph.node if node.name == placeholder and node.op == "Placeholder"]
    return tf.float32 if types == [tf.float32.as_datatype_enum] else tf.uint8


def float_input_name(graph: GraphDef, placeholder: str, path: Path) -> str:
    """Return the name of the float tensor behind the uint8 input, or of the input itself if it has floats.

    Raises:
        UserError: There is none.
    """
    if input_type(graph, placeholder) == tf.float32:
        return f"{placeholder}:0"
    for node in graph.node:
        if node.op in ("Cast", "ToFloat") and [name.partition(":")[0] for name in node.input] == [placeholder]:
            return f"{node.name}:0"
    raise UserError(f"{path}: no cast of {placeholder} to floats; name the float tensor behind it by the option floats")


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return the detector of the file in option ``path``; ``folder`` is not used.

    Other options: ``input``, ``boxes``, ``scores`` and ``classes``, if any, name tensors that do not have the zoo's
    names; ``raw_boxes`` (n, a, 4) and ``raw_scores`` (n, a) or (n, a, classes) those before the suppression, background
    first; ``face`` is the class of faces, by default 1. ``floats`` names the float tensor in 0..255 that an attack
    replaces, by default the cast behind the input; with ``input_size`` it takes squares of this size, like the one
    behind the resizing loop of the zoo.

    Raises:
        UserError: The file is missing or no graph, an operation is not allowed, a tensor has to be named, or an option
            is unknown or not a number.
    """
    options = dict(settings.options)
    path = Path(str(options.pop("path", "")))
    face = _whole_number("face", options.pop("face", None), 1)
    side = _whole_number("input_size", options.pop("input_size", None), 0)
    if unknown := sorted(options.keys() - TENSOR_NAMES.keys()):
        names = f"path, face, input_size, {', '.join(TENSOR_NAMES)}"
        raise UserError(f"frozen_graph has no option {unknown[0]}; it takes {names}")
    graph = read_graph(path)
    tensors = {role: tensor_name(graph, role, str(options.get(role) or ""), path) for role in TENSOR_NAMES}
    run, pre_nms = _runner(graph, tensors, path), _pre_nms(graph, tensors, face, side, path)
    return Detector("frozen_graph", settings.threshold, _detect(run, face, path), pre_nms, None)


def _whole_number(name: str, value: object, default: int) -> int:
    """Return an option as a whole number."""
    if value is None:
        return default
    if not str(value).isdecimal():
        raise UserError(f"frozen_graph: option {name} is {value!r}; choose a whole number")
    return int(str(value))


def _import(graph: GraphDef, path: Path, replaced: str, value: tf.Tensor, outputs: list[str]) -> Tensors:
    """Import the graph with one tensor replaced by ``value``."""
    try:
        return list(tf.graph_util.import_graph_def(graph, {replaced: value}, outputs, name="frozen"))
    except Exception as error:  # TensorFlow raises any on hostile graphs
        raise UserError(
            f"{path} cannot be run ({shorten(error, 120)}); correct the options that name tensors, or freeze it again "
            "with a current TensorFlow"
        ) from None


def _runner(graph: GraphDef, tensors: dict[str, str | None], path: Path) -> Callable[[ImageArray], list[Any]]:
    """Return a function of uint8 (1, h, w, 3) to boxes (1, k, 4), scores (1, k) and, if any, classes (1, k)."""
    names = {role: name for role, name in tensors.items() if name}
    dtype = input_type(graph, names["input"].partition(":")[0])

    def run(images: tf.Tensor) -> Tensors:
        # All tensors: a missing one must be noticed now, not at the first gradient.
        outputs = _import(graph, path, names["input"], tf.cast(images, dtype), list(names.values()))
        by_role = dict(zip(names, outputs, strict=True))
        return [by_role[role] for role in ("boxes", "scores", "classes") if role in names]

    # No tf.function: it adds control dependencies, which loops of TensorFlow 1 cannot have.
    call = tf.compat.v1.wrap_function(run, [tf.TensorSpec((1, None, None, 3), tf.uint8)])

    def run_image(images: ImageArray) -> list[Any]:
        try:
            return [output.numpy() for output in call(tf.constant(images))]
        except tf.errors.OpError as error:
            height, width = images.shape[1:3]
            reason = ["", *str(error.message).partition("\n\t [[")[0].splitlines()][-1]  # before the name of the node
            raise UserError(
                f"{path} does not accept an image of {width}×{height} pixels ({reason:.120}); freeze it with an input "
                "of any size, or use images of its size"
            ) from None

    return run_image


def _detect(run: Callable[[ImageArray], list[Any]], face: int, path: Path) -> Callable[[ImageArray], list[Detections]]:
    """Return ``detect``: the faces among the graph's own outputs, image by image."""

    def detect_one(image: ImageArray) -> Detections:
        outputs = run(image[np.newaxis])
        shapes = [output.shape for output in outputs]
        if shapes[0][:1] + shapes[0][2:] != (1, 4) or any(shape != shapes[0][:2] for shape in shapes[1:]):
            raise UserError(
                f"{path}: boxes and scores have shapes {shapes!s:.60}, not (1, k, 4) and (1, k); "
                "name other tensors by the options boxes, scores and classes"
            )
        corners, scores, *classes = (output[0] for output in outputs)
        is_face = (scores >= MIN_SCORE) & ((classes[0] == face) if classes else True) & np.isfinite(corners).all(axis=1)
        boxes = np.asarray(_to_pixels(corners[is_face], *image.shape[:2]))
        order = np.argsort(-scores[is_face], kind="stable")[:MAX_DETECTIONS]
        return Detections(boxes[order].astype(np.float32), scores[is_face][order].astype(np.float32))

    return lambda images: [detect_one(image) for image in images]


def _pre_nms(graph: GraphDef, tensors: dict[str, str | None], face: int, side: int, path: Path) -> PreNmsFn:
    """Return a function of float32 (n, h, w, 3) in [0, 1] to boxes (n, a, 4) and differentiable scores (n, a).

    A graph without outputs before suppression has those after it, which have a gradient, too.
    """
    cast = tensors["floats"] or float_input_name(graph, str(tensors["input"]).partition(":")[0], path)
    raw = tensors["raw_boxes"] is not None and tensors["raw_scores"] is not None
    outputs = [str(tensors[f"raw_{role}" if raw else role]) for role in ("boxes", "scores")]

    @cache
    def is_differentiable(height: int, width: int) -> bool:
        with tf.Graph().as_default():
            image = tf.compat.v1.placeholder(tf.float32, (1, side or height, side or width, 3))
            _, scores = _import(graph, path, cast, image, outputs)
            try:
                return tf.gradients(scores, image)[0] is not None
            except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
                return False  # loops of TensorFlow 1 lose theirs when frozen

    @tf.function(autograph=False)  # a graph can only be imported into a graph
    def pre_nms(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = images.shape[1:3]
        if not is_differentiable(height, width):
            raise UserError(f"{path}: {outputs[1]} has no gradient; set the options raw_boxes, raw_scores and floats")

        def run_one(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            resized = tf.image.resize(image, (side, side)) if side else image
            spec = tf.TensorSpec((1, *resized.shape), tf.float32)
            call = tf.compat.v1.wrap_function(lambda value: _import(graph, path, cast, value, outputs), [spec])
            corners, scores = call(resized[tf.newaxis] * 255.0)
            return _to_pixels(tf.reshape(corners, (-1, 4)), height, width), _face_scores(scores, face, outputs[1], path)

        # One by one: published graphs take a batch of one, whatever their placeholder says.
        return tf.map_fn(run_one, images, fn_output_signature=(tf.float32, tf.float32))

    return pre_nms


def _face_scores(scores: tf.Tensor, face: int, name: str, path: Path) -> tf.Tensor:
    """Return the scores (a,) of faces out of (1, a) or (1, a, classes)."""
    if scores.shape.rank not in (2, 3):
        raise UserError(f"{path}: {name} is not (n, a) or (n, a, classes); name other raw_scores")
    return scores[0] if scores.shape.rank == 2 else scores[0, :, : face + 1][:, -1]


def _to_pixels(corners: Any, height: int, width: int) -> Any:
    """Convert [y1, x1, y2, x2] in [0, 1] to [x, y, w, h] in pixels, (k, 4)."""
    stack = tf.stack if tf.is_tensor(corners) else np.stack
    y1, x1, y2, x2 = (corners[:, place] for place in range(4))
    return stack([x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height], -1)
