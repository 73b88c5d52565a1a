"""What a worker says is taken for what it can be."""

from __future__ import annotations

import pytest

from kerneldyno.bench.answers import Answers, known
from kerneldyno.bench.messages import Doing
from kerneldyno.bench.plan import make
from kerneldyno.bench.records import Measurement, Process
from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

KERNELS = registry.load(declarations_only=False)
CASES = make([KERNELS["attention/eager"], KERNELS["attention/sdpa"]], [Attention(q_len=4)], Device("cpu"), seed=0).cases


def measured(case, seconds=1e-9):
    return Measurement(case=case.id, status="ok", processes=[Process(samples_s=[seconds] * 3, rounds=[0, 1, 2], calls_per_sample=10)])


def test_an_answer_after_the_recheck_is_taken_as_it_is():
    answers = Answers(CASES, timed=True)
    answers.doing(Doing(CASES[0].id, "recheck"))
    answer = measured(CASES[0])
    assert answers.done(answer) is answer


@pytest.mark.parametrize("phase", [None, "build", "check", "timing"])
def test_a_number_before_it_was_measured_is_forged(phase):
    answers = Answers(CASES, timed=True)
    if phase:
        answers.doing(Doing(CASES[0].id, phase))
    answer = answers.done(measured(CASES[0]))
    assert answer.status == "invalid"
    assert "before it was measured" in answer.reason
    assert answer.processes == []


def test_failures_may_come_at_any_time_and_checks_have_no_recheck():
    failed = Measurement(case=CASES[0].id, status="failed", reason="x")
    assert Answers(CASES, timed=True).done(failed) is failed
    passed = Measurement(case=CASES[0].id, status="ok")
    assert Answers(CASES, timed=False).done(passed) is passed


def test_two_answers_are_one_too_many():
    answers = Answers(CASES, timed=True)
    answers.doing(Doing(CASES[0].id, "recheck"))
    assert answers.done(measured(CASES[0])).status == "ok"
    assert "two answers" in answers.done(measured(CASES[0])).reason
    answers.doing(Doing(CASES[1].id, "recheck"))
    assert answers.done(measured(CASES[1])).status == "ok"


def test_more_time_than_there_was_is_a_tampered_clock():
    answers = Answers(CASES, timed=True)
    answers.doing(Doing(CASES[0].id, "recheck"))
    assert "the clock was tampered with" in answers.done(measured(CASES[0], seconds=1e3)).reason


def test_cases_nobody_asked_for_are_not_known():
    assert known(CASES[0].id, CASES)
    assert not known("0" * 16, CASES)
