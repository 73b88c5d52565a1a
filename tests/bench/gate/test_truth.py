"""Right answers are affordable at any length, rows are chosen where mistakes sit, and places are told in full positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.gate.errors import WrongOutput, worst_place
from kerneldyno.bench.gate.truth import FEWEST_ROWS, FLOPS, Truth, choose_rows
from kerneldyno.bench.gate.verify import still_judges, verify
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Setup

CPU = torch.device("cpu")


def test_small_problems_are_compared_in_every_row():
    assert choose_rows(Attention(q_len=512), FLOPS["cpu"], 0, CPU) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(q_len=st.integers(50, 40_000), kv_len=st.integers(1, 40_000), flops=st.floats(1e3, 1e10), seed=st.integers(0, 99))
def test_chosen_rows_are_positions_in_order_without_repetition_and_ends_are_among_them(q_len, kv_len, flops, seed):
    problem = Attention(heads=4, q_len=q_len, kv_len=kv_len)
    rows = choose_rows(problem, flops, seed, CPU)
    if rows is None:
        assert problem.flops() <= flops or q_len <= FEWEST_ROWS
        return
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert {0, 1, q_len - 2, q_len - 1} <= set(rows.tolist())
    assert int(rows[0]) >= 0
    assert len(rows) <= q_len


def test_edges_of_tiles_are_looked_at_first():
    rows = set(choose_rows(Attention(q_len=32768, heads=8), FLOPS["cpu"], 0, CPU).tolist())
    for tile in (64, 128, 256):
        assert sum(row % tile == 0 and row - 1 in rows for row in rows) >= 3
    assert {32768 - 1, 32768 - 256, 32768 - 257} <= rows


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_truth_of_some_rows_catches_what_is_wrong_in_them(kernels, direction):
    problem = Attention(batch=1, heads=2, q_len=600, head_dim=16, causal=True, direction=direction)
    truth = Truth.of(problem, problem.inputs(0), None, flops=1e5)
    assert truth.rows is not None
    assert len(truth.rows) < 200
    chosen = kernels["attention/sdpa"]
    answer = chosen.build(problem, Setup(CPU))(truth.inputs)
    verify(answer, chosen, Setup(CPU), truth)
    (answer.output if direction == "backward" else answer)[0, 1, 599, 3] += 0.5
    with pytest.raises(WrongOutput, match="batch 0, head 1, row 599, feature 3"):
        verify(answer, chosen, Setup(CPU), truth)


def test_gradients_of_keys_are_whole_where_rows_are_chosen(kernels):
    problem = Attention(batch=1, heads=2, q_len=600, head_dim=16, direction="backward")
    truth = Truth.of(problem, problem.inputs(0), None, flops=1e5)
    chosen = kernels["attention/sdpa"]
    answer = chosen.build(problem, Setup(CPU))(truth.inputs)
    assert truth.expected["grad k"].shape == answer.by_name["k"].shape
    answer.by_name["k"][0, 1, 17, 2] *= 1.5
    with pytest.raises(WrongOutput, match="the grad k is off from float64 at batch 0, head 1, row 17, feature 2"):
        verify(answer, chosen, Setup(CPU), truth)


@pytest.mark.parametrize("kv_len", [4096, 32768])
def test_running_sums_over_a_long_context_are_right_and_a_hundred_thousandth_is_not(kernels, kv_len):
    problem = Attention(heads=8, q_len=1, kv_len=kv_len, structured=True)
    truth = Truth.of(problem, problem.inputs(0), None, flops=1e12)
    chosen = kernels["attention/sdpa"]
    weights = torch.softmax(truth.inputs.q @ truth.inputs.k.mT * problem.scale, -1)
    one_by_one = (weights.mT * truth.inputs.v).cumsum(2)[:, :, -1:]
    verify(one_by_one, chosen, Setup(CPU), truth)
    with pytest.raises(WrongOutput, match=r"rms error|largest error"):
        verify(one_by_one * (1 + 3e-5), chosen, Setup(CPU), truth)


def test_padded_tokens_of_a_layer_are_not_compared(kernels):
    problem = Layer(batch=2, seq_len=200, dim=32, heads=2, hidden_dim=64, padding=True)
    truth = Truth.of(problem, problem.inputs(0), problem.weights(3), flops=1e5)
    assert truth.rows is not None
    answer = problem.naive(truth.inputs, truth.weights)
    answer[0, int(truth.inputs.lengths[0]) :] = 1e6
    verify(answer, kernels["layer/eager"], Setup(CPU, truth.weights), truth)


def test_places_are_told_by_name():
    right = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    got = right.float()
    got[1, 2, 3, 4] = 0.5
    assert worst_place(got, right) == "batch 1, head 2, row 3, feature 4: expected 0, got 0.5"
    assert worst_place(got, right, torch.tensor([0, 10, 20, 30])).startswith("batch 1, head 2, row 30")
    vector = torch.tensor([0.0, 0.0, 2.0])
    assert worst_place(vector, torch.zeros(3, dtype=torch.float64), torch.tensor([7, 8, 9])) == "place 9: expected 0, got 2"
    got[0, 0, 0, 0] = torch.nan
    assert worst_place(got, right).startswith("batch 0, head 0, row 0, feature 0")


def test_the_judge_notices_when_sums_lie(monkeypatch):
    assert still_judges()
    monkeypatch.setattr(torch.Tensor, "abs", lambda self: self * 0)
    assert not still_judges()
