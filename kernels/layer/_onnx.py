"""The layer as one ONNX graph; whoever asks says how a linear layer is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._onnxgraph import Graph
from .._onnxsession import session

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..registry import Run, Setup
    from .problem import Layer, LayerInputs, LayerWeights

    Linear = Callable[[str, str], str]
    """(x, which: "q", "k", "v", "out", "1", "2") -> x through that layer, by their names in the graph."""


def graph_run(problem: Layer, setup: Setup, weights: LayerWeights, linear_of: Callable[[Graph], Linear], dtype: str) -> Run:
    """The run of the whole layer in one graph that computes in `dtype`; matrices are [tokens, features]."""
    masked = bool(problem.features - {"causal"})
    g = Graph()
    linear = linear_of(g)
    x = "x" if dtype == problem.dtype else g.cast("x", dtype)
    z = _attended(problem, g, x, linear, masked=masked)
    z = g.layer_norm(g.add("Add", x, z), weights.norm1_weight, weights.norm1_bias, problem.norm_epsilon)
    y = g.add("Add", z, linear(g.add("Relu", linear(z, "1")), "2"))
    y = g.layer_norm(y, weights.norm2_weight, weights.norm2_bias, problem.norm_epsilon)
    y = y if dtype == problem.dtype else g.cast(y, problem.dtype)
    rows = (problem.tokens, problem.dim)
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {"x": (problem.dtype, rows)}
    if masked:
        inputs["mask"] = ("bool", (problem.batch if problem.padding else 1, 1, problem.seq_len, problem.seq_len))
    runtime = session(g.finished(inputs, y, problem.dtype, rows), setup, list(inputs), "y")
    causal = problem.attention.position_mask(setup.device) if problem.mask == "causal" else None

    def run(given: LayerInputs) -> torch.Tensor:
        feeds = {"x": given.x.reshape(rows)}
        if masked:
            feeds["mask"] = _mask(problem, given, causal)
        return runtime.run(feeds, torch.empty(rows, dtype=given.x.dtype, device=given.x.device)).view(given.x.shape)

    return run


def _attended(problem: Layer, g: Graph, x: str, linear: Linear, *, masked: bool) -> str:
    shape = (problem.batch, problem.seq_len, problem.dim)
    q, k, v = (g.reshaped(linear(x, which), *shape) for which in "qkv")
    attributes = {"q_num_heads": problem.heads, "kv_num_heads": problem.heads, "is_causal": int(problem.mask == "causal" and not masked)}
    attended = g.add("Attention", q, k, v, *(["mask"] if masked else []), **attributes)
    return linear(g.reshaped(attended, problem.tokens, problem.dim), "out")


def _mask(problem: Layer, inputs: LayerInputs, causal: torch.Tensor | None) -> torch.Tensor:
    """bool [batch or 1, 1, seq_len, seq_len], in full size: the node does not spread it over the queries itself."""
    mask = causal if inputs.mask is None else inputs.mask[None, None]
    if inputs.lengths is None:
        assert mask is not None
        return mask
    padding = problem.attention.padding_mask(inputs.lengths)
    return padding.expand(-1, 1, problem.seq_len, -1) if mask is None else mask & padding
