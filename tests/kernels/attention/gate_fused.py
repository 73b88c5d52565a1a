"""Put our fused kernel through the whole gate in Triton's interpreter; prints a JSON line per problem with what was seen.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good. Argument: "few" or
"all" of the problems, these in float32 and in float16.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from interpret_backward import mend_sums

from kerneldyno.bench.gate.errors import Misconduct, WrongOutput
from kerneldyno.bench.gate.examine import Gate
from kerneldyno.kernels._cards import H100, Card
from kerneldyno.kernels.attention.fused import launched
from kerneldyno.kernels.attention.problem import EVERYTHING, Attention
from kerneldyno.kernels.registry import Run, Setup, kernel

A100 = Card((8, 0), 108, 40 * 2**20)

PROBLEMS: list[dict[str, Any]] = [
    {"q_len": 70},
    {"q_len": 70, "causal": True, "kv_heads": 1, "head_dim": 80},
    {"q_len": 40, "kv_len": 90, "causal": True, "padding": True, "head_dim": 96},
    {"q_len": 70, "bias": "additive", "causal": True, "softcap": 5.0},
    {"q_len": 70, "bias": "boolean", "head_dim": 40},
    {"q_len": 70, "window": 20, "causal": True, "kv_heads": 1, "head_dim": 128},
    {"q_len": 70, "window": 20, "padding": True},
    {"q_len": 40, "kv_len": 90, "ragged": True, "causal": True, "window": 30},
    {"q_len": 1, "kv_len": 300, "heads": 4, "kv_heads": 1, "ragged": True},
    {"q_len": 4, "kv_len": 700, "causal": True, "head_dim": 128},
    {"q_len": 5, "kv_len": 300, "padding": True, "bias": "boolean"},
    {"q_len": 2, "kv_len": 300, "ragged": True, "causal": True, "window": 100, "softcap": 5.0, "kv_heads": 1},
    {"q_len": 1, "kv_len": 1100, "heads": 7, "kv_heads": 1, "ragged": True, "page_size": 16},
    {"q_len": 40, "kv_len": 150, "causal": True, "page_size": 64, "kv_heads": 1},
    {"q_len": 3, "kv_len": 150, "page_size": 24, "bias": "additive", "padding": True, "head_dim": 80},
    *(
        {**fields, "direction": "backward"}
        for fields in (
            {"q_len": 70},
            {"q_len": 40, "head_dim": 32, "causal": True, "kv_heads": 1},
            {"q_len": 40, "kv_len": 90, "causal": True, "padding": True, "head_dim": 96},
            {"q_len": 70, "bias": "boolean", "head_dim": 40},
            {"q_len": 70, "window": 20, "causal": True, "kv_heads": 1, "head_dim": 128},
            {"q_len": 70, "window": 20, "padding": True},
            {"q_len": 40, "kv_len": 90, "ragged": True, "causal": True, "window": 30, "softcap": 5.0},
            {"q_len": 4, "kv_len": 100, "causal": True, "heads": 4, "kv_heads": 1},
            {"q_len": 50, "bias": "additive", "softcap": 4.0},
            {"q_len": 33, "kv_len": 70, "head_dim": 256},
        )
    ),
]

FEW = {2: "float16", 6: "float16", 8: "float32", 11: "float16", 13: "float16", 14: "float32", 16: "float16"}
"""Number and dtype of those that take seconds."""


def interpreted(card: Card) -> Any:
    """The kernel as it is launched on this card, on CPU tensors."""

    def build(problem: Attention, setup: Setup) -> Run:
        return launched(problem, card)

    both = ("forward", "backward")
    return kernel(Attention, name="interpreted", devices=("cpu",), accepts=EVERYTHING, directions=both, gradients="kernel")(build)


def told(problem: Attention, card: Card) -> dict[str, Any]:
    """What the gate says."""
    started = time.perf_counter()
    found: dict[str, Any] = {"label": problem.label, "capability": card.capability}
    try:
        seen = Gate(problem, Setup(torch.device("cpu")), thorough=True, patience_s=1e9).admit(interpreted(card))
    except (WrongOutput, Misconduct) as error:
        return {**found, "wrong": str(error)}
    return {**found, "wrong": "", "probes": len(seen.probes), "left out": seen.left_out, "seconds": round(time.perf_counter() - started, 1)}


if __name__ == "__main__":
    mend_sums()
    chosen = [(number, dtype) for number in range(len(PROBLEMS)) for dtype in ("float32", "float16")]
    for number, dtype in chosen if sys.argv[1] == "all" else FEW.items():
        card = (H100, A100)[number % 2]
        print(json.dumps(told(Attention(**{"batch": 2, "heads": 2, **PROBLEMS[number]}, dtype=dtype), card)), flush=True)
