"""Decoding over an 8-bit cache computes what it claims, in integers, and stays near the exact result."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kerneldyno.bench.gate.examine import examine
from kerneldyno.kernels.attention._int8_cache_graph import LONGEST
from kerneldyno.kernels.attention.int8_cache import int8_cache, prepare, ran
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, NotAsNamed, Setup, Trace

CPU = Setup(torch.device("cpu"))
SIZES = {"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 1, "kv_len": 300, "head_dim": 32}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ragged": {"ragged": True, "q_len": 3, "causal": True},
    "ragged window, fp16": {"ragged": True, "window": 40, "causal": True, "dtype": "float16"},
    "padding": {"padding": True, "q_len": 16, "kv_heads": 4, "head_dim": 24},
    "window, blind queries": {"padding": True, "window": 20, "q_len": 2},
    "causal": {"causal": True, "q_len": 4, "dtype": "float16"},
    "single key": {"kv_len": 1},
}


@pytest.mark.parametrize("more", CASES.values(), ids=CASES)
def test_passes_the_gate(more: dict[str, Any]) -> None:
    found = examine(int8_cache, Attention(**{**SIZES, **more}), CPU)
    assert found.distance is not None
    assert found.distance.relative_rms < 0.02
    assert found.symmetric


def test_long_contexts_of_equal_weights_are_no_worse() -> None:
    # each weight is far below the largest: of one digit they would be off by several per cent
    problem = Attention(heads=2, q_len=1, kv_len=20_000, head_dim=64)
    inputs = problem.inputs(0)
    q = inputs.q.clone()
    q[:, 0] = 3 * inputs.k[:, 0, 5]
    inputs = inputs.replace(q=q)
    output = int8_cache.build(problem, CPU)(prepare(problem, CPU, inputs))
    assert int8_cache.claim is not None
    right, exact = int8_cache.claim(problem, CPU, inputs), problem.reference(inputs)
    assert (output - right).square().mean() < 0.02 * (exact - right).square().mean()


@pytest.mark.parametrize(
    ("changes", "device", "sentence"),
    [
        ({}, Device("cpu"), None),
        ({"q_len": 17}, Device("cpu"), "is for decode steps of at most 16 query tokens, not 17: attention/int8 quantizes as it goes"),
        ({"kv_len": LONGEST + 1}, Device("cpu"), f"it takes at most {LONGEST} keys, not {LONGEST + 1}"),
        ({"dtype": "bfloat16"}, Device("cpu"), "no bfloat16 arithmetic"),
        ({"bias": "additive"}, Device("cpu"), "does not take bias"),
        ({"page_size": 16}, Device("cpu"), "does not take paged"),
        ({"dtype": "float16"}, Device("cuda", capability=(9, 0)), None),
        ({}, Device("cuda", capability=(9, 0)), "not float32"),
    ],
)
def test_refusals(changes: dict[str, Any], device: Device, sentence: str | None) -> None:
    pytest.importorskip("triton")
    found = int8_cache.why_not(Attention(**{**SIZES, **changes}), device)
    assert found is None if sentence is None else sentence in (found or "")


def test_both_products_have_to_be_of_integers() -> None:
    problem = Attention(**SIZES)
    nodes = (("MatMulInteger", "CPUExecutionProvider"),) * 2
    assert ran(problem, CPU, Trace(nodes=nodes)) == "integer products: MatMulInteger ×2"
    with pytest.raises(NotAsNamed, match="1 of 2 products ran in integers"):
        ran(problem, CPU, Trace(nodes=(nodes[0], ("MatMul", "CPUExecutionProvider"))))
    on_cuda = Setup(torch.device("cuda"))
    assert ran(problem, on_cuda, Trace({"int8_split_kernel": 1})) == "Triton: int8_split_kernel"
    with pytest.raises(NotAsNamed, match="int8_split_kernel did not run"):
        ran(problem, on_cuda, Trace({"split_kernel": 1}))


def test_the_cache_is_a_quarter_of_float32() -> None:
    problem = Attention(**{**SIZES, "head_dim": 128})
    inputs = problem.inputs(0)
    assert prepare(problem, CPU, inputs).nbytes < 0.27 * (inputs.k.nbytes + inputs.v.nbytes)
