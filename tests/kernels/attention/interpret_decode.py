"""Run the decode kernels in Triton's interpreter on the CPU; prints a JSON line per problem with its error ratios and faults.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime import interpreter

from kerneldyno.kernels.attention._decode_splits import tile
from kerneldyno.kernels.attention._decode_triton import decode
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import ITEM_BYTES

LIMITS = {"float32": (8, 3), "float16": (2, 1.5), "bfloat16": (2, 1.5)}
"""Maximum and root mean square of the error, in those of the plain formula."""

GUARD = 4096
"""Items before and after each tensor that a load must not touch."""

forbidden: list[tuple[int, int]] = []
"""Addresses, from and to, that the loads of the present problem must not touch."""

CASES: list[tuple[int, dict[str, Any]]] = [  # splits, problem
    (1, {"q_len": 1, "kv_len": 1}),
    (3, {"q_len": 1, "kv_len": 1, "kv_heads": 1}),
    (1, {"q_len": 1, "kv_len": 90, "causal": True}),
    (2, {"q_len": 1, "kv_len": 300, "kv_heads": 1, "padding": True, "batch": 3}),
    (7, {"q_len": 1, "kv_len": 1000, "kv_heads": 1, "heads": 7, "head_dim": 128}),
    (3, {"q_len": 1, "kv_len": 1000, "kv_heads": 1, "window": 100, "causal": True, "ragged": True, "batch": 3}),
    (2, {"q_len": 2, "kv_len": 300, "heads": 2, "kv_heads": 1, "causal": True, "softcap": 30.0, "head_dim": 80}),
    (3, {"q_len": 4, "kv_len": 300, "kv_heads": 1, "causal": True, "ragged": True, "batch": 2, "head_dim": 96}),
    (2, {"q_len": 5, "kv_len": 90, "heads": 7, "kv_heads": 1, "causal": True, "window": 7}),
    (3, {"q_len": 16, "kv_len": 300, "heads": 2, "causal": True, "padding": True, "batch": 2}),
    (2, {"q_len": 16, "kv_len": 300, "window": 40, "heads": 8, "kv_heads": 2, "head_dim": 32}),
    (1, {"q_len": 40, "kv_len": 90, "heads": 2, "kv_heads": 1, "causal": True}),
    (2, {"q_len": 40, "kv_len": 300, "kv_heads": 1, "causal": True, "window": 200, "softcap": 5.0}),
    (3, {"q_len": 40, "kv_len": 300, "heads": 7, "kv_heads": 1, "bias": "additive", "head_dim": 17}),
    (2, {"q_len": 40, "kv_len": 300, "heads": 2, "window": 30, "bias": "boolean"}),
    (2, {"q_len": 40, "kv_len": 33, "heads": 2, "causal": True, "padding": True, "batch": 2}),  # queries that see no key
    (1, {"q_len": 4, "kv_len": 40, "heads": 2, "window": 2**31 - 1}),
    (3, {"q_len": 20, "kv_len": 10, "heads": 2, "window": 3}),  # likewise, and more splits than tiles
    (2, {"q_len": 5, "kv_len": 100, "padding": True, "window": 3, "batch": 2}),  # likewise, by window and length
    (3, {"q_len": 2, "kv_len": 300, "heads": 8, "kv_heads": 2, "bias": "additive", "softcap": 20.0}),
    (2, {"q_len": 4, "kv_len": 300, "kv_heads": 1, "bias": "boolean", "causal": True}),
    (2, {"q_len": 1, "kv_len": 300, "heads": 2, "head_dim": 256}),
    (3, {"q_len": 1, "kv_len": 90, "kv_heads": 1, "page_size": 1, "batch": 2, "ragged": True}),
    (3, {"q_len": 2, "kv_len": 300, "kv_heads": 1, "page_size": 16, "causal": True, "ragged": True, "batch": 3}),
    (2, {"q_len": 1, "kv_len": 300, "heads": 7, "kv_heads": 1, "page_size": 24, "ragged": True, "batch": 2, "head_dim": 80}),
    (7, {"q_len": 1, "kv_len": 1000, "kv_heads": 1, "page_size": 64, "head_dim": 128, "window": 300, "causal": True}),
    (3, {"q_len": 5, "kv_len": 1000, "kv_heads": 1, "page_size": 256, "head_dim": 128, "padding": True, "batch": 2, "causal": True}),
    (1, {"q_len": 40, "kv_len": 300, "kv_heads": 1, "page_size": 64, "causal": True, "ragged": True, "batch": 2}),
    (2, {"q_len": 40, "kv_len": 300, "kv_heads": 2, "page_size": 16, "causal": True, "window": 50, "softcap": 10.0}),
    (2, {"q_len": 16, "kv_len": 90, "page_size": 1000, "bias": "additive", "head_dim": 16}),
    (128, {"q_len": 1, "kv_len": 300, "heads": 1, "page_size": 24, "window": 90, "ragged": True}),
]


def truth(problem: Attention, inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(output, logarithms of the sums) in float64, and bool [batch, q_len, kv_len]: the keys that positions and lengths let be seen."""
    lengths = torch.full((problem.batch,), problem.kv_len) if inputs.lengths is None else inputs.lengths.long()
    at = torch.arange(problem.q_len) + ((lengths[:, None] if problem.ragged else problem.kv_len) - problem.q_len)
    at = at.expand(problem.batch, -1)[:, :, None]
    key = torch.arange(problem.kv_len)
    seen = (key < lengths[:, None, None]).expand(-1, problem.q_len, -1)
    if problem.causal:
        seen = seen & (key <= at)
    if problem.window:
        seen = seen & (key > at - problem.window) & (key < at + problem.window)
    dense = problem.dense(inputs)
    k, v = (tensor.double().repeat_interleave(problem.group, 1) for tensor in (dense.k, dense.v))
    scores = torch.einsum("bhtd,bhsd->bhts", inputs.q.double(), k) / problem.head_dim**0.5
    if problem.softcap:
        scores = problem.softcap * torch.tanh(scores / problem.softcap)
    if inputs.bias is not None:
        scores = scores + inputs.bias.double()
    visible = seen[:, None] if inputs.mask is None else seen[:, None] & inputs.mask
    scores = scores.masked_fill(~visible, float("-inf"))
    sums = scores.logsumexp(-1)
    weights = (scores - sums.nan_to_num(neginf=0.0)[..., None]).exp()
    return weights @ v, sums, seen


