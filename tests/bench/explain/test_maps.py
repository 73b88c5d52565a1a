from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kerneldyno.bench.explain import maps
from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Setup

PROBLEMS = [
    Attention(q_len=24, heads=4, head_dim=16),
    Attention(q_len=24, kv_len=50, heads=4, kv_heads=2, head_dim=16, causal=True),
    Attention(q_len=24, kv_len=33, heads=4, head_dim=16, bias="boolean", padding=True),
    Attention(q_len=40, heads=2, head_dim=16, window=8, softcap=5.0, bias="additive"),
]


def setup_of(problem: Attention) -> Setup:
    return Setup(torch.device("cpu"), calibration=problem.inputs(2))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.label)
def test_an_exact_map_is_the_softmax_of_visible_scores(problem: Attention) -> None:
    inputs = problem.inputs(0)
    heads = (0, problem.heads - 1)
    found = maps.exact(problem, inputs, heads)
    assert found.shape == (2, problem.q_len, problem.kv_len)
    k = inputs.k.repeat_interleave(problem.group, dim=1)
    scores = inputs.q.double() @ k.double().mT * problem.scale
    if problem.softcap:
        scores = problem.softcap * torch.tanh(scores / problem.softcap)
    if inputs.bias is not None:
        scores = scores + inputs.bias
    visible = problem.visible(inputs)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    assert torch.allclose(found, scores.softmax(-1)[0, list(heads)].nan_to_num(0), atol=1e-12)


def test_the_map_of_an_exact_kernel_times_the_values_is_its_answer() -> None:
    problem = PROBLEMS[1]
    kernel, inputs = registry.load()["attention/sdpa"], problem.inputs(0)
    call = kernel.build(problem, setup_of(problem))
    found = maps.weights_of(call, inputs, (1, 3))
    assert torch.allclose(found.double(), maps.exact(problem, inputs, (1, 3)), atol=1e-6)
    assert maps.unexplained(call, inputs, (1, 3), found, problem.group) < 1e-5


def test_a_kernel_whose_answer_is_no_map_is_found_out() -> None:
    problem = PROBLEMS[0]
    kernel, inputs = registry.load()["attention/sdpa"], problem.inputs(0)
    run = kernel.build(problem, setup_of(problem))

    def rounding(given):
        return run(given.replace(v=given.v.round()))  # it leaves the identity as it is

    found = maps.weights_of(rounding, inputs, (0,))
    assert maps.unexplained(rounding, inputs, (0,), found, 1) > 0.1


def test_a_pruned_head_has_an_empty_map() -> None:
    problem = PROBLEMS[0]
    kernel, inputs = registry.load()["attention/pruned"], problem.inputs(0)
    found = maps.weights_of(kernel.build(problem, setup_of(problem)), inputs, range(4))
    sums = found.sum(-1).mean(-1)
    assert sorted(round(float(one), 4) for one in sums) == [0, 0, 1, 1]


def test_pooling_keeps_every_share() -> None:
    weights = torch.rand(300, 130).softmax(-1)
    cells = maps.cell_of(300), maps.cell_of(130)
    assert cells == (3, 2)
    pooled = torch.tensor(maps.pooled(weights, *cells))
    assert pooled.shape == (100, 65)
    assert torch.allclose(pooled.sum(1), torch.ones(100), atol=0.01)
    assert torch.allclose(pooled[0, 0], weights[:3, :2].sum(1).mean(), rtol=0.01)


def test_the_first_row_of_a_batch_is_looked_at() -> None:
    problem = Attention(batch=2, q_len=8, heads=2, head_dim=16)
    inputs = problem.inputs(0)
    alone = replace(problem, batch=1)
    first = inputs.map(lambda tensor: tensor[:1])
    assert torch.equal(maps.exact(problem, inputs, (1,)), maps.exact(alone, first, (1,)))
