"""The example of a kernel given from outside, in one file, works as it is written in the documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

EXAMPLE = '''
"""Sliding-window attention through SDPA with a boolean mask."""

import torch
import torch.nn.functional as F

from kerneldyno.kernels.registry import Run, Setup, kernel
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs

WINDOW = 512


def visible(problem: Attention, device: torch.device) -> torch.Tensor:
    """[q_len, kv_len]: true on the last WINDOW keys up to the query's own position, ends aligned."""
    query = torch.arange(problem.q_len, device=device)[:, None] + problem.kv_len - problem.q_len
    key = torch.arange(problem.kv_len, device=device)[None, :]
    return (key <= query) & (key > query - WINDOW)


def claim(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:
    return problem.reference(inputs.with_mask(visible(problem, setup.device)))


@kernel(Attention, devices=("cpu", "cuda"), accepts=("causal",), approximate=True, claim=claim)
def banded(problem: Attention, setup: Setup) -> Run:
    """Attend only to the last WINDOW keys. Building the mask is not timed; applying it is."""
    mask = visible(problem, setup.device)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, attn_mask=mask, enable_gqa=problem.grouped)

    return run
'''


@pytest.mark.parametrize("problem", [Attention(q_len=700, heads=4, kv_heads=2, causal=True), Attention(q_len=9, kv_len=600, heads=2)])
def test_example(problem: Attention, tmp_path: Path, judge: Callable[..., torch.Tensor]) -> None:
    path = tmp_path / "my_kernels.py"
    path.write_text(EXAMPLE)
    banded = registry.load([path])["attention/banded"]
    assert banded.summary == "Attend only to the last WINDOW keys. Building the mask is not timed; applying it is."
    assert banded.why_not(problem, Device("cpu")) is None
    assert banded.why_not(Attention(q_len=4, padding=True), Device("cpu")) == "does not take padding"
    output = judge(banded, problem)
    exact = problem.reference(problem.inputs(1))
    assert not torch.allclose(output.double(), exact, atol=1e-3), "keys beyond the window were left out"
