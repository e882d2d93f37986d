"""A detector that comes as one file: ``frozen_inference_graph.pb`` of the TensorFlow detection zoo, and its kin.

Such a graph takes images, one at a time, uint8 that it casts to floats or floats in 0..255, and returns boxes [y1, x1,
y2, x2] in [0, 1] and scores after non-maximum suppression. An attack needs the gradient: the output of that cast is
replaced by our float images, and boxes and scores are taken from before the suppression, where the graph has them.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from visor.core.errors import UserError
from visor.core.params import DetectorParams as Settings
from visor.core.tf import tf
from visor.core.types import ImageArray
from visor.models.detectors.base import MAX_DETECTIONS, MIN_SCORE, Detections, Detector

GraphDef = Any

MAX_BYTES = 512 << 20
# All that a graph may hold: what frozen detectors are made of. None reaches beyond the graph, to files, other machines,
# code or the process; a deny-list would have to know every operation of every TensorFlow to come.
GROUPS = {
    "values": "Const Identity IdentityN NoOp Placeholder PlaceholderWithDefault StopGradient",
    "arithmetic": "Abs Add AddN AddV2 BatchMatMul BatchMatMulV2 BatchMatMulV3 Cast Ceil ClipByValue Cos Cumsum Div "
    "DivNoNan Erf Exp Expm1 Floor FloorDiv FloorMod Inv Log Log1p MatMul Maximum Minimum Mod Mul Neg Pow RealDiv "
    "Reciprocal Rint Round Rsqrt Sign Sin Sqrt Square SquaredDifference Sub",
    "reductions": "All Any ArgMax ArgMin Max Mean Min Prod Sum TopK TopKV2",
    "comparisons": "Equal Greater GreaterEqual IsFinite IsInf IsNan Less LessEqual LogicalAnd LogicalNot LogicalOr "
    "NotEqual Select SelectV2",
    "arrays": "BatchToSpaceND BroadcastArgs BroadcastTo Concat ConcatOffset ConcatV2 DepthToSpace DynamicPartition "
    "DynamicStitch EnsureShape ExpandDims Fill Gather GatherNd GatherV2 InvertPermutation LinSpace ListDiff MirrorPad "
    "OneHot OnesLike Pack Pad PadV2 ParallelDynamicStitch Range Rank Reshape Reverse ReverseV2 ScatterNd Shape ShapeN "
    "Size Slice SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice TensorScatterAdd TensorScatterUpdate "
    "Tile Transpose Unique UniqueV2 Unpack Where ZerosLike",
    "networks": "AvgPool BiasAdd BiasAddV1 Conv2D Conv2DBackpropInput DepthwiseConv2dNative Dilation2D Elu "
    "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN LeakyRelu LogSoftmax MaxPool MaxPoolV2 Relu Relu6 Selu "
    "Sigmoid Softmax Softplus Softsign Tanh",
    "images": "CombinedNonMaxSuppression CropAndResize NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3 "
    "NonMaxSuppressionV4 NonMaxSuppressionV5 NonMaxSuppressionWithOverlaps ResizeArea ResizeBicubic ResizeBilinear "
    "ResizeNearestNeighbor",
    "control": "Assert Case ControlTrigger Enter Exit If LoopCond Merge NextIteration PartitionedCall "
    "StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile Switch While",
    "loops": "TensorArrayGatherV3 TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3 TensorArrayV3 "
    "TensorArrayWriteV3 TensorListFromTensor TensorListGetItem TensorListLength TensorListReserve TensorListSetItem "
    "TensorListStack",
}
ALLOWED_OPERATIONS = frozenset(" ".join(GROUPS.values()).split())
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
    """Parse a GraphDef; nothing of it has run when this returns.

    Raises:
        UserError: missing, too large, no graph, or with an operation that is not in ``OPERATIONS``.
    """
    graph = tf.compat.v1.GraphDef()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB; name a frozen graph, not a training folder")
        graph.ParseFromString(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a frozen_inference_graph.pb") from None
    except DecodeError:
        raise UserError(f"{path} is no frozen graph: it cannot be parsed; name a frozen_inference_graph.pb") from None
    if not graph.node:
        raise UserError(f"{path} is no frozen graph: it has no nodes; name a frozen_inference_graph.pb")
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for node in nodes:
        if node.op not in ALLOWED_OPERATIONS:
            raise UserError(
                f"{path}: operation {node.op} ({node.name}) is none that detectors need; "
                "freeze the graph for inference, without it"
            )
    return graph


def tensor_name(graph: GraphDef, use: str, named: str, path: Path) -> str | None:
    """Return the name NODE:0 of the tensor for a use, None if it is one that a detector can do without."""
    nodes = {node.name for node in graph.node}
    if named:
        if named.partition(":")[0] not in nodes:
            raise UserError(f"{path} has no tensor {named!r}; correct the option {use}")
        return named if ":" in named else f"{named}:0"
    for name in TENSOR_NAMES[use]:
        if name in nodes:
            return f"{name}:0"
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    if use == "input" and len(inputs) == 1:
        return f"{inputs[0]}:0"
    if use in ("input", "boxes", "scores"):
        raise UserError(f"{path} has no tensor {TENSOR_NAMES[use][0]}; name the right one by the option {use}")
    return None


def input_type(graph: GraphDef, placeholder: str) -> tf.DType:
    """Return float32 if the placeholder of the images is of it, else uint8."""
    types = [node.attr["dtype"].type for node in graph.node if node.name == placeholder and node.op == "Placeholder"]
    return tf.float32 if types == [tf.float32.as_datatype_enum] else tf.uint8


def float_input_name(graph: GraphDef, placeholder: str, path: Path) -> str:
    """Return the float tensor behind the uint8 input, or the input if that is one of floats.

    Raises:
        UserError: there is none.
    """
    if input_type(graph, placeholder) == tf.float32:
        return f"{placeholder}:0"
    for node in graph.node:
        if node.op in ("Cast", "ToFloat") and [name.partition(":")[0] for name in node.input] == [placeholder]:
            return f"{node.name}:0"
    raise UserError(
        f"{path}: nothing casts {placeholder} to floats; name the float tensor behind it by the option floats"
    )


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
    side = _whole("input_size", options.pop("input_size", None), 0)
    unknown = sorted(options.keys() - TENSOR_NAMES.keys())
    if unknown:
        raise UserError(
            f"frozen_graph has no option {unknown[0]}; it takes path, face, side, {', '.join(TENSOR_NAMES)}"
        )
    graph = read_graph(path)
    tensors = {use: tensor_name(graph, use, str(options.get(use) or ""), path) for use in TENSOR_NAMES}
    run, candidates = _runner(graph, tensors, path), _candidates(graph, tensors, face, side, path)
    return Detector("frozen_graph", settings.threshold, _detect(run, face), candidates, None)


def _whole(name: str, value: object, default: int) -> int:
    """Return an option as a whole number."""
    if value is None:
        return default
    if not str(value).isdecimal():
        raise UserError(f"frozen_graph: option {name} is {value!r}; choose a whole number")
    return int(str(value))


def _imported(graph: GraphDef, path: Path, replaced: str, value: tf.Tensor, wanted: list[str]) -> Tensors:
    """Import the graph with one tensor replaced by ours."""
    try:
        return list(tf.graph_util.import_graph_def(graph, {replaced: value}, wanted, name="frozen"))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be run ({reason:.120}); correct the options that name tensors, or freeze it anew with a "
            "current TensorFlow"
        ) from None


def _runner(graph: GraphDef, tensors: dict[str, str | None], path: Path) -> Callable[[ImageArray], list[Any]]:
    """Return images uint8 (1, h, w, 3) → boxes (1, k, 4), scores (1, k) and, if there are any, classes (1, k)."""
    wanted = [use for use in ("boxes", "scores", "classes") if tensors[use]]
    named = {use: name for use, name in tensors.items() if name}
    kind = input_type(graph, named["input"].partition(":")[0])

    def run(images: tf.Tensor) -> Tensors:
        # All of them: one that is not there is to be missed now, not when the first gradient is wanted.
        found = _imported(graph, path, named["input"], tf.cast(images, kind), list(named.values()))
        own = dict(zip(named, found, strict=True))
        return [own[use] for use in wanted]

    # No tf.function: that adds an order of execution, which the loops of TensorFlow 1 cannot have.
    call = tf.compat.v1.wrap_function(run, [tf.TensorSpec((1, None, None, 3), tf.uint8)])

    def of_any_size(images: ImageArray) -> list[Any]:
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


def _detect(run: Callable[[ImageArray], list[Any]], face: int) -> Callable[[ImageArray], list[Detections]]:
    """Return ``detect``: the graph's own outputs, image by image, its faces alone."""

    def one(image: ImageArray) -> Detections:
        corners, scores, *classes = (np.squeeze(found, 0) for found in run(image[np.newaxis]))
        kept = (scores >= MIN_SCORE) & ((classes[0] == face) if classes else True)
        boxes = np.asarray(_pixels(corners[kept], *image.shape[:2]))
        order = np.argsort(-scores[kept], kind="stable")[:MAX_DETECTIONS]
        return Detections(boxes[order].astype(np.float32), scores[kept][order].astype(np.float32))

    return lambda images: [one(image) for image in images]


def _candidates(
    graph: GraphDef, tensors: dict[str, str | None], face: int, side: int, path: Path
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return images float32 (n, h, w, 3) in [0, 1] → boxes (n, a, 4), scores (n, a); gradients go through the scores.

    The graph's own scores after the suppression serve where it has none from before it: a gather has a gradient, too.
    """
    cast = tensors["floats"] or float_input_name(graph, str(tensors["input"]).partition(":")[0], path)
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
