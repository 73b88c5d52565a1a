"""ONNX Runtime's MultiHeadAttention operator on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.bench.instruments.memory import peak_of
from kerneldyno.kernels.attention.onnxrt_mha import MANY_QUERIES, folded, onnxrt_mha, tiled
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup

CPU = Device("cpu")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_right(case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    judge(onnxrt_mha, Attention(**{**case, "kv_heads": None, "dtype": dtype}))


@pytest.mark.parametrize("fields", [{"causal": True}, {"padding": True}, {}])
def test_awkward_lengths(awkward: dict[str, Any], fields: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(onnxrt_mha, Attention(**{**awkward, "kv_heads": None, "causal": False, **fields}))


@pytest.mark.parametrize("more", [{}, {"causal": False, "bias": "additive"}])
def test_strides(judge_strides: Callable[..., None], more: dict[str, Any]) -> None:
    judge_strides(onnxrt_mha, **more)


def test_a_padded_key_is_hidden_however_large_its_score(judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(heads=2, q_len=8, padding=True)
    inputs = problem.inputs(1)
    keys = inputs.k.clone()
    keys[:, :, -1] = inputs.q[:, :, 0] * 1e4  # a score beyond the 10 000 that ONNX Runtime takes off by default
    judge(onnxrt_mha, problem, inputs.replace(k=keys))


def test_masks_of_batch_rows_and_heads_of_their_own(judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(batch=3, heads=4, q_len=9, kv_len=21, head_dim=16, bias="boolean")
    mask = torch.rand(3, 4, 9, 21, generator=torch.Generator().manual_seed(0)) < 0.5
    judge(onnxrt_mha, problem, problem.inputs(1).replace(mask=mask))


@pytest.mark.parametrize("length", [MANY_QUERIES - 1, MANY_QUERIES])
def test_right_with_either_kernel_of_the_cpu(length: int, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(batch=2, heads=2, q_len=length, kv_len=101, head_dim=16)
    assert tiled(problem, torch.device("cpu")) == (length == MANY_QUERIES)
    judge(onnxrt_mha, problem)


def test_the_tiled_kernel_keeps_no_scores() -> None:
    problem = Attention(heads=2, q_len=2048)
    inputs = problem.inputs(0)
    run = onnxrt_mha.build(problem, Setup(torch.device("cpu"), calibration=problem.inputs(99), arena=False))
    peak = peak_of(lambda: run(inputs), torch.device("cpu"))
    if peak.bytes is None:
        pytest.skip(peak.source)
    assert peak.bytes < 4 * problem.heads * problem.q_len * problem.kv_len / 2


def test_heads_become_sequences_unless_masks_differ_between_them() -> None:
    assert folded(Attention(q_len=8, causal=True, padding=True))
    assert not folded(Attention(q_len=8, bias="additive"))
    assert not folded(Attention(q_len=4, kv_len=8, ragged=True, causal=True))


def test_refuses_what_the_operator_cannot() -> None:
    assert "has a key-value head for each query head, not 2 for 8" in (onnxrt_mha.why_not(Attention(q_len=8, kv_heads=2), CPU) or "")
    assert "no bfloat16 arithmetic" in (onnxrt_mha.why_not(Attention(q_len=8, dtype="bfloat16"), CPU) or "")
    assert onnxrt_mha.why_not(Attention(q_len=8, softcap=1.0), CPU) == "does not take softcap"
    assert onnxrt_mha.family == "onnxrt"
    assert onnxrt_mha.own_allocator
