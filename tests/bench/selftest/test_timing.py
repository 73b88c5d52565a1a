"""The rule for slowdowns on made-up processes, and real runs of calls whose length is known."""

from __future__ import annotations

import numpy as np
import pytest

from kerneldyno.bench.records import Measurement, Process
from kerneldyno.bench.selftest import pacing, timing
from kerneldyno.bench.selftest.context import Context
from kerneldyno.bench.selftest.findings import Control, Finding
from kerneldyno.kernels.registry import Device

CPU = Context(Device("cpu"), short=True)


def processes(factor, *, count=8, between=0.08, within=0.008, seed=0, own=1):
    """Fresh processes that differ by `between` from one another, whose rounds differ by `within`; `own` seeds this kernel's noise."""
    shared, mine = np.random.default_rng(seed), np.random.default_rng([seed, own])
    made = []
    for worker in range(count):
        level = 1e-3 * np.exp(between * shared.standard_normal())
        drift = np.exp(within * shared.standard_normal(20))
        noise = np.exp(within * mine.standard_normal(20))
        made.append(Process(worker=worker, samples_s=(level * drift * noise * factor).tolist(), rounds=list(range(20))))
    return made


@pytest.mark.parametrize(("factor", "slower"), [(1.0, False), (1.02, False), (1.05, True), (1.10, True), (0.9, False)])
def test_slowdowns_beyond_the_margin_are_told_from_noise_between_processes(factor, slower):
    seen = timing.judged(processes(1.0, own=1), processes(factor, own=2))
    assert seen.slower is slower
    assert seen.ratio == pytest.approx(factor, rel=0.01)
    assert seen.low <= seen.bound <= seen.ratio <= seen.high


def test_copies_raise_no_alarm_where_pooled_samples_do():
    alarms = naive = 0
    for seed in range(60):
        a = Measurement(case="a", status="ok", processes=processes(1.0, seed=seed, own=1))
        b = Measurement(case="b", status="ok", processes=processes(1.0, seed=1000 + seed, own=2))  # other processes
        paired = processes(1.0, seed=seed, own=2)
        alarms += timing.judged(a.processes, paired).slower
        naive += timing._pooled_difference(a, b)
    assert alarms == 0
    assert naive > 20


def measurements(**factors):
    return {
        name: Measurement(case=name, status="ok", processes=processes(factor, own=1 + number))
        for number, (name, factor) in enumerate(factors.items())
    }


def test_what_is_planted_is_found_and_copies_are_controls():
    made = measurements(base=1.0, copy_1=1.0, slower_by_2_percent=1.02, slower_by_5_percent=1.05, slower_by_10_percent=1.10)
    found = list(timing._compared(made, ("base", "copy_1"), pacing.SLOWER, "here", short=False))
    faults = [item for item in found if isinstance(item, Finding) and item.must]
    assert len(faults) == 5
    assert all(item.caught for item in faults), faults
    controls = [item for item in found if isinstance(item, Control)]
    assert len(controls) == 3
    assert not any(item.alarm for item in controls)


def test_a_slowdown_that_does_not_show_is_a_miss():
    made = measurements(base=1.0, copy_1=1.0, slower_by_10_percent=1.0)
    found = list(timing._compared(made, ("base", "copy_1"), {"slower_by_10_percent": 0.10}, "here", short=False))
    assert [item.caught for item in found if isinstance(item, Finding) and item.must] == [False, False]


def test_a_kernel_without_samples_is_a_miss():
    made = measurements(base=1.0, copy_1=1.0)
    made["slower_by_10_percent"] = Measurement(case="x", status="failed", reason="timing: it broke")
    found = list(timing._compared(made, ("base", "copy_1"), {"slower_by_10_percent": 0.10}, "here", short=False))
    (miss,) = [item for item in found if isinstance(item, Finding) and item.must]
    assert miss.caught is False
    assert "it broke" in miss.said


def test_a_gpu_is_not_asked_for_times_of_the_host():
    context = Context(Device("cuda"))
    found = [*timing.known_times(context), *timing.slowdowns(context)]
    assert len(found) == 6
    assert {item.caught for item in found} == {None}
    assert "--device cpu" in found[0].said


def test_calls_of_known_length_are_reported_right():
    """One real run, in which what else the machine does may lengthen calls, but nothing may shorten them."""
    found = timing.measured("pacing.py", ["takes_1_ms"], timing.TINY, device="cpu", seed=0, stop=lambda: False)
    measurement = found.by_kernel["takes_1_ms"]
    assert measurement.status == "ok", measurement.reason
    assert min(measurement.samples_s) >= 1e-3
    assert min(measurement.samples_s) <= 1.01e-3
