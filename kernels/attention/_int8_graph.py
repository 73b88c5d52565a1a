"""The ONNX graph of attention with 8-bit scores on a CPU: q and k are quantized within it, their products are integers."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from .._onnxgraph import Graph
from .._onnxsession import model, session, value
from ..registry import Run, Setup
from ._int8_tiles import LEAST, STEPS
from ._masks import blind, sight
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._onnxsession import Written

FEWER_STEPS = 63
"""Of queries, where x86 has no 8-bit instructions (VNNI): 2 · 127 · 127 still fits the 16 bit in which it adds pairs of products."""
SCORES = 2**19
"""Scores that are worked on at once, about, so that the cache of a CPU holds them from the product to the weighted sum."""
ROWS = 128
"""Queries of a head that are worked on at once where there is room for those of several heads; each block of them reads all keys."""
LEAST_ROWS = 32
MOST_BLOCKS = 256
"""Of queries, in a graph: it takes ONNX Runtime seconds to load one that is much larger."""


def attend(problem: Attention, setup: Setup) -> Run:
    """inputs -> output, by one ONNX graph that is called for some heads after the others."""
    visible = sight(problem, setup.device)
    clear = blind(problem)  # ONNX's softmax gives NaN for a query that sees no key
    constant_mask = problem.triangular and problem.features == {"causal"} and not clear
    fixed = additive(problem.position_mask(setup.device), None) if constant_mask else None
    one = part(problem)
    calls = problem.batch * problem.kv_heads // one.kv_heads
    names = ["q", "k", "v"] + (["mask"] if problem.masked else [])
    loaded = session(graph(one, query_steps()), setup, names, "y")

    def run(inputs: AttentionInputs) -> torch.Tensor:
        q, k, v = (
            tensor.contiguous().view(calls, 1, heads, *tensor.shape[2:])
            for tensor, heads in ((inputs.q, one.heads), (inputs.k, one.kv_heads), (inputs.v, one.kv_heads))
        )
        mask = visible(inputs) if fixed is None else None
        added = (additive(mask, inputs.bias) if fixed is None else fixed) if problem.masked else None
        output = torch.empty(q.shape, dtype=q.dtype)
        for call in range(calls):
            feeds = {"q": q[call], "k": k[call], "v": v[call]}
            if added is not None:
                feeds["mask"] = _for_heads(added, problem, call * one.heads, one.heads)
            loaded.run(feeds, output[call])
        output = output.view(inputs.q.shape)
        if clear and mask is not None:
            output.masked_fill_(~mask.any(-1, keepdim=True), 0)
        return output

    return run


def part(problem: Attention) -> Attention:
    """Its heads that are worked on at once, as a problem of one batch row: of all rows, unless what hides keys differs between them."""
    alike = problem.bias == "none" and not (problem.padding or problem.ragged)
    heads = problem.kv_heads * (problem.batch if alike else 1)
    fitting = SCORES // (problem.group * min(ROWS, problem.q_len) * problem.kv_len)
    together = max(count for count in range(1, heads + 1) if heads % count == 0 and count <= max(1, fitting))
    return replace(problem, batch=1, kv_heads=together, heads=together * problem.group)


def _for_heads(added: torch.Tensor, problem: Attention, first: int, count: int) -> torch.Tensor:
    """[1, 1 or count, 1 or q_len, kv_len]: of what is added to scores the part of so many heads, counted through all batch rows."""
    row, head = divmod(first, problem.heads)
    of_row = added[row : row + 1] if added.shape[0] > 1 else added
    of_heads = of_row[:, head : head + count] if added.shape[1] > 1 else of_row
    return of_heads.expand(-1, -1, problem.q_len, -1) if by_rows(problem) else of_heads


def additive(visible: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """float32, added to scores: the bias, and -inf where a key is not seen."""
    if visible is None:
        assert bias is not None
        return bias.float()
    start = torch.zeros(visible.shape) if bias is None else bias.float()
    return start.masked_fill(~visible, -torch.inf)


def by_rows(problem: Attention) -> bool:
    """Whether what is added to scores differs from query to query."""
    return problem.positional or problem.bias != "none"


@functools.cache
def query_steps() -> int:
    """Steps that the largest number of a query comes to here: STEPS where u8 × s8 products are exact, else FEWER_STEPS."""
    from onnx import helper

    inputs = [value("a", "uint8", [16, 64]), value("b", "int8", [64, 16])]
    product = model([helper.make_node("MatMulInteger", ["a", "b"], ["c"])], inputs, value("c", "int32", [16, 16]))
    largest = {"a": torch.full((16, 64), 255, dtype=torch.uint8), "b": torch.full((64, 16), STEPS, dtype=torch.int8)}
    loaded = session(product, Setup(torch.device("cpu")), ["a", "b"], "c")
    found = loaded.run(largest, torch.empty(16, 16, dtype=torch.int32))
    return STEPS if bool((found == 64 * 255 * STEPS).all()) else FEWER_STEPS


def blocks(problem: Attention) -> list[tuple[int, int, int]]:
    """(first query, behind the last, behind the last key that they see) of the blocks of queries that are worked on one after another."""
    rows = max(LEAST_ROWS, SCORES // (problem.batch * problem.heads * problem.kv_len), -(-problem.q_len // MOST_BLOCKS))
    past = problem.kv_len - problem.q_len
    found = []
    for start in range(0, problem.q_len, rows):
        stop = min(start + rows, problem.q_len)
        shortened = problem.triangular and not problem.ragged
        found.append((start, stop, max(1, min(problem.kv_len, stop + past)) if shortened else problem.kv_len))
    return found


def graph(problem: Attention, steps: int) -> Written:
    """q, k, v [and mask] -> y, in blocks of queries; those of all heads of a group stand below one another as rows of one matrix.

    The integer product is u8 × s8, which 8-bit instructions of x86 take; zero points undo the shift that makes queries unsigned.
    """
    g = Graph()
    heads = (problem.batch, problem.heads)
    q, q_step = _quantized(g, g.cast("q", "float32"), steps)
    unsigned = g.cast(g.add("Add", q, _number(g, steps + 1.0)), "uint8")
    k = g.cast("k", "float32")
    k, k_step = _quantized(g, g.add("Sub", k, g.add("ReduceMean", k, _axes(g, 2), keepdims=1)), STEPS)
    keys = g.add("Transpose", g.cast(k, "int8"), perm=[0, 1, 3, 2])
    k_step = g.add("Transpose", k_step, perm=[0, 1, 3, 2])
    middle = g.constant(torch.tensor(steps + 1, dtype=torch.uint8))
    given = _Operands(unsigned, g.add("Mul", q_step, _number(g, problem.scale)), keys, k_step, g.cast("v", "float32"), middle)
    parts = [_block(g, problem, given, *edges) for edges in blocks(problem)]
    result = parts[0] if len(parts) == 1 else g.add("Concat", *parts, axis=2)
    shape, cache = (*heads, problem.q_len, problem.head_dim), (problem.batch, problem.kv_heads, problem.kv_len, problem.head_dim)
    inputs: dict[str, tuple[str, Sequence[Any]]] = {"q": (problem.dtype, shape), "k": (problem.dtype, cache), "v": (problem.dtype, cache)}
    if problem.masked:
        inputs["mask"] = ("float32", ("mask_batch", "mask_heads", "mask_rows", problem.kv_len))
    return g.finished(inputs, g.cast(result, problem.dtype), problem.dtype, shape)


class _Operands:
    """Names of what the blocks share."""

    def __init__(self, q: str, q_step: str, k: str, k_step: str, v: str, middle: str) -> None:
        self.q, self.q_step, self.k, self.k_step, self.v, self.middle = q, q_step, k, k_step, v, middle


def _block(g: Graph, problem: Attention, given: _Operands, start: int, stop: int, end: int) -> str:
    """Queries start … stop against the keys up to `end`: [batch, heads, stop - start, head_dim]."""
    batch, kv_heads, rows = problem.batch, problem.kv_heads, problem.group * (stop - start)
    q = g.reshaped(_slice(g, given.q, 2, start, stop, problem.q_len), batch, kv_heads, rows, problem.head_dim)
    q_step = g.reshaped(_slice(g, given.q_step, 2, start, stop, problem.q_len), batch, kv_heads, rows, 1)
    k, k_step = (_slice(g, name, 3, 0, end, problem.kv_len) for name in (given.k, given.k_step))
    v = _slice(g, given.v, 2, 0, end, problem.kv_len)
    products = g.cast(g.add("MatMulInteger", q, k, given.middle), "float32")
    scores = g.add("Mul", products, g.add("Mul", q_step, k_step))
    if problem.masked:
        mask = _slice(g, "mask", 3, 0, end, problem.kv_len)
        mask = _slice(g, mask, 2, start, stop, problem.q_len) if by_rows(problem) else mask
        scores = g.add("Add", g.reshaped(scores, batch, problem.heads, stop - start, end), mask)
        scores = g.reshaped(scores, batch, kv_heads, rows, end)
    mixed = g.add("MatMul", g.add("Softmax", scores, axis=-1), v)
    return g.reshaped(mixed, batch, problem.heads, stop - start, problem.head_dim)


def _quantized(g: Graph, x: str, steps: int) -> tuple[str, str]:
    """float32 whole numbers, and the step size of each row."""
    largest = g.add("ReduceMax", g.add("Abs", x), _axes(g, 3), keepdims=1)
    step = g.add("Mul", g.add("Max", largest, _number(g, LEAST)), _number(g, 1 / steps))
    return g.add("Round", g.add("Mul", x, g.add("Div", _number(g, 1.0), step))), step


def _slice(g: Graph, x: str, axis: int, start: int, stop: int, size: int) -> str:
    """A stretch of x along an axis of that size; all of it needs no node."""
    if (start, stop) == (0, size):
        return x
    return g.add("Slice", x, _axes(g, start), _axes(g, stop), _axes(g, axis))


def _number(g: Graph, x: float) -> str:
    return g.constant(torch.tensor(x))


def _axes(g: Graph, x: int) -> str:
    return g.constant(torch.tensor([x]))
