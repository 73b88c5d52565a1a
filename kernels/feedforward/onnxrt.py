"""ONNX Runtime on a graph written by hand: it fuses what it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._onnxgraph import Graph
from .._onnxsession import session
from ..registry import ITEM_BYTES, Device, Run, Setup, kernel
from .problem import EVERYTHING, NORMS, FeedForward, FeedForwardInputs, FeedForwardWeights

if TYPE_CHECKING:
    import onnx

LARGEST_MODEL = 2**31 - 2**20
"""Bytes of a serialized model that protobuf takes, less room for the graph."""


def refusal(problem: FeedForward, device: Device) -> str | None:
    """The CPU provider has no bfloat16, and a serialized model no more than 2 GiB."""
    if device.kind == "cpu" and problem.dtype == "bfloat16":
        return "ONNX Runtime's CPU provider has no bfloat16 matrix product"
    size = problem.parameters * ITEM_BYTES[problem.dtype]
    return f"the weights take {size} bytes, and a serialized ONNX model at most 2 GiB" if size > LARGEST_MODEL else None


def graph(problem: FeedForward, weights: FeedForwardWeights) -> onnx.ModelProto:
    """[tokens, dim] -> [tokens, dim]."""
    g = Graph()
    h = "x"
    if problem.norm == "layernorm":
        h = g.layer_norm("x", weights.norm_weight, weights.norm_bias, NORMS["layernorm"])
    elif problem.norm == "rmsnorm":
        h = g.rms_norm("x", weights.norm_weight, NORMS["rmsnorm"])
    up = g.linear(h, weights.w1, weights.b1)
    if weights.w_gate is None:
        a = g.activation(problem.activation, up)
    else:
        a = g.add("Mul", g.activation(problem.activation, g.linear(h, weights.w_gate, weights.b_gate)), up)
    y = g.linear(a, weights.w2, weights.b2)
    if problem.residual:
        y = g.add("Add", "x", y)
    shape = (problem.tokens, problem.dim)
    return g.finished({"x": (problem.dtype, shape)}, y, problem.dtype, shape)


@kernel(FeedForward, accepts=EVERYTHING, requires=("onnx", "onnxruntime"), own_allocator=True, refuses=refusal)
def onnxrt(problem: FeedForward, setup: Setup) -> Run:
    """ONNX Runtime on a hand-made graph; on a CPU, float16 is computed in float32 between casts that it inserts."""
    runtime = session(graph(problem, setup.weights), setup, ["x"], "y")

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        rows = inputs.x.reshape(-1, problem.dim)
        out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        return runtime.run({"x": rows}, out).view(inputs.x.shape)

    return run
