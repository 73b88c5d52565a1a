"""Run the Triton kernel in Triton's interpreter on the CPU; prints a JSON line per case with its error ratios.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from kerneldyno.kernels.attention._fused_triton import attend, tile
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import ITEM_BYTES

CASES: list[dict[str, Any]] = [
    {"q_len": 1, "kv_len": 1},
    {"q_len": 1, "kv_len": 300, "heads": 8, "kv_heads": 2, "causal": True, "padding": True, "batch": 2},
    {"q_len": 127},
    {"q_len": 129, "causal": True},
    {"q_len": 300, "causal": True, "heads": 1},
    {"q_len": 257, "kv_len": 300, "heads": 1, "head_dim": 128},
    {"q_len": 129, "heads": 4, "kv_heads": 2, "causal": True, "padding": True, "batch": 3, "head_dim": 80},
    {"q_len": 40, "kv_len": 90, "causal": True, "head_dim": 128},
    {"q_len": 290, "kv_len": 40, "causal": True, "padding": True, "batch": 2, "head_dim": 16, "heads": 1},
    {"q_len": 64, "kv_len": 129, "padding": True, "batch": 2, "head_dim": 256, "heads": 1},
    {"q_len": 33, "kv_len": 64, "head_dim": 17, "heads": 6, "kv_heads": 2},
]


def ratios(problem: Attention, inputs: AttentionInputs) -> dict[str, object]:
    cut = tile(problem.q_len, problem.head_dim, ITEM_BYTES[problem.dtype], (9, 0))
    before = inputs.map(torch.clone)
    with torch.no_grad():
        found = attend(inputs.q, inputs.k, inputs.v, inputs.lengths, scale=problem.scale, causal=problem.triangular, cut=cut)
    right, naive = problem.reference(inputs), problem.naive(inputs)
    floor = torch.finfo(found.dtype).eps / 2
    error, yardstick = found.double() - right, naive.double() - right
    return {
        "label": problem.label,
        "finite": bool(found.isfinite().all()),
        "max": float(error.abs().max() / torch.maximum(yardstick.abs().max(), floor * right.abs().max())),
        "rms": float(error.square().mean().sqrt() / torch.maximum(yardstick.square().mean().sqrt(), floor * right.square().mean().sqrt())),
        "blind zero": bool((found[(right == 0).all(-1)] == 0).all()),
        "unchanged": all(torch.equal(tensor, before.tensors()[name]) for name, tensor in inputs.tensors().items()),
    }


def strided(inputs: AttentionInputs) -> AttentionInputs:
    """Sequence before heads in q, keys stored head_dim first, values of one head for all."""
    q = inputs.q.transpose(1, 2).contiguous().transpose(1, 2)
    return inputs.replace(q=q, k=inputs.k.mT.contiguous().mT, v=inputs.v[:, :1].expand(inputs.v.shape))


if __name__ == "__main__":
    for dtype in ("float32", "float16"):
        for case in CASES:
            problem = Attention(**{"heads": 2, "dtype": dtype, **case})
            print(json.dumps(ratios(problem, problem.inputs(0))), flush=True)
        problem = Attention(heads=4, kv_heads=2, q_len=70, head_dim=32, causal=True, dtype=dtype)
        print(json.dumps({**ratios(problem, strided(problem.inputs(0))), "label": f"strided {dtype}"}), flush=True)
        # numbers whose exponentials overflow unless the maximum is subtracted
        large = problem.inputs(0)
        large = large.replace(q=large.q * 30)
        print(json.dumps({**ratios(problem, large), "label": f"large {dtype}"}), flush=True)
