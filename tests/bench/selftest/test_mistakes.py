"""What the gate's answers count as, and when a cheat that is timed is foiled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kerneldyno.bench.records import Measurement, Process
from kerneldyno.bench.selftest import cheats, mistakes
from kerneldyno.bench.selftest.context import Context
from kerneldyno.bench.selftest.examining import Answer
from kerneldyno.bench.selftest.findings import Control, Finding
from kerneldyno.bench.selftest.plants import by_name
from kerneldyno.kernels.registry import Device

PLANTS = by_name(cheats.plants())
FAULT, HONEST = PLANTS["attention/memoized_by_value"], PLANTS["attention/honest"]
SEER = PLANTS["attention/answers_of_the_seed_s_inputs_made_in_build"]


def answered(plant, outcome, said="why"):
    return mistakes.found("cheats", plant, plant.problems[0], Answer("source", plant.kernel.name, outcome, said))


@pytest.mark.parametrize(("outcome", "caught"), [("refused", True), ("passed", False), ("broken", False), ("unable", None)])
def test_only_a_refusal_counts_as_caught(outcome, caught):
    found = answered(FAULT, outcome)
    assert isinstance(found, Finding)
    assert found.caught is caught
    assert found.must
    assert "why" in found.said


@pytest.mark.parametrize(("outcome", "alarm"), [("refused", True), ("passed", False), ("broken", True), ("unable", None)])
def test_what_is_right_must_pass(outcome, alarm):
    found = answered(HONEST, outcome)
    assert isinstance(found, Control)
    assert found.alarm is alarm


def test_a_place_beyond_the_promise_need_not_be_caught():
    plant = replace(FAULT, problems=(), beyond=FAULT.problems)
    found = mistakes.found("cheats", plant, plant.beyond[0], Answer("source", plant.kernel.name, "passed", ""))
    assert not found.must


def timed(seconds, status="ok"):
    rounds = list(range(20))
    samples = [seconds * (1 + 0.001 * (number % 3)) for number in rounds]
    return Measurement(
        case="c", status=status, reason=None if status == "ok" else "seen", processes=[Process(samples_s=samples, rounds=rounds)]
    )


def test_a_refused_number_foils_a_cheat():
    assert mistakes._foiled(FAULT, timed(1e-6, "wrong"), timed(1e-3)) == (True, "wrong: seen")


def test_a_number_that_stands_does_not():
    assert mistakes._foiled(FAULT, timed(1e-3), timed(1e-3)) == (False, "ok")


@pytest.mark.parametrize(("seconds", "foiled"), [(1e-6, False), (0.8e-3, False), (1e-3, True), (1.2e-3, True)])
def test_one_that_is_after_speed_is_foiled_when_it_gains_none(seconds, foiled):
    caught, said = mistakes._foiled(SEER, timed(seconds), timed(1e-3))
    assert caught is foiled
    assert "times as fast as the honest kernel" in said


def test_every_plant_is_examined_once_at_each_of_its_places():
    context = Context(Device("cpu"))
    plants = {"source": PLANTS}
    jobs = mistakes._jobs("cheats", plants, context)
    asked = sorted((job.problem.label, name) for job in jobs for _, name in job.kernels)
    assert asked == sorted((problem.label, name) for name, plant in PLANTS.items() for problem in plant.places(short=False))
    alone = mistakes._jobs("cheats", plants, Context(Device("cuda")))
    assert {len(job.kernels) for job in alone} == {1}


def test_a_real_run_catches_what_waits_until_it_is_timed():
    """The whole way: through a plugin into a worker."""
    plant = PLANTS["attention/idle_while_the_clock_runs"]
    (found,) = mistakes._in_a_run(plant, plant.problems[0], Context(Device("cpu")))
    assert found.caught, found.said
