"""A frozen graph as a file: read with care, and the names of its tensors."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from visor.errors import UserError

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
OPERATIONS = frozenset(" ".join(GROUPS.values()).split())
NAMES = {
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
        if node.op not in OPERATIONS:
            raise UserError(
                f"{path}: operation {node.op} ({node.name}) is none that detectors need; "
                "freeze the graph for inference, without it"
            )
    return graph


def tensor(graph: GraphDef, use: str, named: str, path: Path) -> str | None:
    """Return the name NODE:0 of the tensor for a use, None if it is one that a detector can do without."""
    nodes = {node.name for node in graph.node}
    if named:
        if named.partition(":")[0] not in nodes:
            raise UserError(f"{path} has no tensor {named!r}; correct the option {use}")
        return named if ":" in named else f"{named}:0"
    for name in NAMES[use]:
        if name in nodes:
            return f"{name}:0"
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    if use == "input" and len(inputs) == 1:
        return f"{inputs[0]}:0"
    if use in ("input", "boxes", "scores"):
        raise UserError(f"{path} has no tensor {NAMES[use][0]}; name the right one by the option {use}")
    return None


def input_type(graph: GraphDef, placeholder: str) -> tf.DType:
    """Return float32 if the placeholder of the images is of it, else uint8."""
    types = [node.attr["dtype"].type for node in graph.node if node.name == placeholder and node.op == "Placeholder"]
    return tf.float32 if types == [tf.float32.as_datatype_enum] else tf.uint8


def cast(graph: GraphDef, placeholder: str, path: Path) -> str:
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
