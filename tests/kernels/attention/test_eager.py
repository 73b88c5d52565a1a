"""The textbook formula as a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.eager import eager
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
def test_right(case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    judge(eager, Attention(**case, dtype=dtype))


def test_gradients_are_right(backward_case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(eager, Attention(**backward_case))


def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(eager, Attention(**awkward))


def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(eager)


def test_blind_queries_give_zero(judge: Callable[..., torch.Tensor]) -> None:
    output = judge(eager, Attention(q_len=9, kv_len=4, heads=2, head_dim=8, causal=True))
    assert torch.equal(output[:, :, :5], torch.zeros(1, 2, 5, 8))
