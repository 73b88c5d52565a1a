"""False alarms of pools whose truth is known: how often, by which shortcut, and of cells that share no process."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.compare.decide import decide
from kerneldyno.bench.comparison import Terms
from kerneldyno.bench.study import alarms
from kerneldyno.bench.study.alarms import disjoint, resampled, suspected
from kerneldyno.bench.study.families import CELLS, draw
from kerneldyno.bench.study.judging import judge

TERMS = Terms()


def rng(seed=0):
    return np.random.default_rng(seed)


def alarmed(drawn):
    return [judge(drawn, family, TERMS).calls("REGRESSED") for family in range(len(drawn.differences))]


def test_equal_kernels_raise_no_alarm_even_with_heavy_tails(simulated):
    for tails in (None, 3):
        pool = simulated([0.005, 0.01, 0.02], tails=tails)
        assert alarms.alarms(draw(pool.copies, rng(1), 400, TERMS), TERMS) == 0


def test_at_the_very_margin_a_family_alarms_about_as_often_as_was_declared(simulated):
    """All cells slower by exactly the margin is the worst case: then alpha, the share of both looks together, bounds it."""
    pool = simulated([0.01], processes=4000, ratio=1 + TERMS.margin)
    rate = alarms.alarms(draw(pool.copies, rng(2), 300, TERMS), TERMS) / 300
    assert 0.002 < rate < TERMS.alpha + 3 * math.sqrt(TERMS.alpha / 300)


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

    monkeypatch.setattr(alarms, "decide", spy)
    disjoint(simulated([0.002] * 2, processes=24).copies, TERMS, 12)
    assert set(given_to) == {TERMS.processes}
