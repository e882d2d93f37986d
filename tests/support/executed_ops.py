"""Which operations TensorFlow runs, after Grappler has rewritten the graphs of functions."""

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.eager import context

# Kernels that begin with the processor's own approximations: visor/core/portable_ops.py.
APPROXIMATE = {"Inv", "InvGrad", "Reciprocal", "ReciprocalGrad", "Rsqrt", "RsqrtGrad", "FusedBatchNormV3"}


@contextmanager
def executed_ops() -> Iterator[set[str]]:
    """Collect, until the end of the block, the names of operations in functions that are called in it."""
    found: set[str] = set()
    context.context().enable_run_metadata()
    try:
        yield found
        metadata = context.context().export_run_metadata()
    finally:
        context.context().disable_run_metadata()
    for graph in (graph for called in metadata.function_graphs for graph in called.partition_graphs):
        functions = [function.node_def for function in graph.library.function]  # those that are not inlined
        found |= {node.op for nodes in (graph.node, *functions) for node in nodes}
