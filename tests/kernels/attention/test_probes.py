"""The probes aim where they say, rows can be chosen, and a disguised question has the answer of the plain one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.layer.problem import Layer

CASES = [
    Attention(batch=2, heads=4, kv_heads=2, q_len=40, kv_len=57, head_dim=16, causal=True, padding=True),
    Attention(batch=1, heads=2, q_len=33, head_dim=16, bias="boolean"),
    Attention(batch=2, heads=2, q_len=20, head_dim=16, bias="additive", causal=True),
    Attention(batch=2, heads=4, kv_heads=1, q_len=24, head_dim=16, padding=True, direction="backward"),
    Attention(batch=2, heads=2, q_len=20, head_dim=16, window=5, causal=True, softcap=3.0),
    Attention(batch=3, heads=4, kv_heads=2, q_len=2, kv_len=45, head_dim=16, window=9, ragged=True),
    Attention(batch=3, heads=4, kv_heads=2, q_len=1, kv_len=45, head_dim=16, ragged=True, page_size=8),
    Attention(batch=2, heads=4, kv_heads=2, q_len=30, kv_len=45, head_dim=16, causal=True, page_size=16),
    FeedForward(batch=2, seq_len=11, dim=24, hidden_dim=32, gated=True, norm="rmsnorm", residual=True),
    Layer(batch=3, seq_len=21, dim=24, heads=2, hidden_dim=32, padding=True, mask="causal"),
    Layer(batch=1, seq_len=21, dim=24, heads=2, hidden_dim=32),
    Layer(batch=1, seq_len=21, dim=24, heads=2, hidden_dim=32, mask="boolean"),
]


def right(problem, inputs):
    weights = problem.weights(3)
    if problem.direction == "backward":
        return problem.gradients(inputs)
    return problem.compared(problem.reference(inputs, weights), inputs)


@pytest.mark.parametrize("problem", CASES, ids=lambda p: f"{p.operator} {p.label}")
@pytest.mark.parametrize("seed", [1, 2, 7])
def test_a_disguised_question_has_the_same_answer(problem, seed):
    inputs = problem.inputs(0)
    clothed, back = problem.disguised(inputs, seed)
    found, plain = right(problem, clothed), right(problem, inputs)
    if problem.direction == "backward":
        for name in inputs.differentiable:
            torch.testing.assert_close(back(found).by_name[name], plain.by_name[name], rtol=1e-12, atol=1e-12)
        found, plain = back(found).output, plain.output
    else:
        found = problem.compared(back(found), inputs)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    if problem.operator == "attention":
        again, _ = problem.disguised(inputs, seed + 1)
        assert not any(torch.equal(getattr(clothed, name), getattr(again, name)) for name in ("q", "k", "v"))


@pytest.mark.parametrize("problem", CASES, ids=lambda p: f"{p.operator} {p.label}")
def test_chosen_rows_have_the_answers_of_the_whole(problem):
    rows = torch.tensor(sorted({row for row in (0, 1, 5, problem.row_count - 1) if row < problem.row_count}))
    inputs, weights = problem.inputs(0), problem.weights(3)
    if problem.direction == "backward":
        grad = torch.zeros_like(inputs.grad)
        grad[:, :, rows] = inputs.grad[:, :, rows]
        inputs = inputs.replace(grad=grad)
        whole, some = problem.gradients(inputs), problem.at(rows).gradients(inputs)
        torch.testing.assert_close(some.by_name["q"], whole.by_name["q"][:, :, rows])
        torch.testing.assert_close(some.by_name["k"], whole.by_name["k"])
        torch.testing.assert_close(some.by_name["v"], whole.by_name["v"])
        assert whole.by_name["q"].count_nonzero() == whole.by_name["q"][:, :, rows].count_nonzero()
        return
    for formula in ("reference", "naive"):
        whole = problem.compared(getattr(problem, formula)(inputs, weights), inputs)[..., rows, :]
        chosen = problem.at(rows)
        some = chosen.compared(getattr(chosen, formula)(inputs, weights), inputs)
        torch.testing.assert_close(some, whole, rtol=1e-5, atol=1e-5)
    assert problem.rows is None
    assert problem.at(rows) == problem


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    q_len=st.integers(1, 40),
    kv_len=st.integers(1, 40),
    causal=st.booleans(),
    lengths=st.sampled_from(["", "padding", "ragged"]),
    bias=st.sampled_from(["none", "additive", "boolean"]),
    group=st.sampled_from([1, 2]),
    batch=st.integers(1, 3),
    window=st.sampled_from([0, 0, 1, 7]),
    softcap=st.sampled_from([0, 2.0]),
    page_size=st.sampled_from([0, 0, 1, 16]),
)
def test_probes_fit_any_problem(q_len, kv_len, lengths, group, **others):
    kv_len = max(q_len, kv_len) if lengths == "ragged" else kv_len
    problem = Attention(
        heads=2 * group, kv_heads=2, q_len=q_len, kv_len=kv_len, head_dim=16, **dict.fromkeys(filter(None, [lengths]), True), **others
    )
    inputs = problem.inputs(0)
    shapes = {name: tensor.shape for name, tensor in inputs.tensors().items()}
    for probe in problem.probes(inputs, 3):
        if probe.problem is None:
            assert {name: tensor.shape for name, tensor in probe.inputs.tensors().items()} == shapes
        output = (probe.problem or problem).reference(probe.inputs)
        assert output.isfinite().all()
        if probe.zeros is not None:
            assert not output[probe.zeros.expand(output.shape)].any()


def test_the_sought_keys_decide():
    problem = Attention(batch=1, heads=2, kv_heads=1, q_len=30, head_dim=64, causal=True)
    inputs = problem.inputs(0)
    by_name = {probe.name: probe.inputs for probe in problem.probes(inputs, 0)}
    seen = problem.reference(by_name["the last visible key decides"])
    own = inputs.v.double().expand(-1, 2, -1, -1)
    assert (seen - own).norm() < 0.05 * own.norm()
    sought = by_name["a key that must not be seen is sought"]
    leaking = Attention(batch=1, heads=2, kv_heads=1, q_len=30, head_dim=64).reference(sought)
    following = own[:, :, 1:]
    assert (leaking[:, :, :-1] - following).norm() < 0.05 * following.norm(), "whoever sees the next key returns its value"
    assert (problem.reference(sought)[:, :, :-1] - following).norm() > 0.9 * following.norm()


def test_every_key_counts_by_name():
    problem = Attention(batch=1, heads=1, q_len=3, kv_len=50, head_dim=16)
    (tiles,) = [probe.inputs for probe in problem.probes(problem.inputs(0), 0) if probe.name.startswith("every key counts")]
    assert torch.equal(tiles.v.sum(-1), torch.ones(1, 1, 50))
    assert tiles.v.sum(2).flatten().tolist() == [4.0] * 12 + [2.0] + [0.0] * 3