def poisoned(problem: Attention, inputs: AttentionInputs, seen: torch.Tensor) -> AttentionInputs:
    """The inputs with NaN in every key and value that no query sees, and table entries far outside of the pool past each row."""
    used = seen.any(1)
    if inputs.block_table is None:
        hidden = ~used[:, None, :, None]
        return inputs.replace(k=inputs.k.masked_fill(hidden, float("nan")), v=inputs.v.masked_fill(hidden, float("nan")))
    size = problem.page_size
    padded = torch.nn.functional.pad(used, (0, problem.pages * size - problem.kv_len)).view(problem.batch, problem.pages, size)
    needed = padded.any(-1)
    owned = torch.zeros(inputs.k.shape[0], size, dtype=torch.bool)
    owned[inputs.block_table[needed].long()] = padded[needed]
    k, v = (pool.masked_fill(~owned[:, None, :, None], float("nan")) for pool in (inputs.k, inputs.v))
    # a tile may look up the pages before a window that begins in it, but no page past the last
    last = padded.any(-1).flip(1).int().cumsum(1).flip(1) > 0
    return inputs.replace(k=k, v=v, block_table=inputs.block_table.masked_fill(~last, 2**30))


def strided(inputs: AttentionInputs) -> AttentionInputs:
    """Sequence before heads in q, head_dim first in k, values of one head for all, room between the rows of the table."""
    q = inputs.q.transpose(1, 2).contiguous().transpose(1, 2)
    table = inputs.block_table if inputs.block_table is None else inputs.block_table.mT.contiguous().mT
    return inputs.replace(q=q, k=inputs.k.mT.contiguous().mT, v=inputs.v[:, :1].expand(inputs.v.shape), block_table=table)


