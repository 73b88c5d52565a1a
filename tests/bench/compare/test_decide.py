"""The words on cells, on simulated differences whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from kerneldyno.bench.compare import decide
from kerneldyno.bench.compare.decide import Evidence
from kerneldyno.bench.comparison import Terms

TERMS = Terms()


def family(change, scatter, *, processes=20, cells=20, seed=0, copies=False):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(math.log1p(change), scatter, (cells, processes))
    like = rng.normal(0, scatter, (cells, processes)) if copies else [()] * cells
    return {f"cell {i}": Evidence(tuple(row), tuple(own)) for i, (row, own) in enumerate(zip(drawn, like, strict=True))}


def words(cells, terms=TERMS):
    return [one.word for one in decide.decide(cells, terms).values()]


# ------------------------------------------------------------------ what is said of a whole family


@pytest.mark.parametrize("scatter", [0.003, 0.01, 0.02])
def test_equal_kernels_are_never_called_regressed(scatter):
    found = [word for seed in range(10) for word in words(family(0.0, scatter, seed=seed))]
    assert found.count("REGRESSED") == found.count("IMPROVED") == 0
    assert found.count("SAME") > 0.9 * len(found)


@pytest.mark.parametrize(("change", "scatter", "least"), [(0.10, 0.02, 0.99), (0.05, 0.01, 0.95), (0.05, 0.02, 0.8)])
def test_slowdowns_are_found(change, scatter, least):
    found = [word for seed in range(5) for word in words(family(change, scatter, seed=seed))]
    assert found.count("REGRESSED") >= least * len(found)


def test_speedups_are_found():
    assert set(words(family(-0.06, 0.01))) == {"IMPROVED"}


def test_at_the_margin_the_false_alarms_of_a_whole_family_stay_below_alpha():
    alarms = sum("REGRESSED" in words(family(TERMS.margin, 0.01, seed=seed, cells=8)) for seed in range(200))
    assert alarms <= distributions.binom.isf(0.001, 200, TERMS.alpha)


def test_one_slow_cell_among_equal_ones_is_the_one_that_is_named():
    cells = family(0.0, 0.01)
    cells["cell 7"] = family(0.06, 0.01, seed=1)["cell 0"]
    found = decide.decide(cells, TERMS)
    assert [cell for cell, one in found.items() if one.word == "REGRESSED"] == ["cell 7"]
    assert "+" in found["cell 7"].why
    assert "2.0%" in found["cell 7"].why


# ------------------------------------------------------------------ what is not concluded


def test_unclear_is_not_called_same():
    wide = {"cell": Evidence(tuple(np.random.default_rng(3).normal(0.0, 0.028, 8)))}
    assert words(wide) == ["INCONCLUSIVE"]


def test_a_change_within_the_margin_but_not_provably_so_is_unclear():
    assert words({"cell": Evidence(tuple(0.02 + 0.004 * np.sin(range(8))))}) == ["INCONCLUSIVE"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_processes_conclude_nothing(count):
    (one,) = decide.decide({"cell": Evidence((0.5,) * count)}, TERMS).values()
    assert one.word == "INCONCLUSIVE"
    assert f"{count} process" in one.why


def test_student_and_bootstrap_must_agree(monkeypatch):
    cells = family(0.06, 0.005, cells=1)
    assert words(cells) == ["REGRESSED"]
    monkeypatch.setattr(decide, "bootstrapped", lambda _: (-0.1, 0.2))
    (one,) = decide.decide(cells, TERMS).values()
    assert one.word == "INCONCLUSIVE"
    assert "disagree" in one.why


def test_a_noisy_cell_must_change_by_more():
    small, large = (family(change, 0.04, seed=5, cells=1, processes=40) for change in (0.05, 0.12))
    (one,), (other,) = (decide.decide(cells, TERMS).values() for cells in (small, large))
    assert one.word == "INCONCLUSIVE"
    assert other.word == "REGRESSED"
    assert one.advisory
    assert other.advisory
    assert other.reading.margin == TERMS.noisy_margin


def test_a_cell_that_differs_from_itself_gets_a_wider_margin():
    calm = Evidence((0.03, 0.031, 0.029, 0.03, 0.03, 0.029, 0.031, 0.03))
    restless = Evidence(calm.differences, (0.05, -0.05, 0.04, -0.04, 0.05, -0.05, 0.03, -0.03))
    assert decide.read(calm, TERMS).margin == TERMS.margin
    assert decide.read(restless, TERMS).margin > 0.04


def test_what_would_count_alone_but_not_among_many_is_called_probable():
    cells = family(0.0, 0.004, cells=40)
    cells["cell 3"] = Evidence((0.045, 0.012, 0.05, 0.02, 0.06, 0.015, 0.055, 0.03))
    (alone,) = decide.look({"cell 3": cells["cell 3"]}, TERMS, 0.05).values()
    assert alone.word == "REGRESSED"
    among = decide.look(cells, TERMS, 0.025)["cell 3"]
    assert among.word == "INCONCLUSIVE"
    assert among.why.startswith("probably slower, [+")


# ------------------------------------------------------------------ two looks


def test_the_second_look_counts_all_processes():
    unclear = [0.05, 0.02, 0.0, 0.06, 0.01, 0.03] * 2
    cells = {"cell": Evidence(tuple(unclear + [0.04, 0.05] * 10))}
    (first,) = decide.decide({"cell": decide.cut(cells["cell"], 12)}, TERMS).values()
    (second,) = decide.decide(cells, TERMS).values()
    assert (first.word, first.looks) == ("INCONCLUSIVE", 1)
    assert (second.word, second.looks, second.reading.processes) == ("REGRESSED", 2, 32)


def test_what_the_second_look_does_not_confirm_is_never_green():
    alarm = [0.06 + 0.001 * (i % 3) for i in range(8)]
    cells = {"cell": Evidence(tuple(alarm + [-0.05] * 8))}
    (one,) = decide.decide(cells, TERMS).values()
    assert one.word == "INCONCLUSIVE"
    assert "not confirm" in one.why


def test_an_improvement_is_doubted_only_where_it_cannot_be():
    faster = [-0.06 + 0.001 * (i % 3) for i in range(8)]
    cells = {"cell": Evidence(tuple(faster + [0.05] * 8))}
    (plain,) = decide.decide(cells, TERMS).values()
    (doubted,) = decide.decide(cells, TERMS, doubted=["cell"]).values()
    assert (plain.word, plain.looks) == ("IMPROVED", 1)
    assert (doubted.word, doubted.looks) == ("INCONCLUSIVE", 2)


def test_settled_cells_ignore_further_processes():
    same = Evidence((0.001, -0.001) * 4 + (0.5,) * 8)
    (one,) = decide.decide({"cell": same}, TERMS).values()
    assert (one.word, one.looks) == ("SAME", 1)


@pytest.mark.parametrize(("scatter", "processes"), [(0.004, 8), (0.02, 12)])
def test_scattered_cells_get_more_processes(scatter, processes):
    cells = family(0.0, scatter, cells=1, seed=2)
    assert decide.first_look_at(cells["cell 0"], TERMS) == processes


# ------------------------------------------------------------------ Holm, bounds, power


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_holm_lies_between_bonferroni_and_no_correction(values, alpha):
    p_values = {str(i): value for i, value in enumerate(values)}
    rejected = decide.holm(p_values, alpha)
    assert {name for name, p in p_values.items() if p <= alpha / len(values)} <= rejected
    assert rejected <= {name for name, p in p_values.items() if p <= alpha}


def test_holm_by_hand():
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert decide.holm(p_values, 0.05) == {"a", "d"}
    assert decide.holm(p_values, 0.05, family=20) == set()


@given(st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=20), st.floats(0.001, 0.1))
@settings(deadline=None)
def test_bounds_are_in_order_and_tests_agree_with_them(values, margin):
    one = decide.reading(values, margin)
    assert one.low <= one.at_least <= one.mean <= one.at_most <= one.high
    reach = math.log1p(margin)
    if abs(one.at_least - reach) > 1e-9:
        assert (one.p_slower < 0.05) == (one.at_least > reach)
    if abs(one.at_most + reach) > 1e-9:
        assert (one.p_faster < 0.05) == (one.at_most < -reach)


def test_a_single_process_cannot_be_read():
    with pytest.raises(ValueError, match="at least 2"):
        decide.reading([0.1], 0.02)


@pytest.mark.parametrize(("scatter", "processes"), [(0.01, 8), (0.02, 12), (0.03, 12)])
def test_power_is_what_simulation_shows(scatter, processes):
    terms = Terms(processes=processes, more_processes=processes, second_look=0, noisy=1.0)
    told = decide.power(scatter, processes, terms, cells=1)
    rng = np.random.default_rng(1)
    alpha = terms.alpha * terms.first_look
    drawn = rng.normal(math.log1p(0.05), scatter, (4000, processes))
    seen = sum(decide.reading(row, terms.margin).p_slower <= alpha for row in drawn) / len(drawn)
    assert told == pytest.approx(seen, abs=0.03)


def test_power_of_no_scatter_and_of_nothing_measured():
    assert decide.power(0.0, 8, TERMS, cells=5) == 1.0
    assert decide.power(0.01, 1, TERMS, cells=5) == 0.0
    assert decide.power(0.0, 8, TERMS, cells=5, slowdown=0.01) == 0.0
    assert decide.power(0.031, 12, TERMS, cells=5) < 0.01  # there a change of 5 % is no change


# ------------------------------------------------------------------ canaries


def copies(shift, scatter, seed=0, processes=8):
    rng = np.random.default_rng(seed)
    return {f"canary {i}": tuple(rng.normal(shift, scatter, processes)) for i in range(3)}


def test_calm_copies_are_the_same():
    assert {word for word, _ in decide.canaries(copies(0.0, 0.003), TERMS).values()} == {"SAME"}


def test_a_copy_that_differs_fails():
    found = decide.canaries(copies(0.04, 0.005), TERMS)
    assert {word for word, _ in found.values()} == {"DIFFERS"}
    assert "+4" in next(iter(found.values()))[1]
    assert {word for word, _ in decide.canaries(copies(-0.04, 0.005), TERMS).values()} == {"DIFFERS"}


def test_restless_copies_are_unclear_not_wrong():
    alarms = sum(word == "DIFFERS" for seed in range(200) for word, _ in decide.canaries(copies(0.0, 0.02, seed=seed), TERMS).values())
    assert alarms <= 3
    assert {word for word, _ in decide.canaries(copies(0.0, 0.03), TERMS).values()} == {"INCONCLUSIVE"}


def test_canaries_without_processes_are_unclear():
    (found,) = decide.canaries({"canary": ()}, TERMS).values()
    assert found[0] == "INCONCLUSIVE"
