"""The layer in ONNX Runtime: one graph written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import ITEM_BYTES, Device, Run, Setup, kernel
from ._onnx import graph_run
from .problem import EVERYTHING, Layer, LayerWeights

if TYPE_CHECKING:
    from .._onnxgraph import Graph
    from ._onnx import Linear

LARGEST_MODEL = 2**31 - 2**20
"""Bytes of a serialized model that protobuf takes, less room for the graph."""


def refusal(problem: Layer, device: Device) -> str | None:
    """The CPU provider has no bfloat16, and a serialized model no more than 2 GiB."""
    if device.kind == "cpu" and problem.dtype == "bfloat16":
        return "ONNX Runtime's CPU provider has no bfloat16 arithmetic: choose float32 or float16"
    size = problem.parameters * ITEM_BYTES[problem.dtype]
    return f"the weights take {size} bytes, and a serialized ONNX model at most 2 GiB" if size > LARGEST_MODEL else None


def linears(weights: LayerWeights, g: Graph) -> Linear:
    """The layer's matrices as Gemm nodes; q, k and v apart, so that nothing needs splitting."""
    in_projections = zip(weights.w_qkv.chunk(3), weights.b_qkv.chunk(3), strict=True)
    pairs = dict(zip("qkv", in_projections, strict=True))
    pairs |= {"out": (weights.w_out, weights.b_out), "1": (weights.w1, weights.b1), "2": (weights.w2, weights.b2)}
    return lambda x, which: g.linear(x, *pairs[which])


@kernel(Layer, accepts=EVERYTHING, requires=("onnx", "onnxruntime"), own_allocator=True, refuses=refusal)
def onnxrt(problem: Layer, setup: Setup) -> Run:
    """ONNX Runtime on one hand-made graph with its Attention node; spreading a padding mask over the queries is timed."""
    return graph_run(problem, setup, setup.weights, lambda g: linears(setup.weights, g), problem.dtype)
