"""Block-sparse attention attends to the blocks that it claims to choose, leaves out the rest, and errs less where inputs have structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.gate.examine import examine
from kerneldyno.kernels.attention import block_sparse
from kerneldyno.kernels.attention._sparse_blocks import KEYS, Choice, Span, kept_share
from kerneldyno.kernels.attention._sparse_claim import claimed, kept
from kerneldyno.kernels.attention._sparse_gather import through_blocks
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Kernel, Setup

KERNELS = [block_sparse.block_sparse_50, block_sparse.block_sparse_12, block_sparse.block_sparse_mass90]
CPU = torch.device("cpu")


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_claim_holds(case: dict[str, Any], kernel: Kernel, judge: Callable[..., torch.Tensor]) -> None:
    longer = {**case, "kv_len": case.get("kv_len", case["q_len"]) + 200, "batch": 2}
    judge(kernel, Attention(**longer))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("causal", [False, True])
def test_claim_holds_in_16_bit(dtype: str, causal: bool, judge: Callable[..., torch.Tensor]) -> None:
    judge(block_sparse.block_sparse_25, Attention(heads=4, kv_heads=2, q_len=600, head_dim=40, causal=causal, dtype=dtype, structured=True))


def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(block_sparse.block_sparse_25, Attention(**awkward))


def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(block_sparse.block_sparse_50, kv_len=300)


@pytest.mark.parametrize(
    "case",
    [
        {"q_len": 1000, "causal": True},
        {"q_len": 300, "kv_len": 1000, "padding": True, "batch": 2},
        {"q_len": 1, "kv_len": 1000, "ragged": True, "kv_heads": 1},
    ],
)
def test_the_whole_gate_lets_it_through(case: dict[str, Any]) -> None:
    problem = Attention(**{"heads": 2, "head_dim": 32, **case})
    always = replace(block_sparse.block_sparse_25, refuses=None)
    found = examine(always, problem, Setup(CPU), thorough=True)
    assert found.symmetric
    assert found.left_out == {}


def distance(problem: Attention, choice: Choice, queries: int = 128) -> float:
    inputs = problem.inputs(1)
    exact = problem.reference(inputs)
    return float((claimed(problem, inputs, choice, queries) - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("causal", [False, True])
def test_structure_is_what_it_lives_on(causal: bool) -> None:
    problem = Attention(heads=2, q_len=1024, causal=causal)
    plain, structured = (distance(replace(problem, structured=given_), Choice(parts=4)) for given_ in (False, True))
    assert structured < 0.4 < 3 * structured
    assert structured < plain / 3


def test_more_blocks_come_nearer() -> None:
    problem = Attention(heads=2, q_len=1024, structured=True)
    shares = [distance(problem, Choice(parts=parts)) for parts in (8, 4, 2, 1)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1e-12


def test_of_equal_blocks_the_first_stay(judge: Callable[..., torch.Tensor]) -> None:
    """A query of zeros, whose estimates are all alike: the gate asks so where rows differ by a hundred."""
    problem = Attention(heads=2, kv_heads=1, q_len=1, kv_len=4096, head_dim=32)
    inputs = problem.inputs(1)
    judge(block_sparse.block_sparse_25, problem, inputs.replace(q=torch.zeros_like(inputs.q)))


def test_the_heaviest_block_is_found() -> None:
    problem = Attention(heads=2, kv_heads=1, q_len=300, kv_len=1024)
    inputs = problem.inputs(1)
    k = inputs.k.clone()
    k[:, :, 5 * KEYS : 6 * KEYS] += 3 * inputs.q[:, :1].mean(2, keepdim=True) / inputs.q[:, :1].mean(2).norm()
    loud = inputs.replace(k=k, q=inputs.q + 3 * inputs.q.mean(2, keepdim=True) / inputs.q.mean(2, keepdim=True).norm(dim=-1, keepdim=True))
    one = replace(problem, heads=1)
    head = loud.replace(q=loud.q[:, :1])
    chosen = kept(one, head, Choice(parts=8), 256)[0].view(-1, KEYS).all(-1)
    assert chosen.sum() == 2
    assert chosen[0], "the first block stays in any case"
    assert chosen[5]
    # the kernel is right with exactly these, far from right with others
    right = one.reference(head.with_mask(kept(one, head, Choice(parts=8), 256)))
    torch.testing.assert_close(through_blocks(one, Choice(parts=8), 256)(head).double(), right, rtol=0, atol=1e-5)


def test_mass_keeps_few_blocks_where_few_matter() -> None:
    problem = Attention(heads=1, q_len=256, kv_len=1024)
    inputs = problem.inputs(1)
    mostly = kept(problem, inputs, Choice(mass=0.9), 256)
    assert 0.8 < mostly.double().mean() < 1
    k = inputs.k.clone()
    k[:, :, 7 * KEYS : 8 * KEYS] += 8.0
    assert kept(problem, inputs.replace(k=k, q=inputs.q + 1), Choice(mass=0.9), 256)[0].view(-1, KEYS).all(-1).nonzero().tolist() == [
        [0],
        [7],
    ]


@settings(deadline=None)
@given(
    st.integers(1, 600), st.integers(1, 600), st.integers(1, 600), st.booleans(), st.sampled_from((128, 256)), st.sampled_from((2, 4, 8))
)
def test_spans_are_what_queries_see(q_len: int, kv_len: int, length: int, causal: bool, queries: int, parts: int) -> None:
    length = min(length, kv_len)
    for block in range(-(-q_len // queries)):
        span = Span.of(block, queries, q_len=q_len, past=kv_len - q_len, length=length, causal=causal)
        rows = range(block * queries, min((block + 1) * queries, q_len))
        last = [min(length - 1, row + kv_len - q_len if causal else length - 1) for row in rows]
        assert span.end == max(-1, *last) // KEYS + 1 if max(last) >= 0 else span.end == 0
        assert 0 <= span.own <= span.end
        if causal:
            own = {row + kv_len - q_len for row in rows} & set(range(length))
            assert {at // KEYS for at in own} <= set(range(span.own, span.end))
        assert span.must <= span.kept(Choice(parts=parts)) <= span.end


def test_shares() -> None:
    # 32 blocks of queries that see 2, 4, …, 64 blocks of keys, of which the first and the last two stay
    problem = Attention(q_len=4096, causal=True)
    assert kept_share(problem, Choice(parts=4), 128) == pytest.approx((2 + 5 * 3 + sum((2 * i + 3) // 4 for i in range(7, 33))) / 1056)
    assert kept_share(replace(problem, causal=False), Choice(parts=4), 128) == 0.25
    assert kept_share(problem, Choice(mass=0.9), 128) == 1


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_few_keys_are_refused(kernel: Kernel) -> None:
    assert "15 blocks of 64 keys" in (kernel.why_not(Attention(q_len=960), Device("cpu")) or "")
    assert kernel.why_not(Attention(q_len=961), Device("cpu")) is None
