"""Run the Gluon kernel for Hopper on a simulated machine; prints a JSON line per problem with what was seen.

A script of its own, since what combines the stretches of a split cache is plain Triton, which runs in the interpreter. Argument: "gate"
for the whole gate on some problems, "random" for many problems with random schedules, "faults" for kernels with a mistake.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gluon_language import Kernel
from gluon_machine import Misuse, Stuck
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerneldyno.bench.gate.errors import Misconduct, WrongOutput
from kerneldyno.bench.gate.examine import Gate
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels import attention
from kerneldyno.kernels._cards import Card
from kerneldyno.kernels.attention import _hopper_launch
from kerneldyno.kernels.attention.fused_hopper import launched
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Run, Setup, kernel

SOURCE = Path(attention.__path__[0]) / "_hopper_gluon.py"

GATED: list[dict[str, Any]] = [
    {"q_len": 150, "causal": True, "heads": 2, "kv_heads": 1},
    {"q_len": 70, "kv_len": 200, "padding": True, "head_dim": 128},
    {"q_len": 1, "kv_len": 600, "heads": 4, "kv_heads": 2, "ragged": True, "dtype": "float16"},
    {"q_len": 4, "kv_len": 700, "causal": True, "heads": 2, "kv_heads": 1, "head_dim": 128, "dtype": "float16"},
]

FAULTS = {
    "keys given back before they are read": (
        "    b_s = warpgroup_mma_wait(1, (t_s,))\n    mbarrier.arrive(k_free.index(at_k), count=1)",
        "    mbarrier.arrive(k_free.index(at_k), count=1)\n    b_s = warpgroup_mma_wait(1, (t_s,))",
    ),
    "values given back before they are read": (
        "    b_acc, b_p, b_p_next = warpgroup_mma_wait(0, (t_acc, b_p, b_p_next))\n    mbarrier.arrive(v_free.index(at_v), count=1)",
        "    mbarrier.arrive(v_free.index(at_v), count=1)\n    b_acc, b_p, b_p_next = warpgroup_mma_wait(0, (t_acc, b_p, b_p_next))",
    ),
    "keys never given back": ("    mbarrier.arrive(k_free.index(at_k), count=1)\n", "    pass\n"),
    "values not waited for": ("    mbarrier.wait(v_full.index(at_v), phase_v)\n    # [64, D]", "    # [64, D]"),
    "keys not waited for": ("    mbarrier.wait(k_full.index(at_k), phase_k, pred=j > lo)\n", ""),
    "waits for a block that does not come": ("pred=j > lo", "pred=j >= lo"),
    "places filled without asking": ("    mbarrier.wait(bars_free.index(at), phase ^ 1)\n", ""),
    "wrong parity": ("bars_free.index(at), phase ^ 1", "bars_free.index(at), phase"),
    "queries overwritten while the output is stored": ("        tma.store_wait(0)\n", ""),
    "nobody has the first turn": ("turn ^ (1 if GROUP == 0 else 0)", "turn"),
    "a product read before it is there": ("warpgroup_mma_wait(1, (t_s,))", "warpgroup_mma_wait(2, (t_s,))"),
    "the diagonal hidden": ("<= o_t[:, None]", "< o_t[:, None]"),
    "the output not faded": ("    b_acc = b_acc * gl.convert_layout(b_fade, gl.SliceLayout(1, outputs))[:, None]\n", ""),
    "the wrong key head": ("i_h // G, j * BS", "i_h, j * BS"),
}


def simulated(card: Card, seed: int, changed: tuple[str, str] | None = None) -> Any:
    """The kernel as it is launched on a card."""

    def build(problem: Attention, setup: Setup) -> Run:
        return launched(problem, card)

    _hopper_launch.hopper_kernel = Kernel(SOURCE, "hopper_kernel", package=attention.__name__, seed=seed, changed=changed)
    return kernel(Attention, name="simulated", devices=("cpu",), accepts=("causal", "padding", "ragged"))(build)


def gated(fields: dict[str, Any]) -> dict[str, Any]:
    """What the gate says. Buffers of zero strides are refused, as TMA refuses them."""
    problem = Attention(**{"heads": 2, "head_dim": 64, "dtype": "bfloat16", **fields})
    found: dict[str, Any] = {"label": problem.label}
    try:
        seen = Gate(problem, Setup(torch.device("cpu")), thorough=True, patience_s=1e9).admit(simulated(Card((9, 0), 5, 50 << 20), 3))
    except (WrongOutput, Misconduct) as error:
        return {**found, "wrong": str(error)}
    return {**found, "wrong": "", "probes": len(seen.probes), "left out": list(seen.left_out)}


def judged(problem: Attention, card: Card, seed: int, changed: tuple[str, str] | None = None) -> str:
    """What is wrong with its output; empty when nothing is."""
    setup = Setup(torch.device("cpu"))
    run = simulated(card, seed, changed).build(problem, setup)
    truth = Truth(problem, problem.inputs(seed), None)
    try:
        verify(run(truth.inputs), kernel(Attention, name="exact")(lambda *_: run), setup, truth)
    except (WrongOutput, Stuck, Misuse) as error:
        return f"{type(error).__name__}: {error}"
    return ""


PROBLEMS = st.builds(
    dict,
    batch=st.integers(1, 3),
    kv_heads=st.sampled_from((1, 2)),
    group=st.sampled_from((1, 2, 7)),
    q_len=st.integers(1, 300),
    kv_len=st.integers(1, 400),
    head_dim=st.sampled_from((64, 64, 128, 256)),
    causal=st.booleans(),
    lengths=st.sampled_from(("", "padding", "ragged")),
)


@settings(deadline=None, max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(PROBLEMS, st.integers(0, 10**6), st.integers(1, 40))
def random_problem(fields: dict[str, Any], seed: int, multiprocessors: int) -> None:
    """Of any shape that the kernel takes, on a card of any size."""
    group, lengths = fields.pop("group"), fields.pop("lengths")
    fields["heads"] = fields["kv_heads"] * group
    if lengths == "ragged":
        fields["q_len"] = min(fields["q_len"], fields["kv_len"])
    dtype = "float16" if fields["q_len"] <= 16 else "bfloat16"
    problem = Attention(**fields, **({lengths: True} if lengths else {}), dtype=dtype)
    print(json.dumps({"label": problem.label, "wrong": judged(problem, Card((9, 0), multiprocessors, 50 << 20), seed)}), flush=True)


def faulty(changed: tuple[str, str]) -> list[str]:
    """What is seen of a mistake with eight schedules: two heads and two tiles for each of two programs, two stages."""
    problem = Attention(heads=4, kv_heads=2, q_len=250, kv_len=500, head_dim=128, causal=True, dtype="bfloat16")
    return [judged(problem, Card((9, 0), 2, 50 << 20), seed, changed) for seed in range(8)]


MODES: dict[str, Callable[[], Any]] = {
    "gate": lambda: [print(json.dumps(gated(fields)), flush=True) for fields in GATED],
    "random": random_problem,
    "faults": lambda: [
        print(json.dumps({"fault": name, "seen": [text[:200] for text in faulty(change) if text]}), flush=True)
        for name, change in FAULTS.items()
    ],
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    MODES[sys.argv[1]]()
