"""ONNX Runtime's GroupQueryAttention operator (com.microsoft), reading its cache where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .._identity import onnx_nodes
from .._onnxsession import constant, model, refusal, session, value
from ..registry import Device, Run, Setup, kernel
from ._onnx import blind_cleared, explicit_mask, tokens_first
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from .._onnxsession import Session

MOST_HEADS = 1024
"""The operator takes no more on a GPU: threads of a block."""


def gqa_refuses(problem: Attention, device: Device) -> str | None:
    """What the operator does not take, or means otherwise than the problem."""
    name = "GroupQueryAttention"
    if problem.head_dim % 8:
        return f"{name} takes head_dim in multiples of 8, not {problem.head_dim}"
    if problem.q_len > problem.kv_len:
        return f"{name} takes no more queries than keys, not {problem.q_len} for {problem.kv_len}"
    if problem.window and not problem.causal and problem.q_len > 1:
        return f"{name} has a window before each query only: causal"
    if problem.padding and (problem.window or (problem.triangular and problem.cross)):
        what = "a window" if problem.window else "causal"
        return f"{name} counts positions back from each row's own length, as in a ragged cache: with padding, {what} means something else"
    if device.kind == "cuda" and problem.dtype == "float32":
        return f"{name} takes float16 and bfloat16 on cuda, not float32"
    return refusal(problem, device)


@dataclass(frozen=True)
class Layout:
    """How the problem is put to the operator, which takes several sequences with several queries only when there is no past."""

    sequences: int
    """In one call; there are as many calls as it takes."""
    heads: int
    kv_heads: int


def layout(problem: Attention) -> Layout:
    """The way with the fewest calls, and without transposing queries where one saves it."""
    batch, heads, kv_heads = problem.batch, problem.heads, problem.kv_heads
    prompt = problem.q_len == problem.kv_len
    plain = problem.bias == "none"
    if prompt and plain and not problem.grouped:
        return Layout(batch * heads, 1, 1)  # each head a sequence: nothing needs transposing
    if prompt or problem.q_len == 1:
        return Layout(batch, heads, kv_heads)
    if plain and not (problem.padding or problem.ragged) and batch * heads <= MOST_HEADS:
        return Layout(1, batch * heads, batch * kv_heads)  # rows of equal length are taken for heads of one row
    return Layout(1, heads, kv_heads)


@kernel(
    Attention,
    family="onnxrt",
    accepts=("causal", "padding", "bias", "mask", "window", "softcap", "ragged"),
    requires=("onnx", "onnxruntime"),
    own_allocator=True,
    refuses=gqa_refuses,
    identified=onnx_nodes("GroupQueryAttention"),
)
def onnxrt_gqa(problem: Attention, setup: Setup) -> Run:
    """ONNX Runtime's GroupQueryAttention over a cache that it neither copies nor changes: keys and values are its past and present.

    Transposing the queries of a grouped prompt is timed. Rows of unequal length with several queries each are one call each.
    """
    # with a new token a GPU decodes by a kernel of its own (XQA): the last one is given again, equal to what stands there
    return over_cache(problem, setup, new=int(setup.device.type == "cuda" and problem.q_len == 1))


def over_cache(problem: Attention, setup: Setup, new: int) -> Run:
    """The kernel; `new`: tokens at the end of each row given apart, and written to where they stand already: 0, or 1 of a single query."""
    device, size = setup.device, problem.head_dim
    way = layout(problem)
    loaded, q_shape = _loaded(problem, setup, way, new)
    mask_of = explicit_mask(problem, device, positions=False, additive=True)
    cleared = blind_cleared(problem, device)
    rows = problem.batch * problem.heads // way.heads
    everything = torch.full((rows,), problem.kv_len - 1, dtype=torch.int32, device=device)
    nothing = torch.empty(way.sequences, 0, way.kv_heads * size, dtype=getattr(torch, problem.dtype), device=device)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        q = inputs.q.reshape(rows, *q_shape[1:])
        k, v = (tensor.reshape(rows, way.kv_heads, -1, size).contiguous() for tensor in (inputs.k, inputs.v))
        last = everything if inputs.lengths is None else (inputs.lengths - 1).repeat_interleave(rows // problem.batch)
        mask = mask_of(inputs)
        output = torch.empty(rows, problem.q_len, way.heads * size, dtype=q.dtype, device=device)
        for start in range(0, rows, way.sequences):
            now = slice(start, start + way.sequences)
            keys, values, ends = k[now], v[now], last[now]
            feeds = {"q": q[now], "k": keys, "v": values, "last": ends}
            feeds |= {f"new_{name}": _at(cache, ends) if new else nothing for name, cache in (("k", keys), ("v", values))}
            if mask is not None:
                feeds["mask"] = mask[now] if mask.shape[0] > 1 else mask
            loaded.run(feeds, output[now], {"present_k": keys, "present_v": values})
        heads = output.view(rows, problem.q_len, way.heads, size).transpose(1, 2)
        return cleared(inputs, heads.reshape(inputs.q.shape))

    return run


def _at(cache: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """[sequences, 1, heads · head_dim]: the token of each sequence at its place in a cache [sequences, heads, length, head_dim]."""
    return cache.take_along_dim(place.long().view(-1, 1, 1, 1), 2).flatten(1)[:, None]


def _loaded(problem: Attention, setup: Setup, way: Layout, new: int) -> tuple[Session, list[int]]:
    """The session, and the shape in which it takes the queries of one call."""
    from onnx import helper

    dtype, size, length = problem.dtype, problem.head_dim, problem.q_len
    shape = [way.sequences, length, way.heads * size]
    cache_shape, new_shape = [way.sequences, way.kv_heads, problem.kv_len, size], [way.sequences, new, way.kv_heads * size]
    turned = length > 1 and way.heads > 1
    q_shape = [way.sequences, way.heads, length, size] if turned else shape
    nodes, constants, query = tokens_first("q", *q_shape) if turned else ([], [], "q")
    inputs = {name: value(name, dtype, at) for name, at in (("q", q_shape), ("k", cache_shape), ("v", cache_shape))}
    inputs |= {name: value(name, dtype, new_shape) for name in ("new_k", "new_v")}
    inputs["last"] = value("last", "int32", [way.sequences])  # places of the last tokens
    if problem.bias != "none":
        inputs["mask"] = value("mask", dtype, ["mask_batch", "mask_heads", length, problem.kv_len])
    constants.append(constant("total", torch.tensor(problem.kv_len, dtype=torch.int32)))
    places = [query, "new_k", "new_v", "k", "v", "last", "total", *(["", "", "", "mask"] if "mask" in inputs else [])]
    attributes: dict[str, Any] = {"num_heads": way.heads, "kv_num_heads": way.kv_heads, "scale": problem.scale}
    attributes |= {"softcap": problem.softcap} if problem.softcap else {}
    attributes |= {"local_window_size": problem.window} if problem.window else {}
    if length > 1 and not problem.causal:  # a single query sees all keys in either mode, and the causal one has a kernel for it
        attributes["causal"] = 0
    outputs = ["output", "present_k", "present_v"]
    nodes.append(helper.make_node("GroupQueryAttention", places, outputs, domain="com.microsoft", **attributes))
    beside = [value(name, dtype, cache_shape) for name in outputs[1:]]
    graph = model(nodes, list(inputs.values()), value("output", dtype, shape), constants, beside=beside)
    return session(graph, setup, list(inputs), "output"), q_shape
