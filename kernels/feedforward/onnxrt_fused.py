"""ONNX Runtime with its own operator for bias and GELU, written into the graph by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .. import _onnxsession
from .._identity import onnx_nodes
from .._onnxgraph import Graph
from ..registry import Device, Run, Setup, Trace, holding, kernel
from ._onnx import bias_activated, finished, fused_hidden, graph_run, linears, normalized, output
from .problem import EVERYTHING, FeedForward, FeedForwardWeights

if TYPE_CHECKING:
    from .._onnxsession import Written


def refusal(problem: FeedForward, device: Device) -> str | None:
    """Other activations ONNX Runtime fuses by itself, or not at all: there its graph is that of `onnxrt`."""
    if bias_activated(problem) is None:
        return (
            "takes gelu and gelu_tanh behind a bias and without a gate: the others ONNX Runtime has no better operators for than in onnxrt"
        )
    return _onnxsession.refusal(problem, device)


def ran(problem: FeedForward, setup: Setup, trace: Trace) -> str:
    """The judge of its identity."""
    return onnx_nodes(bias_activated(problem) or "", "MatMul")(problem, setup, trace)


def graph(problem: FeedForward, weights: FeedForwardWeights, dtype: str) -> Written:
    """[tokens, dim] -> [tokens, dim], computed in `dtype`, which is that of the weights."""
    g = Graph()
    linear = linears(weights, g)
    x = "x" if dtype == problem.dtype else g.cast("x", dtype)
    a = fused_hidden(g, problem, weights, normalized(g, problem, weights, x), linear)
    y = output(g, problem, x, a, linear)
    return finished(g, problem, y if dtype == problem.dtype else g.cast(y, problem.dtype))


@kernel(
    FeedForward,
    family="onnxrt",
    accepts=EVERYTHING,
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=refusal,
    identified=ran,
)
def onnxrt_fused(problem: FeedForward, setup: Setup) -> Run:
    """ONNX Runtime with bias and GELU as one of its own operators (BiasGelu, FastGelu).

    On a CPU float16 is computed in float32 between casts: there are no such operators in 16 bit.
    """
    dtype = "float32" if setup.device.type == "cpu" else problem.dtype
    weights: FeedForwardWeights = setup.weights.map(lambda tensor: tensor.to(getattr(torch, dtype)))
    return holding(graph_run(problem, setup, graph(problem, weights, dtype)), *weights.tensors().values())
