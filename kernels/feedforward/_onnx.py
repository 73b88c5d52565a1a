"""The feed-forward network as one ONNX graph; whoever asks says how a linear map is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._onnxgraph import CONTRIB
from .._onnxsession import session

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._onnxgraph import Graph
    from .._onnxsession import Written
    from ..registry import Run, Setup
    from .problem import FeedForward, FeedForwardInputs, FeedForwardWeights

    Linear = Callable[[str, str], str]
    """(x, which: "w1", "w2", "w_gate") -> x through that map with its bias, by their names in the graph."""

BIAS_ACTIVATED = {"gelu": "BiasGelu", "gelu_tanh": "FastGelu"}


def network(g: Graph, problem: FeedForward, weights: FeedForwardWeights, x: str, linear: Linear) -> str:
    """The result's name; x and it are [tokens, dim]."""
    return output(g, problem, x, hidden(g, problem, normalized(g, problem, weights, x), linear), linear)


def output(g: Graph, problem: FeedForward, x: str, a: str, linear: Linear) -> str:
    """The result of hidden activations a."""
    y = linear(a, "w2")
    return g.add("Add", x, y) if problem.residual else y


def normalized(g: Graph, problem: FeedForward, weights: FeedForwardWeights, x: str) -> str:
    """What the first matrix reads of x."""
    if problem.norm == "layernorm":
        return g.layer_norm(x, weights.norm_weight, weights.norm_bias, problem.norm_epsilon)
    if problem.norm == "rmsnorm":
        return g.rms_norm(x, weights.norm_weight, problem.norm_epsilon)
    return x


def hidden(g: Graph, problem: FeedForward, h: str, linear: Linear) -> str:
    """The hidden activations [tokens, hidden_dim]."""
    up = linear(h, "w1")
    return (
        g.add("Mul", g.activation(problem.activation, linear(h, "w_gate")), up) if problem.gated else g.activation(problem.activation, up)
    )


def bias_activated(problem: FeedForward) -> str | None:
    """ONNX Runtime's operator that adds W1's bias and activates, where it has one."""
    return BIAS_ACTIVATED.get(problem.activation) if problem.bias and not problem.gated else None


def fused_hidden(g: Graph, problem: FeedForward, weights: FeedForwardWeights, h: str, linear: Linear) -> str:
    """The hidden activations, with W1's bias and activation as one operator where there is one."""
    operator = bias_activated(problem)
    if operator is None:
        return hidden(g, problem, h, linear)
    return g.add(operator, g.product(h, weights.w1), g.constant(weights.b1), domain=CONTRIB)


def linears(weights: FeedForwardWeights, g: Graph) -> Linear:
    """The network's matrices as Gemm nodes."""
    pairs = {"w1": (weights.w1, weights.b1), "w2": (weights.w2, weights.b2)}
    if weights.w_gate is not None:
        pairs["w_gate"] = (weights.w_gate, weights.b_gate)
    return lambda x, which: g.linear(x, *pairs[which])


def finished(g: Graph, problem: FeedForward, result: str) -> Written:
    """The model whose input "x" and output "y" are [tokens, dim] in the problem's dtype."""
    shape = (problem.tokens, problem.dim)
    return g.finished({"x": (problem.dtype, shape)}, result, problem.dtype, shape)


def graph_run(problem: FeedForward, setup: Setup, model: Written) -> Run:
    """The run of a finished model."""
    runtime = session(model, setup, ["x"], "y")

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        rows = inputs.x.reshape(-1, problem.dim)
        out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        return runtime.run({"x": rows}, out).view(inputs.x.shape)

    return run
