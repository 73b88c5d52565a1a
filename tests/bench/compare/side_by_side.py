"""Two revisions of every kernel in one process: prints, as JSON lines, how far each is from its own and from the other's answer.

A script of its own, so that what it loads stays out of the test process: `python side_by_side.py PLAIN PLANTED KERNEL…`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from kerneldyno.bench.compare.sides import load_side
from kerneldyno.kernels.registry import Device, Kernel, Setup

FIELDS: dict[str, dict[str, Any]] = {
    "attention": {"heads": 2, "q_len": 48, "head_dim": 32, "causal": True},
    "feedforward": {"seq_len": 24, "dim": 32, "hidden_dim": 64},
    "layer": {"seq_len": 24, "dim": 64, "heads": 2, "hidden_dim": 64},
}
OWN = {
    "attention/int8_cache": {"q_len": 8, "kv_len": 48},
    **{f"attention/{name}": {"kv_len": 1024} for name in ("block_sparse_50", "block_sparse_25", "block_sparse_12", "block_sparse_mass90")},
    **{f"attention/{name}": {"kv_len": 1024} for name in ("sinks_50", "sinks_25", "sinks_12")},
    "feedforward/onnxrt_fused": {"activation": "gelu"},
    "layer/unpadded": {"batch": 2, "padding": True},
}
"""For kernels that take no other."""
SCALED = 3.0
"""Planted factor of attention's scores."""
DOUBLED = 2.0
"""Planted factor of the second matrix of a network."""
LAYERS_WITHOUT_SCALE = ("layer/onnxrt", "layer/onnxrt_fused", "layer/int8", "layer/torch", "layer/unpadded")


def right(kernel: Kernel, problem: Any, setup: Setup, inputs: Any, *, planted: bool) -> torch.Tensor:
    """What the kernel answers, in float64; a planted constant is the same as another query or another weight."""
    weights = setup.weights
    if planted and kernel.operator == "attention":
        inputs = inputs.replace(q=inputs.q * SCALED)
    elif planted:
        weights = weights.replace(w2=weights.w2 * DOUBLED)
        if kernel.operator == "layer" and kernel.name not in LAYERS_WITHOUT_SCALE:
            factor = torch.ones(3 * problem.dim)
            factor[: problem.dim] = SCALED
            weights = weights.replace(w_qkv=weights.w_qkv * factor[:, None], b_qkv=weights.b_qkv * factor)
    if kernel.claim is not None:
        return kernel.claim(problem, replace(setup, weights=weights), inputs)
    return problem.reference(inputs, weights)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


def tell(order: str, pair: dict[str, Kernel]) -> None:
    """Build both, then call both twice, in the order of the pair."""
    first = next(iter(pair.values()))
    problem = first.problem(**FIELDS[first.operator] | OWN.get(first.name, {}))
    weights = problem.weights(3)
    setup = Setup(torch.device("cpu"), weights, problem.inputs(2))
    inputs = problem.inputs(1)
    if sentence := first.why_not(problem, Device("cpu")) if first.family != "fused" else None:
        print(json.dumps({"kernel": first.name, "skipped": sentence}), flush=True)
        return
    runs = {side: kernel.build(problem, setup) for side, kernel in pair.items()}
    wanted = {
        side: problem.compared(right(kernel, problem, setup, inputs, planted=side == "planted"), inputs) for side, kernel in pair.items()
    }
    for _ in range(2):
        for side, run in runs.items():
            other = "plain" if side == "planted" else "planted"
            prepare = pair[side].prepare
            found = problem.compared(run(inputs if prepare is None else prepare(problem, setup, inputs)), inputs)
            line = {"own": distance(found, wanted[side]), "other": distance(found, wanted[other])}
            print(json.dumps({"kernel": first.name, "order": order, "side": side, **line}), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    h100 = SimpleNamespace(major=9, minor=0, multi_processor_count=132, L2_cache_size=50 * 2**20)
    torch.cuda.get_device_properties = lambda device=None: h100  # attention/fused cuts its work for it
    folders = {"plain": Path(sys.argv[1]), "planted": Path(sys.argv[2])}
    for order in (("plain", "planted"), ("planted", "plain")):
        loaded = {side: load_side(folders[side], f"kerneldyno_{side}_{order[0]}_first") for side in order}
        for name in sys.argv[3:]:
            tell(f"{order[0]} first", {side: loaded[side][name] for side in order})


if __name__ == "__main__":
    main()
