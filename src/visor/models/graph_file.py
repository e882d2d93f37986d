"""A frozen graph's file, checked in a child process before TensorFlow sees it: the operations that it may have."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from visor.core.errors import UserError, shorten

ADVICE = "name a frozen_inference_graph.pb"
# Operations of frozen detectors. None reaches beyond the graph, to files, other machines, code or the process; a
# deny-list would have to know every operation of every future TensorFlow.
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


def check(path: Path) -> None:
    """Check the graph in a file, which TensorFlow can then parse.

    Raises:
        UserError: It is no graph, or has an operation that is not in ``ALLOWED_OPERATIONS``.
    """
    try:
        graph = _message_class().FromString(path.read_bytes())
    except DecodeError:
        graph = None
    if graph is None or not graph.node:
        raise UserError(f"{path} is not a frozen graph; {ADVICE}")
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for node in nodes:
        if node.op not in ALLOWED_OPERATIONS:
            raise UserError(
                f"{path}: operation {shorten(node.op)} ({shorten(node.name)}) is not on the allow-list; "
                "freeze the graph for inference without it"
            )


def _message_class() -> Any:
    """Return the class of a GraphDef without importing TensorFlow itself, which takes seconds."""
    if "tensorflow" not in sys.modules:
        spec = find_spec("tensorflow")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("tensorflow")
        package = ModuleType("tensorflow")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["tensorflow"] = package
    return import_module("tensorflow.core.framework.graph_pb2").GraphDef
