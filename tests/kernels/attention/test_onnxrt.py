"""ONNX Runtime's attention node on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.onnxrt import onnxrt
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_right(case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
    assert onnxrt.why_not(problem, Device("cpu")) is None
    judge(onnxrt, problem)


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