def guarded(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides, between two stretches of memory that no kernel may read."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    room = torch.zeros(size + 2 * GUARD, dtype=tensor.dtype)
    copy = room.as_strided(tensor.shape, tensor.stride(), GUARD + tensor.storage_offset())
    room[GUARD : GUARD + size] = tensor.as_strided((size,), (1,), 0)
    start, end = room.data_ptr(), room.data_ptr() + room.nbytes
    forbidden.extend([(start, start + GUARD * room.itemsize), (end - GUARD * room.itemsize, end)])
    return copy


def watch_loads() -> None:
    """Let the interpreter raise where a load reads forbidden memory."""
    load = interpreter.InterpreterBuilder.create_masked_load

    def watched(self: Any, pointers: Any, mask: Any, *others: Any, **named: Any) -> Any:
        places = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].astype(np.uint64)
        for start, end in forbidden:
            if ((places >= start) & (places < end)).any():
                raise IndexError("a load reads outside of its tensor")
        return load(self, pointers, mask, *others, **named)

    interpreter.InterpreterBuilder.create_masked_load = watched


def ratio(error: torch.Tensor, yardstick: torch.Tensor, right: torch.Tensor, floor: float) -> tuple[float, float]:
    """Maximum and root mean square of the error, in those of the yardstick; no finer than the numbers' own spacing."""
    maximum = torch.maximum(yardstick.abs().max(), floor * right.abs().max()).clamp_min(1e-300)
    rms = torch.maximum(yardstick.square().mean().sqrt(), floor * right.square().mean().sqrt()).clamp_min(1e-300)
    return float(error.abs().max() / maximum), float(error.square().mean().sqrt() / rms)


def facts(problem: Attention, inputs: AttentionInputs, splits: int, *, once: bool = False, name: str = "") -> dict[str, Any]:
    """What the kernels make of a problem; `once`: in one kernel."""
    right, sums, seen = truth(problem, inputs)
    forbidden.clear()
    given_ = poisoned(problem, inputs, seen).map(guarded)
    before = given_.map(torch.clone)
    biased = problem.bias != "none"
    cut = tile(problem.q_len * problem.group, problem.head_dim, ITEM_BYTES[problem.dtype], (9, 0), biased=biased)
    lse = torch.full(inputs.q.shape[:3], float("nan"))
    blocks = -(-problem.q_len * problem.group // cut.rows)
    arrivals = torch.zeros(problem.batch * problem.kv_heads * blocks, dtype=torch.int32) if once else None
    found = decode(
        given_.q, given_.k, given_.v, scale=problem.scale, causal=problem.causal, ragged=problem.ragged, lengths=given_.lengths,
        block_table=given_.block_table, kv_len=problem.kv_len, window=problem.window, softcap=problem.softcap, bias=given_.bias,
        mask=given_.mask, cut=cut, splits=splits, lse=lse, arrivals=arrivals,
    )  # fmt: skip
    seen_faults = judged(problem, inputs, found, lse, (right, sums), (given_, before))
    if arrivals is not None and arrivals.any():
        seen_faults["faults"].append("arrivals left")
    return {"label": f"{problem.label} {name} splits {splits}", **seen_faults}


def judged(
    problem: Attention,
    inputs: AttentionInputs,
    found: torch.Tensor,
    lse: torch.Tensor,
    true: tuple[torch.Tensor, torch.Tensor],
    given_: tuple[AttentionInputs, AttentionInputs],
) -> dict[str, Any]:
    """Error ratios and faults of an output and its log-sum-exp; `true`: both in float64, `given_`: what was read, after and before."""
    right, sums = true
    blind = sums == float("-inf")
    # the plain formula divides by 0 where a bias hides everything
    naive = problem.naive(inputs).double().masked_fill(blind[..., None], 0)
    maximum, rms = ratio(found.double() - right, naive - right, right, torch.finfo(found.dtype).eps / 2)
    limit = LIMITS[problem.dtype]
    after, before = (held.tensors() for held in given_)
    checks = {
        "not finite": bool(found.isfinite().all()),
        "wrong": maximum <= limit[0] and rms <= limit[1],
        "blind rows not zero": bool((found[blind] == 0).all()),
        "blind rows not -inf": bool((lse[blind] == float("-inf")).all()),
        "wrong lse": bool(((lse.double() - sums)[~blind].abs() <= 2e-5 * sums[~blind].abs().clamp_min(1)).all()),
        "inputs changed": all(same(tensor, before[name]) for name, tensor in after.items()),
    }
    return {"max": maximum, "rms": rms, "blind": int(blind.sum()), "faults": [what for what, well in checks.items() if not well]}


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one, other) if not one.is_floating_point() else ((one == other) | (one.isnan() & other.isnan())).all())


