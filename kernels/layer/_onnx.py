"""The layer as one ONNX graph; whoever asks says how a linear layer is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._onnxgraph import Graph
from .._onnxsession import session
from ..feedforward._onnx import network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..registry import Run, Setup
    from .problem import Layer, LayerInputs, LayerWeights

    Linear = Callable[[str, str], str]
    """(x, which: "q", "k", "v", "out", "w1", "w2", "w_gate") -> x through that map with its bias, by their names in the graph."""
    Feed = tuple[str, tuple[int, ...], Callable[[LayerInputs], torch.Tensor]]
    """An input of a graph: its dtype, its shape, and what of a layer's inputs it is."""


def graph_run(problem: Layer, setup: Setup, weights: LayerWeights, linear_of: Callable[[Graph], Linear], dtype: str) -> Run:
    """The run of the whole layer in one graph that computes in `dtype`; matrices are [tokens, features]."""
    masked = problem.mask == "boolean" or problem.padding
    g = Graph()
    linear = linear_of(g)
    x = "x" if dtype == problem.dtype else g.cast("x", dtype)
    z = g.add("Add", x, _attended(problem, g, norm(problem, g, x, weights, 1) if problem.norm_first else x, linear, dtype, masked=masked))
    z = z if problem.norm_first else norm(problem, g, z, weights, 1)
    y = network(g, problem.feedforward, problem.network(weights), z, linear)
    y = y if problem.norm_first else norm(problem, g, y, weights, 2)
    y = y if dtype == problem.dtype else g.cast(y, problem.dtype)
    beside: dict[str, Feed] = {}
    if masked:
        shape = (problem.batch if problem.padding else 1, 1, problem.seq_len, problem.seq_len)
        causal = problem.attention.position_mask(setup.device) if problem.mask == "causal" else None
        beside["mask"] = ("bool", shape, lambda inputs: _mask(problem, inputs, causal))
    return layer_run(problem, setup, g, y, beside)


def projections(problem: Layer, weights: LayerWeights) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Matrix and bias before and after the attention: "q", "k", "v" and "out"."""
    biases = (None, None, None) if weights.b_qkv is None else torch.split(weights.b_qkv, problem.widths)
    found = dict(zip("qkv", zip(torch.split(weights.w_qkv, problem.widths), biases, strict=True), strict=True))
    return {**found, "out": (weights.w_out, weights.b_out)}


def layer_run(problem: Layer, setup: Setup, g: Graph, result: str, beside: Mapping[str, Feed]) -> Run:
    """The run of a graph whose input "x" and output `result` are [tokens, dim]; `beside` are its other inputs."""
    rows = (problem.tokens, problem.dim)
    shapes = {"x": (problem.dtype, rows), **{name: (dtype, shape) for name, (dtype, shape, _) in beside.items()}}
    runtime = session(g.finished(shapes, result, problem.dtype, rows), setup, list(shapes), "y")

    def run(inputs: LayerInputs) -> torch.Tensor:
        feeds = {"x": inputs.x.reshape(rows), **{name: feed(inputs) for name, (_, _, feed) in beside.items()}}
        return runtime.run(feeds, torch.empty(rows, dtype=inputs.x.dtype, device=inputs.x.device)).view(inputs.x.shape)

    return run


def norm_weights(weights: LayerWeights, which: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Those of the first or the second norm."""
    return (weights.norm1_weight, weights.norm1_bias) if which == 1 else (weights.norm2_weight, weights.norm2_bias)


def norm(problem: Layer, g: Graph, x: str, weights: LayerWeights, which: int) -> str:
    """x through the first or the second norm."""
    weight, bias = norm_weights(weights, which)
    if problem.norm == "rmsnorm":
        return g.rms_norm(x, weight, problem.norm_epsilon)
    return g.layer_norm(x, weight, bias, problem.norm_epsilon)


def _attended(problem: Layer, g: Graph, x: str, linear: Linear, dtype: str, *, masked: bool) -> str:
    heads = {"q": problem.heads, "k": problem.kv_heads, "v": problem.kv_heads}
    q, k, v = (g.reshaped(linear(x, which), problem.batch, problem.seq_len, number * problem.head_dim) for which, number in heads.items())
    if problem.rope_theta:
        q, k = (_turned(problem, g, tensor, heads[which], dtype) for which, tensor in (("q", q), ("k", k)))
    attributes = {"q_num_heads": problem.heads, "kv_num_heads": problem.kv_heads, "is_causal": int(problem.mask == "causal" and not masked)}
    attended = g.add("Attention", q, k, v, *(["mask"] if masked else []), **attributes)
    return linear(g.reshaped(attended, problem.tokens, problem.heads * problem.head_dim), "out")


def _turned(problem: Layer, g: Graph, x: str, heads: int, dtype: str) -> str:
    """x [batch, seq_len, heads · head_dim] turned by its positions."""
    tables = problem.rotation("cpu", getattr(torch, dtype))
    cos, sin = (g.constant(table.expand(problem.batch, -1, -1)) for table in tables)
    return g.add("RotaryEmbedding", x, cos, sin, num_heads=heads)


def _mask(problem: Layer, inputs: LayerInputs, causal: torch.Tensor | None) -> torch.Tensor:
    """bool [batch or 1, 1, seq_len, seq_len], in full size: the node does not spread it over the queries itself."""
    mask = causal if inputs.mask is None else inputs.mask[None, None]
    if inputs.lengths is None:
        assert mask is not None
        return mask
    padding = problem.attention.padding_mask(inputs.lengths)
    return padding.expand(-1, 1, problem.seq_len, -1) if mask is None else mask & padding
