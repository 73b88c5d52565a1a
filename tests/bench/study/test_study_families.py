"""Families of cells from pools whose truth is known: what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.comparison import Terms
from kerneldyno.bench.study.families import CANARIES, CELLS, choose, draw

TERMS = Terms()


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_processes_of_a_cell_are_different_ones(processes, count, seed):
    taken = choose(rng(seed), (3, 4), processes, count)
    assert taken.shape == (3, 4, min(count, processes))
    assert all(len(set(cell.tolist())) == len(cell) for family in taken for cell in family)
    assert taken.min() >= 0
    assert taken.max() < processes


def test_a_cell_holds_numbers_of_one_kernel_and_slowed_cells_are_where_they_are_said_to_be():
    unchanged, slower = np.arange(2)[:, None] * 100.0 + np.zeros((2, 40)), np.arange(2)[:, None] * 100.0 + np.ones((2, 40))
    for slowed, expected in (("none", 0), ("one", 1), ("all", CELLS)):
        drawn = draw(unchanged, rng(), 40, TERMS, slower, slowed)
        assert drawn.differences.shape == (40, CELLS, 20)
        assert (np.floor(drawn.differences / 100) == drawn.kernels[..., None]).all()
        assert (drawn.differences % 100 == drawn.slower[..., None]).all()
        assert (drawn.slower.sum(axis=1) == expected).all()
        assert (drawn.copies % 100 == 0).all()
        assert drawn.copies.shape == (40, CANARIES, 20)
        assert drawn.canaries == ("0", "1", "2")


def test_each_kernel_is_slowed_equally_often_and_half_of_the_time_as_a_canary():
    drawn = draw(np.zeros((4, 40)), rng(), 40, TERMS, np.ones((4, 40)), "one")
    slowed = drawn.kernels[drawn.slower]
    as_canary = drawn.slower[:, 0]
    assert np.bincount(slowed).tolist() == [10] * 4
    assert drawn.slower[:, -1].sum() == as_canary.sum() == 20
    for kernel in range(4):
        assert as_canary[drawn.kernels[drawn.slower] == kernel].sum() == 5


def test_canaries_have_processes_of_their_own_where_the_candidate_is_the_copy_and_share_them_where_it_is_slower():
    unchanged = np.arange(60.0)[None, :]
    for slowed in ("none", "one", "all"):
        drawn = draw(unchanged, rng(), 8, TERMS, unchanged + 1000, slowed)
        for family in range(8):
            for canary in range(CANARIES):
                of_cell, of_copy = drawn.differences[family, canary], drawn.copies[family, canary]
                if drawn.slower[family, canary]:
                    assert (of_cell == of_copy + 1000).all()
                else:
                    assert not set(of_cell.tolist()) & set(of_copy.tolist())
                assert len(set(of_copy.tolist())) == 20


@pytest.mark.parametrize(("processes", "left"), [(12, 0), (20, 0), (27, 7), (40, 20), (60, 20)])
def test_a_small_pool_leaves_fewer_processes_to_canaries(processes, left):
    cells = draw(np.zeros((1, processes)), rng(), 1, TERMS).evidence(0)
    assert [len(one.copies) for one in cells.values()] == [left] * CANARIES + [0] * (CELLS - CANARIES)
    assert {len(one.differences) for one in cells.values()} == {min(processes, 20)}
