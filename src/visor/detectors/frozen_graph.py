"""A detector that comes as one file: ``frozen_inference_graph.pb`` of the TensorFlow detection zoo, and its kin.

Such a graph takes images, one at a time, uint8 that it casts to floats or floats in 0..255, and returns boxes [y1, x1,
y2, x2] in [0, 1] and scores after non-maximum suppression. An attack needs the gradient: the output of that cast is
replaced by our float images, and boxes and scores are taken from before the suppression, where the graph has them.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from visor.detectors import graph_file
from visor.detectors.detector import LOWEST_SCORE, MOST_FOUND, Detector, Found
from visor.errors import UserError
from visor.faces import Images
from visor.params import Detector as Settings

Tensors = list[tf.Tensor]


def load(settings: Settings, folder: Path) -> Detector:
    """Return the detector of the file that option ``path`` names; ``folder`` is not needed.

    Other options: ``input``, ``boxes``, ``scores`` and, if it has them, ``classes`` name tensors where the zoo's names
    are not found; ``raw_boxes`` (n, a, 4) and ``raw_scores`` (n, a) or (n, a, classes) those before the suppression;
    ``face``, the class that is a face, else 1. Raw scores over more than one class have the background first.
    ``floats`` names the float tensor in 0..255 that an attack replaces, else the cast behind the input; with ``side``
    it takes squares of so many pixels, as that behind the resizing loop of the zoo does.

    Raises:
        UserError: no such file, no graph, an operation that is not allowed, a tensor that has to be named, or an option
            that is unknown or no number.
    """
    options = dict(settings.options)
    path = Path(str(options.pop("path", "")))
    face = _whole("face", options.pop("face", None), 1)
    side = _whole("side", options.pop("side", None), 0)
    unknown = sorted(options.keys() - graph_file.NAMES.keys())
    if unknown:
        raise UserError(
            f"frozen_graph has no option {unknown[0]}; it takes path, face, side, {', '.join(graph_file.NAMES)}"
        )
    graph = graph_file.read_graph(path)
    tensors = {use: graph_file.tensor(graph, use, str(options.get(use) or ""), path) for use in graph_file.NAMES}
    run, candidates = _runner(graph, tensors, path), _candidates(graph, tensors, face, side, path)
    return Detector("frozen_graph", settings.threshold, _detect(run, face), candidates, None)


def _whole(name: str, value: object, default: int) -> int:
    """Return an option as a whole number."""
    if value is None:
        return default
    if not str(value).isdecimal():
        raise UserError(f"frozen_graph: option {name} is {value!r}; choose a whole number")
    return int(str(value))


def _imported(graph: graph_file.GraphDef, path: Path, replaced: str, value: tf.Tensor, wanted: list[str]) -> Tensors:
    """Import the graph with one tensor replaced by ours."""
    try:
        return list(tf.graph_util.import_graph_def(graph, {replaced: value}, wanted, name="frozen"))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be run ({reason:.120}); correct the options that name tensors, or freeze it anew with a "
            "current TensorFlow"
        ) from None


def _runner(graph: graph_file.GraphDef, tensors: dict[str, str | None], path: Path) -> Callable[[Images], list[Any]]:
    """Return images uint8 (1, h, w, 3) → boxes (1, k, 4), scores (1, k) and, if there are any, classes (1, k)."""
    wanted = [use for use in ("boxes", "scores", "classes") if tensors[use]]
    named = {use: name for use, name in tensors.items() if name}
    kind = graph_file.input_type(graph, named["input"].partition(":")[0])

    def run(images: tf.Tensor) -> Tensors:
        # All of them: one that is not there is to be missed now, not when the first gradient is wanted.
        found = _imported(graph, path, named["input"], tf.cast(images, kind), list(named.values()))
        own = dict(zip(named, found, strict=True))
        return [own[use] for use in wanted]

    # No tf.function: that adds an order of execution, which the loops of TensorFlow 1 cannot have.
    call = tf.compat.v1.wrap_function(run, [tf.TensorSpec((1, None, None, 3), tf.uint8)])

    def of_any_size(images: Images) -> list[Any]:
        try:
            return [found.numpy() for found in call(tf.constant(images))]
        except tf.errors.InvalidArgumentError as error:
            height, width = images.shape[1:3]
            *_, reason = error.message.partition("\n\t [[")[0].splitlines()  # in front of the name of the node
            raise UserError(
                f"{path} cannot take an image of {width}×{height} pixels ({reason:.120}); freeze it with an input of "
                "any size, or give it images of its own size"
            ) from None

    return of_any_size


def _detect(run: Callable[[Images], list[Any]], face: int) -> Callable[[Images], list[Found]]:
    """Return ``detect``: the graph's own outputs, image by image, its faces alone."""

    def one(image: Images) -> Found:
        corners, scores, *classes = (np.squeeze(found, 0) for found in run(image[np.newaxis]))
        kept = (scores >= LOWEST_SCORE) & ((classes[0] == face) if classes else True)
        boxes = np.asarray(_pixels(corners[kept], *image.shape[:2]))
        order = np.argsort(-scores[kept], kind="stable")[:MOST_FOUND]
        return Found(boxes[order].astype(np.float32), scores[kept][order].astype(np.float32))

    return lambda images: [one(image) for image in images]


