"""Families of cells from pools whose truth is known: what is drawn, what is said of it, and how often."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.compare.decide import Decision, decide, power
from kerneldyno.bench.comparison import Terms
from kerneldyno.bench.study import families
from kerneldyno.bench.study.families import CANARIES, CELLS, choose, disjoint, draw, exit_code, judge, resampled, suspected

TERMS = Terms()


def rng(seed=0):
    return np.random.default_rng(seed)


def alarmed(drawn):
    return [judge(drawn, family, TERMS).alarmed for family in range(len(drawn.differences))]


# ---------------------------------------------------------------- what is drawn


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_processes_of_a_cell_are_different_ones(processes, count, seed):
    taken = choose(rng(seed), (3, 4), processes, count)
    assert taken.shape == (3, 4, min(count, processes))
    assert all(len(set(cell.tolist())) == len(cell) for family in taken for cell in family)
    assert taken.min() >= 0
    assert taken.max() < processes


def test_a_cell_holds_numbers_of_one_kernel_and_slowed_cells_are_where_they_are_said_to_be():
    unchanged, slower = np.arange(2)[:, None] * 100.0 + np.zeros((2, 30)), np.arange(2)[:, None] * 100.0 + np.ones((2, 30))
    for slowed, expected in (("none", 0), ("one", 1), ("all", CELLS)):
        drawn = draw(unchanged, rng(), 40, TERMS, slower, slowed)
        assert drawn.differences.shape == (40, CELLS, 20)
        assert (np.floor(drawn.differences / 100) == drawn.kernels[..., None]).all()
        assert ((drawn.differences % 100).min(axis=2).sum(axis=1) == expected).all()
        assert (drawn.copies % 100 == 0).all()
        assert drawn.copies.shape[1] == CANARIES
    one = draw(unchanged, rng(), 40, TERMS, slower, "one")
    assert (one.differences[:, -1] % 100 == 1).all()
    assert np.bincount(one.kernels[:, -1]).tolist() == [20, 20]  # each kernel is slowed equally often


def test_a_cell_has_no_more_processes_than_a_comparison_would_have_measured(simulated):
    calm, restless = (draw(simulated([spread]).copies, rng(), 1, TERMS) for spread in (0.002, 0.05))
    assert {len(one.differences) for one in calm.evidence(0, TERMS).values()} == {TERMS.processes + TERMS.second_look}
    assert {len(one.differences) for one in restless.evidence(0, TERMS).values()} == {TERMS.more_processes + TERMS.second_look}


def test_canaries_are_cells_too_only_where_the_candidate_is_not_the_copy(simulated):
    pool = simulated([0.005])
    slower = draw(pool.copies, rng(), 1, TERMS, pool.of("slower_by_5"), "all").evidence(0, TERMS)
    assert sum(bool(one.copies) for one in slower.values()) == CANARIES
    assert not any(one.copies for one in draw(pool.copies, rng(), 1, TERMS).evidence(0, TERMS).values())


# ---------------------------------------------------------------- how often


def test_equal_kernels_raise_no_alarm_even_with_heavy_tails(simulated):
    for tails in (None, 3):
        pool = simulated([0.005, 0.01, 0.02], tails=tails)
        assert families.alarms(draw(pool.copies, rng(1), 400, TERMS), TERMS) == 0


def test_at_the_very_margin_a_family_alarms_about_as_often_as_was_declared(simulated):
    """All cells slower by exactly the margin is the worst case: then alpha, the share of both looks together, bounds it."""
    pool = simulated([0.01], processes=4000, ratio=1 + TERMS.margin)
    rate = families.alarms(draw(pool.copies, rng(2), 300, TERMS), TERMS) / 300
    assert 0.002 < rate < TERMS.alpha + 3 * math.sqrt(TERMS.alpha / 300)


def test_slowdowns_are_seen_as_often_as_theory_says(simulated):
    pool = simulated([0.02], processes=2000)
    drawn = draw(pool.copies, rng(3), 60, TERMS, pool.of("slower_by_5"), "one")
    said = [judge(drawn, family, TERMS) for family in range(60)]
    first = np.mean([one.first[str(CELLS - 1)].word == "REGRESSED" for one in said])
    expected = power(0.02, TERMS.more_processes, TERMS, cells=CELLS)
    assert abs(first - expected) < 0.2
    assert 0.2 < expected < 0.9  # else it would show nothing


def test_large_slowdowns_are_seen_and_exit_with_1(simulated):
    pool = simulated([0.005, 0.01])
    for slowed in ("one", "all"):
        drawn = draw(pool.copies, rng(4), 10, TERMS, pool.of("slower_by_20"), slowed)
        said = [judge(drawn, family, TERMS) for family in range(10)]
        assert all(one.exit_code == 1 for one in said)
        assert {one.words["REGRESSED"] for one in said} == {1 if slowed == "one" else CELLS}


@settings(max_examples=8, deadline=None)
@given(st.floats(0.0, 0.04), st.floats(0.001, 0.04), st.integers(0, 10**6))
def test_whoever_is_not_suspected_raises_no_alarm(change, spread, seed):
    unchanged = rng(seed).normal(math.log1p(change), spread, (2, 60))
    drawn = draw(unchanged, rng(seed + 1), 4, TERMS)
    flagged = suspected(drawn.differences, TERMS)
    assert all(flag for flag, alarm in zip(flagged, alarmed(drawn), strict=True) if alarm)


def test_some_are_suspected_and_some_are_not(simulated):
    assert suspected(draw(simulated([0.005], ratio=1.05).copies, rng(), 5, TERMS).differences, TERMS).all()
    assert not suspected(draw(simulated([0.005]).copies, rng(), 5, TERMS).differences, TERMS).any()


def test_differences_without_any_spread_are_decided(simulated):
    assert not suspected(np.zeros((1, CELLS, 20)), TERMS).any()
    assert suspected(np.full((1, CELLS, 20), 0.05), TERMS).all()


def test_pools_drawn_anew(simulated):
    slow, calm = simulated([0.005], ratio=1.06), simulated([0.005])
    assert resampled(slow.copies, rng(), 3, 2, TERMS).tolist() == [1.0, 1.0, 1.0]
    assert resampled(calm.copies, rng(), 3, 20, TERMS).tolist() == [0.0, 0.0, 0.0]


# ---------------------------------------------------------------- disjoint, exit codes, canaries


def test_disjoint_families_use_every_process_once(simulated):
    found = disjoint(simulated([0.005] * 4).copies, TERMS, 20)
    assert (found.families, found.cells, found.alarms, found.slower) == (1, 24, 0, 0)
    assert sum(found.words.values()) == 24
    first = disjoint(simulated([0.005] * 4, ratio=1.05).copies, TERMS, 12)
    assert (first.families, first.alarms, first.cells, first.slower) == (2, 2, 40, 40)
    assert disjoint(simulated([0.005], processes=5).copies, TERMS, 12).cells == 0


def test_the_first_look_alone_takes_no_process_of_the_second(simulated, monkeypatch):
    given_to = []

    def spy(cells, terms):
        given_to.extend(len(one.differences) for one in cells.values())
        return decide(cells, terms)

    monkeypatch.setattr(families, "decide", spy)
    disjoint(simulated([0.002] * 2, processes=24).copies, TERMS, 12)
    assert set(given_to) == {TERMS.processes}


@pytest.mark.parametrize(
    ("words", "differing", "code"),
    [
        (["SAME"] * 4, 0, 0),
        (["SAME"] * 3 + ["REGRESSED"], 0, 1),
        (["SAME"] * 3 + ["INCONCLUSIVE"], 0, 0),
        (["SAME"] * 2 + ["INCONCLUSIVE"] * 2, 0, 4),
        (["REGRESSED"] + ["INCONCLUSIVE"] * 3, 0, 1),
        (["REGRESSED"] * 4, 1, 4),
    ],
)
def test_exit_codes(words, differing, code):
    assert exit_code({str(n): Decision(word, None, "") for n, word in enumerate(words)}, differing, TERMS) == code


def test_copies_that_differ_are_noticed(simulated):
    drawn = draw(simulated([0.005], ratio=1.04).copies, rng(), 2, TERMS)
    assert [judge(drawn, family, TERMS).differs for family in range(2)] == [CANARIES] * 2
    assert [judge(drawn, family, TERMS).exit_code for family in range(2)] == [4, 4]
