"""Inputs with structure: recent, repeated and first tokens hold more weight, at every kind of problem."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kerneldyno.bench.gate.examine import Gate
from kerneldyno.kernels.attention._drawing import SINKS
from kerneldyno.kernels.attention.eager import eager
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.attention.sdpa import sdpa
from kerneldyno.kernels.registry import Setup

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"q_len": 512},
    "grouped, causal, half precision": {"q_len": 512, "kv_heads": 2, "causal": True, "dtype": "bfloat16"},
    "wide heads": {"q_len": 300, "head_dim": 128, "heads": 4},
    "padding": {"batch": 2, "q_len": 512, "heads": 4, "padding": True},
    "decode": {"batch": 4, "q_len": 1, "kv_len": 2048, "kv_heads": 2},
    "paged": {"batch": 3, "q_len": 2, "kv_len": 1000, "causal": True, "ragged": True, "page_size": 16},
}


def weights(problem: Attention, inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(what each key weighs, its score), [batch, heads, q_len, kv_len]; hidden keys weigh 0 and score -inf."""
    dense = problem.dense(inputs)
    keys = dense.k.double().repeat_interleave(problem.group, dim=1)
    scores = dense.q.double() @ keys.mT * problem.scale
    visible = problem.visible(dense)
    scores = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(-1), scores


def share_of_the_heaviest(problem: Attention, inputs: AttentionInputs) -> float:
    """Of all weight, that of the tenth of the keys that weighs most."""
    return float(weights(problem, inputs)[0].topk(problem.kv_len // 10, dim=-1).values.sum(-1).mean())


@pytest.mark.parametrize("fields", SHAPES.values(), ids=list(SHAPES))
def test_few_keys_hold_much_of_the_weight_but_not_all(fields: dict[str, Any]) -> None:
    problem = Attention(**fields, structured=True)
    inputs, random = problem.inputs(1), replace(problem, structured=False)
    structured = share_of_the_heaviest(problem, inputs)
    assert share_of_the_heaviest(random, random.inputs(1)) + 0.15 < structured < 0.97
    scores = weights(problem, inputs)[1]
    assert 1.0 < scores[scores.isfinite()].std() < 3.0
    assert 0.9 < problem.dense(inputs).k.float().std() < 1.2  # places of a pool that belong to nobody are loud
    assert inputs.q.dtype == inputs.k.dtype == inputs.v.dtype == getattr(torch, problem.dtype)
    assert inputs.k.shape == problem.kv_shape
    assert all(tensor.isfinite().all() for tensor in inputs.tensors().values())


@pytest.mark.parametrize("fields", [{"q_len": 512}, {"batch": 2, "q_len": 300, "kv_len": 512, "ragged": True, "head_dim": 128}])
def test_recent_keys_weigh_more(fields: dict[str, Any]) -> None:
    problem = Attention(**fields, structured=True)
    inputs = problem.inputs(2)
    weight = weights(problem, inputs)[0]
    _, own = replace(problem, causal=True).seen(inputs.q.device, inputs.lengths)
    distance = (torch.arange(problem.kv_len) - own[..., None]).abs()[:, None].expand_as(weight)
    distance = distance.masked_fill(torch.arange(problem.kv_len) < SINKS, problem.kv_len)  # these weigh much wherever one stands
    near, middle, far = ((low <= distance) & (distance < high) for low, high in ((1, 9), (9, 65), (65, problem.kv_len)))
    assert weight[near].mean() > 2 * weight[middle].mean() > 3 * weight[far].mean()


def test_recent_means_before_the_end_of_the_row() -> None:
    problem = Attention(batch=3, q_len=1, kv_len=900, padding=True, structured=True)
    inputs = problem.inputs(0)
    weight = weights(problem, inputs)[0].mean(1)[:, 0]
    assert inputs.lengths is not None
    for row, length in zip(weight, inputs.lengths.tolist(), strict=True):
        assert row[length - 20 : length].sum() > 4 * row[SINKS : length - 20].mean() * 20


def test_equal_tokens_weigh_more_and_have_similar_values() -> None:
    problem = Attention(q_len=700, structured=True)
    inputs = problem.inputs(3)
    _, scores = weights(problem, inputs)
    values = torch.nn.functional.normalize(inputs.v.double(), dim=-1)
    alike = (values @ values.mT).mean(1)  # over heads: those of two tokens have nothing to do with one another
    far = (torch.arange(700)[:, None] - torch.arange(700)).abs() > 100
    far[:, :SINKS] = False
    equal, other = far & (alike[0] > 0.45), far & (alike[0] < 0.2)
    assert 0.01 < equal.float().mean() < 0.15
    assert (equal | other)[far].float().mean() > 0.98
    gap = scores.mean(1)[0][equal].mean() - scores.mean(1)[0][other].mean()
    assert 2 < gap < 4


def test_the_first_keys_draw_weight_and_say_little() -> None:
    problem = Attention(q_len=1024, structured=True)
    inputs = problem.inputs(0)
    share = weights(problem, inputs)[0][..., :SINKS].sum(-1).mean()
    assert 0.1 < share < 0.5
    assert inputs.v[:, :, :SINKS].square().mean() < 0.03 < 0.9 < inputs.v[:, :, SINKS:].square().mean()


def test_equal_seeds_give_equal_numbers() -> None:
    problem = Attention(batch=2, q_len=40, kv_heads=2, bias="boolean", direction="backward", structured=True)
    once, again, other = (problem.inputs(seed).tensors() for seed in (4, 4, 5))
    assert all(torch.equal(tensor, again[name]) for name, tensor in once.items())
    assert not torch.equal(once["k"], other["k"])
    assert set(once) == {"q", "k", "v", "mask", "grad"}


@pytest.mark.parametrize(
    "fields",
    [{"q_len": 1}, {"q_len": 9, "kv_len": 3}, {"q_len": 2, "kv_len": 5, "head_dim": 1}, {"q_len": 3, "head_dim": 7, "page_size": 4}],
)
def test_tiny_problems(fields: dict[str, Any]) -> None:
    problem = Attention(**fields, structured=True)
    assert problem.reference(problem.inputs(0)).isfinite().all()


def test_structure_is_a_field_but_no_feature() -> None:
    problem = Attention(q_len=3, structured=True)
    assert problem.features == frozenset()
    assert problem.label == "1×8×3×64 structured fp32"
    assert Attention(**problem.fields()) == problem
    assert "structured" not in Attention(q_len=3).fields()


@pytest.mark.parametrize(
    ("kernel", "fields"),
    [
        (eager, {"q_len": 70, "causal": True, "padding": True}),
        (sdpa, {"q_len": 1, "kv_len": 150, "kv_heads": 1, "ragged": True}),
        (sdpa, {"q_len": 70, "direction": "backward"}),
        (eager, {"q_len": 3, "kv_len": 90, "causal": True, "page_size": 16, "ragged": True}),
    ],
)
def test_the_gate_holds_on_structured_inputs(kernel: Any, fields: dict[str, Any]) -> None:
    problem = Attention(**{"batch": 2, "heads": 2, "head_dim": 32, **fields}, structured=True)
    seen = Gate(problem, Setup(torch.device("cpu")), thorough=True, patience_s=1e9).admit(kernel)
    assert seen.probes