def told(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Attention, int]:
    kv_len = draw(st.integers(1, 200))
    kv_heads = draw(st.integers(1, 2))
    lengths = draw(st.sampled_from(("", "padding", "ragged")))
    problem = Attention(
        batch=draw(st.integers(1, 2)), kv_heads=kv_heads, heads=kv_heads * draw(st.integers(1, 5)), kv_len=kv_len,
        q_len=draw(st.integers(1, min(kv_len, 24) if lengths == "ragged" else 24)), head_dim=draw(st.integers(16, 70)),
        causal=draw(st.booleans()), padding=lengths == "padding", ragged=lengths == "ragged",
        window=draw(st.just(0) | st.integers(1, 220)), softcap=draw(st.sampled_from((0.0, 0.5, 30.0))),
        page_size=draw(st.just(0) | st.integers(1, 70)), bias=draw(st.sampled_from(("none", "additive", "boolean"))),
        dtype=draw(st.sampled_from(("float32", "float16"))),
    )  # fmt: skip
    return problem, draw(st.integers(1, 9))


@settings(max_examples=25, derandomize=True, database=None, deadline=None)
@given(problems())
def random(drawn: tuple[Attention, int]) -> None:
    problem, splits = drawn
    found = facts(problem, problem.inputs(1), splits, name="random")
    assert not found["faults"], found
    told(found)


def specials(dtype: str) -> None:
    """Strides, large scores, hidden rows of a bias, and one kernel instead of two."""
    problem = Attention(heads=8, kv_heads=2, q_len=3, kv_len=150, head_dim=32, causal=True, dtype=dtype)
    told(facts(problem, strided(problem.inputs(0)), 2, name="strided"))
    large = problem.inputs(0)
    # numbers whose exponentials overflow unless the maximum is subtracted
    told(facts(problem, large.replace(q=large.q * 30), 2, name="large"))
    paged = Attention(heads=4, kv_heads=2, q_len=2, kv_len=150, head_dim=32, page_size=16, batch=2, softcap=3.0, dtype=dtype)
    inputs = strided(paged.inputs(0))
    # tanh of large scores is 1, not an overflow
    told(facts(paged, inputs.replace(q=inputs.q * 100), 3, name="strided large"))
    biased = Attention(heads=4, kv_heads=2, q_len=40, kv_len=150, head_dim=32, bias="additive", batch=2, dtype=dtype)
    inputs = biased.inputs(0)
    bias = torch.randn(2, 1, 40, 1, dtype=inputs.q.dtype).repeat(1, 1, 1, 150)
    bias[:, :, 3] = float("-inf")
    bias[:, :, 7:30, :140] = float("-inf")
    told(facts(biased, inputs.replace(bias=bias), 2, name="bias -inf"))
    told(facts(biased, inputs.replace(bias=bias[..., :1].expand(2, 4, 40, 150)), 1, name="bias broadcast"))
    masked = Attention(heads=4, kv_heads=2, q_len=5, kv_len=150, head_dim=32, bias="boolean", batch=2, dtype=dtype)
    mask = torch.arange(150)[None, None, None] % 3 == torch.arange(2)[:, None, None, None]
    told(facts(masked, masked.inputs(0).replace(mask=mask), 2, name="mask broadcast"))
    ragged = Attention(heads=8, kv_heads=2, q_len=3, kv_len=300, head_dim=80, ragged=True, causal=True, batch=3, dtype=dtype)
    told(facts(ragged, ragged.inputs(0), 4, once=True, name="one kernel"))
    prefill = Attention(heads=4, kv_heads=2, q_len=40, kv_len=90, head_dim=32, causal=True, page_size=16, batch=2, dtype=dtype)
    told(facts(prefill, prefill.inputs(0), 3, once=True, name="one kernel"))


