"""How a comparison goes on, without workers: throttled processes, budgets, what is still wanted."""

from __future__ import annotations

import pytest

from kerneldyno.bench.compare.contest import MOST_THROWN, Contest
from kerneldyno.bench.journal import Journal, read
from kerneldyno.bench.pace import Pace
from kerneldyno.bench.plan import Plan
from kerneldyno.bench.records import Measurement


class Silent:
    def __getattr__(self, name):
        return lambda *_: None


@pytest.fixture
def contest(made, manifesting, tmp_path):
    made.cell("attention/one", 1.0, 1.0, copy=1.0).cell("attention/two", 1.0, 1.0).cell("attention/three", None, 1.0)
    manifest = manifesting(made.cases, made.comparison())
    with Journal.create(tmp_path / "run", manifest) as journal:
        plan = Plan(groups=[], cases=made.cases)
        yield Contest(plan, journal, manifest.settings, Silent(), comparison=manifest.comparison)


def test_a_throttled_process_is_measured_again_but_not_for_ever(contest, made, tmp_path):
    case = made.cells[0].candidate
    reason = "4 of 15 rounds were dropped because the device throttled: let it cool"
    for _ in range(MOST_THROWN):
        contest._accept(Measurement(case=case, status="invalid", reason=reason))
        assert case not in contest.measurements
    contest._accept(Measurement(case=case, status="invalid", reason=reason))
    assert read(tmp_path / "run").measurements[case].status == "invalid"


def test_other_invalid_processes_are_results(contest, made):
    case = made.cells[0].candidate
    contest._accept(Measurement(case=case, status="invalid", reason="keeps its inputs"))
    assert contest.measurements[case].status == "invalid"


def test_a_side_without_a_rival_is_measured_once(contest, made, measuring):
    cell = made.cells[2]
    contest._cases = {case.id: case for case in made.cases}
    contest._rng = None
    contest._aim(cell, 5)
    (group,) = contest._unit(cell)
    assert [case.id for case in contest._missing(group, 0)] == [cell.candidate]
    contest.measurements[cell.candidate] = measuring(contest._cases[cell.candidate], processes=1)
    assert contest._missing(group, 1) == []


def test_what_failed_takes_its_rival_along_but_not_the_canary(contest, made, measuring):
    cell = made.cells[0]
    contest._cases = {case.id: case for case in made.cases}
    contest._aim(cell, 3)
    for case in (cell.base, cell.copy):
        contest.measurements[case] = measuring(contest._cases[case], processes=1)
    contest.measurements[cell.candidate] = Measurement(case=cell.candidate, status="wrong", reason="NaN")
    (group,) = contest._unit(cell)
    assert {case.side for case in contest._missing(group, 1)} == {"base", "copy"}
    contest.measurements[cell.copy] = Measurement(case=cell.copy, status="failed", reason="it is")
    assert contest._missing(group, 1) == []


def test_a_cell_that_cannot_get_a_ratio_needs_no_time(contest, made):
    contest._pace = Pace(100.0)
    first, second, third = made.cells
    contest._cost_s = {first.id: 10.0}
    assert contest._room_for(second.id) is False  # 6 processes of the first and 6 of the second
    contest.measurements[first.candidate] = Measurement(case=first.candidate, status="wrong", reason="NaN")
    contest.measurements[first.base] = Measurement(case=first.base, status="wrong", reason="NaN")
    assert contest._room_for(second.id) is True
    assert contest._done(third) == 1000
