"""The layer in ONNX Runtime: one graph written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._identity import onnx_nodes
from .._onnxsession import refusal
from ..registry import Run, Setup, kernel
from ._onnx import graph_run
from .problem import ENCODER, Layer, LayerWeights

if TYPE_CHECKING:
    from .._onnxgraph import Graph
    from ._onnx import Linear


def linears(weights: LayerWeights, g: Graph) -> Linear:
    """The layer's matrices as Gemm nodes; q, k and v apart, so that nothing needs splitting."""
    in_projections = zip(weights.w_qkv.chunk(3), weights.b_qkv.chunk(3), strict=True)
    pairs = dict(zip("qkv", in_projections, strict=True))
    pairs |= {"out": (weights.w_out, weights.b_out), "1": (weights.w1, weights.b1), "2": (weights.w2, weights.b2)}
    return lambda x, which: g.linear(x, *pairs[which])


@kernel(
    Layer,
    accepts=ENCODER,
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=refusal,
    identified=onnx_nodes("Attention", "Gemm"),
)
def onnxrt(problem: Layer, setup: Setup) -> Run:
    """ONNX Runtime on one hand-made graph with its Attention node; spreading a padding mask over the queries is timed."""
    return graph_run(problem, setup, setup.weights, lambda g: linears(setup.weights, g), problem.dtype)
