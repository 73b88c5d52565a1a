"""Other tools' rules: the same as their own code, and as right or wrong as is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pyperf._utils import is_significant, tdist95conf_level
from pytest_benchmark.utils import parse_compare_fail
from scipy import stats as distributions

from kerneldyno.bench.study import peers
from kerneldyno.bench.study.families import CELLS
from kerneldyno.bench.study.subjects import COPY

TIMES = st.floats(0.5, 2.0, width=32)


def sides(processes, samples):
    shape = (1, processes, samples)
    return st.tuples(arrays.arrays(float, shape, elements=TIMES, unique=True), arrays.arrays(float, shape, elements=TIMES, unique=True))


@given(sides(2, 5))
def test_the_median_rule_is_pytest_benchmark_s(pair):
    base, other = pair
    theirs = parse_compare_fail("median:5%").fails({"median": float(np.median(other))}, {"median": float(np.median(base))})
    assert peers.median_5_percent(base, other).slower[0] == (theirs is not None)


@given(sides(3, 4))
def test_the_t_rule_is_pyperf_s(pair):
    base, other = pair
    theirs, score = is_significant(other.ravel().tolist(), base.ravel().tolist())
    if abs(abs(score) - tdist95conf_level(22)) > 1e-9:
        ours = peers.pyperf_t(base, other)
        assert ours.different[0] == theirs
        assert ours.slower[0] == (theirs and score > 0)


@pytest.mark.parametrize("degrees", [4, 10, 22, 30, 31, 40, 55, 78, 85, 118, 150, 200, 958])
def test_the_critical_value_is_pyperf_s(degrees):
    assert peers.critical(degrees) == tdist95conf_level(degrees)


@given(sides(2, 6))
def test_the_rank_rule_is_mann_and_whitney_s(pair):
    base, other = pair
    found = distributions.mannwhitneyu(other.ravel(), base.ravel(), method="asymptotic")
    ours = peers.mann_whitney(base, other)
    assert ours.different[0] == (found.pvalue < 0.05)
    assert ours.slower[0] == (found.pvalue < 0.05 and found.statistic > 72)


@given(arrays.arrays(float, (1, 6), elements=st.floats(-0.1, 0.1), unique=True))
def test_the_paired_rule_is_student_s(differences):
    found = distributions.ttest_1samp(differences[0], 0.0)
    if abs(found.pvalue - 0.05) > 1e-9:
        assert peers.paired_t(differences).different[0] == (found.pvalue < 0.05)
        assert peers.paired_t(differences).slower[0] == (found.pvalue < 0.05 and differences.mean() > 0)


def test_thirds_are_means_of_what_was_taken_one_after_the_other():
    assert peers._thirds(np.arange(7.0)[None, None]).tolist() == [[[0.5, 2.5, 4.5]]]


def asked(name, placement, pool, variant=COPY, families=60):
    (rule,) = [one for one in peers.RULES if one.name == name and one.placement == placement and one.processes in (1, 8)][-1:]
    return peers.ask(rule, pool, variant, np.random.default_rng(0), families).said


def test_without_effects_of_a_process_a_test_of_samples_is_wrong_as_often_as_it_says(simulated):
    quiet = simulated([0.0, 0.0], of_process=0.0)
    for name in (peers.HEAP, peers.PYPERF):
        said = asked(name, "apart", quiet)
        assert 0.02 < said.different.mean() < 0.08, name
        assert 0.005 < said.slower.mean() < 0.045, name


def test_with_them_it_is_wrong_most_of_the_time_and_pairs_are_not(simulated):
    pool = simulated([0.01, 0.01])
    assert asked(peers.HEAP, "apart", pool).different.mean() > 0.5
    assert asked(peers.PYPERF, "apart", pool).different.mean() > 0.5
    assert 0.02 < asked(peers.PAIRED, "same", pool).different.mean() < 0.09
    assert asked(peers.MEDIAN, "apart", pool).slower.mean() > 0.1
    assert asked(peers.MEDIAN, "same", pool).slower.mean() < 0.01


def test_what_is_slower_is_called_slower(simulated):
    pool = simulated([0.005], of_process=0.0, within=0.005)
    for rule in peers.RULES:
        said = peers.ask(rule, pool, "slower_by_20", np.random.default_rng(0), 2).said
        assert said.slower.all(), rule.name
        assert said.different.all(), rule.name
        assert said.slower.shape == (2 * CELLS,)


def test_apart_means_that_no_process_is_on_both_sides(simulated, monkeypatch):
    pool = simulated([0.01])
    pool.samples_s[...] = np.arange(pool.processes)[None, None, :, None]
    for rule in peers.RULES:
        if rule.name == peers.PAIRED:
            continue
        seen = []

        def spy(base, other, seen=seen):
            seen.append((base, other))
            return peers.Said(np.zeros(len(base), bool), np.zeros(len(base), bool))

        peers.ask(peers.Rule(rule.name, rule.processes, rule.placement, spy, ""), pool, COPY, np.random.default_rng(0), 1)
        for base, other in zip(*seen[0], strict=True):
            common = set(base.ravel().tolist()) & set(other.ravel().tolist())
            assert len(common) == (0 if rule.placement == "apart" else rule.processes)
            assert len(set(other.ravel().tolist())) == rule.processes


def test_the_tools_own_code_agrees(simulated):
    said = peers.agreement(simulated([0.01]), np.random.default_rng(0), times=10)
    assert (
        said == "pytest-benchmark's own code says the same in 10 of 10 comparisons; pyperf's own code says the same in 10 of 10 comparisons"
    )


def test_a_tool_that_is_absent_is_named(simulated, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyperf._utils", None)
    assert "pyperf is not installed" in peers.agreement(simulated([0.01]), np.random.default_rng(0), times=2)


def test_rules_that_need_more_processes_than_there_are(simulated):
    small = simulated([0.01], processes=10)
    assert [rule.processes for rule in peers.RULES if peers.possible(rule, small)] == [1, 1, 1, 1, 8, 8, 8]