def beyond_32_bit(page_size: int) -> None:
    """Pages that lie more than 2^31 items into their pool. What nobody touches of it takes no memory."""
    problem = Attention(heads=2, kv_heads=1, q_len=1, kv_len=100, head_dim=64, page_size=page_size, dtype="float16")
    forbidden.clear()
    inputs = problem.inputs(0)
    few, pages = len(inputs.k), 2**31 // (page_size * 64) + 1
    pool = torch.empty(pages + 2 * few, 1, page_size, 64, dtype=torch.float16)
    pool[pages : pages + few], pool[pages + few :] = inputs.k, inputs.v
    cut = tile(2, 64, 2, (9, 0))
    table = (inputs.block_table + pages).int()
    found = decode(inputs.q, pool, pool[few:], scale=problem.scale, kv_len=100, block_table=table, cut=cut, splits=1)
    near = decode(inputs.q, inputs.k, inputs.v, scale=problem.scale, kv_len=100, block_table=inputs.block_table, cut=cut, splits=1)
    told({"label": f"pool of more than 2^31 items, pages of {page_size}", "faults": [] if torch.equal(found, near) else ["wrong"]})


def mend_bfloat16() -> None:
    """Make the interpreter compute with bfloat16: it multiplies the bare words in dot, and cuts instead of rounding."""
    convert = interpreter._convert_float

    def converted(data: np.ndarray, given_: Any, wanted: Any, mode: Any) -> np.ndarray:
        if (given_, wanted) == (tl.float32, tl.bfloat16):
            return torch.from_numpy(np.ascontiguousarray(data)).bfloat16().view(torch.uint16).numpy()
        if (given_, wanted) == (tl.bfloat16, tl.float32):
            return (data.astype(np.uint32) << 16).view(np.float32)
        return convert(data, given_, wanted, mode)

    def dot(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: Any) -> Any:
        left, right = (converted(x.data, tl.bfloat16, tl.float32, None) if x.dtype.scalar == tl.bfloat16 else x.data for x in (a, b))
        return interpreter.TensorHandle(np.matmul(left, right, dtype=d.data.dtype) + d.data, d.dtype.scalar)

    interpreter._convert_float = converted
    interpreter.InterpreterBuilder.create_dot = dot


if __name__ == "__main__":
    watch_loads()
    for dtype in ("float32", "float16"):
        for splits, case in CASES:
            problem = Attention(**{"heads": 4, "dtype": dtype, **case})
            told(facts(problem, problem.inputs(0), splits))
        specials(dtype)
    random()
    beyond_32_bit(64)
    beyond_32_bit(48)
    mend_bfloat16()
    for splits, case in (CASES[0], CASES[7], CASES[12], CASES[23]):
        problem = Attention(**{"heads": 4, "dtype": "bfloat16", **case})
        told(facts(problem, problem.inputs(0), splits))
