"""Run the prefill kernel in Triton's interpreter on the CPU; prints a JSON line per problem with its error ratios and faults.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpret_decode import forbidden, guarded, judged, mend_bfloat16, truth, watch_loads

from kerneldyno.kernels.attention._prefill_launch import attend, described
from kerneldyno.kernels.attention._prefill_tiles import Tile, offered
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import ITEM_BYTES

SMALL = Tile(32, 32, 4, 2)
"""A tile with many edges in a small problem."""

CASES: list[dict[str, Any]] = [
    {"q_len": 1, "kv_len": 1},
    {"q_len": 127},
    {"q_len": 129, "causal": True},
    {"q_len": 300, "causal": True, "heads": 1},
    {"q_len": 257, "kv_len": 300, "heads": 1, "head_dim": 128},
    {"q_len": 129, "heads": 4, "kv_heads": 2, "causal": True, "padding": True, "batch": 3, "head_dim": 80},
    {"q_len": 40, "kv_len": 90, "causal": True, "head_dim": 112},
    {"q_len": 290, "kv_len": 40, "causal": True, "padding": True, "batch": 2, "head_dim": 16, "heads": 1},  # queries that see no key
    {"q_len": 64, "kv_len": 129, "padding": True, "batch": 2, "head_dim": 256, "heads": 1},
    {"q_len": 33, "kv_len": 64, "head_dim": 17, "heads": 6, "kv_heads": 2},
    {"q_len": 200, "causal": True, "window": 40},
    {"q_len": 200, "window": 40, "head_dim": 96, "heads": 1},
    {"q_len": 100, "window": 7, "padding": True, "batch": 3},  # likewise
    {"q_len": 150, "causal": True, "softcap": 5.0},
    {"q_len": 150, "causal": True, "softcap": 2.0, "bias": "additive", "window": 50},
    {"q_len": 150, "causal": True, "bias": "boolean", "head_dim": 40},
    {"q_len": 70, "kv_len": 200, "ragged": True, "causal": True, "batch": 3, "window": 64, "head_dim": 192, "heads": 1},
    {"q_len": 90, "kv_len": 200, "ragged": True, "batch": 2, "bias": "additive", "head_dim": 160, "heads": 1},
    {"q_len": 20, "window": 2**31 - 1},
    {"q_len": 20, "kv_len": 10, "window": 3},  # likewise
    {"q_len": 130, "kv_len": 300, "causal": True, "head_dim": 144, "kv_heads": 1, "heads": 7},
]
FORMS: dict[str, dict[str, Any]] = {
    "pointers": {},
    "tma": {"tma": True},
    "ahead": {"ahead": True},
    "ahead, tma, persistent": {"ahead": True, "tma": True, "programs": 3, "together": 3},
}
"""Ways to compute the same."""


def padded_with_junk(problem: Attention, inputs: AttentionInputs, junk: float) -> AttentionInputs:
    """The inputs with this number in the keys and values past the length of each row."""
    if inputs.lengths is None:
        return inputs
    hidden = ~problem.padding_mask(inputs.lengths).mT
    return inputs.replace(k=inputs.k.masked_fill(hidden, junk), v=inputs.v.masked_fill(hidden, junk))


def facts(problem: Attention, inputs: AttentionInputs, cut: Tile, *, ahead: bool = False, name: str = "", **form: Any) -> dict[str, Any]:
    """What the kernel makes of a problem in one of its forms."""
    right, sums, _ = truth(problem, inputs)
    forbidden.clear()
    # TMA reads whole blocks: a weight of 0 cancels every number of theirs, but not NaN
    given_ = padded_with_junk(problem, inputs, 1000.0 if form.get("tma") else float("nan"))
    given_ = given_ if form.get("tma") else given_.map(guarded)
    before = given_.map(torch.clone)
    lse = torch.full(inputs.q.shape[:3], float("nan"))
    found = attend(
        given_.q, given_.k, given_.v, scale=problem.scale, causal=problem.triangular, ragged=problem.ragged, lengths=given_.lengths,
        window=problem.window, softcap=problem.softcap, bias=given_.bias, mask=given_.mask, cut=replace(cut, ahead=ahead), lse=lse, **form,
    )  # fmt: skip
    seen_faults = judged(problem, inputs, found, lse, (right, sums), (given_, before))
    if form.get("tma") and problem.head_dim % 8 == 0 and not described(given_.k):
        seen_faults["faults"].append("no descriptors")
    return {"label": f"{problem.label} {name}", **seen_faults}


def told(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Attention, str]:
    kv_len, kv_heads = draw(st.integers(1, 150)), draw(st.integers(1, 2))
    lengths = draw(st.sampled_from(("", "padding", "ragged")))
    problem = Attention(
        batch=draw(st.integers(1, 2)), kv_heads=kv_heads, heads=kv_heads * draw(st.integers(1, 3)), kv_len=kv_len,
        q_len=draw(st.integers(1, kv_len if lengths == "ragged" else 150)), head_dim=draw(st.integers(16, 100)),
        causal=draw(st.booleans()), padding=lengths == "padding", ragged=lengths == "ragged",
        window=draw(st.just(0) | st.integers(1, 170)), softcap=draw(st.sampled_from((0.0, 0.5, 30.0))),
        bias=draw(st.sampled_from(("none", "additive", "boolean"))), dtype=draw(st.sampled_from(("float32", "float16"))),
    )  # fmt: skip
    return problem, draw(st.sampled_from(list(FORMS)))


@settings(max_examples=25, derandomize=True, database=None, deadline=None)
@given(problems())
def random(drawn: tuple[Attention, str]) -> None:
    problem, form = drawn
    found = facts(problem, problem.inputs(1), SMALL, name=f"random {form}", **FORMS[form])
    assert not found["faults"], found
    told(found)


def specials(dtype: str) -> None:
    """Strides, offsets that TMA does not take, large scores, and a bias that hides rows."""
    problem = Attention(heads=4, kv_heads=2, q_len=70, head_dim=32, causal=True, dtype=dtype)
    inputs = problem.inputs(0)
    apart = inputs.map(lambda t: t.transpose(1, 2).contiguous().transpose(1, 2))
    told(facts(problem, apart, SMALL, name="tokens before heads", tma=True))
    turned = inputs.replace(k=inputs.k.mT.contiguous().mT, v=inputs.v[:, :1].expand(inputs.v.shape))
    assert not described(turned.k)
    assert not described(turned.v)
    told({**facts(problem, turned, SMALL, name="strides that TMA does not take", ahead=True), "tma": False})
    # numbers whose exponentials overflow unless the maximum is subtracted
    told(facts(problem, inputs.replace(q=inputs.q * 30), SMALL, name="large"))
    biased = Attention(heads=4, kv_heads=2, q_len=40, kv_len=150, head_dim=32, bias="additive", batch=2, softcap=3.0, dtype=dtype)
    inputs = biased.inputs(0)
    bias = torch.randn(2, 1, 40, 1, dtype=inputs.q.dtype).repeat(1, 1, 1, 150)
    bias[:, :, 3] = float("-inf")
    bias[:, :, 7:30, :140] = float("-inf")
    told(facts(biased, inputs.replace(q=inputs.q * 100, bias=bias), SMALL, name="bias -inf", ahead=True))
    masked = Attention(heads=4, kv_heads=2, q_len=35, kv_len=150, head_dim=32, bias="boolean", batch=2, dtype=dtype)
    mask = torch.arange(150)[None, None, None] % 3 == torch.arange(2)[:, None, None, None]
    told(facts(masked, masked.inputs(0).replace(mask=mask), SMALL, name="mask broadcast"))


def through(dtype: str, cases: list[dict[str, Any]]) -> None:
    """Each case in one form after the other, and with the tile that is offered for it."""
    for number, case in enumerate(cases):
        problem = Attention(**{"heads": 2, "dtype": dtype, **case})
        form = list(FORMS)[number % len(FORMS)]
        own = offered(problem.head_dim, ITEM_BYTES[dtype], (9, 0), biased=problem.bias != "none")[number // 2 % 2]
        cut = own if number % 2 else SMALL
        told(facts(problem, problem.inputs(0), cut, name=form, **FORMS[form]))


if __name__ == "__main__":
    watch_loads()
    for dtype in ("float32", "float16"):
        through(dtype, CASES)
        specials(dtype)
    random()
    mend_bfloat16()
    through("bfloat16", [CASES[i] for i in (2, 5, 13, 16)])
