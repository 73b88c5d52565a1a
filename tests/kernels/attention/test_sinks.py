"""First keys and a window: what a query sees token by token, how many of both, and what leaving out the rest costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.gate.examine import examine
from kerneldyno.kernels.attention import sinks
from kerneldyno.kernels.attention._sparse_band import Band, keys_attended
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernel", [sinks.sinks_50, sinks.sinks_12], ids=lambda kernel: kernel.name)
def test_claim_holds(case: dict[str, Any], kernel: Any, judge: Callable[..., torch.Tensor]) -> None:
    longer = {**case, "q_len": case["q_len"] + 230, "kv_len": case.get("kv_len", case["q_len"]) + 230}
    judge(kernel, Attention(**longer))


def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(sinks.sinks_25, Attention(**awkward))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_claim_holds_in_16_bit(dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    judge(sinks.sinks_25, Attention(heads=4, kv_heads=2, q_len=600, head_dim=40, causal=True, dtype=dtype, structured=True))


def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(sinks.sinks_50, kv_len=300)


@pytest.mark.parametrize("case", [{"q_len": 600, "causal": True}, {"q_len": 300, "kv_len": 700, "padding": True, "batch": 2}])
def test_the_whole_gate_lets_it_through(case: dict[str, Any]) -> None:
    always = replace(sinks.sinks_25, refuses=None)
    found = examine(always, Attention(**{"heads": 2, "head_dim": 32, **case}), Setup(CPU), thorough=True)
    assert found.symmetric
    assert found.left_out == {}


def test_keys_beyond_the_window_do_not_count() -> None:
    problem = Attention(heads=1, q_len=1024, causal=True)
    band = Band.of(problem, 4)
    assert (band.sinks, band.window) == (64, 192)
    run = sinks.sinks_25.build(problem, Setup(CPU, calibration=problem.inputs(0)))
    inputs = problem.inputs(1)
    before = run(inputs)
    query = 900
    for key, seen in ((63, True), (64, False), (query - 192, False), (query - 191, True), (query, True), (query + 1, False)):
        v = inputs.v.clone()
        v[:, :, key] += 1000.0
        assert bool((run(inputs.replace(v=v))[:, :, query] != before[:, :, query]).any()) == seen, key


@settings(deadline=None)
@given(st.integers(1, 3000), st.booleans(), st.sampled_from((2, 4, 8)))
def test_a_band_is_no_more_than_its_share(kv_len: int, causal: bool, parts: int) -> None:
    problem = Attention(q_len=kv_len, causal=causal)
    band = Band.of(problem, parts)
    assert band.sinks >= 1
    assert band.window >= 1
    kept = band.sinks + (band.window if problem.triangular or kv_len == 1 else 2 * band.window - 1)
    assert kept <= max(kv_len // parts + 1, 2)
    assert kept >= kv_len // parts - 1


@settings(deadline=None)
@given(st.integers(-300, 600), st.integers(0, 255), st.integers(1, 500), st.booleans(), st.integers(1, 64), st.integers(1, 300))
def test_reach_holds_all_that_is_seen(first: int, more: int, length: int, causal: bool, few: int, window: int) -> None:
    apart, lo, hi = Band(few, window).reach(first, first + more, length, causal=causal)
    held = set(range(apart)) | set(range(lo, hi))
    assert len(held) == apart + hi - lo
    for position in {first, first + more // 2, first + more}:
        seen = {key for key in range(length) if (key < few or abs(key - position) < window) and (key <= position or not causal)}
        assert seen <= held


def test_work_is_that_of_the_share() -> None:
    problem = Attention(q_len=4096)
    assert 0.24 < keys_attended(problem, Band.of(problem, 4)) / 4096**2 < 0.3


def distance(problem: Attention) -> float:
    inputs = problem.inputs(1)
    exact = problem.reference(inputs)
    return float((sinks.claimed(problem, inputs, 4) - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def test_structure_is_what_it_lives_on() -> None:
    problem = Attention(heads=2, q_len=1024, causal=True)
    plain, structured = (distance(replace(problem, structured=given_)) for given_ in (False, True))
    assert structured < 0.5
    assert structured < plain / 2


def test_few_keys_are_refused() -> None:
    assert "fewer than 16" in (sinks.sinks_25.why_not(Attention(q_len=512), Device("cpu")) or "")


@pytest.mark.parametrize(
    ("fields", "sentence"), [({"head_dim": 256}, "head_dim from 16 to 128"), ({"q_len": 16, "kv_len": 4096}, "more than 16 queries")]
)
def test_refusals_on_a_gpu(fields: dict[str, Any], sentence: str) -> None:
    problem = Attention(**{"q_len": 4096, **fields})
    assert sentence in (sinks.sinks_25.why_not(problem, Device("cuda", capability=(9, 0))) or "")
    assert sinks.sinks_25.why_not(problem, Device("cpu")) is None
    assert "8.0 and newer" in (sinks.sinks_25.why_not(Attention(q_len=4096), Device("cuda", capability=(7, 5))) or "")
