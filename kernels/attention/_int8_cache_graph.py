"""The ONNX graph of a decode step over an 8-bit cache on a CPU: both products are of integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .._onnxgraph import Graph
from .._onnxsession import session
from ..registry import Run, Setup
from ._int8_graph import additive
from ._int8_tiles import LEAST
from ._masks import blind, sight
from .problem import Attention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._onnxsession import Written
    from ._int8_cache import Cache

MIDDLE = 64
"""A digit lies between -63 and 63 and is stored with this added: pairs of products with 8-bit numbers then fit the 16 bit in which
CPUs without 8-bit instructions (VNNI) add them up."""
DIGIT = 63
"""Weights of a query, relative to the largest, in this many steps …"""
BETWEEN = 126
"""… and so many between two of them, and again between two of those: in a long context most weights are so small beside the largest
that with two digits alone many thousands of them would all become 0."""
DIGITS = 3
"""Of a weight."""
BASE = 128
"""What the upper digit of a query's number counts."""
MOST = 127 // 2 * BASE
"""Queries lie between plus and minus this."""
LONGEST = 2**31 // (127 * 127)
"""Keys whose products with weights fit the sums of 32 bit."""


def attend(problem: Attention, setup: Setup) -> Run:
    """cache -> output, by one ONNX graph."""
    visible = sight(problem, setup.device)
    clear = blind(problem)
    names = ["q", "k8", "k_steps", "v8", "v_steps"] + (["mask"] if problem.masked else [])
    loaded = session(graph(problem), setup, names, "y")

    def run(cache: Cache) -> torch.Tensor:
        feeds = {name: tensor for name, tensor in cache.tensors().items() if name in names}
        mask = visible(cache)  # type: ignore[arg-type] # it looks at lengths and mask
        if problem.masked:
            feeds["mask"] = additive(mask, None)
        output = loaded.run(feeds, torch.empty(cache.q.shape, dtype=cache.q.dtype))
        if clear and mask is not None:
            output.masked_fill_(~mask.any(-1, keepdim=True), 0)
        return output

    return run


def graph(problem: Attention) -> Written:
    """q, k8, k_steps, v8, v_steps [and mask] -> y; the query heads of a group stand below one another as rows of one matrix.

    Queries are numbers of two digits and weights of three, each a row of its own, so that keys and values are read once for all: rounded
    to 8 bit a weight would be off by several per cent in a long context, where most are far below the largest.
    """
    g = Graph()
    batch, kv_heads, rows, keys, size = problem.batch, problem.kv_heads, problem.group * problem.q_len, problem.kv_len, problem.head_dim
    middle, last = g.constant(torch.tensor(MIDDLE, dtype=torch.uint8)), g.constant(torch.tensor([3]))

    def number(x: float) -> str:
        return g.constant(torch.tensor(float(x)))

    def joined(x: str, base: int, count: int, width: int) -> str:
        """Integers of so many digits [..., count · rows, width] -> the numbers [..., rows, width]."""
        scales = torch.tensor([float(base) ** power for power in reversed(range(count))]).repeat_interleave(rows)
        digits = g.add("DequantizeLinear", x, g.constant(scales), axis=2)
        return g.add("ReduceSum", g.reshaped(digits, batch, kv_heads, count, rows, width), g.constant(torch.tensor([2])), keepdims=0)

    q = g.reshaped(g.cast("q", "float32"), batch, kv_heads, rows, size)
    largest = g.add("Max", g.add("ReduceMax", g.add("Abs", q), last, keepdims=1), number(LEAST))
    q_step = g.add("Mul", largest, number(1 / MOST))
    whole = g.add("Round", g.add("Div", q, q_step))
    upper = g.add("Round", g.add("Mul", whole, number(1 / BASE)))
    lower = g.add("Sub", whole, g.add("Mul", upper, number(BASE)))
    both = g.add("Add", g.add("Concat", upper, lower, axis=2), number(MIDDLE))
    scores = g.add("MatMulInteger", g.cast(both, "uint8"), "k8", middle)
    steps = g.add("Mul", q_step, number(problem.scale))
    found = g.add("Mul", g.add("Mul", joined(scores, BASE, 2, keys), "k_steps"), steps)
    if problem.masked:
        by_head = g.reshaped(found, batch, problem.heads, problem.q_len, keys)
        found = g.reshaped(g.add("Add", by_head, "mask"), batch, kv_heads, rows, keys)
    weights = g.add("Exp", g.add("Sub", found, g.add("ReduceMax", found, last, keepdims=1)))
    rest, digits = weights, []
    for power in range(DIGITS):
        step = number(1 / (DIGIT * BETWEEN**power))
        digits.append(g.add("QuantizeLinear", rest, step, middle))
        rest = g.add("Sub", rest, g.add("DequantizeLinear", digits[-1], step, middle))
    mixed = joined(g.add("MatMulInteger", g.add("Concat", *digits, axis=2), "v8", middle), BETWEEN, DIGITS, size + 1)
    mixed, total = g.several(2, "Split", mixed, g.constant(torch.tensor([size, 1])), axis=3)
    result = g.add("Mul", g.add("Div", mixed, total), "v_steps")
    shape = (batch, problem.heads, problem.q_len, size)
    result = g.cast(g.reshaped(result, *shape), problem.dtype)
    cache = (batch, kv_heads)
    inputs: dict[str, tuple[str, Sequence[Any]]] = {
        "q": (problem.dtype, shape),
        "k8": ("int8", (*cache, size, keys)),
        "k_steps": ("float32", (*cache, 1, keys)),
        "v8": ("int8", (*cache, keys, size + 1)),
        "v_steps": ("float32", (*cache, 1, size)),
    }
    if problem.masked:
        inputs["mask"] = ("float32", ("mask_batch", "mask_heads", "mask_rows", keys))
    return g.finished(inputs, result, problem.dtype, shape)
