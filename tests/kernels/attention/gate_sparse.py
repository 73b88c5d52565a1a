"""Put the Triton kernels of sparse attention through the whole gate in Triton's interpreter; prints a JSON line per problem.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from kerneldyno.bench.gate.errors import Misconduct, WrongOutput
from kerneldyno.bench.gate.examine import Gate
from kerneldyno.kernels._cards import H100
from kerneldyno.kernels.attention import block_sparse, sinks
from kerneldyno.kernels.attention._sparse_blocks import QUERIES, Choice
from kerneldyno.kernels.attention._sparse_claim import claimed
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Kernel, Run, Setup, kernel, kind_of

QUARTER = Choice(parts=4)
PROBLEMS: list[tuple[str, bool, dict[str, Any]]] = [
    ("blocks", True, {"q_len": 200, "causal": True, "dtype": "float16"}),
    ("sinks", False, {"q_len": 150, "kv_len": 200, "padding": True, "dtype": "float32"}),
]
"""Pattern, whether awkward lengths are tried, too, and what is asked."""


def interpreted(pattern: str) -> Kernel:
    """The kernel as it is launched on an H100, on CPU tensors."""

    def claim(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:
        return claimed(problem, inputs, QUARTER, QUERIES["cuda"]) if pattern == "blocks" else sinks.claimed(problem, inputs, 4)

    def build(problem: Attention, setup: Setup) -> Run:
        return block_sparse.launched(problem, QUARTER, H100) if pattern == "blocks" else sinks.launched(problem, 4, H100)

    taken = ("causal", "padding", "ragged")
    return kernel(Attention, name="interpreted", devices=("cpu",), accepts=taken, approximate=True, claim=claim)(build)


def told(pattern: str, problem: Attention, *, awkward: bool) -> dict[str, Any]:
    """What the gate says: of the claim, and of the distance from the exact result."""
    found: dict[str, Any] = {"label": f"{problem.label} {pattern}"}
    try:
        tried = interpreted(pattern)
        known = () if awkward else (kind_of(tried.name, problem.fields()),)
        seen = Gate(problem, Setup(torch.device("cpu")), thorough=True, patience_s=1e9, known_awkward=known).admit(tried)
    except (WrongOutput, Misconduct) as error:
        return {**found, "wrong": str(error)}
    assert seen.distance is not None
    return {**found, "wrong": "", "distance": seen.distance.relative_rms, "probes": len(seen.probes), "left out": seen.left_out}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for pattern, awkward, fields in PROBLEMS:
        print(json.dumps(told(pattern, Attention(**{"heads": 1, "head_dim": 16, **fields}), awkward=awkward)), flush=True)
