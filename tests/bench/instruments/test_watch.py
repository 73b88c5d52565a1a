"""Watching a processor through files like Linux's, and what two readings say of the time between them."""

from __future__ import annotations

import os
import time

import pytest
import torch

from kerneldyno.bench.instruments.watch import CpuWatch, FakeWatch, NoWatch, Reading, find_watch, others_share, slowdowns, stolen_share

OWN = sorted(os.sched_getaffinity(0))
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def machine(tmp_path):
    """A watch, and a function that says what its files hold from now on."""
    proc_stat = tmp_path / "stat"

    def set_to(*, steal_s=None, busy_s=0.0, quota=None, version=2):
        if steal_s is not None:
            others = f"cpu{max(OWN) + 1} 1 1 1 1 1 1 1 999999 0 0\nintr 5\n"
            work = int(busy_s * TICKS_PER_S)
            own = "".join(f"cpu{number} {work} 0 0 777 555 0 0 {int(steal_s * TICKS_PER_S)} 0 0\n" for number in OWN)
            proc_stat.write_text(f"cpu  9 9 9 9 9 9 9 888888 0 0\n{own}{others}")
        if quota is not None:
            path = tmp_path / ("cpu.stat" if version == 2 else "cpu/cpu.stat")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"nr_periods 100\nnr_throttled {quota}\nthrottled_usec 4242\n")

    return CpuWatch(cgroup=tmp_path, proc_stat=proc_stat), set_to


@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_that_was_used_up_between_two_readings_is_a_slowdown(machine, version) -> None:
    watch, set_to = machine
    set_to(quota=7, version=version)
    before = watch.read()
    assert slowdowns(before, watch.read()) == ()  # what happened earlier says nothing about now
    set_to(quota=9, version=version)
    assert slowdowns(before, watch.read()) == ("the container's CPU quota was used up in 2 periods",)


def test_stolen_time_is_that_of_the_own_processors(machine) -> None:
    watch, set_to = machine
    set_to(steal_s=2.0)
    before = watch.read()
    set_to(steal_s=2.5)
    after = watch.read()
    assert (before.stolen_s, after.stolen_s) == (pytest.approx(2.0), pytest.approx(2.5))
    assert after.at_s > before.at_s


def test_what_others_took_is_what_the_processors_worked_less_the_own_work(machine) -> None:
    watch, set_to = machine
    set_to(steal_s=0.0, busy_s=100.0)
    before = watch.read()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    set_to(steal_s=0.0, busy_s=101.0)
    assert watch.read().others_s - before.others_s == pytest.approx(1.0 - 0.2 / len(OWN), abs=0.05)


def test_a_share_is_of_the_time_between_the_readings() -> None:
    before, after = Reading(at_s=10.0, stolen_s=1.0, others_s=4.0), Reading(at_s=14.0, stolen_s=1.2, others_s=6.0)
    assert stolen_share(before, after) == pytest.approx(0.05)
    assert others_share(before, after) == pytest.approx(0.5)
    assert stolen_share(Reading(at_s=10.0), after) is None
    assert stolen_share(before, Reading(at_s=10.9, stolen_s=1.2)) is None  # one step of the counter would be a percent
    assert others_share(after, Reading(at_s=18.0, others_s=5.99)) == 0.0  # counters of two kinds may disagree by a step


def test_a_machine_without_these_files_is_watched_without_complaint(machine) -> None:
    watch, _ = machine
    reading = watch.read()
    assert (reading.quota_periods, reading.stolen_s, reading.others_s, reading.reasons) == (None, None, None, ())
    assert slowdowns(reading, watch.read()) == ()


@pytest.mark.parametrize("text", ["", "nr_periods 5\n", "usage_usec 1\nnr_throttled many\n"])
def test_a_file_without_the_counter_counts_nothing(machine, tmp_path, text) -> None:
    (tmp_path / "cpu.stat").write_text(text)
    (tmp_path / "stat").write_text("cpu  1 2 3\n" + "".join(f"cpu{number} 1 2 3\n" for number in OWN))
    reading = machine[0].read()
    assert (reading.quota_periods, reading.stolen_s) == (None, None)


def test_what_a_gpu_says_at_either_time_counts() -> None:
    hot, cool = Reading(reasons=("thermal slowdown by the driver",)), Reading()
    assert slowdowns(hot, cool) == slowdowns(cool, hot) == ("thermal slowdown by the driver",)
    assert slowdowns(cool, cool) == ()


def test_the_processor_is_watched_for_real() -> None:
    watch = find_watch(torch.device("cpu"))
    assert isinstance(watch, CpuWatch)
    first, second = watch.read(), watch.read()
    assert second.at_s > first.at_s
    assert (second.stolen_s or 0) >= (first.stolen_s or 0) >= 0


def test_fakes_replay_and_the_last_reading_stays() -> None:
    watch = FakeWatch([Reading(mhz=1.0), Reading(mhz=2.0)])
    assert [watch.read().mhz for _ in range(3)] == [1.0, 2.0, 2.0]
    assert NoWatch().read() == Reading()
