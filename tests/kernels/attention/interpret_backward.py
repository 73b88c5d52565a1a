"""Run the backward kernels in Triton's interpreter on the CPU; prints a JSON line per problem with its error ratios and faults.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpret_decode import LIMITS, forbidden, guarded, mend_bfloat16, ratio, same, told, truth, watch_loads
from interpret_prefill import padded_with_junk
from triton._C.libtriton import ir
from triton.runtime import interpreter

from kerneldyno.kernels.attention._backward_launch import gradients
from kerneldyno.kernels.attention._backward_tiles import Tile, offered
from kerneldyno.kernels.attention._prefill_launch import attend
from kerneldyno.kernels.attention._prefill_tiles import Tile as ForwardTile
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import ITEM_BYTES

SMALL = Tile(16, 32, 4, 2)
"""A tile with many edges in a small problem."""
FORWARD = ForwardTile(32, 32, 4, 2)

CASES: list[dict[str, Any]] = [
    {"q_len": 1, "kv_len": 2},
    {"q_len": 127, "head_dim": 32},
    {"q_len": 129, "causal": True},
    {"q_len": 97, "kv_len": 130, "heads": 1, "head_dim": 128},
    {"q_len": 69, "heads": 4, "kv_heads": 2, "causal": True, "padding": True, "batch": 3, "head_dim": 80},
    {"q_len": 40, "kv_len": 90, "causal": True, "head_dim": 112},
    {"q_len": 90, "kv_len": 40, "causal": True, "padding": True, "batch": 2, "head_dim": 16, "heads": 1},  # queries that see no key
    {"q_len": 64, "kv_len": 69, "padding": True, "batch": 2, "head_dim": 256, "heads": 1},
    {"q_len": 33, "kv_len": 64, "head_dim": 17, "heads": 6, "kv_heads": 2},
    {"q_len": 130, "causal": True, "window": 40},
    {"q_len": 130, "window": 40, "head_dim": 96, "heads": 1},
    {"q_len": 100, "window": 7, "padding": True, "batch": 3, "head_dim": 32},  # likewise
    {"q_len": 90, "causal": True, "softcap": 5.0},
    {"q_len": 70, "causal": True, "softcap": 2.0, "bias": "additive", "window": 50, "head_dim": 32},
    {"q_len": 90, "causal": True, "bias": "boolean", "head_dim": 40},
    {"q_len": 70, "kv_len": 130, "ragged": True, "causal": True, "batch": 3, "window": 64, "head_dim": 192, "heads": 1},
    {"q_len": 60, "kv_len": 130, "ragged": True, "batch": 2, "bias": "additive", "head_dim": 160, "heads": 1},
    {"q_len": 20, "window": 2**31 - 1, "head_dim": 32},
    {"q_len": 20, "kv_len": 10, "window": 3, "head_dim": 32},  # likewise
    {"q_len": 4, "kv_len": 200, "causal": True, "kv_heads": 1, "heads": 7, "head_dim": 32},
]
FORMS: dict[str, dict[str, Any]] = {
    "pointers": {},
    "tma": {"tma": True, "summed_by_tma": True},
    "twice": {"twice": True, "together": (3, 3)},
    "twice, tma": {"twice": True, "tma": True},
    "shared": {"shares": None, "together": (2, 0)},
}
"""Ways to compute the same."""


def mend_sums() -> None:
    """Teach the interpreter what TMA adds in memory: of its operations on descriptors it lacks this one."""

    def added(self: Any, kind: Any, description: Any, value: Any, indices: Any) -> Any:
        assert "ADD" in str(kind).upper(), kind
        pointers, mask = description.materialize_pointers(indices)
        return self.create_atomic_rmw(ir.ATOMIC_OP.FADD, pointers, value, mask, ir.MEM_SEMANTIC.RELAXED, None)

    interpreter.InterpreterBuilder.create_descriptor_reduce = added


def right_gradients(problem: Attention, inputs: AttentionInputs) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(gradients of q, k and v by name, whether a query sees a key), by autograd through the float64 formula that knows no blocks."""
    leaves = {name: getattr(inputs, name).double().requires_grad_() for name in "qkv"}
    output, _, seen = truth(problem, inputs.replace(**leaves))
    found = torch.autograd.grad(output, list(leaves.values()), inputs.grad.double())
    return dict(zip("qkv", found, strict=True)), seen


