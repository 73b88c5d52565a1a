"""Counting what was caught: exact intervals, tallies, and when a section has failed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from kerneldyno.bench.selftest.findings import Control, Finding, rate, tally

SHARES = st.integers(0, 60).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


def finding(caught, *, must=True, section="s"):
    return Finding(section=section, plant="p", where="w", caught=caught, must=must)


def control(alarm, section="s"):
    return Control(section=section, what="k", where="w", alarm=alarm)


@given(SHARES)
def test_the_interval_holds_the_share_and_lies_in_0_to_1(share):
    count, of = share
    found = rate(count, of)
    assert 0 <= found.low <= found.high <= 1
    assert math.isnan(found.share) if of == 0 else found.low <= found.share <= found.high


@given(SHARES.filter(lambda share: share[1] > 0))
def test_the_ends_are_where_the_binomial_tails_are_two_and_a_half_percent(share):
    count, of = share
    found = rate(count, of)
    if count:
        assert binom.sf(count - 1, of, found.low) == pytest.approx(0.025, abs=1e-9)
    if count < of:
        assert binom.cdf(count, of, found.high) == pytest.approx(0.025, abs=1e-9)


@given(st.integers(1, 40), st.floats(0.01, 0.99))
def test_the_interval_covers_the_true_share_at_least_as_often_as_it_says(of, true):
    covered = sum(binom.pmf(count, of, true) for count in range(of + 1) if rate(count, of).low <= true <= rate(count, of).high)
    assert covered >= 0.95 - 1e-9


@given(SHARES)
def test_exchanging_success_and_failure_mirrors_the_interval(share):
    count, of = share
    one, other = rate(count, of), rate(of - count, of)
    assert one.low == pytest.approx(1 - other.high, abs=1e-9)


@pytest.mark.parametrize(("count", "of"), [(-1, 3), (4, 3)])
def test_an_impossible_share_is_refused(count, of):
    with pytest.raises(ValueError, match="is no share"):
        rate(count, of)


def test_a_tally_counts_each_kind_once():
    found = [
        finding(True), finding(True), finding(False), finding(None), finding(False, must=False), finding(True, must=False),
        control(False), control(True), control(None), finding(False, section="other"),
    ]  # fmt: skip
    counted = tally("s", found)
    assert (counted.planted, counted.caught, counted.missed) == (3, 2, 1)
    assert (counted.beyond, counted.beyond_caught) == (2, 1)
    assert counted.not_tried == 2
    assert (counted.right, counted.alarms) == (2, 1)
    assert counted.detection.count == 2
    assert counted.false_alarms.of == 2


def test_one_miss_fails_a_section_and_a_fault_below_the_promise_does_not():
    assert tally("s", [finding(True), finding(False)]).failed
    assert not tally("s", [finding(True), finding(False, must=False), finding(None)]).failed


@pytest.mark.parametrize(("alarms", "of", "most", "too_many"), [
    (0, 10, 0.001, False), (1, 1000, 0.001, False), (1, 40, 0.001, True), (10, 1000, 0.001, True),
    (1, 60, 0.01, False), (3, 60, 0.01, True),
])  # fmt: skip
def test_alarms_fail_a_section_when_they_prove_too_large_a_share(alarms, of, most, too_many):
    found = [control(i < alarms) for i in range(of)]
    assert tally("s", found, most_alarms=most).too_many_alarms is too_many
    assert tally("s", found, most_alarms=most).failed is too_many
