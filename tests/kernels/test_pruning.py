from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.kernels._pruning import kept_count, row_norms, some_of, strongest


@pytest.mark.parametrize(
    ("count", "kept"), [(2048, 1024), (14336, 7168), (11008, 5504), (1100, 512), (203, 96), (64, 32), (20, 10), (1, 1)]
)
def test_kept_counts(count, kept):
    assert kept_count(count) == kept


@given(st.integers(1, 10**6))
def test_about_half_is_kept(count):
    assert 1 <= kept_count(count) <= max(1, count // 2)
    assert kept_count(count) >= count // 2 - 127


@pytest.mark.parametrize(
    ("count", "share", "left"),
    [(8, 0.75, 6), (8, 0.5, 4), (8, 0.25, 2), (32, 0.25, 8), (3, 0.5, 2), (2, 0.75, 1), (2, 0.25, 1), (1, 0.5, 1)],
)
def test_some_stay_and_some_go(count, share, left):
    assert some_of(count, share) == left


@given(st.integers(2, 10**4), st.floats(0, 1))
def test_never_all_and_never_none(count, share):
    assert 1 <= some_of(count, share) < count
    assert abs(some_of(count, share) - count * share) <= 1


def test_the_strongest_in_their_old_order():
    assert strongest(torch.tensor([3.0, 9.0, 1.0, 5.0]), 3).tolist() == [0, 1, 3]


def test_row_norms_are_exact_beyond_16_bit():
    assert row_norms(torch.full((2, 4), 30000.0, dtype=torch.float16)).tolist() == [60000.0, 60000.0]