def facts(
    problem: Attention, inputs: AttentionInputs, cut: Tile, *, twice: bool = False, shares: int | None = 1, name: str = "", **form: Any
) -> dict[str, Any]:
    """What the kernels make of a problem in one of their forms; `shares` of a group, None: each head is one."""
    right, seen = right_gradients(problem, inputs)
    naive = problem.gradients(inputs, naive=True).by_name
    forbidden.clear()
    tma = bool(form.get("tma"))
    # TMA reads whole blocks: a weight of 0 cancels every number of theirs, but not NaN
    given_ = padded_with_junk(problem, inputs, 1000.0 if tma else float("nan"))
    given_ = given_ if tma else given_.map(guarded)
    before = given_.map(torch.clone)
    meaning = {
        "scale": problem.scale, "causal": problem.triangular, "ragged": problem.ragged, "lengths": given_.lengths,
        "window": problem.window, "softcap": problem.softcap, "bias": given_.bias, "mask": given_.mask,
    }  # fmt: skip
    lse = torch.full(inputs.q.shape[:3], float("nan"))
    output = attend(given_.q, given_.k, given_.v, **meaning, cut=FORWARD, lse=lse)
    kept = lse.clone()
    found = gradients(
        given_.q, given_.k, given_.v, output, lse, given_.grad, **meaning,
        cut=replace(cut, twice=twice), shares=shares or problem.group, **form,
    )  # fmt: skip
    faults, ratios = [], {}
    # twice those of outputs, as for the gate: gradients are differences of large numbers
    maximum, rms = (2 * limit for limit in LIMITS[problem.dtype])
    # where a query sees one key alone, its weight is 1 and the gradient of its score nothing but rounding
    rounding = torch.finfo(output.dtype).eps * float(given_.grad.abs().max() * inputs.v.abs().max() * inputs.q.abs().max())
    for what, tensor in zip("qkv", found, strict=True):
        error = tensor.double() - right[what]
        yardstick = naive[what].double() - right[what]
        ratios[what] = ratio(error, torch.where(right[what] == 0, rounding, yardstick), right[what], torch.finfo(tensor.dtype).eps / 2)
        faults += [] if bool(tensor.isfinite().all()) else [f"d{what} not finite"]
        faults += [] if ratios[what][0] <= maximum and ratios[what][1] <= rms else [f"d{what} wrong"]
    if inputs.mask is None:
        nobody = ~seen.any(1)[:, None, :, None]
        hidden = [tensor.masked_select(nobody).count_nonzero() for tensor in found[1:]]
        faults += ["keys that nobody sees have a gradient"] if any(hidden) else []
    after = given_.tensors()
    faults += [] if all(same(after[key], tensor) for key, tensor in before.tensors().items()) else ["inputs changed"]
    faults += [] if torch.equal(lse, kept) else ["lse changed"]
    blind = int((~seen.any(2)).sum())
    return {"label": f"{problem.label} {name}", "ratios": ratios, "blind": blind, "faults": faults}


@st.composite
def problems(draw: st.DrawFn) -> tuple[Attention, str]:
    kv_len, kv_heads = draw(st.integers(1, 110)), draw(st.integers(1, 2))
    lengths = draw(st.sampled_from(("", "padding", "ragged")))
    problem = Attention(
        batch=draw(st.integers(1, 2)), kv_heads=kv_heads, heads=kv_heads * draw(st.integers(1, 3)), kv_len=kv_len,
        q_len=draw(st.integers(1, kv_len if lengths == "ragged" else 110)), head_dim=draw(st.integers(16, 70)),
        causal=draw(st.booleans()), padding=lengths == "padding", ragged=lengths == "ragged",
        window=draw(st.just(0) | st.integers(1, 130)), softcap=draw(st.sampled_from((0.0, 0.5, 30.0))),
        bias=draw(st.sampled_from(("none", "additive", "boolean"))), dtype=draw(st.sampled_from(("float32", "float16"))),
        direction="backward",
    )  # fmt: skip
    return problem, draw(st.sampled_from(list(FORMS)))


