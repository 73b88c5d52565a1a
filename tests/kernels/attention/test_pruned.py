"""Head pruning keeps the heads with the largest values, whole groups at a time, and computes no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.attention.pruned import kept_heads, pruned, pruned_25, pruned_75, stretches
from kerneldyno.kernels.registry import Device, Kernel, Setup


@pytest.mark.parametrize("kernel", [pruned_75, pruned_25], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(
    "fields", [{}, {"kv_heads": 4, "bias": "additive"}, {"heads": 4, "kv_heads": 2, "padding": True}, {"q_len": 3, "bias": "additive"}]
)
def test_claim_holds_at_other_shares(kernel: Kernel, fields: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(kernel, Attention(batch=2, **{"heads": 8, "q_len": 70, "head_dim": 32, **fields}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_claim_holds(case: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
    if problem.kv_heads == 1 and problem.features <= pruned.accepts:
        assert "single key-value head" in (pruned.why_not(problem, Device("cpu")) or "")
    else:
        judge(pruned, problem)


def test_strides(judge_strides: Callable[..., None]) -> None:
    judge_strides(pruned)


def emphasized(problem: Attention, kv_heads: list[int]) -> Setup:
    calibration = problem.inputs(7)
    loud = torch.ones(problem.kv_heads)
    loud[kv_heads] = 3.0
    return Setup(torch.device("cpu"), calibration=calibration.replace(v=calibration.v * loud[None, :, None, None]))


def test_keeps_the_loudest_heads() -> None:
    problem = Attention(heads=6, q_len=16)
    setup = emphasized(problem, [1, 2, 5])
    assert kept_heads(problem, setup)[0].tolist() == [1, 2, 5]
    output = pruned.build(problem, setup)(problem.inputs(0))
    right = problem.reference(problem.inputs(0))
    assert torch.equal(output[:, [0, 3, 4]], torch.zeros(1, 3, 16, 64))
    torch.testing.assert_close(output[:, [1, 2, 5]].double(), right[:, [1, 2, 5]], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kernel", "zero"), [(pruned_75, [2, 7]), (pruned_25, [0, 1, 2, 4, 6, 7])])
def test_the_quietest_heads_go_first(kernel: Kernel, zero: list[int]) -> None:
    problem = Attention(heads=8, q_len=16)
    calibration = problem.inputs(7)
    loudness = torch.tensor([0.6, 0.5, 0.1, 3.0, 0.7, 2.0, 0.4, 0.2])
    setup = Setup(torch.device("cpu"), calibration=calibration.replace(v=calibration.v * loudness[None, :, None, None]))
    output = kernel.build(problem, setup)(problem.inputs(0))
    assert output.abs().sum((0, 2, 3)).eq(0).nonzero().flatten().tolist() == zero


def test_two_heads_are_halved_at_any_share() -> None:
    problem = Attention(heads=4, kv_heads=2, q_len=16)
    for share in (0.75, 0.5, 0.25):
        assert kept_heads(problem, emphasized(problem, [1]), share)[0].tolist() == [2, 3]


def test_groups_stay_or_go_as_wholes() -> None:
    problem = Attention(heads=12, kv_heads=4, q_len=16)
    heads, kv_heads = kept_heads(problem, emphasized(problem, [0, 3]))
    assert kv_heads.tolist() == [0, 3]
    assert heads.tolist() == [0, 1, 2, 9, 10, 11]


def test_padding_does_not_count() -> None:
    problem = Attention(heads=2, q_len=16, padding=True)
    calibration = problem.inputs(0)
    v = calibration.v.clone()
    v[:, 0, 12:] = 1000.0  # the single row has 12 valid keys
    v[:, 1] *= 2
    assert kept_heads(problem, Setup(torch.device("cpu"), calibration=calibration.replace(v=v)))[0].tolist() == [1]


def test_half_of_the_work_is_gone(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Attention(heads=8, kv_heads=4, q_len=64)
    run, _ = build(pruned, problem)
    attend: Callable[..., torch.Tensor] = torch.nn.functional.scaled_dot_product_attention
    shapes: list[tuple[int, ...]] = []

    def watched(*qkv: torch.Tensor, **options: Any) -> torch.Tensor:
        shapes.extend(tensor.shape for tensor in qkv)
        return attend(*qkv, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    run(problem.inputs(0))
    assert shapes == [(1, 4, 64, 64), (1, 2, 64, 64), (1, 2, 64, 64)]


@pytest.mark.parametrize(
    ("kept", "group", "found"),
    [
        ([0, 1, 2], 1, [(0, 3, 0, 3)]),
        ([1, 3, 4, 7], 2, [(2, 4, 1, 2), (6, 10, 3, 5), (14, 16, 7, 8)]),
        ([5], 4, [(20, 24, 5, 6)]),
    ],
)
def test_stretches_are_runs_of_neighbours(kept: list[int], group: int, found: list[tuple[int, int, int, int]]) -> None:
    assert [(q.start, q.stop, kv.start, kv.stop) for q, kv in stretches(kept, group)] == found


def test_a_decode_step_copies_no_cache(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Attention(heads=8, kv_heads=8, q_len=1, kv_len=64)
    run, _ = build(pruned, problem)
    attend: Callable[..., torch.Tensor] = torch.nn.functional.scaled_dot_product_attention
    inputs = problem.inputs(0)
    seen: list[int] = []

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> torch.Tensor:
        assert k.untyped_storage().data_ptr() == inputs.k.untyped_storage().data_ptr()
        assert v.untyped_storage().data_ptr() == inputs.v.untyped_storage().data_ptr()
        seen.append(k.shape[1])
        return attend(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    run(inputs)
    assert sum(seen) == 4