def _candidates(
    graph: graph_file.GraphDef, tensors: dict[str, str | None], face: int, side: int, path: Path
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return images float32 (n, h, w, 3) in [0, 1] → boxes (n, a, 4), scores (n, a); gradients go through the scores.

    The graph's own scores after the suppression serve where it has none from before it: a gather has a gradient, too.
    """
    cast = tensors["floats"] or graph_file.cast(graph, str(tensors["input"]).partition(":")[0], path)
    raw = tensors["raw_boxes"] is not None and tensors["raw_scores"] is not None
    wanted = [str(tensors[f"raw_{use}" if raw else use]) for use in ("boxes", "scores")]

    @cache
    def differentiable(height: int, width: int) -> bool:
        with tf.Graph().as_default():
            image = tf.compat.v1.placeholder(tf.float32, (1, side or height, side or width, 3))
            _, scores = _imported(graph, path, cast, image, wanted)
            try:
                return tf.gradients(scores, image)[0] is not None
            except (LookupError, ValueError, NotImplementedError):  # loops of TensorFlow 1 lose theirs when frozen
                return False

    @tf.function(autograph=False)  # a graph can only be imported into a graph
    def candidates(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = images.shape[1:3]
        if not differentiable(height, width):
            raise UserError(f"{path}: {wanted[1]} has no gradient; set the options raw_boxes, raw_scores and floats")

        def one(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            resized = tf.image.resize(image, (side, side)) if side else image
            spec = tf.TensorSpec((1, *resized.shape), tf.float32)
            call = tf.compat.v1.wrap_function(lambda value: _imported(graph, path, cast, value, wanted), [spec])
            corners, scores = call(resized[tf.newaxis] * 255.0)
            return _pixels(tf.reshape(corners, (-1, 4)), height, width), _of_class(scores, face, wanted[1], path)

        # One after the other: published graphs take a batch of one, whatever their placeholder says.
        return tf.map_fn(one, images, fn_output_signature=(tf.float32, tf.float32))

    return candidates


def _of_class(scores: tf.Tensor, face: int, name: str, path: Path) -> tf.Tensor:
    """Return the scores (a,) of faces out of (1, a) or (1, a, classes)."""
    if scores.shape.rank not in (2, 3):
        raise UserError(f"{path}: {name} is not (n, a) or (n, a, classes); name other raw_scores")
    return scores[0] if scores.shape.rank == 2 else scores[0, :, : face + 1][:, -1]


def _pixels(corners: Any, height: int, width: int) -> Any:
    """[y1, x1, y2, x2] in [0, 1] → [x, y, w, h] in pixels, (k, 4)."""
    stack = tf.stack if tf.is_tensor(corners) else np.stack
    y1, x1, y2, x2 = (corners[:, place] for place in range(4))
    return stack([x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height], -1)