@settings(max_examples=30, derandomize=True, database=None, deadline=None)
@given(problems())
def random(drawn: tuple[Attention, str]) -> None:
    problem, form = drawn
    found = facts(problem, problem.inputs(1), SMALL, name=f"random {form}", **FORMS[form])
    assert not found["faults"], found
    told(found)


def specials(dtype: str) -> None:
    """Strides, a gradient that is one number for all, large scores, groups shared in part, an empty row, and a bias that hides rows."""
    problem = Attention(heads=4, kv_heads=2, q_len=50, head_dim=32, causal=True, dtype=dtype, direction="backward")
    inputs = problem.inputs(0)
    apart = inputs.map(lambda t: t.transpose(1, 2).contiguous().transpose(1, 2))
    told(facts(problem, apart, SMALL, name="tokens before heads", tma=True, summed_by_tma=True))
    turned = inputs.replace(k=inputs.k.mT.contiguous().mT, grad=torch.ones((), dtype=inputs.q.dtype).expand(inputs.q.shape))
    told(facts(problem, turned, SMALL, name="strides that TMA does not take", tma=True))
    told(facts(problem, turned, SMALL, name="strides that TMA does not take", twice=True))
    # numbers whose exponentials overflow unless the logarithm of their sum is subtracted
    told(facts(problem, inputs.replace(q=inputs.q * 8), SMALL, name="large"))
    grouped = Attention(batch=2, heads=12, kv_heads=2, q_len=20, kv_len=40, head_dim=32, dtype=dtype, direction="backward")
    for shares in (2, 3):
        told(facts(grouped, grouped.inputs(0), SMALL, name=f"{shares} shares of a group", shares=shares, tma=shares == 2))
    padded = Attention(batch=2, heads=2, q_len=20, kv_len=40, head_dim=32, padding=True, window=9, dtype=dtype, direction="backward")
    inputs = padded.inputs(0).replace(lengths=torch.tensor([0, 17], dtype=torch.int32))
    for form in ("pointers", "twice", "twice, tma"):
        told(facts(padded, inputs, SMALL, name=f"a row without keys, {form}", **FORMS[form]))
    biased = Attention(heads=4, kv_heads=2, q_len=40, kv_len=70, head_dim=32, bias="additive", batch=2, dtype=dtype, direction="backward")
    inputs = biased.inputs(0)
    bias = torch.randn(2, 1, 40, 1, dtype=inputs.q.dtype).repeat(1, 1, 1, 70)
    bias[:, :, 7:30, :60] = float("-inf")
    for twice in (False, True):
        told(facts(biased, inputs.replace(bias=bias), SMALL, name="bias -inf", twice=twice))
    masked = Attention(heads=4, kv_heads=2, q_len=35, kv_len=70, head_dim=32, bias="boolean", batch=2, dtype=dtype, direction="backward")
    mask = torch.arange(70)[None, None, None] % 3 == torch.arange(2)[:, None, None, None]
    told(facts(masked, masked.inputs(0).replace(mask=mask), SMALL, name="mask broadcast"))


def through(dtype: str, cases: list[dict[str, Any]]) -> None:
    """Each case in one form after the other, with a small tile and with the one that is offered for it in turn."""
    for number, case in enumerate(cases):
        problem = Attention(**{"heads": 2, "dtype": dtype, "direction": "backward", **case})
        form = list(FORMS)[number % len(FORMS)]
        cut = offered(problem.head_dim, ITEM_BYTES[dtype], (9, 0))[number // 2 % 2] if number % 2 else SMALL
        told(facts(problem, problem.inputs(0), cut, name=form, **FORMS[form]))


if __name__ == "__main__":
    watch_loads()
    mend_sums()
    for dtype in ("float32", "float16"):
        through(dtype, CASES)
        specials(dtype)
    random()
    mend_bfloat16()
    through("bfloat16", [CASES[i] for i in (2, 4, 12, 15)])
