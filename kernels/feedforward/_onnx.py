"""The feed-forward network as one ONNX graph; whoever asks says how a linear map is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._onnxsession import session

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from .._onnxgraph import Graph
    from ..registry import Run, Setup
    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

    Linear = Callable[[str, str], str]
    """(x, which: "w1", "w2", "w_gate") -> x through that map with its bias, by their names in the graph."""


def network(g: Graph, problem: FeedForward, weights: FeedForwardWeights, x: str, linear: Linear) -> str:
    """The result's name; x and it are [tokens, dim]."""
    h = x
    if problem.norm == "layernorm":
        h = g.layer_norm(x, weights.norm_weight, weights.norm_bias, problem.norm_epsilon)
    elif problem.norm == "rmsnorm":
        h = g.rms_norm(x, weights.norm_weight, problem.norm_epsilon)
    up = linear(h, "w1")
    a = g.add("Mul", g.activation(problem.activation, linear(h, "w_gate")), up) if problem.gated else g.activation(problem.activation, up)
    y = linear(a, "w2")
    return g.add("Add", x, y) if problem.residual else y


def finished(g: Graph, problem: FeedForward, result: str) -> onnx.ModelProto:
    """The model whose input "x" and output "y" are [tokens, dim] in the problem's dtype."""
    shape = (problem.tokens, problem.dim)
    return g.finished({"x": (problem.dtype, shape)}, result, problem.dtype, shape)


def graph_run(problem: FeedForward, setup: Setup, model: onnx.ModelProto) -> Run:
    """The run of a finished model."""
    runtime = session(model, setup, ["x"], "y")

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        rows = inputs.x.reshape(-1, problem.dim)
        out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        return runtime.run({"x": rows}, out).view(inputs.x.shape)

    return run
