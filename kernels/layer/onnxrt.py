"""The layer in ONNX Runtime: one graph written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import onnx_nodes
from .._onnxsession import refusal
from ..feedforward import _onnx as feedforward
from ..registry import Run, Setup, kernel
from ._onnx import graph_run, projections
from .problem import EVERYTHING, Layer, LayerWeights

if TYPE_CHECKING:
    from .._onnxgraph import Graph
    from ._onnx import Linear


def linears(problem: Layer, weights: LayerWeights, g: Graph) -> Linear:
    """The layer's matrices as Gemm nodes; q, k and v apart, so that nothing needs splitting."""
    around, inside = projections(problem, weights), feedforward.linears(problem.network(weights), g)
    return lambda x, which: g.linear(x, *around[which]) if which in around else inside(x, which)


@kernel(
    Layer,
    accepts=EVERYTHING,
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=refusal,
    identified=onnx_nodes("Attention", "Gemm"),
)
def onnxrt(problem: Layer, setup: Setup) -> Run:
    """ONNX Runtime on one hand-made graph with its Attention node; spreading a padding mask over the queries is timed."""
    return graph_run(problem, setup, setup.weights, lambda g: linears(problem, setup.weights, g), problem.dtype)
