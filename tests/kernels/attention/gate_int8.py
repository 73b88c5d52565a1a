"""Put the Triton kernels with 8-bit scores through the whole gate in the interpreter; prints a JSON line per problem with what was seen.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good. Argument: "few" or
"all" of the problems, these in float32 and in float16.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from kerneldyno.bench.gate.errors import Misconduct, WrongOutput
from kerneldyno.bench.gate.examine import Gate
from kerneldyno.kernels._cards import CARDS, Card
from kerneldyno.kernels.attention import int8, int8_cache
from kerneldyno.kernels.attention._int8_cache import for_cuda
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Kernel, Run, Setup, kernel

MANY: list[dict[str, Any]] = [
    {"q_len": 70},
    {"q_len": 70, "causal": True, "kv_heads": 1, "head_dim": 80},
    {"q_len": 40, "kv_len": 90, "causal": True, "padding": True, "head_dim": 96},
    {"q_len": 150, "window": 20, "causal": True, "kv_heads": 1, "head_dim": 128},
    {"q_len": 70, "window": 20, "padding": True, "head_dim": 40, "heads": 1},
    {"q_len": 40, "kv_len": 300, "ragged": True, "causal": True, "window": 30},
    {"q_len": 33, "kv_len": 290, "ragged": True, "head_dim": 256, "heads": 1},
]
"""For attention/int8."""
FEW_QUERIES: list[dict[str, Any]] = [
    {"q_len": 1, "kv_len": 300, "heads": 4, "kv_heads": 1, "ragged": True},
    {"q_len": 4, "kv_len": 700, "causal": True, "head_dim": 128},
    {"q_len": 5, "kv_len": 300, "padding": True, "head_dim": 80},
    {"q_len": 2, "kv_len": 1100, "ragged": True, "causal": True, "window": 100, "kv_heads": 1},
    {"q_len": 16, "kv_len": 90, "window": 20, "heads": 6, "kv_heads": 2, "head_dim": 24},
    {"q_len": 1, "kv_len": 600, "head_dim": 256},
]
"""For attention/int8_cache."""
PROBLEMS = [*((int8, fields) for fields in MANY), *((int8_cache, fields) for fields in FEW_QUERIES)]
FEW = {4: "float16", 7: "float32", 9: "float16"}
"""Number and dtype of those that take seconds."""
TAKEN = ("causal", "padding", "window", "ragged")


def interpreted(module: Any, card: Card) -> Kernel:
    """A kernel as it is launched on this card, on CPU tensors; it claims what it claims on a GPU."""

    def build(problem: Attention, setup: Setup) -> Run:
        run: Run = module.launched(problem, card)
        return run

    prepare = (lambda problem, setup, inputs: for_cuda(inputs)) if module is int8_cache else None
    claim = module.claim_on_cuda
    return kernel(Attention, name="interpreted", devices=("cpu",), accepts=TAKEN, approximate=True, claim=claim, prepare=prepare)(build)


def told(module: Any, problem: Attention, card: Card) -> dict[str, Any]:
    """What the gate says."""
    started = time.perf_counter()
    found: dict[str, Any] = {"kernel": module.__name__.rpartition(".")[2], "label": problem.label, "capability": card.capability}
    try:
        seen = Gate(problem, Setup(torch.device("cpu")), thorough=True, patience_s=1e9).admit(interpreted(module, card))
    except (WrongOutput, Misconduct) as error:
        return {**found, "wrong": str(error)}
    told_of = {"probes": len(seen.probes), "left out": seen.left_out, "seconds": round(time.perf_counter() - started, 1)}
    assert seen.distance is not None
    return {**found, "wrong": "", **told_of, "distance": seen.distance.relative_rms, "symmetric": seen.symmetric}


if __name__ == "__main__":
    cards = (CARDS["sm_90"], CARDS["sm_80"])
    torch.set_num_threads(1)
    chosen = [(number, dtype) for number in range(len(PROBLEMS)) for dtype in ("float32", "float16")]
    for number, dtype in chosen if sys.argv[1] == "all" else FEW.items():
        module, fields = PROBLEMS[number]
        print(json.dumps(told(module, Attention(**{"batch": 2, "heads": 2, **fields}, dtype=dtype), cards[number % 2])), flush=True)
