"""Which operations TensorFlow runs, after Grappler has rewritten the graphs of functions."""

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.eager import context

# Kernels that begin with the processor's own approximations: visor/core/portable_ops.py.
APPROXIMATE = {"Inv", "InvGrad", "Reciprocal", "ReciprocalGrad", "Rsqrt", "RsqrtGrad", "FusedBatchNormV3"}


@contextmanager
def executed_ops() -> Iterator[set[str]]:
    """Collect, until the end of the block, the names of operations in functions that are called in it."""
    found: set[str] = set()
    context.context().enable_run_metadata()
    try:
        context.context().export_run_metadata()  # what was collected before
        yield found
        metadata = context.context().export_run_metadata()
    finally:
        context.context().disable_run_metadata()
    for graph in (graph for called in metadata.function_graphs for graph in called.partition_graphs):
        found |= {node.op for node in _reached(graph)}


def _reached(graph: GraphDef) -> Iterator[NodeDef]:
    """Yield the nodes of a graph and of the functions that it calls; its library holds those of others, too."""
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    queue = [graph.node]
    while queue:
        for node in queue.pop():
            yield node
            names = {value.func.name for value in node.attr.values() if value.HasField("func")}
            queue += [functions.pop(name) for name in names & functions.keys()]
