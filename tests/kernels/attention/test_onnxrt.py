"""ONNX Runtime's attention node on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.onnxrt import causal_by_itself, counts_keys, onnxrt, stacked
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_right(case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
    assert onnxrt.why_not(problem, Device("cpu")) in (None, "does not take paged")
    judge(onnxrt, problem)


@pytest.mark.parametrize(
    "fields",
    [
        {"causal": True, "bias": "additive", "softcap": 2.0},
        {"causal": True, "bias": "boolean", "kv_len": 101, "softcap": 2.0},
        {"causal": True, "bias": "boolean", "ragged": True, "q_len": 5, "kv_len": 101},
        {"window": 9, "padding": True, "bias": "additive", "causal": True},
        {"window": 9, "ragged": True, "bias": "boolean", "q_len": 5, "kv_len": 101},
        {"q_len": 1, "kv_len": 101, "window": 9},
        {"q_len": 1, "kv_len": 101, "ragged": True, "bias": "additive"},
        {"q_len": 5, "kv_len": 101, "ragged": True},
        {"padding": True, "softcap": 3.0},
    ],
)
def test_what_the_node_does_and_what_the_mask_says_go_together(fields: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(onnxrt, Attention(**{"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 70, "head_dim": 32, **fields}))


def test_a_softcap_comes_before_the_mask(judge: Callable[..., torch.Tensor]) -> None:
    """The other way round -inf becomes -softcap, and hidden keys show."""
    judge(onnxrt, Attention(heads=2, q_len=40, softcap=0.5, bias="boolean"))


def test_what_says_which_keys_are_seen() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    square, decode = Attention(q_len=8, causal=True), Attention(q_len=2, kv_len=8, causal=True)
    assert causal_by_itself(square)
    assert [counts_keys(square, cpu), counts_keys(square, gpu), counts_keys(decode, gpu)] == [True, False, True]
    assert not causal_by_itself(Attention(q_len=8, causal=True, padding=True))
    assert not causal_by_itself(Attention(q_len=8, causal=True, window=3))
    assert causal_by_itself(Attention(q_len=2, kv_len=8, causal=True, ragged=True))


def test_grouped_heads_are_stacked_where_all_see_the_same() -> None:
    assert stacked(Attention(q_len=1, kv_len=8, kv_heads=2, causal=True))
    assert stacked(Attention(q_len=3, kv_len=8, kv_heads=2, padding=True))
    assert not stacked(Attention(q_len=3, kv_len=8, kv_heads=2, causal=True))
    assert not stacked(Attention(q_len=1, kv_len=8, kv_heads=2, bias="additive"))
    assert not stacked(Attention(q_len=1, kv_len=8))


def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(onnxrt, Attention(**awkward))


def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(onnxrt)


def test_without_arena_it_computes_the_same(build: Callable[..., Any]) -> None:
    problem = Attention(q_len=33, heads=2)
    inputs = problem.inputs(0)
    with_arena, _ = build(onnxrt, problem)
    without = onnxrt.build(problem, Setup(torch.device("cpu"), calibration=problem.inputs(1), arena=False))
    assert torch.equal(with_arena(inputs), without(inputs))


def test_each_call_has_an_output_of_its_own(build: Callable[..., Any]) -> None:
    problem = Attention(q_len=8, heads=2)
    run, _ = build(onnxrt, problem)
    first = run(problem.inputs(0))
    kept = first.clone()
    second = run(problem.inputs(1))
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, kept)


def test_refuses_bfloat16_on_a_cpu() -> None:
    problem = Attention(q_len=8, dtype="bfloat16")
    assert "no bfloat16 arithmetic" in (onnxrt.why_not(problem, Device("cpu")) or "")
    assert onnxrt.why_not(problem, Device("cuda", capability=(9, 0))) is None
    assert onnxrt.own_allocator
