"""ONNX Runtime on a graph written by hand: it fuses what it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import onnx_nodes
from .._onnxgraph import Graph
from .._onnxsession import refusal
from ..registry import Run, Setup, kernel
from ._onnx import finished, graph_run, linears, network
from .problem import EVERYTHING, FeedForward, FeedForwardWeights

if TYPE_CHECKING:
    from .._onnxsession import Written


def graph(problem: FeedForward, weights: FeedForwardWeights) -> Written:
    """[tokens, dim] -> [tokens, dim]."""
    g = Graph()
    return finished(g, problem, network(g, problem, weights, "x", linears(weights, g)))


@kernel(
    FeedForward,
    accepts=EVERYTHING,
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=refusal,
    identified=onnx_nodes("Gemm"),
)
def onnxrt(problem: FeedForward, setup: Setup) -> Run:
    """ONNX Runtime on a hand-made graph; on a CPU, float16 is computed in float32 between casts that it inserts."""
    return graph_run(problem, setup, graph(problem, setup.weights))
