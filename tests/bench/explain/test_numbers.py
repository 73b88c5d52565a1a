from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.explain.numbers import compared

EXACT = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)


def test_the_same_map_has_moved_nothing() -> None:
    found = compared(3, EXACT, EXACT.float())
    assert found.head == 3
    assert found.moved_worst < 1e-7
    assert found.divergence == pytest.approx(0, abs=1e-7)
    assert (found.same_top, found.kept, found.total) == pytest.approx((1, 1, 1))
    assert found.entropy == pytest.approx(found.entropy_exact)


def test_numbers_of_a_map_that_leaves_keys_out() -> None:
    weights = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]])
    found = compared(0, EXACT, weights)
    assert found.moved_mean == pytest.approx(0.25)
    assert found.moved_worst == pytest.approx(0.5)
    assert found.kept == pytest.approx(0.75)
    assert found.same_top == 0.5
    assert found.divergence == pytest.approx(math.log(2) / 2, rel=1e-6)
    assert found.entropy < found.entropy_exact
    worst = found.changed[0]
    assert (worst.query, worst.exact_key, worst.key) == (0, 0, 1)
    assert (worst.exact_weight, worst.weight) == (0.5, 0.5)


def test_a_head_that_is_left_out_has_moved_altogether() -> None:
    found = compared(0, EXACT, torch.zeros(2, 4))
    assert (found.total, found.moved_mean, found.kept, found.same_top) == (0, 1, 0, 0)
    assert found.entropy is found.divergence is None
    assert found.changed == ()


def test_queries_that_see_no_key_do_not_count() -> None:
    exact = torch.cat([torch.zeros(1, 4, dtype=torch.float64), EXACT])
    assert compared(0, exact, exact).changed[0].query in (1, 2)
    assert compared(0, exact, torch.cat([torch.zeros(1, 4), EXACT.float()])).moved_worst < 1e-7


def test_equally_heavy_keys_are_all_right() -> None:
    even = torch.full((3, 4), 0.25, dtype=torch.float64)
    shifted = even.clone()
    shifted[:, 3] += 1e-9
    assert compared(0, even, shifted).same_top == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**20), st.floats(0, 5))
def test_distances_stay_in_their_bounds(queries: int, keys: int, seed: int, noise: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(queries, keys, dtype=torch.float64, generator=generator)
    p = scores.softmax(1)
    a = (scores + noise * torch.randn(queries, keys, dtype=torch.float64, generator=generator)).softmax(1)
    found = compared(0, p, a)
    assert 0 <= found.moved_mean <= found.moved_worst + 1e-12 <= 1 + 1e-9
    assert found.divergence > -1e-9
    # Pinsker: the squared distance is at most half the divergence, query by query and so on average
    assert found.moved_mean**2 <= found.divergence / 2 + 1e-9
    assert 0 <= found.entropy <= math.log(keys) + 1e-9
