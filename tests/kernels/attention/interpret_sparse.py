"""Run the kernels of sparse attention in Triton's interpreter on the CPU; prints a JSON line per problem with error ratios and faults.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from interpret_decode import forbidden, guarded, ratio, watch_loads

from kerneldyno.kernels._cards import CARDS, H100
from kerneldyno.kernels.attention import block_sparse, sinks
from kerneldyno.kernels.attention._sparse_blocks import QUERIES, Choice
from kerneldyno.kernels.attention._sparse_claim import claimed
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs

A100 = CARDS["sm_80"]
QUARTER, HALF, MASS = Choice(parts=4), Choice(parts=2), Choice(mass=0.9)
BLOCKS: list[tuple[Choice, dict[str, Any]]] = [
    (QUARTER, {"q_len": 200}),
    (QUARTER, {"q_len": 150, "kv_len": 400, "ragged": True, "causal": True, "batch": 2}),
    (HALF, {"q_len": 129, "kv_len": 300, "causal": True, "padding": True, "batch": 2, "head_dim": 64}),
    (MASS, {"q_len": 200, "causal": True, "structured": True}),
    (QUARTER, {"q_len": 330, "causal": True, "heads": 2, "kv_heads": 1}),
    (HALF, {"q_len": 40, "kv_len": 1}),
    (QUARTER, {"q_len": 200, "kv_len": 100, "causal": True}),  # queries that see no key
    (QUARTER, {"q_len": 70, "kv_len": 777, "head_dim": 128, "structured": True}),
    (HALF, {"q_len": 70, "kv_len": 300, "head_dim": 17, "heads": 3, "kv_heads": 1, "causal": True}),
    (MASS, {"q_len": 130, "kv_len": 500, "padding": True, "batch": 2, "structured": True, "head_dim": 80}),
]
SINKS: list[tuple[int, dict[str, Any]]] = [
    (4, {"q_len": 300}),
    (8, {"q_len": 70, "kv_len": 500, "ragged": True, "causal": True, "batch": 2}),
    (8, {"q_len": 200, "kv_len": 300, "causal": True, "padding": True, "batch": 2, "head_dim": 64}),
    (4, {"q_len": 330, "causal": True, "heads": 2, "kv_heads": 1}),
    (2, {"q_len": 40, "kv_len": 1}),
    (4, {"q_len": 200, "kv_len": 100, "causal": True}),
    (4, {"q_len": 200, "kv_len": 100}),  # queries before all keys see the first ones
    (2, {"q_len": 100, "kv_len": 200, "head_dim": 80, "padding": True, "batch": 2}),
]


def facts(problem: Attention, claim: torch.Tensor, inputs: AttentionInputs, found: torch.Tensor, name: str) -> dict[str, Any]:
    """Error ratios of an answer against what is claimed, the plain formula's against the exact result."""
    exact = problem.reference(inputs)
    yardstick = problem.naive(inputs).double() - exact
    half_ulp = 0.5 * torch.finfo(inputs.q.dtype).eps
    largest, square = ratio(found.double() - claim, yardstick, claim, half_ulp)
    limits = (8, 3) if inputs.q.dtype == torch.float32 else (2, 1.5)
    faults = [] if largest <= limits[0] and square <= limits[1] else [f"errors {largest:.3g} and {square:.3g} times the plain formula's"]
    faults += [] if bool(found.isfinite().all()) else ["not finite"]
    return {
        "label": f"{problem.label} {name}",
        "distance": float((claim - exact).square().mean().sqrt() / exact.square().mean().sqrt()),
        "blind": int((claim == 0).all(-1).sum()),
        "largest": largest,
        "faults": faults,
    }


def junk(problem: Attention, inputs: AttentionInputs, number: float) -> AttentionInputs:
    """The inputs with this number in the keys and values past the length of each row."""
    if inputs.lengths is None:
        return inputs
    hidden = ~problem.padding_mask(inputs.lengths).mT
    return inputs.replace(k=inputs.k.masked_fill(hidden, number), v=inputs.v.masked_fill(hidden, number))


def strided(inputs: AttentionInputs) -> AttentionInputs:
    """Sequence before heads in q, head_dim first in k."""
    return inputs.replace(q=inputs.q.transpose(1, 2).contiguous().transpose(1, 2), k=inputs.k.mT.contiguous().mT)


FORMS = (("float32", "pointers", 1), ("float16", "tma", 1), ("float16", "pointers", 3))
"""Every so many-th problem: what is left to see at the end are other types at the same addresses."""


def main() -> None:
    torch.set_num_threads(1)
    watch_loads()
    for dtype, how, every in FORMS:
        card = H100 if how == "tma" else A100
        for choice, fields in BLOCKS[::every]:
            problem = Attention(**{"heads": 1, "head_dim": 32, "dtype": dtype, **fields})
            inputs = problem.inputs(1)
            claim = claimed(problem, inputs, choice, QUERIES["cuda"])
            told(problem, claim, inputs, block_sparse.launched(problem, choice, card), f"{choice} {how}", tma=how == "tma")
        for parts, fields in SINKS[::every]:
            problem = Attention(**{"heads": 1, "head_dim": 32, "dtype": dtype, **fields})
            inputs = problem.inputs(1)
            claim = sinks.claimed(problem, inputs, parts)
            told(problem, claim, inputs, sinks.launched(problem, parts, card), f"sinks 1/{parts} {how}", tma=how == "tma")


def told(problem: Attention, claim: torch.Tensor, inputs: AttentionInputs, run: Any, name: str, *, tma: bool) -> None:
    """Run over memory with junk where nobody may look; by descriptors whole blocks are read, and weights of 0 cancel all but NaN."""
    forbidden.clear()
    dirty = junk(problem, inputs, 1000.0 if tma else float("nan"))
    for given, how in ((dirty, ""), (strided(dirty), " strided")):
        if how and (tma or problem.causal):
            continue
        forms = given if tma else given.map(guarded)
        before = forms.map(torch.clone)
        found = run(forms)
        line = facts(problem, claim, inputs, found, name + how)
        same = all(torch.equal(t, before.tensors()[x]) or bool(t.isnan().any()) for x, t in forms.tensors().items())
        line["faults"] += [] if same else ["inputs changed"]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
