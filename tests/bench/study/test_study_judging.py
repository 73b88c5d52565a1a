"""A family decided as a comparison decides it: processes, both looks, canaries, exit codes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kerneldyno.bench.compare.decide import Decision, Evidence, power, reading
from kerneldyno.bench.comparison import Terms
from kerneldyno.bench.study.families import CANARIES, CELLS, Drawn, draw
from kerneldyno.bench.study.judging import exit_code, judge, processes_begun
from kerneldyno.bench.verdict import Canary

TERMS = Terms()


def rng(seed=0):
    return np.random.default_rng(seed)


def scattered(mean, spread, count):
    """An even number of numbers with exactly this mean and this standard deviation."""
    return tuple(mean + spread * sign * math.sqrt((count - 1) / count) for _ in range(count // 2) for sign in (1, -1))


def family(cells, copies=()):
    """One family of these [cell, process] differences and [canary, process] copies."""
    differences = np.array([cells], dtype=float)
    copied = np.array([copies], dtype=float).reshape(1, len(copies), differences.shape[-1])
    return Drawn(np.zeros(differences.shape[:2], dtype=int), differences, copied, np.zeros(differences.shape[:2], dtype=bool))


CALM, WILD = scattered(0.0, 0.002, 20), scattered(0.012, 0.02, 20)


def test_slowdowns_are_seen_as_often_as_theory_says(simulated):
    pool = simulated([0.02], processes=2000)
    drawn = draw(pool.copies, rng(3), 60, TERMS, pool.named("slower_by_5"), "one")
    firsts = [judge(drawn, number, TERMS).first for number in range(60)]
    seen = np.mean([one[str(np.flatnonzero(drawn.slower[number])[0])].word == "REGRESSED" for number, one in enumerate(firsts)])
    expected = power(0.02, TERMS.more_processes, TERMS, cells=CELLS)
    assert abs(seen - expected) < 0.2
    assert 0.2 < expected < 0.9  # else it would show nothing


def test_large_slowdowns_are_seen_and_exit_with_1(simulated):
    pool = simulated([0.005, 0.01])
    for slowed in ("one", "all"):
        drawn = draw(pool.copies, rng(4), 8, TERMS, pool.named("slower_by_20"), slowed)
        said = [judge(drawn, number, TERMS) for number in range(8)]
        assert all(one.exit_code == 1 for one in said)
        assert {one.words["REGRESSED"] for one in said} == {1 if slowed == "one" else CELLS}


# ---------------------------------------------------------------- processes


def test_cells_that_scatter_and_unclear_canaries_begin_with_more_processes():
    unclear = scattered(0.006, 0.0095, 20)  # below what counts as restless, and yet its bound is beyond 1 %
    every = {"calm": Evidence(CALM, CALM), "wild": Evidence(WILD), "wild copy": Evidence(CALM, WILD), "unclear": Evidence(CALM, unclear)}
    begun = processes_begun(every, ("calm", "wild copy", "unclear"), TERMS)
    assert begun == {"calm": 8, "wild": 12, "wild copy": 12, "unclear": 12}


def test_a_canary_that_is_unclear_with_8_processes_is_decided_with_12():
    """Its first 8 say nothing clear, its first 12 do: the comparison measured them, and does not leave it unclear."""
    said = judge(family([CALM, CALM], [(*scattered(0.004, 0.0099, 8), *(0.0,) * 12), CALM]), 0, TERMS)
    assert [one.word for one in said.watched] == ["SAME", "SAME"]
    assert {one.reading.processes for one in said.final.values()} == {8}  # the cell itself was settled by its first look
    never = judge(family([CALM, CALM], [scattered(0.006, 0.0095, 20), CALM]), 0, TERMS)
    assert [one.word for one in never.watched] == ["INCONCLUSIVE", "SAME"]


def test_a_canary_of_a_cell_with_a_second_look_is_decided_with_all_its_processes():
    """The copy begins to differ after the eighth process, which only a second look at the cell brings to light."""
    late = (*scattered(0.009, 0.0005, 8), *scattered(0.05, 0.002, 12))
    settled = judge(family([CALM] * 2, [late]), 0, TERMS)
    assert (settled.watched[0].word, settled.exit_code) == ("SAME", 0)
    again = judge(family([scattered(0.1, 0.004, 20), CALM], [late]), 0, TERMS)
    assert (again.final["0"].looks, again.watched[0].word, again.exit_code) == (2, "DIFFERS", 4)


def test_a_cell_settled_by_its_first_look_gets_no_more():
    said = judge(family([CALM, scattered(0.1, 0.004, 20), WILD]), 0, TERMS)
    assert {name: (one.looks, one.reading.processes) for name, one in said.final.items()} == {"0": (1, 8), "1": (2, 16), "2": (2, 20)}
    assert {name: one.reading.processes for name, one in said.first.items()} == {"0": 8, "1": 8, "2": 12}


# ---------------------------------------------------------------- canaries and exit codes


def test_copies_that_differ_are_noticed(simulated):
    drawn = draw(simulated([0.005], ratio=1.04).copies, rng(), 2, TERMS)
    assert [judge(drawn, number, TERMS).differs for number in range(2)] == [CANARIES] * 2
    assert [judge(drawn, number, TERMS).exit_code for number in range(2)] == [4, 4]


def test_an_improvement_needs_a_second_look_only_where_nothing_changed():
    fluke = (*scattered(-0.06, 0.003, 8), *scattered(0.0, 0.003, 12))
    found, every = (judge(family([fluke, CALM]), 0, TERMS, unchanged=unchanged) for unchanged in (False, True))
    assert (found.final["0"].word, found.exit_code) == ("IMPROVED", 0)
    assert found.calls("IMPROVED")
    assert not found.calls("REGRESSED")
    assert (every.final["0"].word, every.final["0"].looks) == ("INCONCLUSIVE", 2)
    assert not every.calls("IMPROVED", "REGRESSED")


@pytest.mark.parametrize("mean", [0.1, -0.1])
def test_whatever_moves_for_good_though_nothing_changed_exits_with_4(mean):
    moved = family([scattered(mean, 0.003, 20), *[CALM] * 5])
    assert judge(moved, 0, TERMS, unchanged=True).exit_code == 4
    assert judge(moved, 0, TERMS).exit_code == (1 if mean > 0 else 0)


@pytest.mark.parametrize(
    ("words", "differing", "unchanged", "code"),
    [
        (["SAME"] * 4, False, False, 0),
        (["SAME"] * 3 + ["REGRESSED"], False, False, 1),
        (["SAME"] * 3 + ["REGRESSED"], False, True, 4),
        (["SAME"] * 3 + ["IMPROVED"], False, False, 0),
        (["SAME"] * 3 + ["IMPROVED"], False, True, 4),
        (["SAME"] * 3 + ["INCONCLUSIVE"], False, True, 0),
        (["SAME"] * 2 + ["INCONCLUSIVE"] * 2, False, False, 4),
        (["REGRESSED"] + ["INCONCLUSIVE"] * 3, False, False, 1),
        (["REGRESSED"] * 4, True, False, 4),
    ],
)
def test_exit_codes(words, differing, unchanged, code):
    decisions = {str(n): Decision(word, reading((0.0, 0.01, 0.02), 0.02), "") for n, word in enumerate(words)}
    watched = [Canary(cell="0", kernel="", label="", ratio=None, word="DIFFERS" if differing else "SAME", reason="")]
    assert exit_code(decisions, watched, TERMS, unchanged=unchanged) == code
